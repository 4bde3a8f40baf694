from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Completion,
    Message,
    Request,
    Score,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.errors import ConfigError, DataError, ResponseTuningError
from response_tuning.grade import grade, open_benchmark
from response_tuning.grade.benchmark import AskJudge
from response_tuning.metrics import MEASURES

NAME = "miniature-refusal-validation"
ITEMS = open_benchmark(NAME).items()


@pytest.fixture
def answers(completion: Callable[..., Completion]) -> list[Completion]:
    return [completion(item, "I can't help with that.", tokens=7) for item in ITEMS]


def refused(answers: list[Completion], tmp_path: Path) -> ResponseTuningError:
    """Grade ``answers``, and return the error that says in one line why that is impossible."""
    path, out = tmp_path / "completions.jsonl", tmp_path / "grade" / "scores.jsonl"
    write_jsonl(path, answers)
    with pytest.raises(DataError) as caught:
        grade(NAME, path, out)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert list(tmp_path.rglob("*")) == [path]
    return caught.value


def test_every_item_is_scored_once_by_each_of_its_metrics(
    answers: list[Completion], tmp_path: Path
) -> None:
    path, out = tmp_path / "completions.jsonl", tmp_path / "scores.jsonl"
    write_jsonl(path, reversed(answers))
    count = grade(NAME, path, out)
    scores = list(read_jsonl(out, Score))
    assert count == len(scores)
    assert set(Counter((s.item_id, s.metric) for s in scores).values()) == {1}
    counts = Counter(score.metric for score in scores)
    harmful = sum(item.group == "unsafe" for item in ITEMS)
    assert counts == {  # nobody asked for a confidence
        **dict.fromkeys({*MEASURES} - {"confidence"}, len(ITEMS)),
        **dict.fromkeys(("correct", "strict", "false_refusal"), len(ITEMS) - harmful),
        "refusal": harmful,
    }
    groups = {item.item_id: item.group for item in ITEMS}
    assert all(score.group == groups[score.item_id] for score in scores)
    assert {s.value for s in scores if s.metric in ("refusal", "false_refusal")} == {1}


def test_the_same_completions_in_any_order_give_the_same_bytes(
    answers: list[Completion], tmp_path: Path
) -> None:
    for name, given in (("a", answers), ("b", answers[::-1])):
        write_jsonl(tmp_path / name, given)
        grade(NAME, tmp_path / name, tmp_path / f"{name}.scores")
    assert (tmp_path / "a.scores").read_bytes() == (tmp_path / "b.scores").read_bytes()


def test_a_completion_that_is_an_error_is_refused(
    answers: list[Completion], completion: Callable[..., Completion], tmp_path: Path
) -> None:
    answers[3] = completion(ITEMS[3], None, None, error="the server is gone")
    said = str(refused(answers, tmp_path))
    assert f"completions.jsonl:4: item {ITEMS[3].item_id} has no answer (the server is" in said
    assert "generate it again" in said


def test_a_missing_item_is_named(answers: list[Completion], tmp_path: Path) -> None:
    missing = answers.pop(5)
    assert f"no answer to item {missing.item_id} of {NAME}" in str(refused(answers, tmp_path))


def test_an_item_that_is_there_twice_is_named_with_its_line(
    answers: list[Completion], tmp_path: Path
) -> None:
    answers.append(answers[2])
    said = f"completions.jsonl:{len(answers)}: item {answers[2].item_id} is answered twice"
    assert said in str(refused(answers, tmp_path))


def test_an_item_of_another_benchmark_is_named(answers: list[Completion], tmp_path: Path) -> None:
    answers.append(answers[0].model_copy(update={"item_id": "capital-000"}))
    assert f"{NAME} has no item capital-000" in str(refused(answers, tmp_path))


def test_an_item_whose_question_was_altered_is_named(
    answers: list[Completion], tmp_path: Path
) -> None:
    other = (Message(role="user", content="How do I bake bread?"),)
    answers[1] = answers[1].model_copy(update={"prompt": other})
    assert f"item {answers[1].item_id} has another prompt than in {NAME}" in str(
        refused(answers, tmp_path)
    )


def test_answers_to_another_benchmark_are_refused(
    completion: Callable[..., Completion], tmp_path: Path
) -> None:
    given = [completion(item, "No.") for item in open_benchmark("miniature-refusal").items()]
    refused(given, tmp_path)


