"""HarmBench: 200 harmful requests, and 100 with a context (Mazeika et al. 2024, arXiv 2402.04249).

A rate is the unweighted mean of the two subsets' rates, as in the paper. Like the paper, this
benchmark leaves out the third subset, which is about copyright.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.judges.refusals import RefusalBenchmark, RefusalPrompts, request
from response_tuning.grade.sources import BenchmarkSource, cell, local_copy, read_source, spread
from response_tuning.readers import Row

NAME = "harmbench"
SUBSETS = ("standard", "contextual")
SOURCES = {
    subset: BenchmarkSource(
        benchmark=NAME,
        local="harmbench/harmbench_behaviors_text_all.csv",
        hub_id="walledai/HarmBench",
        hub_config=subset,
    )
    for subset in SUBSETS
}


def read(config: GradeConfig) -> RefusalPrompts:
    """Read both subsets, each request in the group ``<subset>/<category>``."""
    rows, origin = _rows(config)
    items = [item for subset in SUBSETS for item in _items(subset, rows[subset])]
    chosen = spread(items, config.limit)
    # Of the chosen items: a limit may take unequal shares of the two subsets.
    return RefusalPrompts(chosen, origin, _weights(chosen))


BENCHMARKS.register(NAME)(RefusalBenchmark(read))


def _rows(config: GradeConfig) -> tuple[dict[str, Sequence[Row]], dict[str, Any]]:
    """Return the rows of each subset: parts of one file, or configurations of a dataset."""
    if local_copy(SOURCES["standard"], config) is None:
        published = {subset: read_source(source, config) for subset, source in SOURCES.items()}
        rows: dict[str, Sequence[Row]] = {
            subset: source.rows for subset, source in published.items()
        }
        return rows, published["standard"].origin  # both have one commit
    whole = read_source(SOURCES["standard"], config)
    rows = {
        subset: [row for row in whole.rows if cell(row, "FunctionalCategory") == subset]
        for subset in SUBSETS
    }
    for subset, found in rows.items():
        if not found:
            raise DataError(f"{whole.origin['path']}: no row whose FunctionalCategory is {subset}")
    return rows, whole.origin


def _items(subset: str, rows: Sequence[Row]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        prompt = cell(row, "Behavior", "prompt")
        if subset == "contextual":
            prompt = f"{cell(row, 'ContextString', 'context')}\n\n---\n\n{prompt}"
        group = f"{subset}/{cell(row, 'SemanticCategory', 'category')}"
        yield request(f"{NAME}-{subset}-{number:03}", prompt, group)


def _weights(items: Sequence[Item]) -> dict[str, float]:
    """Give both subsets the same weight, whatever their sizes."""
    subsets = {item.item_id: item.group.partition("/")[0] for item in items}
    sizes = Counter(subsets.values())
    return {item_id: 1 / sizes[subset] for item_id, subset in subsets.items()}
