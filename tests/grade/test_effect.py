from pathlib import Path
from typing import Any, ClassVar

import pytest

from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.grade import check_effect, check_metrics, open_benchmark
from response_tuning.grade.benchmark import BENCHMARKS
from response_tuning.report_config import (
    EquivalenceConfig,
    PrimaryConfig,
    ReportConfig,
    of_this_version,
)

JUDGE = {"engine": "openai", "settings": {"model": "m"}}
DIGITS = {"engine": "hf", "settings": {"model": "m", "digits": True}}


@pytest.mark.parametrize(
    ("benchmarks", "settings", "said"),
    [
        (["miniature-seen"], {"data": "."}, "grade.data (--data): miniature-seen: made by rtune"),
        (["miniature-seen"], {"judge": JUDGE}, "graded by rules alone"),
        (["ifeval", "core-arc"], {"judge": JUDGE}, "ifeval, core-arc: graded by rules alone"),
        (
            ["xstest"],
            {"judge": {"settings": {"model": "m"}}},
            "'settings.model' has no effect",
        ),
        (["xstest"], {"judge": {"temperature": 0.5}}, "grade.judge: 'temperature' has no effect"),
        (
            ["xstest"],
            {"judge": {"max_new_tokens": 5}},
            "'max_new_tokens' has no effect",
        ),
        (["xstest"], {"reference": "it"}, "grade.reference (--reference): xstest: compared with"),
        (["xstest"], {"difficulties": "d.json"}, "grade.difficulties: xstest"),
        (["xstest"], {"paths": {"xtest": "x.csv"}}, "did you mean 'xstest'"),
        (["acceptability"], {"paths": {"acceptability": "a.json"}}, "known are alpaca-eval"),
        (["just-eval-safety"], {"paths": {"just-eval-safety": "j"}}, "did you mean 'just-eval'"),
        (
            ["grades"],
            {"judge": {**DIGITS, "temperature": 0.7}},
            "'temperature' has no effect on a judge that gives digits",
        ),
        (["grades"], {"judge": JUDGE}, "grades: its judge answers in digits; name a local one"),
        (
            ["acceptability"],
            {"judge": DIGITS},
            "acceptability: its judge answers in words; remove grade.judge.settings.digits",
        ),
        (["xstest"], {"revisions": {"advbench": "v1"}}, "benchmark of this run in grade.revisions"),
    ],
)
def test_a_setting_without_effect_is_one_line(
    benchmarks: list[str], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_effect(benchmarks, GradeConfig.model_validate(settings))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("benchmarks", "settings"),
    [
        (["miniature-seen"], {"limit": 3}),
        (["miniature-seen", "xstest"], {"data": ".", "judge": JUDGE}),
        (["core-arc"], {"data": ".", "paths": {"core-arc": "arc"}}),
        (["alpaca-eval"], {"judge": JUDGE, "reference": "it", "difficulties": "d.json"}),
        (["xstest"], {"judge": {"checked": ["judge-check.json"]}}),
        (["acceptability"], {"paths": {"alpaca-eval": "a.json"}}),
        (["just-eval-safety"], {"revisions": {"just-eval": "v1"}}),
        (["grades-response"], {"paths": {"prompts": "p.jsonl"}, "judge": DIGITS}),
    ],
)
def test_a_setting_with_an_effect_on_one_of_them_is_fine(
    benchmarks: list[str], settings: dict[str, Any]
) -> None:
    check_effect(benchmarks, GradeConfig.model_validate(settings))


def test_answers_are_generated_without_a_look_at_the_judge() -> None:
    check_effect(["miniature-seen"], GradeConfig(reference="it"), graded=False)
    with pytest.raises(ConfigError, match="made by rtune"):
        check_effect(["miniature-seen"], GradeConfig(data=Path()), graded=False)


