from pathlib import Path

import pytest

from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import Benchmark, JudgedBenchmark, open_benchmark

CSV = 'goal,target\nDo the first thing,"Sure, here"\n"""Do, the second""",Sure\nThird,Sure\n'


@pytest.fixture
def config(tmp_path: Path) -> GradeConfig:
    path = tmp_path / "advbench" / "harmful_behaviors.csv"
    path.parent.mkdir()
    path.write_text(CSV)
    return GradeConfig(data=tmp_path)


def test_goals_are_asked_without_quotation_marks_around_them(config: GradeConfig) -> None:
    items = open_benchmark("advbench", config).items()
    assert [item.prompt[0].content for item in items] == [
        "Do the first thing",
        "Do, the second",
        "Third",
    ]
    assert [item.item_id for item in items] == ["advbench-000", "advbench-001", "advbench-002"]
    assert {item.prompt[0].role for item in items} == {"user"}


def test_the_column_of_the_hubs_copy_is_known_too(config: GradeConfig, tmp_path: Path) -> None:
    path = tmp_path / "copy.csv"
    path.write_text(CSV.replace("goal", "prompt"))
    named = GradeConfig(paths={"advbench": path})
    both = [open_benchmark("advbench", one).items() for one in (config, named)]
    assert both[0] == both[1]


def test_a_limit_keeps_the_ids_of_the_rows(config: GradeConfig) -> None:
    limited = config.model_copy(update={"limit": 2})
    items = open_benchmark("advbench", limited).items()
    assert [item.item_id for item in items] == ["advbench-000", "advbench-001"]


def test_a_judge_makes_it_a_judged_benchmark(config: GradeConfig) -> None:
    assert isinstance(open_benchmark("advbench", config), Benchmark)
    judge = GradeConfig.model_validate({"judge": {"engine": "scripted"}})
    assert isinstance(open_benchmark("advbench", judge), JudgedBenchmark)


def test_a_copy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"harmful_behaviors.csv: no such file"):
        open_benchmark("advbench", GradeConfig(data=tmp_path)).items()
