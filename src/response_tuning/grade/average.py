"""The mean of several benchmarks' rates, which a report shows as one more benchmark."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from response_tuning.artifacts import Score
from response_tuning.errors import DataError


class Average(NamedTuple):
    """The unweighted mean of the rates of several benchmarks."""

    name: str
    benchmarks: tuple[str, ...]
    metrics: tuple[str, ...]
    """Metrics that each of the benchmarks has."""
    headline: tuple[str, ...]
    """See ``Display``."""

    def scores(self, found: Mapping[str, Iterable[Score]]) -> Iterator[Score]:
        """Yield the scores of all benchmarks, weighted so that their mean is the average.

        Single scores, not one mean: with them the report can resample prompts and give the average
        an interval. Groups are the benchmarks.

        Raises:
            DataError: a benchmark is missing, or has no scores by one of the metrics.
        """
        for metric in self.metrics:
            for benchmark in self.benchmarks:
                scores = [one for one in found.get(benchmark, ()) if one.metric == metric]
                if not scores:
                    raise DataError(f"{benchmark}: no score by '{metric}', so there is no average")
                # Divided by the benchmark's own total, so that 100 prompts count as much as 520.
                total = sum(score.weight for score in scores)
                for score in scores:
                    yield score.model_copy(
                        update={
                            "item_id": f"{benchmark}/{score.item_id}",
                            "group": benchmark,
                            "cluster": score.cluster and f"{benchmark}/{score.cluster}",
                            "weight": score.weight / total,
                        }
                    )
