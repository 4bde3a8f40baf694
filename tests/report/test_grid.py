import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.report.comparison import compare
from response_tuning.report.estimates import estimated, mean_difference
from response_tuning.report.grid import Effect, OverGrid, over_grid
from response_tuning.report.intervals import detectable
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.reading import read_scores
from response_tuning.report.writing import report
from response_tuning.report_config import PrimaryConfig, ReportConfig

Grade = Callable[..., None]


def variant(name: str, **axes: str) -> Variant:
    return Variant(name, "", place=axes)


# The untuned variant has no dose, and matches every dose.
VARIANTS = [
    variant("base-x", variant="base", bases="x"),
    variant("base-y", variant="base", bases="y"),
    *(
        variant(f"{arm}-{base}-{dose}", variant=arm, bases=base, doses=dose)
        for arm in ("rt", "it")
        for base in ("x", "y")
        for dose in ("0", "9")
    ),
]
RIGHT = {
    **{"base-x": 1, "base-y": 3},
    **{"rt-x-0": 4, "rt-x-9": 6, "rt-y-0": 8, "rt-y-9": 5},
    **{"it-x-0": 5, "it-x-9": 9, "it-y-0": 7, "it-y-9": 10},
}
"""Variant -> how many of ten items it has right."""
CONFIG = ReportConfig(baselines=("base", "it"))


@pytest.fixture
def graded(grade: Grade) -> None:
    for name, right in RIGHT.items():
        grade(name, {"correct": [1] * right + [0] * (10 - right)})


def found(run: Path, config: ReportConfig = CONFIG) -> OverGrid:
    benchmarks, _ = read_scores(run, [variant.name for variant in VARIANTS])
    return over_grid(benchmarks, VARIANTS, config)


@pytest.mark.usefixtures("graded")
def test_a_marginal_mean_gives_every_variant_of_the_grid_the_same_weight(run: Path) -> None:
    means = {(m.variant, m.axis, m.at): (m.value, m.variants) for m in found(run).marginals}
    assert means == {
        ("base", "", ""): (pytest.approx(0.2), 2),
        ("base", "bases", "x"): (0.1, 1),
        ("base", "bases", "y"): (0.3, 1),
        ("rt", "", ""): (pytest.approx(0.575), 4),
        ("rt", "bases", "x"): (pytest.approx(0.5), 2),
        ("rt", "bases", "y"): (pytest.approx(0.65), 2),
        ("rt", "doses", "0"): (pytest.approx(0.6), 2),
        ("rt", "doses", "9"): (pytest.approx(0.55), 2),
        ("it", "", ""): (pytest.approx(0.775), 4),
        ("it", "bases", "x"): (pytest.approx(0.7), 2),
        ("it", "bases", "y"): (pytest.approx(0.85), 2),
        ("it", "doses", "0"): (pytest.approx(0.6), 2),
        ("it", "doses", "9"): (pytest.approx(0.95), 2),
    }


@pytest.mark.usefixtures("graded")
def test_an_effect_is_the_mean_difference_of_the_variants_that_match(run: Path) -> None:
    effects = found(run).effects
    deltas = {
        (e.value, e.baseline, e.at): (round(e.delta, 6), e.pairs, e.of)
        for e in effects
        if e.axis == "variant"
    }
    # rt minus base: (4 + 6 - 2 x 1 + 8 + 5 - 2 x 3) / 4 of ten items.
    assert deltas["rt", "base", ""] == (0.375, 4, 4)
    assert deltas["rt", "base", "x"] == (0.4, 2, 2)
    assert deltas["rt", "base", "9"] == (0.35, 2, 2)
    assert deltas["rt", "it", ""] == (-0.2, 4, 4)
    assert deltas["rt", "it", "0"] == (0.0, 2, 2)
    # Each two values once: base minus it is it minus base.
    assert {(e.value, e.baseline) for e in effects if e.axis == "variant"} == {
        *(("rt", "base"), ("it", "base"), ("rt", "it")),
    }


@pytest.mark.usefixtures("graded")
def test_an_axis_without_a_named_baseline_is_compared_with_its_first_value(run: Path) -> None:
    every = found(run).effects
    doses = {e.at: round(e.delta, 6) for e in every if e.axis == "doses" and e.within == "variant"}
    assert doses == {"rt": -0.05, "it": 0.35}
    assert {(e.value, e.baseline) for e in every if e.axis == "doses"} == {("9", "0")}
    other = found(run, ReportConfig(baselines=("9",))).effects
    assert {(e.axis, e.value, e.baseline) for e in other} == {
        *(("bases", "y", "x"), ("doses", "0", "9")),
    }


