import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.data.roles.styling import Ask, Styled, style
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.roles import Rule
from response_tuning.roles_config import RolesConfig
from response_tuning.validation import build

QUESTIONS = ["What is tea?", "What is ink?", "What is ice?"]
Say = Callable[[str, int], str | None]
"""(the request's words, attempt) -> reply; None is an error."""


def shout(rule: Rule, instruction: str, response: str) -> bool | None:
    """The only checker: ``loud`` is kept by an answer in capitals."""
    return response.isupper() if rule.checker == "loud" else None


def role(*rules: tuple[str, str | None]) -> str:
    written = [
        {"text": text, "kind": f"kind {number}", "checker": checker}
        for number, (text, checker) in enumerate(rules)
    ]
    return "Here it is: " + json.dumps({"role": "You are a pirate.", "rules": written})


class Writer:
    """A model by functions, which records what it is asked."""

    def __init__(self, plan: Say, respond: Say, judge: Say = lambda text, _: "no") -> None:
        self.plan, self.respond, self.judge = plan, respond, judge
        self.asked: list[str] = []

    def attempts(self, number: int) -> list[Ask]:
        return [self._attempt(attempt) for attempt in range(number)]

    def _attempt(self, attempt: int) -> Ask:
        def ask(requests: Iterable[Request]) -> Iterator[Completion]:
            return iter([self._complete(request, attempt) for request in requests])

        return ask

    def _complete(self, request: Request, attempt: int) -> Completion:
        last = request.prompt[-1].content
        if last.startswith("Write a role"):
            kind, say = "plan", self.plan
        elif last.startswith("Below are a rule"):
            kind, say = "judge", self.judge
        else:
            kind, say = "respond", self.respond
        self.asked.append(kind)
        text = say(last, attempt)
        return Completion(
            item_id=request.item_id,
            prompt=request.prompt,
            response=text,
            finish_reason="stop" if text is not None else None,
            error=None if text is not None else "500",
            key=digest(last, str(attempt)),
            model="writer",
            template="server",
            sampling=Sampling(),
        )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": question, "response": f"It is {question}"} for question in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(DataConfig(source=str(path)), tmp_path / "original")
    return tmp_path / "original"


def styled(source: Path, writer: Writer, **settings: object) -> tuple[list[Example], list[Styled]]:
    config = RolesConfig.model_validate({"fewest_rules": 1, "most_rules": 1, **settings})
    out = source.parent / "out"
    style(source, writer.attempts(3), shout, config, 0, out)
    return list(read_jsonl(out / "examples.jsonl", Example)), list(
        read_jsonl(out / "styled.jsonl", Styled)
    )


def loud(_: str, __: int) -> str:
    return role(("Shout.", "loud"))


def of_the_sea(text: str, _: int) -> str:
    return "yes" if "The sea." in text else "no"


def test_a_triplet_has_the_role_in_its_system_turn_and_the_plain_row_follows(source: Path) -> None:
    examples, _ = styled(source, Writer(loud, lambda text, _: text.upper()))
    assert len(examples) == 6
    first, plain = examples[:2]
    assert [(one.role, one.content) for one in first.earlier] == [
        ("system", "You are a pirate.\n- Shout.")
    ]
    assert (first.instruction, first.response) == ("What is tea?", "WHAT IS TEA?")
    assert (plain.earlier, plain.response) == ((), "It is What is tea?")
    assert (first.row, first.turn, plain.turn) == (0, 0, 1)


def test_a_response_that_breaks_a_rule_is_asked_for_again_and_then_dropped(source: Path) -> None:
    def respond(text: str, attempt: int) -> str:
        return text.upper() if "tea" in text or ("ink" in text and attempt == 1) else text

    writer = Writer(loud, respond)
    _, records = styled(source, writer)
    assert [one.outcome for one in records] == ["styled", "styled", "broken-rule"]
    assert [one.kept_at_first for one in records] == [True, False, False]
    assert writer.asked.count("respond") == 3 + 2 + 1
    counts = read_json(source.parent / "out" / "roles.json")
    assert counts["by_number"] == {"1": {"answered": 3, "kept_at_first": 1}}
    dropped = read_json(source.parent / "out" / "audit.json")["dropped"]
    assert dropped == {"roles: broken-rule": 1}
    (one,) = read_jsonl(source.parent / "out" / "dropped.jsonl", Dropped)
    assert one.row == 2


