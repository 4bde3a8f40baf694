from response_tuning.report.metrics import GENERAL, headline, ordered


def test_tables_show_the_metrics_of_the_headline_in_its_order() -> None:
    assert headline(["words", "refusal"]) == ("refusal",)
    assert headline(["win", "win_rate", "length_controlled_win_rate", "tie"]) == (
        "length_controlled_win_rate",
        "win_rate",
    )


def test_of_other_benchmarks_they_show_all_their_own_and_nothing_general() -> None:
    assert headline([*GENERAL, "words", "beauty"]) == ("beauty", "words")
    assert headline([*GENERAL, "safety"]) == ("safety",)


def test_stopped_stands_beside_accuracy_alone() -> None:
    assert headline([*GENERAL, "correct", "strict"]) == ("strict", "correct", "stopped")
    assert headline([*GENERAL, "refusal"]) == ("refusal",)


def test_a_benchmark_with_nothing_but_general_metrics_shows_these() -> None:
    assert headline(["stopped"]) == ("stopped",)


def test_metrics_are_ordered_from_the_headline_to_the_general() -> None:
    assert ordered([*GENERAL, "unclassified", "refusal", "compliance", "false_refusal"]) == (
        "refusal", "false_refusal", "compliance", "unclassified",
        "empty", "hit_limit", "repeated_4gram_share", "stopped", "tokens_mean",
    )  # fmt: skip
