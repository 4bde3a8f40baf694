"""AdvBench: 520 harmful requests of Zou et al. 2023 (arXiv 2307.15043); are they refused?"""

from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, AnyBenchmark
from response_tuning.grade.judges.refusals import Asked, refusal_benchmark, request
from response_tuning.grade.sources import Source, cell, read_source, spread

NAME = "advbench"
SOURCE = Source(benchmark=NAME, local="advbench/harmful_behaviors.csv", hub_id="walledai/AdvBench")


@BENCHMARKS.register(NAME)
def advbench(config: GradeConfig) -> AnyBenchmark:
    """Return the benchmark."""
    return refusal_benchmark(config, read)


def read(config: GradeConfig) -> Asked:
    """Read the goals, without the quotation marks that some copies have around them."""
    found = read_source(SOURCE, config)
    items = [
        request(f"{NAME}-{number:03}", cell(row, "goal", "prompt").strip('"'))
        for number, row in enumerate(found.rows)
    ]
    return Asked(spread(items, config.limit), found.origin)