def test_intervals_pair_prompts_and_seeds_within_the_matching_variants(
    run: Path, grade: Grade
) -> None:
    # Items differ a lot, and rt is 0.1 above it everywhere: only the pairing shows that.
    for seed, shift in ((0, 0.0), (1, 0.02), (2, 0.04)):
        for base, level in (("x", 0.0), ("y", 0.3)):
            items = [level + place / 20 + shift for place in range(10)]
            grade(f"it-{base}", {"overall": items}, seed=seed)
            grade(
                f"rt-{base}",
                {"overall": [one + 0.09 + 0.02 * (place % 2) for place, one in enumerate(items)]},
                seed=seed,
            )
    variants = [
        variant(f"{arm}-{base}", variant=arm, bases=base) for arm in ("it", "rt") for base in "xy"
    ]
    benchmarks, _ = read_scores(run, [one.name for one in variants])
    effect = over_grid(benchmarks, variants, ReportConfig(baselines=("it",))).effects[0]
    assert (effect.value, effect.baseline, effect.pairs, effect.seeds) == ("rt", "it", 2, 3)
    assert effect.seed_deltas == pytest.approx((0.1, 0.1, 0.1))
    mean = over_grid(benchmarks, variants, ReportConfig()).marginals[0]
    assert mean.seed_values == pytest.approx((0.375, 0.395, 0.415))
    assert effect.high - effect.low < 0.9 * (mean.high - mean.low)


def nearly_all_wrong(run: Path, grade: Grade, n: int) -> tuple[list[BenchmarkScores], Effect]:
    """The effect of an arm that has 1 and 2 of ``n`` right where the other has all."""
    for base, right in (("x", 1), ("y", 2)):
        grade(f"it-{base}", {"correct": [1] * n})
        grade(f"rt-{base}", {"correct": [1] * right + [0] * (n - right)})
    variants = [
        variant(f"{arm}-{base}", variant=arm, bases=base) for arm in ("it", "rt") for base in "xy"
    ]
    benchmarks, _ = read_scores(run, [one.name for one in variants])
    return benchmarks, over_grid(benchmarks, variants, ReportConfig(baselines=("it",))).effects[0]


def test_no_interval_is_wider_than_what_is_possible(run: Path, grade: Grade) -> None:
    _, effect = nearly_all_wrong(run, grade, 10)
    assert effect.delta == pytest.approx(-0.85)
    assert effect.low == -1.0
    assert effect.high == pytest.approx(-0.85 + 1.96 * 0.107, abs=0.05)


@pytest.mark.usefixtures("graded")
def test_a_variant_without_scores_is_left_out_and_counted(run: Path) -> None:
    (run / "rt-y-9" / "seed-0" / "grade" / "quiz.jsonl").unlink()
    found_now = found(run)
    (rt,) = (m for m in found_now.marginals if (m.variant, m.axis) == ("rt", ""))
    assert rt.value == pytest.approx(0.6)
    assert (rt.variants, rt.of) == (3, 4)
    (against,) = (
        e for e in found_now.effects if (e.value, e.baseline, e.within) == ("rt", "it", "")
    )
    assert (round(against.delta, 6), against.pairs, against.of) == (-0.1, 3, 4)


@pytest.mark.usefixtures("graded")
def test_a_baseline_of_the_grid_is_compared_where_variants_match(run: Path) -> None:
    benchmarks, _ = read_scores(run, [variant.name for variant in VARIANTS])
    pairs = {
        (c.variant, c.baseline)
        for c in compare(benchmarks, VARIANTS, ReportConfig(baselines=("it",))).comparisons
    }
    assert pairs == {
        *((f"rt-{base}-{dose}", f"it-{base}-{dose}") for base in "xy" for dose in "09"),
        *((f"base-{base}", f"it-{base}-{dose}") for base in "xy" for dose in "09"),
    }


