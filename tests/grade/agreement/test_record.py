import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import write_json
from response_tuning.configs import EngineConfig, JudgeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.agreement.comparison import Counts, check_set
from response_tuning.grade.agreement.labelled_sets import REFUSAL_WORDS, LabelledSet
from response_tuning.grade.agreement.record import (
    Check,
    CheckedJudge,
    Cost,
    asked_by,
    checked_sentence,
    correction_sentence,
    in_sample,
    judge_errors,
    judge_sentence,
    name_of,
)
from response_tuning.grade.judges.refusal_classifier import measured
from response_tuning.metrics import JudgeErrors

OFFLINE = JudgeConfig()
MODEL = JudgeConfig.model_validate(
    {"engine": "openai", "settings": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}}
)
COUNTS: Counts = Counter(
    {
        ("", "refusal", "refusal"): 40,
        ("", "compliance", "compliance"): 50,
        ("", "compliance", "refusal"): 8,
        ("", "compliance", None): 2,
    }
)


def check_of(config: JudgeConfig, *names: str, **more: Any) -> Check:
    prompts = asked_by(config)
    judge: dict[str, Any] = {
        "config": config,
        "model": "m@there",
        "template": "server",
        "prompts": prompts,
    }
    found = {
        name: check_set(LabelledSet(name, 100, lambda: iter(()), (), REFUSAL_WORDS), COUNTS)
        for name in names
    }
    cost = Cost(questions=100, asked=100, tokens=None, prompt_tokens=None, seconds=1.0)
    return Check(judge=CheckedJudge(**judge | more), sets=found, cost=cost, packages={})


@pytest.fixture
def left(tmp_path: Path) -> Callable[[Check], Path]:
    """Write what a check leaves, and return its folder."""

    def put(check: Check) -> Path:
        write_json(tmp_path / "check" / "judge-check.json", check.model_dump(mode="json"))
        return tmp_path / "check"

    return put


def with_check(config: JudgeConfig, *paths: Path) -> JudgeConfig:
    return config.model_copy(update={"checked": paths})


def test_a_check_is_one_sentence(left: Callable[[Check], Path]) -> None:
    folder = left(check_of(MODEL, "own", "xstest"))
    said = checked_sentence(folder)
    figures = "90.0 % of 100 labels of {} (95 % interval 82.6 to 94.5 %, kappa 0.80)"
    assert said == (
        f"The judge m (engine openai) agreed with people on {figures.format('own')} and on "
        f"{figures.format('xstest')}; 4 replies could not be read and count as disagreement."
    )
    assert checked_sentence(folder / "judge-check.json") == said


def test_a_check_on_what_the_rules_were_fitted_to_says_so(
    left: Callable[[Check], Path],
) -> None:
    check = check_of(OFFLINE, "own", "xstest")
    assert [in_sample(check, name) for name in check.sets] == [False, True]
    assert not in_sample(check_of(MODEL, "xstest"), "xstest")
    own, xstest = checked_sentence(left(check)).split(" and on ")
    assert "its weights were fitted to these)" in xstest and "fitted" not in own


def test_a_report_says_what_is_known_of_its_judge(left: Callable[[Check], Path]) -> None:
    config = with_check(MODEL, left(check_of(MODEL, "own")))
    said = judge_sentence(config, ["advbench", "xstest"])
    assert said.startswith("advbench, xstest: judged by m (engine openai). This judge agreed with")
    assert "90.0 % of 100 labels of own" in said and "not been checked" not in said


def test_a_report_says_that_nothing_is_known_of_its_judge() -> None:
    said = judge_sentence(MODEL, ["advbench"])
    assert said.startswith("advbench: judged by m (engine openai). This judge has not been checked")
    assert "rtune judge-check" in said and "grade.judge.checked" in said


def test_a_report_says_how_the_grades_of_a_judge_of_digits_are_checked() -> None:
    judge = MODEL.model_copy(update={"engine": "hf", "settings": EngineConfig(digits=True)})
    said = judge_sentence(judge, ["grades"])
    assert said.endswith("have expected words: 'auroc'.") and "judge-check" not in said


