from pathlib import Path

import pytest

from response_tuning.errors import DataError
from response_tuning.metrics import Display
from response_tuning.report.joined import Variant
from response_tuning.report.tables import (
    Comparison,
    Result,
    Trend,
    change,
    number,
    p_value,
    read_results,
    shares,
    summary,
    write_csv,
)

RESULTS = [
    Result("base", "mini-seen", "strict", 0.0, 0.0, 0.01, 300, 1, 200, None, (0.0,)),
    Result("base", "mini-refusal", "refusal", 0.25, 0.2, 0.3, 300, 1, 44, None, (0.25,)),
    Result("rt", "mini-seen", "strict", 2 / 3, 0.6, 0.7, 300, 3, 200, 0.1, (0.5, 0.75, 0.75)),
    Result(
        "rt", "mini-seen", "tokens_mean", 12.5, 11.0, 14.0, 300, 3, 300, 0.5, (12.0, 12.5, 13.0)
    ),
]
VARIANTS = [Variant("base", ""), Variant("rt", ""), Variant("it", "")]


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv(path, Result, RESULTS)
    lines = path.read_text().splitlines()
    assert (
        lines[0] == "variant,benchmark,metric,value,low,high,n,seeds,clusters,seed_sd,seed_values"
    )
    assert lines[3] == "rt,mini-seen,strict,0.666667,0.6,0.7,300,3,200,0.1,0.5;0.75;0.75"
    back = read_results(path)
    assert back[0] == RESULTS[0]
    assert back[2].seed_values == (0.5, 0.75, 0.75)
    assert back[2].value == pytest.approx(2 / 3, abs=1e-6)


def test_results_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("variant,benchmark,metric,value,low,high,n,seeds\nrt,b,m,0.5,0.4,0.6,9,2\n")
    assert read_results(path) == [Result("rt", "b", "m", 0.5, 0.4, 0.6, 9, 2, 9, None, ())]


def test_what_was_not_tested_is_an_empty_cell(tmp_path: Path) -> None:
    one = Comparison(
        "it", "rt", "b", "m", 0.0, -0.1, 0.1, 1e-30, 9, 1, "x", None, None, None,
        9, None, (0.0,), 0.2,
    )  # fmt: skip
    write_csv(tmp_path / "c.csv", Comparison, [one, one._replace(margin=0.1, equivalent=False)])
    header, first, second = (tmp_path / "c.csv").read_text().splitlines()
    assert header == (
        "baseline,variant,benchmark,metric,delta,low,high,p_value,n,seeds,method,margin,"
        "p_equivalence,equivalent,clusters,seed_sd,seed_deltas,detectable,primary,p_holm,verdict"
    )
    assert first == "it,rt,b,m,0,-0.1,0.1,1e-30,9,1,x,,,,9,,0,0.2,false,,"
    assert ",x,0.1,,false,9," in second


def test_doses_and_values_of_a_trend_share_a_cell(tmp_path: Path) -> None:
    trend = Trend(
        "rt", "b", "refusal", (0, 50), (0.1, 0.5), 0.4, None, None, None, 300, 44, 1, (0.4,)
    )
    write_csv(tmp_path / "t.csv", Trend, [trend])
    header, line = (tmp_path / "t.csv").read_text().splitlines()
    assert header == (
        "series,benchmark,metric,doses,values,slope,low,high,p_value,n,clusters,seeds,seed_slopes"
    )
    assert line == "rt,b,refusal,0;50,0.1;0.5,0.4,,,,300,44,1,0.4"


def test_a_share_is_what_never_leaves_0_to_1() -> None:
    assert shares(RESULTS) == {("mini-seen", "strict"), ("mini-refusal", "refusal")}


def test_a_metric_on_a_scale_from_1_to_5_is_no_share_where_all_are_1() -> None:
    lowest = [Result("rt", "b", "depth", 1.0, 1.0, 1.0, 9, 1, 9, None, ())]
    assert shares(lowest, {"b": Display(scales={"depth": (1, 5)})}) == set()
    assert shares(lowest, {"c": Display(scales={"depth": (1, 5)})}) == {("b", "depth")}


def test_numbers_are_written_for_people() -> None:
    assert (number(0.6666, True), number(12.3456, False)) == ("66.7", "12.35")
    assert (change(0.05, True), change(-0.05, True), change(0.0, True)) == (
        "+5.0",
        "\u22125.0",
        "0.0",
    )
    assert change(-0.0001, True) == "0.0"
    assert [number(x, False) for x in (3.5, 0.25, 312.44, 1234.5, 0.0)] == [
        "3.500",
        "0.250",
        "312.4",
        "1234",
        "0.000",
    ]
    assert change(-0.081, False) == "\u22120.081"
    assert (p_value(0.04567), p_value(0.0002)) == ("0.046", "< 0.001")


def test_the_summary_is_a_line_for_each_variant(tmp_path: Path) -> None:
    write_csv(tmp_path / "report" / "results.csv", Result, RESULTS)
    assert summary(tmp_path, VARIANTS).splitlines() == [
        "        seen  refusal",
        "      strict  refusal",
        "base     0.0     25.0",
        "rt      66.7",
        "it",
    ]


def test_the_name_of_a_single_benchmark_is_whole_in_the_summary(tmp_path: Path) -> None:
    write_csv(tmp_path / "report" / "results.csv", Result, RESULTS[:1])
    assert summary(tmp_path, VARIANTS[:1]).splitlines()[0].strip() == "mini-seen"


def test_a_summary_of_many_numbers_has_a_line_for_each(tmp_path: Path) -> None:
    many = [
        Result(name, f"b-{place:02}", "correct", place / 20, 0.0, 1.0, 9, 1, 9, None, ())
        for name in ("base", "rt")
        for place in range(17)
    ]
    write_csv(tmp_path / "report" / "results.csv", Result, many)
    lines = summary(tmp_path, VARIANTS[:2]).splitlines()
    assert lines[0].split() == ["base", "rt"]
    assert lines[1:3] == ["00  correct   0.0   0.0", "01  correct   5.0   5.0"]
    assert len(lines) == 18
    write_csv(tmp_path / "report" / "results.csv", Result, many[:16])
    assert summary(tmp_path, VARIANTS[:1]).splitlines()[0].split()[:2] == ["00", "01"]


def test_a_summary_before_the_report_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results.csv: cannot be read: .*; write the report first"):
        summary(tmp_path, VARIANTS)