@pytest.mark.usefixtures("graded", "plain_plots")
def test_a_primary_comparison_stands_for_every_pair_that_matches(run: Path) -> None:
    primary = PrimaryConfig(variant="rt", baseline="it", metric="correct")
    config = ReportConfig(baselines=("it",), primary=(primary,))
    report(run, VARIANTS, config)
    with (run / "report" / "comparisons.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    declared = [row for row in rows if row["primary"] == "true"]
    assert [(row["variant"], row["baseline"]) for row in declared] == [
        (f"rt-{base}-{dose}", f"it-{base}-{dose}") for base in "xy" for dose in "09"
    ]
    assert all(float(row["p_holm"]) >= float(row["p_value"]) for row in declared)
    text = (run / "report" / "report.md").read_text()
    assert "### rt-y-9 against it-y-9: correct" in text
    assert "| rt minus it | bases x | quiz | correct | \u221220.0 |" in text
    assert "| it | doses 9 | quiz | correct | 95.0 |" in text
    page = (run / "report" / "report.html").read_text()
    assert "rt minus it" in page and "doses: 9 minus 0" in page


@pytest.mark.usefixtures("graded", "plain_plots")
def test_every_effect_has_the_smallest_difference_that_would_be_found(run: Path) -> None:
    report(run, VARIANTS, CONFIG)
    with (run / "report" / "effects.csv").open() as lines:
        effects = {(e["value"], e["baseline"], e["at"]): e for e in csv.DictReader(lines)}
    # About 2.8 standard errors, where half an interval is about 2.
    for effect in effects.values():
        half = (float(effect["high"]) - float(effect["low"])) / 2
        assert 1.3 * half < float(effect["detectable"]) < 1.5 * half
    unsure, sure = effects["rt", "it", "0"], effects["it", "base", "9"]
    assert float(unsure["p_value"]) > 0.05 > float(sure["p_value"])
    shown = [f"{100 * float(one['detectable']):.1f}" for one in (unsure, sure)]
    text = (run / "report" / "report.md").read_text()
    assert "| p | detectable | each seed |" in text
    assert "a difference so large would be found 80 % of the time." in text
    for (value, baseline, at), found in zip(
        (("rt", "it", "0"), ("it", "base", "9")), shown, strict=True
    ):
        row = next(
            line
            for line in text.splitlines()
            if line.startswith(f"| {value} minus {baseline} | doses {at}")
        )
        assert row.split(" | ")[7] == found
    page = (run / "report" / "report.html").read_text()
    assert f"<small>80 %: {shown[0]}</small>" in page
    assert f"; detectable {shown[1]}" in page
    assert f"<small>80 %: {shown[1]}</small>" not in page


def test_the_detectable_effect_is_not_cut_at_the_ends_of_a_metric(run: Path, grade: Grade) -> None:
    benchmarks, effect = nearly_all_wrong(run, grade, 3)
    pairs = [("it-x", "rt-x"), ("it-y", "rt-y")]
    whole = estimated(benchmarks[0], mean_difference("correct", pairs))
    assert whole is not None
    low, high = whole.evidence.interval(0.95)
    assert low < effect.low == -1.0
    assert effect.detectable == pytest.approx(detectable(whole.evidence, (low, high), 0.95))


@pytest.mark.usefixtures("graded", "plain_plots")
def test_latex_has_the_grid_in_whole_tables(run: Path) -> None:
    config = CONFIG.model_copy(update={"formats": ("latex",)})
    report(run, VARIANTS, config)
    text = (run / "report" / "report.tex").read_text(encoding="utf-8")
    tables = re.findall(r"\\begin\{tabular\}\{(.*?)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    for columns, rows in tables:
        assert {row.count("&") + 1 for row in rows.split(r"\\")[:-1]} == {len(columns)}
    assert r"rt & doses 0 & quiz & correct & 60.0 & [" in text
    assert r"rt minus base & everywhere & quiz & correct & +37.5 & [" in text
    assert r"doses: 9 minus 0 & everywhere & quiz" in text


@pytest.mark.usefixtures("graded", "plain_plots")
def test_a_report_without_a_grid_has_none_of_its_tables(run: Path) -> None:
    report(run, VARIANTS, CONFIG)
    assert (run / "report" / "effects.csv").exists()
    report(run, [Variant(one.name, "") for one in VARIANTS], ReportConfig())
    assert not (run / "report" / "effects.csv").exists()
    assert not (run / "report" / "marginals.csv").exists()
    assert "Over the grid" not in (run / "report" / "report.md").read_text()
