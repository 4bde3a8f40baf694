import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import write_json, write_jsonl
from response_tuning.configs import RefinementConfig
from response_tuning.data.refinement.page import (
    Change,
    print_refinement,
    sentence_diff,
    word_diff,
    write_page,
)
from response_tuning.data.refinement.tally import Refinement
from response_tuning.pages import PAGE_BYTES
from response_tuning.rewriting import POLICIES


def refinement(row: int, original: str, refined: str | None, **other: Any) -> Refinement:
    values = {"outcome": "refined", "used": "refined", "asked": 1, "finish_reason": "stop"}
    values |= {"tokens": 7, "prompt_tokens": 70, "error": None, "key": "k"}
    values |= {"row": row, "turn": 0, "original": original, "refined": refined, **other}
    return Refinement.model_validate(values)


MISSED = {"outcome": "no-marker", "used": "original", "asked": 3}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def leave(out: Path, records: list[Refinement], **other: Any) -> None:
    outcomes = dict.fromkeys(["refined", *POLICIES], 0)
    used = {"refined": 0, "original": 0, "nothing": 0}
    for one in records:
        outcomes[one.outcome] += 1
        used[one.used] += 1
    config = RefinementConfig().model_dump(mode="json") | {"policies": dict(POLICIES)}
    summary = {
        "responses": len(records),
        "outcomes": outcomes,
        "used": used,
        "replies": len(records),
        "words": {"original": 10.0, "refined": 12.5, "median_ratio": 1.25},
        "refusals": {"original": 2, "left": 1},
        "tokens": {"prompt": 70, "reply": 7, "replies_not_counted": 0},
        "dollars": None,
        "model": "refiner@<here>",
        "config": config,
    }
    write_jsonl(out / "refinements.jsonl", records)
    write_json(out / "refinement.json", {**summary, **other})


def page(out: Path) -> str:
    write_page(out)
    return (out / "page.html").read_text()


def shown(out: Path, *, terminal: bool = False) -> str:
    text = io.StringIO()
    how: dict[str, Any] = (
        {"force_terminal": True, "color_system": "standard", "no_color": False} if terminal else {}
    )
    print_refinement(out, Console(file=text, markup=False, **how))
    return text.getvalue()


def test_a_word_diff_joins_up_to_both_texts() -> None:
    before, after = "Tea is  made\nof leaves.", "Tea is, as said, made of dried leaves."
    changes = word_diff(before, after)
    old = "".join(c.text for c in changes if c.kind != "added")
    assert old.split() == before.split()
    assert "".join(c.text for c in changes if c.kind != "removed") == after
    assert Change("added", "dried ") in changes
    assert word_diff("", "") == []
    assert word_diff("same", "same") == [Change("same", "same")]


def test_a_sentence_diff_marks_words_of_similar_sentences_and_replaces_others_whole() -> None:
    before = "Tea is hot. Pour it.\nIt was first drunk long ago.\n"
    after = "Tea is very hot. Pour it.\nNobody knows its origin.\nEnjoy!"
    left, right = sentence_diff(before, after)
    for runs, text in ((left, before), (right, after)):
        assert "".join(c.text for run in runs for c in run.words) == text
    assert [run.changed for run in left] == [True, False, True]
    assert Change("added", "very ") in right[0].words
    assert [c.kind for c in left[2].words] == ["removed"]
    assert [c.kind for c in right[2].words] == ["added"]
    assert sentence_diff("Same.", "Same.")[0] == sentence_diff("Same.", "Same.")[1]


def test_only_a_rewrite_can_be_accepted_or_rejected_and_the_page_knows_what_is_used(
    out: Path,
) -> None:
    records = [
        refinement(4, "It is.", "It is so.", turn=1, key="<k>"),
        refinement(5, "It was.", "It was so.", used="original"),
        refinement(6, "So.", None, **MISSED),
    ]
    leave(out, records)
    text = page(out)
    assert 'data-row="4" data-turn="1" data-key="&lt;k&gt;"' in text
    assert 'name="row-4-1" value="accept" checked>' in text
    assert 'name="row-5-0" value="reject" checked>' in text
    assert "row-6-0" not in text
    assert "<h3>Original</h3>" in text
    assert "rtune data decide out decisions.jsonl" in text


