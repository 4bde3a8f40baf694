import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    Request,
    Sampling,
    digest,
    read_json,
    read_jsonl,
)
from response_tuning.configs import DataConfig, RefinementConfig
from response_tuning.data import prepare
from response_tuning.data.refinement.refine import Rewriter, attempts_of, refine
from response_tuning.data.refinement.reply import MARKER
from response_tuning.data.refinement.tally import Refinement
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.rewriting import POLICIES
from response_tuning.validation import build

Answer = Callable[[str, int], str | None]
"""(original, attempt) -> reply; None is an error."""


def improved(text: str) -> str:
    return f"Fine.\n{MARKER}\nBetter: {text}"


class Refiner:
    """Answers by a function, and records the requests of each attempt."""

    def __init__(self, answer: Answer, *, finish: str = "stop", counts: bool = True) -> None:
        self.answer = answer
        self.finish = finish
        self.counts = counts
        self.requests: list[tuple[int, str]] = []
        self.prompts: list[str] = []

    def attempts(self, number: int) -> list[Rewriter]:
        return [self._attempt(attempt) for attempt in range(number)]

    def _attempt(self, attempt: int) -> Rewriter:
        def rewrite(requests: Iterable[Request]) -> Iterator[Completion]:
            return iter([self._complete(request, attempt) for request in requests])

        return rewrite

    def _complete(self, request: Request, attempt: int) -> Completion:
        prompt = request.prompt[-1].content
        match = re.search(r"<response>\n(.*)\n</response>", prompt, re.DOTALL)
        assert match is not None
        self.requests.append((attempt, match[1]))
        self.prompts.append(prompt)
        text = self.answer(match[1], attempt)
        outcome: dict[str, Any] = {"response": text, "finish_reason": self.finish}
        if self.counts:
            outcome |= {"tokens": 10, "prompt_tokens": 100}
        if text is None:
            outcome = {"response": None, "finish_reason": None, "error": "500 oops"}
        return Completion(
            item_id=request.item_id,
            prompt=request.prompt,
            key=digest(prompt, str(attempt)),
            model="refiner",
            template="server",
            sampling=Sampling(),
            **outcome,
        )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four examples of three rows, and a row that is none."""
    rows: list[dict[str, Any]] = [
        {"instruction": "What is tea?", "response": "Leaves in water."},
        {"response": " "},
        {
            "messages": [
                {"role": "user", "content": "Is it hot?"},
                {"role": "assistant", "content": "It is hot."},
                {"role": "user", "content": "And cold?"},
                {"role": "assistant", "content": "It may be cold."},
            ]
        },
        {"response": "Drink it."},
    ]
    conversations = [row if "messages" in row else {"messages": _as_messages(row)} for row in rows]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations))
    prepare(DataConfig(source=str(path)), tmp_path / "original")
    return tmp_path / "original"


def _as_messages(row: dict[str, Any]) -> list[dict[str, str]]:
    before = [{"role": "user", "content": row["instruction"]}] if "instruction" in row else []
    return [*before, {"role": "assistant", "content": row["response"]}]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(
    source: Path, out: Path, refiner: Refiner, **settings: object
) -> tuple[list[Example], list[Refinement], dict[str, Any]]:
    config = RefinementConfig.model_validate(settings)
    refine(source, refiner.attempts(1 + config.retries), config, out)
    examples = list(read_jsonl(out / "examples.jsonl", Example))
    refinements = list(read_jsonl(out / "refinements.jsonl", Refinement))
    return examples, refinements, read_json(out / "refinement.json")


def test_every_response_is_replaced_and_nothing_else_of_its_example(
    source: Path, out: Path
) -> None:
    before = list(read_jsonl(source / "examples.jsonl", Example))
    examples, refinements, summary = run(source, out, Refiner(lambda text, _: improved(text)))
    assert [e.response for e in examples] == [f"Better: {e.response}" for e in before]
    same = {"response"}
    assert [e.model_dump(exclude=same) for e in examples] == [
        e.model_dump(exclude=same) for e in before
    ]
    assert [(one.row, one.turn, one.original) for one in refinements] == [
        (e.row, e.turn, e.response) for e in before
    ]
    assert summary["outcomes"] == dict.fromkeys(POLICIES, 0) | {"refined": 4}
    assert summary["used"] == {"refined": 4, "original": 0, "nothing": 0}


def test_the_refiner_sees_requests_and_earlier_turns_unless_it_is_blind(
    source: Path, out: Path
) -> None:
    seeing = Refiner(lambda text, _: improved(text))
    run(source, out, seeing)
    assert "<request>\nWhat is tea?\n" in seeing.prompts[0]
    assert "user: Is it hot?\nassistant: It is hot.\n" in seeing.prompts[2]
    assert "<request>\nAnd cold?\n" in seeing.prompts[2]
    assert "<request>" not in seeing.prompts[3]
    blind = Refiner(lambda text, _: improved(text))
    examples, *_ = run(source, out, blind, instruction_blind=True)
    for prompt in blind.prompts:
        assert "<request>" not in prompt
        assert "Is it hot?" not in prompt
    assert examples[0].instruction == "What is tea?"


def test_a_retry_is_a_new_request_and_after_retries_decides_in_the_end(
    source: Path, out: Path
) -> None:
    refiner = Refiner(lambda text, attempt: improved(text) if attempt == 2 else "no marker")
    _, refinements, summary = run(source, out, refiner)
    assert [attempt for attempt, _ in refiner.requests] == [0] * 4 + [1] * 4 + [2] * 4
    assert [one.asked for one in refinements] == [3] * 4
    assert summary["outcomes"]["refined"] == 4
    assert (summary["asked"], summary["replies"]) == (12, 12)
    first, second, third = attempts_of(RefinementConfig())
    assert (first.temperature, first.seed) == (0, 0)
    assert (second.temperature, second.seed) == (0.7, 1)
    assert (third.temperature, third.seed) == (0.7, 2)


def test_only_failed_replies_are_retried_and_only_so_often(source: Path, out: Path) -> None:
    refiner = Refiner(lambda text, _: "what?" if "hot" in text else improved(text))
    examples, refinements, _ = run(source, out, refiner, retries=3)
    assert refiner.requests[4:] == [(attempt, "It is hot.") for attempt in (1, 2, 3)]
    assert [(one.outcome, one.used, one.asked) for one in refinements] == [
        ("refined", "refined", 1),
        ("no-marker", "original", 4),
        ("refined", "refined", 1),
        ("refined", "refined", 1),
    ]
    assert examples[1].response == "It is hot."


def test_of_restatements_only_openings_that_restate_are_rewritten(
    tmp_path: Path, out: Path
) -> None:
    rows = [
        {
            "instruction": "Name three teas.",
            "response": "Here are three teas:\n\nAssam, oolong, mate.",
        },
        {"instruction": "Is it hot?", "response": "It is hot."},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(DataConfig(source=str(tmp_path / "rows.jsonl")), tmp_path / "original")
    refiner = Refiner(lambda *_: f"It repeats.\n{MARKER}\nAssam, oolong, mate.")
    examples, refinements, counts = run(tmp_path / "original", out, refiner, material="restatement")
    assert [one.response for one in examples] == ["Assam, oolong, mate.", "It is hot."]
    assert [(one.outcome, one.asked) for one in refinements] == [("refined", 1), ("not-asked", 0)]
    assert (counts["asked"], counts["used"]["original"]) == (1, 1)
    assert "opens by repeating the request" in refiner.prompts[0]


def test_nothing_to_rewrite_is_said(source: Path, out: Path) -> None:
    with pytest.raises(DataError, match="no response restates its instruction"):
        run(source, out, Refiner(lambda text, _: improved(text)), material="restatement")
    assert not out.exists()


def test_an_error_is_no_reply_and_the_same_request_is_sent_again(source: Path, out: Path) -> None:
    requests: dict[str, int] = {}

    def at_the_third_time(text: str, attempt: int) -> str | None:
        requests[text] = requests.get(text, 0) + 1
        return improved(text) if requests[text] == 3 or "hot" not in text else None

    refiner = Refiner(at_the_third_time)
    _, refinements, summary = run(source, out, refiner)
    assert {attempt for attempt, _ in refiner.requests} == {0}
    assert [one.asked for one in refinements] == [1, 3, 1, 1]
    assert summary["outcomes"]["error"] == 0
    assert (summary["asked"], summary["replies"]) == (6, 4)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("no marker", "no-marker"),
        (f"{MARKER}\n", "empty"),
        (f"{MARKER}\nDrink it.", "unchanged"),
        (f"{MARKER}\nI'm sorry, but I can't help with that.", "refused"),
        (None, "error"),
    ],
)
def test_a_policy_decides_what_becomes_of_each_outcome(
    source: Path, out: Path, reply: str | None, outcome: str
) -> None:
    def answer(text: str, _: int) -> str | None:
        return reply if text == "Drink it." else improved(text)

    for policy, used in (("keep", "original"), ("drop", "nothing")):
        refiner = Refiner(answer)
        examples, refinements, summary = run(source, out, refiner, policies={outcome: policy})
        assert len(refiner.requests) == 4
        assert summary["outcomes"] == dict.fromkeys(POLICIES, 0) | {"refined": 3, outcome: 1}
        assert (refinements[3].outcome, refinements[3].used) == (outcome, used)
        assert ["Drink it." in e.response for e in examples] == [False] * 3 + [True] * (
            policy == "keep"
        )
    for after, used in (("keep", "original"), ("drop", "nothing")):
        refiner = Refiner(answer)
        settings = {"policies": {outcome: "retry"}, "after_retries": after, "retries": 1}
        _, refinements, _ = run(source, out, refiner, **settings)
        assert (refinements[3].outcome, refinements[3].used, refinements[3].asked) == (
            outcome,
            used,
            2,
        )


def test_a_truncated_rewrite_is_recorded_and_not_used(source: Path, out: Path) -> None:
    refiner = Refiner(lambda text, _: improved(text), finish="length")
    examples, refinements, summary = run(source, out, refiner)
    assert summary["outcomes"]["truncated"] == 4
    assert refinements[0].refined == "Better: Leaves in water."
    assert refinements[0].finish_reason == "length"
    assert [e.response for e in examples] == [one.original for one in refinements]


def test_what_is_dropped_is_in_the_audit_and_the_counts_add_up(source: Path, out: Path) -> None:
    bad = {"Leaves in water.", "It is hot."}
    refiner = Refiner(lambda text, _: "no" if text in bad else improved(text))
    examples, _, summary = run(source, out, refiner, policies={"no-marker": "drop"})
    audit = read_json(out / "audit.json")
    dropped = list(read_jsonl(out / "dropped.jsonl", Dropped))
    assert [(gone.row, gone.turn, gone.reason) for gone in dropped] == [
        (0, 0, "refinement: no-marker"),
        (1, 0, "empty response"),
        (2, 0, "refinement: no-marker"),
    ]
    assert dropped[0].where == f"{source / 'examples.jsonl'}:1"
    assert audit["dropped"] == {"empty response": 1, "refinement: no-marker": 2}
    assert (audit["rows"], audit["rows_kept"], audit["examples"]) == (4, 2, 2)
    assert len(examples) == 2
    assert summary["used"] == {"refined": 2, "original": 0, "nothing": 2}


def test_the_audit_says_where_the_examples_are_from_and_who_rewrote_them(
    source: Path, out: Path
) -> None:
    run(source, out, Refiner(lambda text, _: improved(text)))
    before, audit = read_json(source / "audit.json"), read_json(out / "audit.json")
    assert audit["source"] == before["source"]
    assert audit["refinement"]["model"] == "refiner"
    assert audit["refinement"]["prompt_digest"]
    assert audit["config"]["data"] == before["config"]


def test_length_and_refusals_before_and_after_are_counted(tmp_path: Path, out: Path) -> None:
    responses = ["one two", "one two three four", "I'm sorry, but I can't help with that."]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"response": text}) + "\n" for text in responses))
    prepare(DataConfig(source=str(path)), tmp_path / "original")
    longer = {"one two": "a b c d", "one two three four": "a b c d e f g h"}
    refiner = Refiner(lambda text, _: f"{MARKER} {longer.get(text, 'Here is how it is done.')}")
    _, _, summary = run(tmp_path / "original", out, refiner)
    assert summary["words"] == {"original": 4.7, "refined": 6.0, "median_ratio": 2.0}
    assert summary["refusals"] == {"original": 1, "left": 0}


def test_tokens_are_counted_once_for_each_reply_and_priced_if_prices_are_given(
    source: Path, out: Path
) -> None:
    def answer(text: str, attempt: int) -> str | None:
        return improved(text) if attempt or "hot" not in text else "no marker"

    *_, summary = run(source, out, Refiner(answer), price_in=2.0, price_out=30.0)
    assert summary["tokens"] == {"prompt": 500, "reply": 50, "replies_not_counted": 0}
    assert summary["dollars"] == 0.0025
    *_, summary = run(source, out, Refiner(answer, counts=False))
    assert summary["tokens"] == {"prompt": 0, "reply": 0, "replies_not_counted": 5}
    assert summary["dollars"] is None


def test_the_same_replies_give_the_same_bytes(source: Path, out: Path, tmp_path: Path) -> None:
    names = ("examples.jsonl", "dropped.jsonl", "refinements.jsonl", "refinement.json")
    run(source, out, Refiner(lambda text, _: improved(text)))
    run(source, tmp_path / "again", Refiner(lambda text, _: improved(text)))
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_no_reply_at_all_is_an_error_and_changes_no_file(source: Path, out: Path) -> None:
    run(source, out, Refiner(lambda text, _: improved(text)))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(EngineError, match=r"none of the 4 responses got a reply.* 500 oops"):
        run(source, out, Refiner(lambda *_: None))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_policies_that_leave_no_example_are_refused_and_change_nothing(
    source: Path, out: Path
) -> None:
    run(source, out, Refiner(lambda text, _: improved(text)))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match="no example is left: refinement: no-marker 4"):
        run(source, out, Refiner(lambda *_: "no"), policies={"no-marker": "drop"})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policies": {"no-marker": "ignore"}}, "policies.no-marker"),
        ({"policies": {"lost": "keep"}}, "policies.lost"),
        ({"retries": -1}, "retries"),
        ({"retry_temperature": 0}, "retry_temperature"),
        ({"after_retries": "retry"}, "after_retries"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(RefinementConfig, settings, "here")