def test_a_rule_that_the_plain_response_keeps_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "What is tea?", "response": "LEAVES."}) + "\n")
    prepare(DataConfig(source=str(path)), tmp_path / "original")

    def plan(_: str, __: int) -> str:
        return role(("Shout.", "loud"), ("Speak of the sea.", None))

    writer = Writer(
        plan, lambda text, _: "The sea.", lambda text, _: "yes" if "The s" in text else "no"
    )
    config = {"fewest_rules": 2, "most_rules": 2}
    _, (record,) = styled(tmp_path / "original", writer, **config)
    assert record.role is not None
    assert [rule.text for rule in record.role.rules] == ["Speak of the sea."]
    assert (record.plain_kept, record.outcome) == (1, "styled")
    with pytest.raises(DataError, match="uninformative 1"):
        styled(tmp_path / "original", Writer(loud, lambda text, _: text))


def test_a_judge_decides_what_no_checker_can_and_without_one_the_rule_goes(source: Path) -> None:
    def plan(_: str, __: int) -> str:
        return role(("Speak of the sea.", None))

    writer = Writer(
        plan, lambda text, _: "The sea.", lambda text, _: "yes" if "The sea." in text else "no"
    )
    _, records = styled(source, writer)
    assert {one.outcome for one in records} == {"styled"}
    assert writer.asked.count("judge") == 6  # about the plain responses, then about the new ones
    with pytest.raises(DataError, match="uninformative 3"):
        styled(source, writer, judge=False)


@pytest.mark.parametrize(
    "reply",
    ["no JSON", "{}", role(), role(("A.", None), ("B.", None)), '{"role": "x", "rules": 3}'],
)
def test_a_reply_that_is_no_role_is_asked_for_again(source: Path, reply: str) -> None:
    writer = Writer(
        lambda _, attempt: loud("", 0) if attempt == 2 else reply, lambda t, _: t.upper()
    )
    _, records = styled(source, writer)
    assert {one.outcome for one in records} == {"styled"}
    assert writer.asked.count("plan") == 9


def test_rules_of_one_kind_are_no_role_of_two(source: Path) -> None:
    same = json.dumps(
        {"role": "x", "rules": [{"text": text, "kind": "form"} for text in ("A.", "B.")]}
    )
    with pytest.raises(DataError, match="no-role 3"):
        styled(source, Writer(lambda _, __: same, loud), fewest_rules=2, most_rules=2)


def test_the_system_turn_can_be_left_out_or_be_another_row_s(source: Path) -> None:
    def plan(text: str, _: int) -> str:
        name = next(word for word in ("tea", "ink", "ice") if f"is {word}?" in text)
        return role((f"Shout of {name}.", "loud"))

    writer = Writer(plan, lambda text, _: text.upper())
    given, _ = styled(source, writer, plain=False)
    none, _ = styled(source, writer, plain=False, system="none")
    shuffled, _ = styled(source, writer, plain=False, system="shuffled")
    assert [one.response for one in given] == [one.response for one in none]
    assert {one.earlier for one in none} == {()}
    systems = [[one.earlier[0].content for one in examples] for examples in (given, shuffled)]
    assert sorted(systems[0]) == sorted(systems[1])
    assert all(own != other for own, other in zip(*systems, strict=True))


def test_a_model_that_says_nothing_is_an_error(source: Path) -> None:
    with pytest.raises(EngineError, match="none of 3 roles; 500"):
        styled(source, Writer(lambda _, __: None, loud))
    assert not (source.parent / "out").exists()


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="fewest_rules 3 is above most_rules 2"):
        build(RolesConfig, {"fewest_rules": 3, "most_rules": 2}, "here")
    with pytest.raises(ConfigError, match="roles needs a section refinement"):
        build(DataConfig, {"source": "x", "roles": {}}, "here")
    with pytest.raises(ConfigError, match="'role' and a section roles go together"):
        build(DataConfig, {"source": "x", "refinement": {"material": "role"}}, "here")
    policies = {"policies": {"empty": "drop"}}
    with pytest.raises(ConfigError, match="a role has no outcome 'empty'"):
        build(DataConfig, {"source": "x", "roles": {}, "refinement": policies}, "here")
