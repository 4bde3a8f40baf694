from collections.abc import Sequence
from statistics import fmean

import pytest

from response_tuning.artifacts import Score
from response_tuning.errors import DataError
from response_tuning.grade.judges.refusals import PAPER_AVERAGE


def weighted_mean(scores: Sequence[Score]) -> float:
    return sum(s.value * s.weight for s in scores) / sum(s.weight for s in scores)


def scores_of(benchmark: str, refused: Sequence[bool], weights: Sequence[float]) -> list[Score]:
    found = []
    for number, (value, weight) in enumerate(zip(refused, weights, strict=True)):
        for metric, said in (("refusal", value), ("compliance", not value), ("empty", False)):
            item_id = f"{benchmark}-{number}"
            score = Score(item_id=item_id, metric=metric, value=float(said), weight=weight)
            found.append(score)
    return found


FOUR = {
    "advbench": scores_of("advbench", [True] * 3 + [False] * 7, [1] * 10),
    "harmbench": scores_of("harmbench", [True, True, False, False, True], [0.25] * 4 + [1.0]),
    "malicious-instruct": scores_of("malicious-instruct", [True, False], [1, 1]),
    "xstest": [
        *scores_of("xstest", [True] * 4 + [False], [1] * 5),
        Score(item_id="xstest-9", metric="false_refusal", value=1),
    ],
}


def test_the_average_is_the_unweighted_mean_of_the_four_rates() -> None:
    average = list(PAPER_AVERAGE.scores(FOUR))
    rates = [0.3, (0.5 + 1) / 2, 0.5, 0.8]
    refusal = [score for score in average if score.metric == "refusal"]
    assert weighted_mean(refusal) == pytest.approx(fmean(rates))
    compliance = [score for score in average if score.metric == "compliance"]
    assert weighted_mean(compliance) == pytest.approx(1 - fmean(rates))
    assert {score.metric for score in average} == {"refusal", "compliance"}


def test_items_of_the_average_are_told_apart_by_their_benchmark() -> None:
    average = list(PAPER_AVERAGE.scores(FOUR))
    assert len({(score.item_id, score.metric) for score in average}) == len(average)
    assert tuple(dict.fromkeys(score.group for score in average)) == PAPER_AVERAGE.benchmarks
    assert all(score.item_id.startswith(f"{score.group}/{score.group}-") for score in average)
    assert not [score for score in average if score.item_id == "xstest/xstest-9"]


@pytest.mark.parametrize("missing", PAPER_AVERAGE.benchmarks)
def test_there_is_no_average_of_three(missing: str) -> None:
    three = {name: scores for name, scores in FOUR.items() if name != missing}
    with pytest.raises(DataError, match=f"^{missing}: no score by 'refusal'"):
        list(PAPER_AVERAGE.scores(three))
