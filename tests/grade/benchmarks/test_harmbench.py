import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import Benchmark, open_benchmark
from response_tuning.grade.benchmarks.harmbench import SOURCES
from response_tuning.grade.sources import BenchmarkSource, SourceRows
from response_tuning.readers import Row

HEADER = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString")
TABLE = [
    ("Do one", "standard", "illegal", "", ""),
    ("Sing it", "copyright", "copyright", "", ""),
    ("Do two", "standard", "harmful", "", ""),
    ("Do three", "contextual", "illegal", "context", "Once, there\nwas a {door}."),
    ("Do four", "standard", "illegal", "", ""),
]
EXPECTED = [
    ("harmbench-standard-000", "Do one", "standard/illegal"),
    ("harmbench-standard-001", "Do two", "standard/harmful"),
    ("harmbench-standard-002", "Do four", "standard/illegal"),
    (
        "harmbench-contextual-000",
        "Once, there\nwas a {door}.\n\n---\n\nDo three",
        "contextual/illegal",
    ),
]


def write(path: Path, rows: Sequence[tuple[str, ...]]) -> GradeConfig:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([HEADER, *rows])
    return GradeConfig(paths={"harmbench": path})


@pytest.fixture
def config(tmp_path: Path) -> GradeConfig:
    return write(tmp_path / "behaviors.csv", TABLE)


def shown(config: GradeConfig) -> list[tuple[str, str, str]]:
    items = open_benchmark("harmbench", config).items()
    return [(item.item_id, item.prompt[0].content, item.group) for item in items]


def test_a_context_comes_before_its_request_and_copyright_is_left_out(config: GradeConfig) -> None:
    assert shown(config) == EXPECTED


def test_the_hubs_configurations_are_the_same_two_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: BenchmarkSource, _: GradeConfig) -> SourceRows:
        rows: list[dict[str, Any]] = [
            {"prompt": row[0], "context": row[4], "category": row[2]}
            for row in TABLE
            if row[1] == source.hub_config
        ]
        return SourceRows(tuple(Row("hub", row) for row in rows), {"commit": "c"})

    monkeypatch.setattr("response_tuning.grade.benchmarks.harmbench.read_source", read)
    assert shown(GradeConfig()) == EXPECTED
    assert {source.hub_id for source in SOURCES.values()} == {"walledai/HarmBench"}
    assert open_benchmark("harmbench").origin == {"commit": "c"}  # type: ignore[union-attr]


def test_a_rate_is_the_unweighted_mean_of_the_two_subsets(
    config: GradeConfig, completion: Callable[..., Completion]
) -> None:
    benchmark = open_benchmark("harmbench", config)
    assert isinstance(benchmark, Benchmark)
    no, yes = "I can't help with that.", "Take the key, and turn it twice."
    answers = [no, yes, yes, no]
    scores: list[Score] = []
    for item, answer in zip(benchmark.items(), answers, strict=True):
        scores += benchmark.score(item, completion(item, answer))
    for metric, expected in (("refusal", (1 / 3 + 1) / 2), ("compliance", (2 / 3 + 0) / 2)):
        found = [score for score in scores if score.metric == metric]
        mean = sum(s.value * s.weight for s in found) / sum(s.weight for s in found)
        assert mean == pytest.approx(expected)


def test_subsets_of_a_limited_run_have_the_same_weight_too(
    tmp_path: Path, completion: Callable[..., Completion]
) -> None:
    config = write(tmp_path / "twice.csv", [*TABLE, *TABLE])
    benchmark = open_benchmark("harmbench", config.model_copy(update={"limit": 4}))
    assert isinstance(benchmark, Benchmark)
    weights = {
        item.group.partition("/")[0]: score.weight
        for item in benchmark.items()
        for score in benchmark.score(item, completion(item, "Yes."))
    }
    assert weights == {"standard": pytest.approx(1 / 3), "contextual": 1}


def test_a_file_without_one_of_the_subsets_is_none_of_harmbench(tmp_path: Path) -> None:
    config = write(tmp_path / "behaviors.csv", TABLE[:3])
    with pytest.raises(DataError, match=r"behaviors.csv: no row .* is contextual$"):
        open_benchmark("harmbench", config).items()
