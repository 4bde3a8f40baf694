from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, Flagged, read_jsonl
from response_tuning.data.conversations import Turn
from response_tuning.data.steps import curation
from response_tuning.data.steps.curation import Candidate, each
from response_tuning.errors import ModelError

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
TOKENIZER = Path(__file__).parents[2] / "assets" / "tiny_tokenizer"
OPENING = "Sure, here is a recipe for chicken soup:"
RECIPE = "Boil a chicken for two hours, and do not forget the salt."


def responses(*texts: str) -> list[dict[str, str]]:
    return [{"instruction": f"q{place}", "response": text} for place, text in enumerate(texts)]


def flagged(folder: Path) -> list[tuple[int, str, str]]:
    flags = read_jsonl(folder / "out" / "flagged.jsonl", Flagged)
    return [(flag.row, flag.what, flag.detail) for flag in flags]


def test_a_step_leaves_alone_what_was_dropped_and_loses_nothing() -> None:
    seen: list[int] = []
    candidates = [Candidate(row, 0, "", Turn("r")) for row in range(4)]
    candidates[1].drop("before")
    step = each(lambda candidate: seen.append(candidate.row))
    assert list(step(iter(candidates))) == candidates
    assert seen == [0, 2, 3]


def test_what_is_dropped_has_a_reason_and_no_flags_of_earlier_steps() -> None:
    candidate = Candidate(0, 0, "", Turn("r"))
    candidate.flag("seen", "here")
    assert list(candidate.flags) == [("seen", "here")]
    candidate.drop("gone", "why")
    assert (candidate.dropped, candidate.detail, list(candidate.flags)) == ("gone", "why", [])


@pytest.mark.parametrize(
    ("what", "kept", "flags", "reasons"),
    [
        ("keep", [OPENING + " " + RECIPE, RECIPE], [], {}),
        ("flag", [OPENING + " " + RECIPE, RECIPE], [(0, "restates the instruction", OPENING)], {}),
        (
            "strip",
            [RECIPE],
            [(0, "restatement of the instruction stripped", OPENING)],
            {"duplicate": 1},
        ),
        ("drop", [RECIPE], [], {"restates the instruction": 1}),
    ],
)
def test_an_opening_that_restates_the_instruction_is_kept_flagged_stripped_or_dropped(
    what: str,
    kept: list[str],
    flags: list[tuple[int, str, str]],
    reasons: dict[str, int],
    prepare_rows: Prepare,
    tmp_path: Path,
) -> None:
    rows = [{"response": f"{OPENING} {RECIPE}"}, {"response": RECIPE}]
    audit, examples, _ = prepare_rows(rows, curation={"restatements": what})
    assert [example.response for example in examples] == kept
    assert audit.dropped == reasons
    assert audit.flagged == {name: 1 for _, name, _ in flags}
    assert (tmp_path / "out" / "flagged.jsonl").exists() == bool(flags)
    if flags:
        assert flagged(tmp_path) == flags


@pytest.mark.parametrize("what", ["flag", "strip", "drop"])
def test_what_is_not_text_is_never_written(what: str, prepare_rows: Prepare) -> None:
    rows = [{"response": f"Here is a \ud83d recipe for soup: {RECIPE}"}, {"response": RECIPE}]
    audit, examples, _ = prepare_rows(rows, curation={"restatements": what})
    assert [example.response for example in examples] == [RECIPE]
    assert sum(audit.dropped.values()) == 1
    assert audit.flagged == {}


