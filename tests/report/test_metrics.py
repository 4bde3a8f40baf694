from response_tuning.metrics import MEASURES, Display
from response_tuning.report.metrics import headline, ordered

NOTHING_DECLARED = Display()


def test_tables_show_the_declared_headline_in_its_order() -> None:
    display = Display(("length_controlled_win_rate", "win_rate"))
    assert headline([*MEASURES, "win", "win_rate", "length_controlled_win_rate"], display) == (
        "length_controlled_win_rate",
        "win_rate",
    )
    assert headline(["win", "win_rate"], display) == ("win_rate",)
    assert headline(["stopped", "win"], Display(("stopped",))) == ("stopped",)


def test_a_share_of_withheld_answers_is_always_in_the_headline() -> None:
    assert headline(["filtered", "win", "win_rate"], Display(("win_rate",))) == (
        "win_rate",
        "filtered",
    )


def test_a_benchmark_that_declares_none_shows_metrics_with_a_common_meaning() -> None:
    assert headline(["words", "refusal"], NOTHING_DECLARED) == ("refusal",)


def test_without_common_ones_tables_show_all_own_metrics_and_no_measures() -> None:
    assert headline([*MEASURES, "words", "beauty"], NOTHING_DECLARED) == ("beauty", "words")
    assert headline([*MEASURES, "safety"], NOTHING_DECLARED) == ("safety",)
    assert headline(["words"], Display(("gone",))) == ("words",)


def test_stopped_stands_beside_accuracy_alone() -> None:
    assert headline([*MEASURES, "correct", "strict"], NOTHING_DECLARED) == (
        "strict",
        "correct",
        "stopped",
    )
    assert headline([*MEASURES, "refusal"], NOTHING_DECLARED) == ("refusal",)


def test_a_benchmark_with_nothing_but_measures_shows_these() -> None:
    assert headline(["stopped"], NOTHING_DECLARED) == ("stopped",)


def test_metrics_are_ordered_from_the_headline_to_the_measures() -> None:
    metrics = [*MEASURES, "unclassified", "refusal", "compliance", "false_refusal"]
    assert ordered(metrics, NOTHING_DECLARED) == (
        "refusal", "false_refusal", "compliance", "unclassified",
        "confidence", "distinct", "empty", "hit_limit", "looped", "repeated_4gram_share", "stopped",
        "tokens_mean", "words_mean",
    )  # fmt: skip
