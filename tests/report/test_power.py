import pytest

from response_tuning.metrics import Display
from response_tuning.report.power import plan, planned


def test_a_share_has_the_detectable_difference_of_tango_and_mcnemar() -> None:
    text = planned("quiz", 400, Display(("strict",)), 0.95)
    # 2.8 standard errors are 4.4 and 9.9 points; Tango's interval is a little wider.
    assert text == (
        "power on quiz (400 clusters of prompts): at best, a difference of 4.6 points (if two "
        "variants disagree on 10%) or 9.9 points (if two variants disagree on 50%) is found 80 % "
        "of the time"
    )


def test_a_scale_is_shown_in_its_own_points() -> None:
    display = Display(("overall",), {"overall": (1, 5)})
    text = planned("just-eval", 800, display, 0.95)
    # That is 2.8 standard errors of 1 over the root of 800.
    assert "a difference of 0.099 in overall is found 80 % of the time" in text
    assert "has a standard deviation of 1" in text


@pytest.mark.parametrize("clusters", [0, 1])
def test_one_cluster_shows_nothing(clusters: int) -> None:
    assert "shows no difference" in planned("quiz", clusters, Display(), 0.95)


def test_a_plan_says_that_seeds_vary_on_top() -> None:
    *_, last = plan({"quiz": 50}, {}, 3, 0.95)
    assert last == "power counts prompts alone, not how much training varies (3 seeds)"
