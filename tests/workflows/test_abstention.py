from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Sampling, Score, write_jsonl
from response_tuning.errors import ConfigError, DataError
from response_tuning.workflows.abstention import (
    ABSTENTION,
    Abstaining,
    abstaining,
    check_model,
    stated,
)


def answer(confidence: float | None, error: str | None = None) -> Completion:
    return Completion(
        item_id="x", prompt=(), response=None if error else "Thorpe.", error=error, key="k",
        finish_reason=None if error else "stop", model="m", template="t", sampling=Sampling(),
        confidence=confidence,
    )  # fmt: skip


def test_an_answer_that_is_sure_enough_stays_as_it_is() -> None:
    for sure in (answer(-0.1), answer(-0.2)):
        assert abstaining(sure, -0.2) == sure


def test_any_other_answer_is_replaced_and_says_why() -> None:
    for sure, said in ((-0.21, "-0.210"), (None, "unknown")):
        declined = abstaining(answer(sure), -0.2)
        assert declined.response == ABSTENTION
        assert declined.detail == f"abstained: confidence {said}, threshold -0.2"


def test_an_error_is_no_abstention() -> None:
    assert abstaining(answer(None, "500"), -0.2).error == "500"


def graded(path: Path, right: int, wrong: int, *, metric: str = "strict") -> Path:
    """Write scores of answers, the right ones of which are the surer ones."""
    scores = []
    for place in range(right + wrong):
        values = {metric: float(place < right), "confidence": -0.001 * (place + 1)}
        scores += [Score(item_id=f"q{place}", metric=m, value=v) for m, v in values.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, scores)
    return path


def test_a_stated_risk_becomes_a_threshold_that_keeps_it(tmp_path: Path) -> None:
    found = stated(graded(tmp_path / "scores.jsonl", 300, 100), 0.1)
    assert found.metric == "strict" and found.of == 400
    assert found.below == pytest.approx(-0.001 * found.kept)
    assert 300 < found.kept < 334  # 33 wrong ones in 333 would be the risk itself
    assert found.wrong == pytest.approx((found.kept - 300) / found.kept)
    assert stated(tmp_path / "scores.jsonl", 0.2).kept > found.kept


def test_without_strict_scores_those_of_right_answers_count(tmp_path: Path) -> None:
    assert stated(graded(tmp_path / "a.jsonl", 300, 0, metric="correct"), 0.1).metric == "correct"


def test_a_risk_that_no_answers_show_is_refused_and_says_why(tmp_path: Path) -> None:
    file = graded(tmp_path / "scores.jsonl", 20, 1)
    with pytest.raises(DataError, match=r"no share of its 21 answers .* at most 1\.0% wrong ones"):
        stated(file, 0.01)


def test_scores_without_a_confidence_or_right_answers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    write_jsonl(file, [Score(item_id="q", metric="strict", value=1.0)])
    with pytest.raises(DataError, match="have no confidence; make them with 'rtune generate"):
        stated(file, 0.1)
    write_jsonl(file, [Score(item_id="q", metric="words_mean", value=1.0)])
    with pytest.raises(DataError, match="no scores of right answers"):
        stated(file, 0.1)


@pytest.mark.parametrize(
    ("abstain", "engine", "said"),
    [
        (Abstaining(below=-0.1, risk=0.1), "hf", "exclude each other"),
        (Abstaining(risk=0.1), "hf", "needs --graded"),
        (Abstaining(risk=1.5, graded=Path("a")), "hf", "is 1.5; use a share"),
        (Abstaining(risk=0.1, graded=Path("a")), "openai", "--abstain-risk: engine 'openai'"),
        (Abstaining(below=-0.1), "openai", "--abstain-below: engine 'openai'"),
        (Abstaining(graded=Path("a")), "hf", "no effect without --abstain-risk"),
        (Abstaining(below=-0.1, graded=Path("a")), "hf", "no effect with --abstain-below"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    abstain: Abstaining, engine: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        abstain.check(engine)


def test_nothing_is_declined_unless_asked_for() -> None:
    assert not Abstaining().check("openai")
    assert Abstaining(below=-0.1).check("hf")


def test_scores_of_a_run_are_refused_for_another_model(tmp_path: Path) -> None:
    file = graded(tmp_path / "grade" / "capitals.jsonl", 2, 1)
    check_model(file, "other")  # nothing says whose they are
    (tmp_path / "generate").mkdir()
    write_jsonl(tmp_path / "generate" / "capitals.jsonl", [answer(-0.1)])
    check_model(file, "m")
    with pytest.raises(DataError, match="scores of another model \\('m', here 'other'\\)"):
        check_model(file, "other")
