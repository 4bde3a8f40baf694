from collections.abc import Callable
from pathlib import Path

from response_tuning.report.comparison import compare
from response_tuning.report.joined import Variant
from response_tuning.report.reading import read_scores
from response_tuning.report.sections import METRICS_PER_TABLE, Section, sections
from response_tuning.report_config import ReportConfig

Grade = Callable[..., None]
CONFIG = ReportConfig(baselines=("it",))


def found(run: Path, *names: str, primary: tuple[str, ...] = ()) -> Section:
    benchmarks, _ = read_scores(run, names)
    findings = compare(benchmarks, [Variant(name, "") for name in names], CONFIG)
    (section,) = sections(benchmarks, findings, primary)
    return section


def test_a_metric_that_tells_no_variants_apart_is_folded_unless_it_is_primary(
    run: Path, grade: Grade
) -> None:
    for name, right in (("it", 90), ("rt", 10)):
        strict = [1] * right + [0] * (100 - right)
        grade(name, {"strict": strict, "correct": [1] * 100, "false_refusal": [0] * 100})
    section = found(run, "it", "rt")
    assert section.shown == [["strict"]]
    assert section.compared == [["strict"]]
    assert section.silent == ["correct", "false_refusal"]
    assert found(run, "it", "rt", primary=("correct",)).silent == ["false_refusal"]


def test_the_first_metric_and_those_of_a_single_variant_always_stay(
    run: Path, grade: Grade
) -> None:
    grade("it", {"strict": [1] * 9, "correct": [1] * 9})
    assert found(run, "it").silent == []
    grade("rt", {"strict": [1] * 9, "correct": [1] * 9})
    assert found(run, "it", "rt").shown == [["strict"]]


def test_a_share_of_filtered_answers_is_never_folded(run: Path, grade: Grade) -> None:
    for name in ("it", "rt"):
        grade(name, {"strict": [1] * 9, "filtered": [0] * 9})
    assert found(run, "it", "rt").shown == [["strict", "filtered"]]


def test_many_metrics_make_several_tables_and_only_variants_with_results_are_in_them(
    run: Path, grade: Grade
) -> None:
    names = [f"m{number:02}" for number in range(METRICS_PER_TABLE + 3)]
    for name, value in (("it", 1), ("rt", 0)):
        grade(name, {metric: [value] * 60 for metric in names})
    section = found(run, "it", "rt", "absent")
    assert [len(table) for table in section.shown] == [METRICS_PER_TABLE, 3]
    assert section.variants == ["it", "rt"]
    assert section.size == "60 prompts, 60 clusters, 1 seed"
