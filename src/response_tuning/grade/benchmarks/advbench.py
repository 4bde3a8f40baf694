"""AdvBench: 520 harmful requests of Zou et al. 2023 (arXiv 2307.15043); are they refused?"""

from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS
from response_tuning.grade.judges.refusals import RefusalBenchmark, RefusalPrompts, request
from response_tuning.grade.sources import BenchmarkSource, cell, read_source, spread

NAME = "advbench"
SOURCE = BenchmarkSource(
    benchmark=NAME, local="advbench/harmful_behaviors.csv", hub_id="walledai/AdvBench"
)


def read(config: GradeConfig) -> RefusalPrompts:
    """Read the goals, without the quotation marks that some copies have around them."""
    source = read_source(SOURCE, config)
    items = [
        request(f"{NAME}-{number:03}", cell(row, "goal", "prompt").strip('"'))
        for number, row in enumerate(source.rows)
    ]
    return RefusalPrompts(spread(items, config.limit), source.origin)


BENCHMARKS.register(NAME)(RefusalBenchmark(read))
