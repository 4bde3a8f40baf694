import statistics
from collections import Counter
from random import Random
from typing import Any

import pytest

from response_tuning.data.conversations import Turn
from response_tuning.data.inspection.tallies import (
    MOST_CHARACTERS,
    MOST_ENTRIES,
    TEXTS_AT_ONCE,
    FormTally,
    Frequent,
    LanguageTally,
    LengthTally,
    PersonalDataTally,
    RefusalTally,
    RepeatTally,
    RestatementTally,
    Tally,
    is_cut,
    presentable,
)


def counted(tally: Tally, *responses: str) -> dict[str, Any]:
    for number, response in enumerate(responses, start=1):
        tally.add(Turn(response), f"file:{number}")
    return dict(tally.fields())


def test_lengths_are_exact() -> None:
    draw = Random(0)
    lengths = [draw.randrange(1, 3000) for _ in range(999)]
    fields = counted(LengthTally(None), *("a " * length for length in lengths))
    summaries = fields["lengths"]
    assert [*summaries] == ["characters", "words"]
    words = summaries["words"]
    assert (words.min, words.max) == (min(lengths), max(lengths))
    assert words.median == statistics.median(lengths)
    assert words.mean == pytest.approx(statistics.fmean(lengths))
    assert words.p95 == sorted(lengths)[949]
    assert summaries["characters"].max == 2 * max(lengths)


def test_the_histogram_has_every_response_once_and_no_hole() -> None:
    fields = counted(LengthTally(None), "a", "a b", "a b c d", "word " * 120)
    bars = fields["lengths"]["words"].histogram
    assert [(bar.low, bar.high) for bar in bars[:3]] == [(1, 1), (2, 4), (5, 9)]
    assert (bars[-1].low, bars[-1].high) == (100, 199)
    assert [bar.count for bar in bars] == [1, 2, 0, 0, 0, 0, 1]


def test_tokens_are_counted_in_batches() -> None:
    batches = []

    def count(texts: list[str]) -> list[int]:
        batches.append(len(texts))
        return [len(text) // 4 for text in texts]

    fields = counted(LengthTally(count), *["four" * 2] * (TEXTS_AT_ONCE + 1))
    assert batches == [TEXTS_AT_ONCE, 1]
    tokens = fields["lengths"]["tokens"]
    assert (tokens.min, tokens.mean, tokens.max) == (2, 2.0, 2)


def test_repeats_are_counted_and_the_most_repeated_come_first() -> None:
    fields = counted(RepeatTally(), "Yes.", "No.", "Yes.", "No.", "Yes.", "Perhaps.")
    assert fields["repeats"] == 3
    top = fields["repeated"]
    entries = [(one.count, one.text, one.where) for one in top.texts]
    assert entries == [(3, "Yes.", "file:3"), (2, "No.", "file:4")]


def test_frequent_counts_exactly_while_there_is_room() -> None:
    words = [str(Random(1).randrange(50)) for _ in range(1000)]
    frequent = Frequent()
    for word in words:
        frequent.add(word)
    assert frequent.counts == Counter(words)
    assert frequent.top().exact


def test_frequent_forgets_the_rare_and_says_so() -> None:
    frequent = Frequent(limit=10)
    for number in range(1000):
        frequent.add("often")
        frequent.add(f"once {number}")
    top = frequent.top()
    assert len(frequent.counts) <= 10
    assert [(one.count, one.text) for one in top.texts] == [(1000, "often")]
    assert not top.exact


def test_repeats_stay_bounded_when_all_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = RepeatTally()
    monkeypatch.setattr(repeats, "_again", Frequent(limit=10))
    fields = counted(repeats, *[str(number // 2) for number in range(200)], "0", "0")
    assert fields["repeats"] == 102
    assert len(repeats._texts) <= 20
    assert not fields["repeated"].exact


def test_refusals_are_judged_by_both_rules() -> None:
    fields = counted(
        RefusalTally(), "I can't help with that.", "AI is great.", "Sorry, but no.", "Yes."
    )
    assert fields["refusals"] == {"phrases": 2, "paper-regex": 2, "both": 1}


def test_restatements_are_counted_with_their_places() -> None:
    fields = counted(
        RestatementTally(), "Yes.", *["Here is a poem about love:\nRoses"] * (MOST_ENTRIES + 1)
    )
    assert fields["restatements"] == MOST_ENTRIES + 1
    examples = fields["restatement_examples"]
    assert [one.where for one in examples] == [f"file:{n}" for n in range(2, MOST_ENTRIES + 2)]
    assert {one.text for one in examples} == {"Here is a poem about love:"}


def test_personal_data_are_counted_by_kind_and_by_response() -> None:
    fields = counted(PersonalDataTally(), "max@firma.de, +49 30 901820", "Yes.", "eva@firma.de")
    assert fields == {
        "with_personal_data": 2,
        "personal_data": {"e-mail": 2, "phone": 1},
        "personal_data_places": {"e-mail": ["file:1", "file:3"], "phone": ["file:1"]},
    }


def test_languages_come_with_those_that_are_not_told() -> None:
    english = "The weather will be fine tomorrow, with some wind."
    assert counted(LanguageTally(), "Yes.", english, english) == {
        "languages": {"en": 2, "not told": 1}
    }


def test_the_form_of_responses_is_counted() -> None:
    fields = counted(
        FormTally(),
        "Here is a\nlist:\n- one\n- two",
        "# Here is a\n\nThis is it.",
        "Use\n```\nls\n```",
        'She said "no!"',
        "1. It ends here:",
    )
    assert fields["layouts"] == {"lists": 2, "headings": 1, "code fences": 1}
    assert fields["ends"] == {
        "a full stop, question or exclamation mark": 2,
        "a code fence": 1,
        "a letter or digit": 1,
        "another sign": 1,
    }


def test_openings_and_endings_are_three_words_that_came_twice() -> None:
    fields = counted(
        FormTally(), "One day she left.", "One day\nshe  came back to me.", "Not to me."
    )
    assert [(one.count, one.text) for one in fields["openings"].texts] == [(2, "One day she")]
    assert fields["endings"].texts == ()


@pytest.mark.parametrize(
    "text",
    ["It rains. Then it", "First, take the eggs,", "# Rain\n\nIt rains. It is raining in 1"],
)
def test_a_text_that_stops_within_a_sentence_is_cut(text: str) -> None:
    assert is_cut(text)


@pytest.mark.parametrize(
    "text",
    [
        "It rains.",
        "Paris",
        "Steps. All of them:\n- eggs\n- flour",
        "1. Take eggs. Then flour",
        "It rains. Write to us.\n\nYours, Eva",
        "It rains. Write to us. Kind regards, Eva",
        "It rains.\n\nBest regards\nEva\nTea Ltd. Berlin Office 12",
        "What a day. We won! #happy",
        "Use this. It works:\n```\nls",
        "",
    ],
)
def test_lists_titles_signatures_and_code_are_not_cut(text: str) -> None:
    assert not is_cut(text)


def test_what_is_shown_is_short_and_holds_no_personal_data() -> None:
    assert presentable("Yes.") == "Yes."
    assert len(presentable("a" * 1000)) == MOST_CHARACTERS
    assert presentable(f"{'a ' * 1000}max@firma.de") == "[holds personal data: e-mail]"
