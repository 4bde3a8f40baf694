import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Sampling, Score
from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.errors import DataError
from response_tuning.grade import open_benchmark
from response_tuning.grade.benchmarks.miniature_rules import GROUPS, ITEMS_PER_GROUP, MiniatureRules
from response_tuning.grade.benchmarks.rules import JudgedRules, Rules
from response_tuning.miniature.rules import obey

pytest.importorskip("lm_eval")

QUOTES = {"text": "Quote it.", "kind": "form", "checker": "startend:quotation"}
COMMA = {"text": "No comma.", "kind": "form", "checker": "punctuation:no_comma"}
SEA = {"text": "Speak of the sea.", "kind": "content"}
WRONG = {"text": "W.", "kind": "form", "checker": "keywords:existence", "arguments": {"keys": 1}}


def written(path: Path, *items: dict[str, Any]) -> GradeConfig:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return GradeConfig(paths={"rules": path})


def item(*rules: dict[str, Any], absent: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    role = {"role": "You are a sailor.", "rules": rules} if rules else None
    return {"instruction": "What is tea?", "role": role, "absent": absent}


def completion(text: str) -> Completion:
    return Completion(
        item_id="x", prompt=(), response=text, finish_reason="stop", key="k", model="m",
        template="t", sampling=Sampling(),
    )  # fmt: skip


def values(scores: list[Score]) -> dict[str, Any]:
    """Metric -> (value, weight)."""
    return {score.metric: (score.value, score.weight) for score in scores}


def scored(tmp_path: Path, one: dict[str, Any], text: str) -> dict[str, Any]:
    benchmark = Rules(written(tmp_path / "items.jsonl", one))
    (first,) = benchmark.items()
    return values(list(benchmark.score(first, completion(text))))


def test_an_item_is_a_system_turn_with_its_rules_and_the_instruction(tmp_path: Path) -> None:
    config = written(tmp_path / "items.jsonl", item(QUOTES, COMMA), item())
    first, second = open_benchmark("rules", config).items()
    assert [message.content for message in first.prompt] == [
        "You are a sailor.\n- Quote it.\n- No comma.",
        "What is tea?",
    ]
    assert (first.group, second.group) == ("2 rules", "0 rules")
    assert len(second.prompt) == 1


def test_all_rules_must_be_kept_and_shares_are_of_rules(tmp_path: Path) -> None:
    found = scored(tmp_path, item(QUOTES, COMMA), "It is hot")
    assert found == {
        "all_rules": (0.0, 1), "unchecked": (0.0, 2), "rule": (0.5, 2), "kept_form": (0.5, 2),
    }  # fmt: skip
    assert scored(tmp_path, item(QUOTES, COMMA), '"It is hot"')["all_rules"] == (1.0, 1)


def test_an_empty_answer_keeps_no_rule(tmp_path: Path) -> None:
    assert scored(tmp_path, item(COMMA), "")["all_rules"] == (0.0, 1)


def test_rules_that_were_not_given_are_what_leaks(tmp_path: Path) -> None:
    found = scored(tmp_path, item(absent=(QUOTES, COMMA)), "It is hot")
    assert found == {"leak": (0.5, 2)}


@pytest.mark.parametrize("rule", [SEA, WRONG, {**SEA, "checker": "no:such"}])
def test_what_no_checker_decides_is_unchecked_and_never_guessed(
    tmp_path: Path, rule: dict[str, Any]
) -> None:
    found = scored(tmp_path, item(COMMA, rule), "It is hot")
    assert "all_rules" not in found
    assert found["unchecked"] == (0.5, 2)
    assert found["rule"] == (1.0, 1)


def test_a_judge_decides_the_rest_and_is_asked_nothing_else(tmp_path: Path) -> None:
    config = written(tmp_path / "items.jsonl", item(COMMA, SEA))
    benchmark = open_benchmark(
        "rules", config.model_copy(update={"judge": JudgeConfig(engine="hf")})
    )
    assert isinstance(benchmark, JudgedRules)
    (first,) = benchmark.items()
    answer = completion("It is the sea")
    (question,) = benchmark.questions(first, answer)
    assert "Speak of the sea." in question.prompt[0].content
    for said, kept in (('{"verdict": "yes"}', 1.0), ('{"verdict": "no"}', 0.0)):
        found = values(list(benchmark.judged(first, answer, [completion(said)])))
        assert found["all_rules"] == (kept, 1)
    unread = values(list(benchmark.judged(first, answer, [completion("hm")])))
    assert "all_rules" not in unread
    assert unread["unchecked"] == (0.5, 2)


def test_a_bad_line_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    with pytest.raises(DataError, match=r"items.jsonl:2: role.rules.0.text"):
        Rules(written(path, item(QUOTES), item({"text": "", "kind": "form"}))).items()


def test_the_miniature_s_questions_are_graded_for_the_rule_and_the_answer_together() -> None:
    benchmark = open_benchmark("miniature-rules")
    items = {one.item_id: one for one in benchmark.items()}
    assert len(items) == len(GROUPS) * 2 * ITEMS_PER_GROUP
    assert {one.group.partition(", ")[0] for one in items.values()} == {*GROUPS}
    one = next(item for item in items.values() if item.group == "3 rules held out, seen")
    behind = next(item for item in items.values() if item.group == "1 rule behind, seen")
    assert [message.role for message in one.prompt] == ["system", "user"]
    assert [message.role for message in behind.prompt] == ["user", "system"]
    wrong = completion(obey("It is unknown.", one.prompt[0].content))
    assert isinstance(benchmark, MiniatureRules)
    found = values(list(benchmark.score(one, wrong)))
    assert (found["all_rules"][0], found["correct"][0], found["both"][0]) == (1.0, 0.0, 0.0)
    none = next(item for item in items.values() if item.group == "no rule, unseen")
    found = values(list(benchmark.score(none, completion("Plain."))))
    assert found["leak"] == (0.0, 6)
    assert "all_rules" not in found
