import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, Example, Request, Sampling, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.data.feedback.labels import Answer, answers
from response_tuning.data.feedback.log import dialogues
from response_tuning.data.feedback.requests import (
    answer_request,
    label_requests,
    wishes_request,
)
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.readers import read
from response_tuning.workflows import feedback
from response_tuning.workflows.feedback import FeedbackConfig, run_feedback


def utterances(*said: tuple[str, str, str], topic: dict[int, str] | None = None) -> list[Any]:
    """Rows of (text of the user, label of that turn, answer); answers repeat the label."""
    rows = []
    for number, (asked, label, answer) in enumerate(said):
        for role, text in (("user", asked), ("assistant", answer)):
            labels: dict[str, Any] = {
                "SAT": "Y" if label == "S" else "N",
                "DSAT": "Y" if label == "D" else "N",
            }
            flag = {"Preceeding": (topic or {}).get(number, "YES")}
            ids: dict[str, Any] = {
                "UtteranceId": 2 * number + (role == "assistant"),
                "TurnId": number,
            }
            rows.append({**ids, "Role": role, "Content": text, **labels, **flag})
    return rows


LOG = [
    *utterances(
        ("Name a fruit.", "", "Bread."),
        ("No, a fruit!", "D", "An apple."),
        ("Thank you.", "S", "You are welcome."),
    ),
    *utterances(("Say hi.", "", "Hi!"), ("Great, thanks.", "S", "Any time.")),
    *utterances(("Mail?", "", "bob@mails.net"), ("Wrong.", "D", "ann@mails.net"), ("Ok", "S", "!")),
    *utterances(("One?", "", "1"), ("Two?", "", "2")),
    {"UtteranceId": 1, "Role": "user", "Content": "lost", "SAT": "N", "DSAT": "N"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    config = FeedbackConfig.model_validate({"source": source, **settings})
    run_feedback(config, out, Console(quiet=True))
    account: dict[str, Any] = json.loads((out / "feedback.json").read_text())
    return account


def test_a_log_with_labels_becomes_pairs_and_lists_and_everything_is_counted(
    tmp_path: Path,
) -> None:
    # The stray last row belongs to the conversation before it, whose ids are then not complete.
    account = run(write(tmp_path / "log.jsonl", LOG), tmp_path / "out")
    (pair,) = lines(tmp_path / "out" / "pairs.jsonl")
    assert (pair["instruction"], pair["chosen"], pair["rejected"]) == (
        "Name a fruit.",
        "An apple.",
        "Bread.",
    )
    assert pair["metadata"]["feedback"] == "No, a fruit!"
    pleased = lines(tmp_path / "out" / "satisfied.jsonl")
    assert [row["response"] for row in pleased] == ["An apple.", "Hi!"]
    displeased = lines(tmp_path / "out" / "dissatisfied.jsonl")
    assert [row["response"] for row in displeased] == ["Bread."]
    assert lines(tmp_path / "out" / "neither.jsonl") == []
    assert account["dialogues"] == 4
    assert account["unusable"] == {"its turn ids are not complete": 1}
    assert account["answers"] == {"dissatisfied": 2, "satisfied": 3, "last": 3}
    assert account["pairs"] == {"log": 1}
    assert account["dropped"] == {"personal data (e-mail)": 3}


def test_personal_data_can_be_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", LOG)
    account = run(source, tmp_path / "out", personal_data="keep")
    assert account["pairs"] == {"log": 2}
    assert account["dropped"] == {}


def test_what_is_written_is_read_as_pairs_and_as_responses(tmp_path: Path) -> None:
    run(write(tmp_path / "log.jsonl", LOG), tmp_path / "out")

    def responses(name: str, **settings: Any) -> list[str]:
        source = {"source": str(tmp_path / "out" / name), **settings}
        prepare(DataConfig.model_validate(source), tmp_path / "prepared")
        found = read_jsonl(tmp_path / "prepared" / "examples.jsonl", Example)
        return [example.response for example in found]

    assert responses("pairs.jsonl", preferences={}) == ["An apple.", "Bread."]
    assert responses("satisfied.jsonl") == ["An apple.", "Hi!"]


PLAIN = [
    [("user", "Name a fruit."), ("assistant", "Bread."), ("user", "No, a fruit!")],
    [("user", "Say hi."), ("assistant", "Hi!"), ("user", "Thanks."), ("assistant", "Bye.")],
]


def conversations(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in said]} for said in PLAIN
    ]
    return write(tmp_path / "plain.jsonl", rows)


def displeased(source: Path) -> Answer:
    first, _ = dialogues(read(source), "plain")
    (answer,) = answers(first)
    return answer


def completed(request: Request, response: str) -> Completion:
    return Completion(
        item_id=request.item_id, prompt=request.prompt, response=response, finish_reason="stop",
        key=request.item_id, model="m", template="t", sampling=Sampling(),
    )  # fmt: skip


def table(tmp_path: Path, source: Path, new_answer: str = "A pear.") -> Path:
    """Replies for every request about ``PLAIN``."""
    displeased, pleased = dialogues(read(source), "plain")
    complains = '{"satisfied": false, "dissatisfied": true}'
    thanks = 'Verdict: {"satisfied": true, "dissatisfied": false}'
    (answer,) = answers(displeased)
    wishes = ("a fruit", "one word")
    asked = [
        *((request, complains) for request in label_requests(displeased)),
        *((request, thanks) for request in label_requests(pleased)),
        (wishes_request(answer), "- a fruit\n- one word"),
        (answer_request(answer, wishes), new_answer),
    ]
    rows = [{"prompt": request.prompt[-1].content, "response": reply} for request, reply in asked]
    return write(tmp_path / "table.jsonl", rows)


