from xml.etree import ElementTree

import pytest

from response_tuning.metrics import Display
from response_tuning.report.joined import Variant
from response_tuning.report.plots import Drawing, at_a_glance, axis, dose_response
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


def words(drawing: Drawing) -> list[str]:
    texts = ElementTree.fromstring(drawing.svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def test_every_benchmark_has_a_panel_with_its_accuracy_or_its_first_metric() -> None:
    found = words(
        at_a_glance(
            [
                *results("strict"),
                *results("correct"),
                *results("correct", "unseen"),
                *results("refusal", "unsafe"),
                *results("beauty", "the-users-own"),
            ],
            VARIANTS,
        )
    )
    assert {"seen", "unseen", "strict", "correct", "rt", "rt-50", "100%"} <= {*found}
    assert {"unsafe: refusal", "the-users-own: beauty"} <= {*found}


def test_metrics_can_be_chosen_and_a_benchmark_without_them_has_no_panel() -> None:
    every = [
        *results("strict"),
        *results("stopped"),
        *results("stopped", "unseen"),
        *results("refusal", "unsafe"),
    ]
    found = words(at_a_glance(every, VARIANTS, metrics=["stopped"]))
    assert {"seen: stopped", "unseen: stopped"} <= {*found}
    assert not {"strict", "unsafe", "unsafe: refusal"} & {*found}
    assert {"stopped", "strict"} <= {
        *words(at_a_glance(every, VARIANTS, metrics=["stopped", "strict"]))
    }


@pytest.mark.parametrize(
    ("form", "begins"), [("pdf", b"%PDF-"), ("png", b"\x89PNG"), ("svg", b"<?xml")]
)
def test_a_figure_is_saved_in_a_format_with_the_same_bytes_each_time(
    form: str, begins: bytes
) -> None:
    first, second = (at_a_glance(results("strict"), VARIANTS).saved(form) for _ in range(2))
    assert first.startswith(begins)
    assert first == second


def test_without_accuracy_every_benchmark_shows_its_first_metric() -> None:
    found = words(at_a_glance([*results("words", high=9.0), *results("beauty")], VARIANTS))
    assert "seen: words" in found
    assert "beauty" not in found
    assert "100%" not in found


def test_a_scale_from_1_to_5_is_shown_whole_and_names_are_read_as_words() -> None:
    displays = {"a": Display(scales={"helpfulness": (1, 5)})}
    found = words(at_a_glance(results("helpfulness", "a", 4.9), VARIANTS, displays))
    assert {"a: helpfulness", "1", "5"} <= {*found}
    assert "a: win rate" in words(at_a_glance(results("win_rate", "a"), VARIANTS))


def test_names_are_shown_as_they_are() -> None:
    assert "it $5$ <b>" in words(at_a_glance(results("strict"), VARIANTS))


def test_variants_without_results_are_not_drawn() -> None:
    assert "rt-50" not in words(at_a_glance(results("strict")[:1], VARIANTS))


def test_four_benchmarks_take_two_rows() -> None:
    many = [result for name in "abcd" for result in results("strict", name)]

    def height(drawing: Drawing) -> float:
        return float(ElementTree.fromstring(drawing.svg).attrib["height"].removesuffix("pt"))

    assert {*"abcd"} <= {*words(at_a_glance(many, VARIANTS))}
    assert height(at_a_glance(many, VARIANTS)) > 1.5 * height(at_a_glance(many[:9], VARIANTS))


def test_dose_and_response_are_drawn_for_each_series() -> None:
    drawn = dose_response([*results("refusal"), *results("false_refusal")], VARIANTS)
    assert drawn
    assert {"rt: refusal", "rt: false_refusal", "0", "50", "seen"} <= {*words(drawn)}
    assert "it $5$ <b>" not in words(drawn)


@pytest.mark.parametrize(("metric", "variants"), [("strict", VARIANTS), ("refusal", VARIANTS[1:])])
def test_without_refusals_or_without_a_series_there_is_no_dose_plot(
    metric: str, variants: list[Variant]
) -> None:
    assert dose_response(results(metric), variants) is None


def test_a_figure_has_no_date() -> None:
    drawn = at_a_glance(results("strict"), VARIANTS)
    assert "dc:date" not in drawn.svg
    assert b"CreationDate" not in drawn.saved("pdf")


def test_each_of_several_seeds_is_a_dot() -> None:
    one = results("strict")
    three = [r._replace(seeds=3, seed_values=(0.5, 0.6, 0.7)) for r in one]

    def dots(drawing: Drawing | None) -> int:
        assert drawing is not None
        return drawing.svg.count("<use ")

    more = dots(at_a_glance(three, VARIANTS)) - dots(at_a_glance(one, VARIANTS))
    assert more == 3 * len(VARIANTS)
    refusals = (
        [r._replace(metric="refusal") for r in one],
        [r._replace(metric="refusal") for r in three],
    )
    plots = [dose_response(both, VARIANTS) for both in refusals]
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
