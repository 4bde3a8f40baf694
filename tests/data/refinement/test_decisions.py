from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Completion,
    Request,
    Sampling,
    digest,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import DataConfig, RefinementConfig
from response_tuning.data import prepare
from response_tuning.data.refinement.decisions import Decided, Decision, decide
from response_tuning.data.refinement.refine import refine
from response_tuning.data.refinement.reply import MARKER
from response_tuning.data.refinement.tally import Refinement
from response_tuning.errors import DataError

Refine = Callable[..., None]
TEXTS = ("Tea is hot.", "Milk is white.", "I say nothing.")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def refined(tmp_path: Path, out: Path) -> Refine:
    """Refine three answers, of which the refiner leaves the last one alone."""
    source = tmp_path / "answers.txt"
    rows = "".join(f'{{"response": "{text}"}}\n' for text in TEXTS)
    source.with_suffix(".jsonl").write_text(rows, encoding="utf-8")
    prepare(DataConfig(source=str(source.with_suffix(".jsonl"))), tmp_path / "source")

    def run(version: str = "") -> None:
        def answers(requests: "object") -> "object":
            for place, request in enumerate(requests):  # type: ignore[arg-type, var-annotated]
                assert isinstance(request, Request)
                reply = f"Fine.\n{MARKER}\nBetter{version}: {TEXTS[place]}" if place < 2 else "No."
                yield Completion(
                    item_id=request.item_id, prompt=request.prompt, response=reply,
                    finish_reason="stop", key=digest(request.item_id, reply), model="m",
                    template="t", sampling=Sampling(), tokens=3, prompt_tokens=30,
                )  # fmt: skip

        refine(tmp_path / "source", [answers], RefinementConfig(retries=0), out)  # type: ignore[list-item]

    run()
    return run


def texts(out: Path) -> list[str]:
    from response_tuning.artifacts import Example

    return [example.response for example in read_jsonl(out / "examples.jsonl", Example)]


def decisions(out: Path, *accepted: bool) -> Path:
    """Write a decision on each of the first rewrites, as the page saves them."""
    every = read_jsonl(out / "refinements.jsonl", Refinement)
    file = out.parent / "saved.jsonl"
    write_jsonl(
        file,
        [
            Decision(row=one.row, turn=one.turn, key=one.key, accept=accept)
            for one, accept in zip(every, accepted, strict=False)
        ],
    )
    return file


def test_a_rejected_rewrite_gives_way_to_its_original(refined: Refine, out: Path) -> None:
    assert decide(out, decisions(out, True, False)) == Decided(1, 1)
    assert texts(out) == [f"Better: {TEXTS[0]}", TEXTS[1], TEXTS[2]]
    used = [one.used for one in read_jsonl(out / "refinements.jsonl", Refinement)]
    assert used == ["refined", "original", "original"]
    summary = read_json(out / "refinement.json")
    assert summary["used"] == {"refined": 1, "original": 2, "nothing": 0}
    assert summary["outcomes"]["refined"] == 2
    assert summary["words"]["original"] == 3.0


def test_a_later_decision_overrides_an_earlier_one(refined: Refine, out: Path) -> None:
    decide(out, decisions(out, False, False))
    assert decide(out, decisions(out, True)) == Decided(1, 1)
    assert texts(out) == [f"Better: {TEXTS[0]}", TEXTS[1], TEXTS[2]]


def test_the_same_refinement_made_again_keeps_the_decisions_and_another_one_does_not(
    refined: Refine, out: Path
) -> None:
    decide(out, decisions(out, False))
    refined()
    assert texts(out)[0] == TEXTS[0]
    refined(" now")
    assert texts(out)[0] == f"Better now: {TEXTS[0]}"


def test_a_decision_on_something_else_is_refused_and_changes_nothing(
    refined: Refine, out: Path
) -> None:
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(DataError, match=r"saved\.jsonl:3: row 2, turn 0: .* has no such rewrite"):
        decide(out, decisions(out, False, True, False))
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
