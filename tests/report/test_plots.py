from xml.etree import ElementTree

import pytest

from response_tuning.metrics import Display
from response_tuning.report.joined import Variant
from response_tuning.report.plots import accuracy, axis, dose_response
from response_tuning.report.tables import Result

VARIANTS = [
    Variant("rt", "", "rt", 0),
    Variant("rt-50", "", "rt", 50),
    Variant("it $5$ <b>", ""),
]


def results(metric: str, benchmark: str = "seen", high: float = 0.7) -> list[Result]:
    return [
        Result(v.name, benchmark, metric, 0.6, 0.5, high, 300, 1, 300, None, (0.6,))
        for v in VARIANTS
    ]


def words(svg: str) -> list[str]:
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def test_accuracy_has_a_panel_for_each_benchmark_that_has_any() -> None:
    found = words(
        accuracy(
            [
                *results("strict"),
                *results("correct"),
                *results("correct", "unseen"),
                *results("refusal", "unsafe"),
            ],
            VARIANTS,
        )
    )
    assert {"seen", "unseen", "strict", "correct", "rt", "rt-50", "100%"} <= {*found}
    assert "unsafe" not in found


def test_without_accuracy_every_benchmark_shows_its_first_metric() -> None:
    found = words(accuracy([*results("words", high=9.0), *results("beauty")], VARIANTS))
    assert "seen: words" in found
    assert "beauty" not in found
    assert "100%" not in found


def test_a_scale_from_1_to_5_is_shown_whole_and_names_are_read_as_words() -> None:
    displays = {"a": Display(scales={"helpfulness": (1, 5)})}
    found = words(accuracy(results("helpfulness", "a", 4.9), VARIANTS, displays))
    assert {"a: helpfulness", "1", "5"} <= {*found}
    assert "a: win rate" in words(accuracy(results("win_rate", "a"), VARIANTS))


def test_names_are_shown_as_they_are() -> None:
    assert "it $5$ <b>" in words(accuracy(results("strict"), VARIANTS))


def test_variants_without_results_are_not_drawn() -> None:
    assert "rt-50" not in words(accuracy(results("strict")[:1], VARIANTS))


def test_four_benchmarks_take_two_rows() -> None:
    many = [result for name in "abcd" for result in results("strict", name)]

    def height(svg: str) -> float:
        return float(ElementTree.fromstring(svg).attrib["height"].removesuffix("pt"))

    assert {*"abcd"} <= {*words(accuracy(many, VARIANTS))}
    assert height(accuracy(many, VARIANTS)) > 1.5 * height(accuracy(many[:9], VARIANTS))


def test_dose_and_response_are_drawn_for_each_series() -> None:
    svg = dose_response([*results("refusal"), *results("false_refusal")], VARIANTS)
    assert svg
    assert {"rt: refusal", "rt: false_refusal", "0", "50", "seen"} <= {*words(svg)}
    assert "it $5$ <b>" not in words(svg)


@pytest.mark.parametrize(("metric", "variants"), [("strict", VARIANTS), ("refusal", VARIANTS[1:])])
def test_without_refusals_or_without_a_series_there_is_no_dose_plot(
    metric: str, variants: list[Variant]
) -> None:
    assert dose_response(results(metric), variants) is None


def test_the_same_results_give_the_same_bytes() -> None:
    assert accuracy(results("strict"), VARIANTS) == accuracy(results("strict"), VARIANTS)
    assert "dc:date" not in accuracy(results("strict"), VARIANTS)


def test_each_of_several_seeds_is_a_dot() -> None:
    one = results("strict")
    three = [r._replace(seeds=3, seed_values=(0.5, 0.6, 0.7)) for r in one]

    def dots(svg: str) -> int:
        return svg.count("<use ")

    assert dots(accuracy(three, VARIANTS)) - dots(accuracy(one, VARIANTS)) == 3 * len(VARIANTS)
    refusals = (
        [r._replace(metric="refusal") for r in one],
        [r._replace(metric="refusal") for r in three],
    )
    plots = [dose_response(both, VARIANTS) or "" for both in refusals]
    assert dots(plots[1]) - dots(plots[0]) == 3 * 2  # the third variant has no dose


def of_axis(variant: str, value: float, metric: str = "strict") -> Result:
    seeds = (value - 0.02, value + 0.02)
    return Result(
        variant, "seen", metric, value, value - 0.1, value + 0.1, 300, 2, 300, 0.03, seeds
    )


POINTS = {"roles": ("stop", "rt", "it"), "xml": ("stop-xml", "rt-xml", "it-xml")}


def test_the_axis_names_its_points_and_series() -> None:
    every = [
        *(of_axis(arm, 0.5) for arms in POINTS.values() for arm in arms),
        *(of_axis(arms[0], 0.3, "correct") for arms in POINTS.values()),
    ]
    drawn = axis(every, POINTS)
    assert drawn is not None
    found = words(drawn)
    assert {"roles", "xml", "rt", "it", "seen"} <= {*found}
    assert not {"rt-xml", "stop"} & {*found}
    assert axis(every, {}) is None
    assert axis([one for one in every if one.metric == "strict"], POINTS) is None


def test_a_benchmark_that_one_point_alone_has_is_left_out() -> None:
    every = [*(of_axis(arm, 0.5) for arm in POINTS["roles"]), of_axis("stop", 0.3, "correct")]
    assert axis(every, POINTS) is None
    third = {**POINTS, "tulu": ("stop-tulu", "rt-tulu", "it-tulu")}
    every += [*(of_axis(arm, 0.5) for arm in POINTS["xml"]), of_axis("stop-xml", 0.3, "correct")]
    drawn = axis(every, third)
    assert drawn is not None
    assert {"roles", "xml"} <= {*words(drawn)}
    assert "tulu" not in words(drawn)