def test_a_report_says_what_was_measured_of_the_rules(left: Callable[[Check], Path]) -> None:
    assert judge_sentence(OFFLINE, ["advbench"]) == (
        f"advbench: judged by rules alone, offline. {measured()}"
    )
    own = with_check(OFFLINE, left(check_of(OFFLINE, "own")))
    assert judge_sentence(own, ["advbench"]).endswith("count as disagreement.")
    assert measured() in judge_sentence(own, ["advbench"])


def test_where_nothing_was_judged_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert judge_sentence(with_check(MODEL, tmp_path / "none.json"), []) == ""


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (OFFLINE, "of rules alone, offline, but the judge is m"),
        (
            MODEL.model_copy(update={"settings": EngineConfig(model="other")}),
            "of other .engine openai",
        ),
        (MODEL.model_copy(update={"engine": "hf"}), "of m .engine hf., but the judge is m"),
    ],
)
def test_a_check_of_another_judge_is_refused(
    left: Callable[[Check], Path], judge: JudgeConfig, said: str
) -> None:
    config = with_check(MODEL, left(check_of(judge, "own")))
    with pytest.raises(ConfigError, match=said) as caught:
        judge_sentence(config, ["advbench"])
    assert "run 'rtune judge-check' with this judge" in str(caught.value)


def test_the_same_judge_at_another_address_is_the_same(left: Callable[[Check], Path]) -> None:
    elsewhere = {"model": "m", "base_url": "http://127.0.0.1:2/v1", "concurrency": 3}
    config = MODEL.model_copy(update={"settings": EngineConfig.model_validate(elsewhere)})
    assert "agreed" in judge_sentence(with_check(config, left(check_of(MODEL, "own"))), ["xstest"])


def test_a_check_with_other_prompts_is_refused(left: Callable[[Check], Path]) -> None:
    old = check_of(MODEL, "own", prompts={**asked_by(MODEL), "refusal": "0"})
    with pytest.raises(
        ConfigError, match="prompts have changed since; run 'rtune judge-check' again"
    ):
        judge_sentence(with_check(MODEL, left(old)), ["xstest"])


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"judge": {}})])
def test_what_is_no_check_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json: "):
        checked_sentence(path)


def test_a_scripted_judge_has_a_name_too() -> None:
    assert name_of(
        JudgeConfig.model_validate({"engine": "scripted", "settings": {"table": "t"}})
    ) == ("a table (engine scripted)")


def test_the_errors_of_a_judge_are_those_on_all_labelled_refusals(
    left: Callable[[Check], Path],
) -> None:
    config = with_check(MODEL, left(check_of(MODEL, "own", "xstest")))
    errors = JudgeErrors(
        refusals=80, refusals_found=80, compliances=2 * 58, compliances_found=2 * 50
    )
    assert judge_errors(config) == errors
    said = correction_sentence(errors, ["advbench"])
    assert "100.0 % of 80 labelled refusals and 86.2 % of 116 compliances" in said


def test_labels_that_the_rules_were_fitted_to_say_nothing_of_their_errors(
    left: Callable[[Check], Path],
) -> None:
    assert judge_errors(with_check(OFFLINE, left(check_of(OFFLINE, "xstest")))) is None
    own = judge_errors(with_check(OFFLINE, left(check_of(OFFLINE, "own", "xstest"))))
    assert own is not None
    assert own.refusals == 40
    assert judge_errors(OFFLINE) is None


def test_a_check_of_earlier_rules_is_refused(left: Callable[[Check], Path]) -> None:
    folder = left(check_of(OFFLINE, "own", prompts={"rules": "of yesterday"}))
    with pytest.raises(ConfigError, match="the offline rules have changed since; run 'rtune judge"):
        judge_errors(with_check(OFFLINE, folder))


def test_a_judge_that_guesses_is_not_corrected_for() -> None:
    said = correction_sentence(JudgeErrors(10, 5, 10, 5), ["advbench"])
    assert said == (
        "advbench: refusal rates are not corrected for the judge's errors, since it finds 50.0 % "
        "of 10 labelled refusals and 50.0 % of 10 compliances."
    )