def test_a_model_labels_a_log_and_answers_again_with_what_the_user_wants(tmp_path: Path) -> None:
    source = conversations(tmp_path)
    how: dict[str, Any] = {"engine": "scripted", "settings": {"table": table(tmp_path, source)}}
    account = run(source, tmp_path / "out", label=True, rewrite=True, **how)
    (pair,) = lines(tmp_path / "out" / "pairs.jsonl")
    assert (pair["chosen"], pair["rejected"]) == ("A pear.", "Bread.")
    assert pair["metadata"]["made"] == "rewritten"
    assert pair["metadata"]["wishes"] == ["a fruit", "one word"]
    assert account["answers"] == {"dissatisfied": 1, "satisfied": 1, "last": 1}
    assert account["pairs"] == {"rewritten": 1}


def test_the_same_answer_again_makes_no_pair(tmp_path: Path) -> None:
    source = conversations(tmp_path)
    replies = table(tmp_path, source, new_answer="Bread.")
    how: dict[str, Any] = {"engine": "scripted", "settings": {"table": replies}}
    account = run(source, tmp_path / "out", label=True, rewrite=True, **how)
    assert lines(tmp_path / "out" / "pairs.jsonl") == []
    assert account["dropped"] == {"new answer: the same again": 1}


def test_the_control_does_not_tell_the_model_what_the_user_wants(tmp_path: Path) -> None:
    source = conversations(tmp_path)
    told = "\n".join(one.content for one in answer_request(displeased(source), ()).prompt)
    assert "wants of your next answer" not in told and "harms people" in told
    settings = {"table": table(tmp_path, source)}
    how: dict[str, Any] = {"engine": "scripted", "settings": settings, "without_wishes": True}
    run(source, tmp_path / "out", label=True, rewrite=True, **how)
    (pair,) = lines(tmp_path / "out" / "pairs.jsonl")
    assert pair["metadata"]["made"] == "rewritten without wishes"
    assert pair["metadata"]["wishes"] == ["a fruit", "one word"], "a judge may need them"
    run(source, tmp_path / "told", label=True, rewrite=True, engine="scripted", settings=settings)
    asked = [(tmp_path / out / "replies.journal").read_text() for out in ("out", "told")]
    assert ["wants of your next answer" in one for one in asked] == [False, True]


class Policy:
    """A model that answers well where it is told the wishes, and judges well or badly."""

    def __init__(self, verdict: str) -> None:
        self._verdict = verdict

    def reply(self, said: str) -> str:
        if "Answer A:" in said:
            good_first = said.index("A pear.") < said.index("Bread again.")
            better = "A" if good_first == (self._verdict == "good") else "B"
            return f"Verdict: {better}"
        if "List what this user wants" in said:
            return "- a fruit"
        if "Reply with one JSON object" in said:
            thanks = "Thanks." in said
            return json.dumps({"satisfied": thanks, "dissatisfied": not thanks})
        return "A pear." if "wants of your next answer" in said else "Bread again."


@pytest.mark.parametrize(("verdict", "kept"), [("good", 1), ("bad", 0)])
def test_on_policy_both_answers_are_the_models_and_the_one_with_wishes_has_to_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, kept: int
) -> None:
    policy = Policy(verdict)
    monkeypatch.setattr(
        feedback._Asking,
        "_ask",
        lambda self, requests, what: [
            completed(one, policy.reply("\n".join(m.content for m in one.prompt)))
            for one in requests
        ],
    )
    source = conversations(tmp_path)
    how: dict[str, Any] = {
        "engine": "scripted",
        "settings": {"table": table(tmp_path, source)},
        "on_policy": True,
    }
    account = run(source, tmp_path / "out", label=True, rewrite=True, **how)
    pairs = lines(tmp_path / "out" / "pairs.jsonl")
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("A pear.", "Bread again.")
    ] * kept
    assert account["pairs"] == ({"on-policy": 1} if kept else {})
    if not kept:
        assert account["dropped"] == {"new answer: does not win by the wishes": 1}


def test_a_model_that_does_not_reply_leaves_no_half_file(tmp_path: Path) -> None:
    source = conversations(tmp_path)
    empty = write(tmp_path / "empty.jsonl", [{"prompt": "x", "response": "y"}])
    how: dict[str, Any] = {"engine": "scripted", "settings": {"table": empty}}
    with pytest.raises(EngineError, match="2 of 2 requests for labels failed"):
        run(source, tmp_path / "out", label=True, **how)
    assert not [*(tmp_path / "out").glob("*.jsonl")]


def test_a_log_without_labels_and_settings_without_effect_are_one_line(tmp_path: Path) -> None:
    source = conversations(tmp_path)
    with pytest.raises(DataError, match=r"no usable conversation has labels .*--label"):
        run(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="--engine scripted has nothing to do"):
        run(source, tmp_path / "out", engine="scripted")
    with pytest.raises(ConfigError, match="name it with --engine"):
        run(source, tmp_path / "out", label=True)