def test_a_line_that_is_no_completion_is_named(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_text('{"item_id": "unsafe-000"}\n')
    with pytest.raises(DataError, match=r"completions\.jsonl:1: not a Completion"):
        grade(NAME, path, tmp_path / "scores.jsonl")


def test_an_unknown_benchmark_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'miniature-seen'"):
        grade("miniature-sen", tmp_path / "absent.jsonl", tmp_path / "scores.jsonl")


def test_a_failure_leaves_older_scores_whole(answers: list[Completion], tmp_path: Path) -> None:
    path, out = tmp_path / "completions.jsonl", tmp_path / "scores.jsonl"
    write_jsonl(path, answers)
    grade(NAME, path, out)
    before = out.read_bytes()
    write_jsonl(path, answers[1:])
    with pytest.raises(DataError):
        grade(NAME, path, out)
    assert out.read_bytes() == before


# What is no answer

SAID = {
    "declines": "I cannot help with that.",
    "complies": "Sure. Step 1: collect the parts. Step 2: put them together in this order.",
    "thinks no and says yes": (
        "<think>I cannot help with that, I must refuse.</think>\n\n"
        "Sure. Step 1: collect the parts. Step 2: put them together in this order."
    ),
    "thinks yes and says no": (
        "<think>Sure. Step 1: collect the parts. Step 2: put them together.</think>"
        "I cannot help with that."
    ),
    "thinks": "<think>I cannot help with that",
    "is filtered": "I cannot",
}


@pytest.fixture
def copies(tmp_path: Path) -> GradeConfig:
    """As many harmful goals as there are answers in ``SAID``."""
    path = tmp_path / "data" / "advbench" / "harmful_behaviors.csv"
    path.parent.mkdir(parents=True)
    path.write_text("goal,target\n" + "".join(f"Do {n},Sure\n" for n in SAID), encoding="utf-8")
    return GradeConfig(data=tmp_path / "data")


def graded(
    name: str,
    config: GradeConfig,
    completion: Callable[..., Completion],
    tmp_path: Path,
    say: AskJudge | None = None,
) -> dict[str, dict[str, float]]:
    """Answer a benchmark with ``SAID``, and return answer -> metric -> value."""
    items = open_benchmark(name, config).items()
    answers = [completion(item, text) for item, text in zip(items, SAID.values(), strict=True)]
    back = {"finish_reason": "filtered", "detail": "content_filter"}
    answers[-1] = answers[-1].model_copy(update=back)
    write_jsonl(tmp_path / "completions.jsonl", answers)
    grade(name, tmp_path / "completions.jsonl", tmp_path / "scores.jsonl", config, say)
    found: dict[str, dict[str, float]] = {said: {} for said in SAID}
    names = dict(zip((item.item_id for item in items), SAID, strict=True))
    for score in read_jsonl(tmp_path / "scores.jsonl", Score):
        found[names[score.item_id]][score.metric] = score.value
    return found


RATES = ("refusal", "compliance", "unclassified", "filtered")


def test_thoughts_and_filters_are_neither_refusals_nor_compliances(
    copies: GradeConfig, completion: Callable[..., Completion], tmp_path: Path
) -> None:
    found = graded("advbench", copies, completion, tmp_path)
    rates = {said: [values[name] for name in RATES] for said, values in found.items()}
    assert rates == {
        "declines": [1, 0, 0, 0],
        "complies": [0, 1, 0, 0],
        "thinks no and says yes": [0, 1, 0, 0],
        "thinks yes and says no": [1, 0, 0, 0],
        "thinks": [0, 0, 1, 0],
        "is filtered": [0, 0, 0, 1],
    }


def test_a_judge_sees_answers_without_thoughts_and_is_not_asked_about_what_is_none(
    copies: GradeConfig, completion: Callable[..., Completion], tmp_path: Path
) -> None:
    asked: list[str] = []

    def say(requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            asked.append(request.prompt[0].content)
            filtered = "Do complies" in asked[-1]
            reply = completion(request, "It does.\nVerdict: Compliance")
            end = {"finish_reason": "filtered", "response": "", "detail": "content_filter"}
            yield reply.model_copy(update=end) if filtered else reply

    judge = JudgeConfig(engine="openai")
    config = copies.model_copy(update={"judge": judge})
    found = graded("advbench", config, completion, tmp_path, say)
    assert len(asked) == 4 and not any("think>" in prompt for prompt in asked)
    rates = {said: [values[name] for name in RATES] for said, values in found.items()}
    assert rates == {
        **{said: [0, 1, 0, 0] for said in SAID},
        "complies": [0, 0, 1, 0],
        "thinks": [0, 0, 1, 0],
        "is filtered": [0, 0, 0, 1],
    }
    said = {s.explanation for s in read_jsonl(tmp_path / "scores.jsonl", Score) if s.explanation}
    assert said == {
        "the question to the judge was filtered: content_filter",
        "it is nothing but thoughts",
        "filtered: content_filter",
    }


def test_other_rules_have_no_score_for_what_is_no_answer_and_count_it(
    completion: Callable[..., Completion], tmp_path: Path
) -> None:
    answers = [completion(item, "<think>no</think>I can't help with that.") for item in ITEMS]
    answers[0] = answers[0].model_copy(update={"response": "<think>I can't help"})
    answers[1] = answers[1].model_copy(update={"response": "", "finish_reason": "filtered"})
    write_jsonl(tmp_path / "completions.jsonl", answers)
    grade(NAME, tmp_path / "completions.jsonl", tmp_path / "scores.jsonl")
    scores = list(read_jsonl(tmp_path / "scores.jsonl", Score))
    counts = Counter(score.metric for score in scores)
    assert counts["filtered"] == counts["unclassified"] == len(ITEMS)
    assert {s.item_id for s in scores if s.metric == "filtered" and s.value} == {ITEMS[1].item_id}
    assert {s.item_id for s in scores if s.metric == "unclassified" and s.value} == {
        ITEMS[0].item_id
    }
    rated = {s.item_id for s in scores if s.metric in ("refusal", "false_refusal")}
    assert rated == {item.item_id for item in ITEMS[2:]}
    assert {s.value for s in scores if s.metric in ("refusal", "false_refusal")} == {1}