def test_personal_data_are_flagged_by_kind_and_never_repeated(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    text = "Write to jane@firm.com or use sk-Abcdefghijklmnopqrst7890."
    rows = responses("Nothing here.", text)
    audit, examples, _ = prepare_rows(rows, curation={"personal_data": "flag"})
    assert [example.response for example in examples] == ["Nothing here.", text]
    assert flagged(tmp_path) == [(1, "personal data (e-mail)", ""), (1, "personal data (key)", "")]
    assert audit.flagged == {"personal data (e-mail)": 1, "personal data (key)": 1}
    assert "jane" not in (tmp_path / "out" / "flagged.jsonl").read_text()


def test_personal_data_can_be_dropped(prepare_rows: Prepare) -> None:
    rows = responses("Nothing here.", "Write to jane@firm.com.")
    audit, examples, dropped = prepare_rows(rows, curation={"personal_data": "drop"})
    assert [example.row for example in examples] == [0]
    assert audit.dropped == {"personal data (e-mail)": 1}
    assert audit.flagged == {}
    assert dropped[0].where.endswith("rows.jsonl:2")


def test_another_language_is_dropped_and_what_cannot_be_told_is_kept_and_counted(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    rows = responses(
        "The weather was fine today, so we went for a long walk along the river.",
        "Das Wetter war heute schön, also sind wir lange am Fluss spazieren gegangen.",
        "Oui.",
    )
    audit, examples, _ = prepare_rows(rows, curation={"language": "en"})
    assert [example.row for example in examples] == [0, 2]
    assert audit.dropped == {"language de, not en": 1}
    assert flagged(tmp_path) == [(2, "language cannot be told", "")]


@pytest.mark.parametrize(
    ("bounds", "kept", "reasons"),
    [
        ({"min_tokens": 6}, [1, 2], {"fewer than 6 tokens": 1}),
        ({"max_tokens": 6}, [0, 1], {"more than 6 tokens": 1}),
        (
            {"min_tokens": 6, "max_tokens": 6},
            [1],
            {"fewer than 6 tokens": 1, "more than 6 tokens": 1},
        ),
    ],
)
def test_responses_are_bounded_in_tokens_without_the_stop_token(
    bounds: dict[str, int],
    kept: list[int],
    reasons: dict[str, int],
    prepare_rows: Prepare,
    tokenizer: Any,
) -> None:
    texts = ["12345", "123456", "1234567"]
    assert [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts] == [5, 6, 7]
    audit, examples, _ = prepare_rows(
        responses(*texts), curation={"tokenizer": str(TOKENIZER), **bounds}
    )
    assert [example.row for example in examples] == kept
    assert audit.dropped == reasons


def test_tokens_are_counted_in_batches_that_change_nothing(
    prepare_rows: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["x" * length or " " for length in range(30)]
    results = []
    for at_once in (1, 7, 1000):
        monkeypatch.setattr(curation, "TOKENIZED_AT_ONCE", at_once)
        settings = {"tokenizer": str(TOKENIZER), "min_tokens": 3, "max_tokens": 9}
        results.append(prepare_rows(responses(*texts), curation=settings))
    assert results[0] == results[1] == results[2]
    assert results[0][0].examples > 0
    assert results[0][0].dropped["empty response"] == 1


def test_a_batch_holds_no_more_candidates_than_it_tokenizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curation, "TOKENIZED_AT_ONCE", 5)
    taken = 0

    def candidates() -> Iterator[Candidate]:
        nonlocal taken
        for row in range(20):
            taken += 1
            yield Candidate(row, 0, "", Turn("r"))

    step = curation._token_bounds(str(TOKENIZER), 1, None)
    next(step(candidates()))
    assert taken == 5


def test_a_tokenizer_that_is_none_is_one_line(prepare_rows: Prepare, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    with pytest.raises(ModelError, match="give a folder or hub id that holds one") as error:
        prepare_rows(responses("r"), curation={"tokenizer": str(nowhere), "min_tokens": 1})
    assert str(nowhere) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("out/*"))


def test_every_step_sees_what_the_ones_before_it_left(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    english = "The weather was fine today, so we went for a long walk along the river."
    rows = responses(
        f"{OPENING} {english}",
        "Das Wetter war heute schön, also sind wir lange am Fluss spazieren gegangen.",
        "Das Wetter war heute schön. Schreiben Sie an jane@firm.com, ich antworte bald.",
        f"{english} It was good",
        "No.",
    )
    settings: dict[str, object] = {
        "restatements": "strip",
        "personal_data": "flag",
        "tokenizer": str(TOKENIZER),
        "min_tokens": 4,
        "language": "en",
        "near_duplicates": 0.75,
    }
    audit, examples, dropped = prepare_rows(rows, curation=settings)
    assert [(example.row, example.response) for example in examples] == [(0, english)]
    assert [(drop.row, drop.reason) for drop in dropped] == [
        (1, "language de, not en"),
        (2, "language de, not en"),
        (3, "near-duplicate"),
        (4, "fewer than 4 tokens"),
    ]
    assert flagged(tmp_path) == [(0, "restatement of the instruction stripped", OPENING)]
    assert audit.flagged == {"restatement of the instruction stripped": 1}


def test_a_sample_is_drawn_from_what_the_steps_left_and_flags_of_others_are_not_listed(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    texts = [f"Write to someone{place}@firm.com." for place in range(20)]
    short = [str(place) for place in range(10)]
    settings = {"personal_data": "flag", "tokenizer": str(TOKENIZER), "min_tokens": 4}
    audit, examples, _ = prepare_rows(responses(*texts, *short), curation=settings, max_examples=15)
    assert audit.dropped == {"fewer than 4 tokens": 10, "not sampled": 5}
    assert [row for row, _, _ in flagged(tmp_path)] == [example.row for example in examples]
    assert audit.flagged == {"personal data (e-mail)": 15}


def test_a_list_of_flags_of_an_earlier_preparation_does_not_stay(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    rows = responses("Write to jane@firm.com.")
    prepare_rows(rows, curation={"personal_data": "flag"})
    assert (tmp_path / "out" / "flagged.jsonl").exists()
    prepare_rows(rows)
    assert not (tmp_path / "out" / "flagged.jsonl").exists()