def test_the_page_shows_both_texts_with_what_changed(out: Path) -> None:
    leave(
        out, [refinement(4, "It is hot.", "It is very hot."), refinement(5, "So.", None, **MISSED)]
    )
    text = page(out)
    assert '<span class="changed">It is hot.</span></pre>' in text
    assert '<span class="changed">It is <ins>very </ins>hot.</span></pre>' in text
    assert text.count('<article data-outcome="refined" ') == 1
    assert text.count('<article data-outcome="no-marker">') == 1
    assert "<p>no rewrite</p>" in text
    assert "3 requests" in text
    assert '<input type="checkbox" value="refined" checked> refined (1)' in text
    assert 'value="empty"' not in text


def test_the_page_needs_nothing_else_and_escapes_every_text(out: Path) -> None:
    evil = "<script>alert(1)</script> & 'x'"
    error = {"outcome": "error", "used": "original", "error": evil}
    leave(out, [refinement(0, evil, f"{evil} {evil}"), refinement(1, evil, None, **error)])
    text = page(out)
    assert "alert(1)</script>" not in text
    assert text.count("<script>") == 1
    assert "refiner@&lt;here&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_a_page_that_would_be_too_large_shows_some_of_each_outcome_and_says_so(out: Path) -> None:
    words = " ".join(f"word{n}" for n in range(500))
    records = [refinement(row, words, words.replace("7", "8")) for row in range(600)]
    records += [refinement(row, words, None, **MISSED) for row in range(600, 603)]
    leave(out, records)
    text = page(out)
    assert len(text.encode()) <= PAGE_BYTES
    number = text.count("<article")
    assert 50 < number < 603
    assert text.count('<article data-outcome="no-marker">') == 3
    assert f"{number} of 603 responses are shown" in text
    assert f"refined ({number - 3} of 600)" in text
    assert text.index("row 0 ") < text.index("row 1 ") < text.index("row 602 ")


def test_a_very_long_text_is_cut_on_the_page_and_says_so(out: Path) -> None:
    leave(out, [refinement(0, "x " * 15_000, "y " * 10)])
    assert "and 10000 more characters" in page(out)


def test_the_terminal_shows_counts_and_two_short_diffs(out: Path) -> None:
    records = [refinement(0, "long " * 200, "longer " * 200)]
    records += [refinement(row, f"It is {row}.", f"It is, I say, {row}.") for row in (1, 2, 3)]
    records += [refinement(4, "So.", None, **MISSED)]
    leave(out, records, dollars=0.0123)
    text = shown(out)
    assert text.startswith("5 responses: 4 refined, 1 kept unchanged, 0 dropped\n")
    assert "        4  refined\n" in text
    assert "        1  no-marker  keep after retries\n" in text
    assert "10.0 before, 12.5 after; median ratio 1.25\n" in text
    assert "refusals: 2 before, 1 after\n" in text
    assert "5 replies: 70 tokens in, 7 out; $0.0123\n" in text
    assert "row 1  It [-is-] {+is, I say,+} 1.\n" in text
    assert text.count("{+") == 2
    assert f"wrote {out / 'page.html'}\n" in text
    assert "\x1b" not in text


def test_a_terminal_gets_colour_and_obeys_nothing_in_the_data(out: Path) -> None:
    leave(out, [refinement(0, "It is \x1b[31mred.", "It is [bold]\x1b[2Jblue.")])
    text = shown(out, terminal=True)
    assert "\\x1b[31mred." in text
    assert "[bold]\\x1b[2Jblue." in text
    assert "\x1b[2J" not in text
    assert "\x1b[32m" in text


def test_replies_without_a_count_of_tokens_are_reported(out: Path) -> None:
    tokens = {"prompt": 70, "reply": 7, "replies_not_counted": 1}
    records = [refinement(row, "a", "b") for row in (0, 1)]
    leave(out, records, tokens=tokens, dollars=0.5)
    assert "2 replies: 70 tokens in, 7 out at least; $0.5000 at least\n" in shown(out)
    leave(out, records, tokens={"prompt": 0, "reply": 0, "replies_not_counted": 2})
    assert "2 replies; the engine does not count tokens\n" in shown(out)


def test_a_refinement_that_changed_nothing_has_no_words_to_compare(out: Path) -> None:
    leave(out, [refinement(0, "So.", None, **MISSED)], words=None)
    assert "median ratio" not in shown(out)
    assert "median ratio" not in page(out)
    assert json.loads((out / "refinement.json").read_text())["words"] is None
