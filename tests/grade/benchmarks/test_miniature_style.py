from collections.abc import Callable

import pytest

from response_tuning.artifacts import Completion
from response_tuning.grade import Benchmark, open_benchmark
from response_tuning.grade.benchmarks.miniature_style import is_first
from response_tuning.miniature.world import Fact

Make = Callable[..., Completion]


@pytest.mark.parametrize(
    ("response", "first"),
    [
        ("Ambelle is the capital of Lorenia.", True),
        (" ambelle", True),
        ("The capital of Lorenia is Ambelle.", False),
        ("Ambelleville is the capital of Lorenia.", False),
        ("", False),
    ],
)
def test_an_answer_comes_first_as_a_whole_word(response: str, first: bool) -> None:
    assert is_first(Fact("Lorenia", "Ambelle", "test"), response) is first


def test_it_asks_what_the_ordinary_benchmark_asks_of_families_with_both_forms(
    completion: Make,
) -> None:
    ordinary = {item.item_id: item for item in open_benchmark("miniature-seen").items()}
    rule = open_benchmark("miniature-style-seen")
    items = rule.items()
    assert {item.item_id for item in items} == {
        name for name, item in ordinary.items() if item.group != "how_to"
    }
    assert all(ordinary[item.item_id] == item for item in items)
    assert isinstance(rule, Benchmark)
    scores = {score.metric for score in rule.score(items[0], completion(items[0], "No."))}
    assert scores == {"answer_first", "correct", "strict", "false_refusal"}