@pytest.mark.parametrize("name", ["miniature-seen", "miniature-unseen", "miniature-refusal"])
def test_a_limit_takes_items_of_the_miniature_evenly_spread(name: str) -> None:
    whole = [item.item_id for item in open_benchmark(name).items()]
    few = [item.item_id for item in open_benchmark(name, GradeConfig(limit=7)).items()]
    assert few == [whole[place * len(whole) // 7] for place in range(7)]


def margins(*metrics: str) -> dict[str, EquivalenceConfig]:
    return {metric: EquivalenceConfig(margin=0.1, reason="Small.") for metric in metrics}


def primary(metric: str) -> PrimaryConfig:
    return PrimaryConfig(variant="rt", baseline="it", metric=metric)


@pytest.mark.parametrize(
    ("benchmarks", "metrics"),
    [
        (["alpaca-eval", "just-eval", "acceptability"], ("win_rate", "overall", "acceptable")),
        (["core-gsm8k", "core-arc"], ("exact_match_strict", "acc")),
        (["xstest", "advbench"], ("refusal", "refusal_f1", "stopped")),
    ],
)
def test_a_metric_of_one_of_the_benchmarks_can_be_tested_for_equivalence(
    benchmarks: list[str], metrics: tuple[str, ...]
) -> None:
    check_metrics(benchmarks, GradeConfig(), ReportConfig(equivalence=margins(*metrics)))
    check_metrics(benchmarks, GradeConfig(), ReportConfig(primary=(primary(metrics[0]),)))


def test_the_nearest_metric_is_named_beside_one_that_no_benchmark_has() -> None:
    with pytest.raises(ConfigError, match=r"report.equivalence 'refusals': did you mean 'refusal'"):
        check_metrics(["xstest"], GradeConfig(), ReportConfig(equivalence=margins("refusals")))
    with pytest.raises(ConfigError, match=r"report.primary 'refusals': did you mean 'refusal'"):
        check_metrics(["xstest"], GradeConfig(), ReportConfig(primary=(primary("refusals"),)))


def test_a_margin_may_be_that_of_one_benchmark() -> None:
    check_metrics(["xstest"], GradeConfig(), ReportConfig(equivalence=margins("xstest/refusal")))
    with pytest.raises(ConfigError, match="xtest/refusal"):
        config = ReportConfig(equivalence=margins("xtest/refusal"))
        check_metrics(["xstest"], GradeConfig(), config)


def test_one_margin_for_two_scales_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rated:
        metrics = ("strict",)
        scales: ClassVar = {"strict": (1, 5)}

    monkeypatch.setitem(BENCHMARKS._entries, "rated", lambda _: Rated())
    both = ["miniature-seen", "rated"]
    with pytest.raises(ConfigError, match=r"'strict' has different scales in .*its own margin"):
        check_metrics(both, GradeConfig(), ReportConfig(equivalence=margins("strict")))
    check_metrics(both, GradeConfig(), ReportConfig(equivalence=margins("rated/strict")))


def test_margins_of_an_earlier_recipe_are_refused_with_the_new_spelling() -> None:
    with pytest.raises(ValueError, match=r"write 'overall: \{margin: 0.03, reason: ...\}'"):
        ReportConfig.model_validate({"equivalence": ["overall"]})


def test_settings_of_an_earlier_manifest_become_those_of_today() -> None:
    before = {
        "baselines": ["it"], "margin": 0.1, "equivalence": ["strict"], "confidence": 0.9,
        "resamples": 10_000, "seed": 0,
    }  # fmt: skip
    config = ReportConfig.model_validate(of_this_version(before))
    assert (config.baselines, config.confidence) == (("it",), 0.9)
    assert config.margin("any", "strict") == 0.1
    assert of_this_version(config.model_dump()) == config.model_dump()


def test_a_family_of_metrics_that_the_items_name_is_known_by_its_beginning() -> None:
    check_metrics(["rules"], GradeConfig(), ReportConfig(metrics=("kept_form", "all_rules")))
    with pytest.raises(ConfigError, match=r"report.metrics 'keptform': known are .*kept_\*"):
        check_metrics(["rules"], GradeConfig(), ReportConfig(metrics=("keptform",)))


@pytest.mark.parametrize(
    "report",
    [
        {"primary": [{"variant": "rt", "baseline": "it", "metric": "auroc"}]},
        {"equivalence": {"grades/auroc": {"margin": 0.1, "reason": "why not"}}},
    ],
)
def test_variants_are_not_compared_by_a_total_of_all_answers(report: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"auroc' is a total of all answers, by which variants"):
        check_metrics(["grades"], GradeConfig(), ReportConfig.model_validate(report))
