import runpy
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks/table.py"
TABLE = runpy.run_path(str(SCRIPT))
Row, write, markdown = TABLE["Row"], TABLE["write"], TABLE["markdown"]


def test_writing_replaces_what_is_measured_again_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.csv"
    write([Row("b", "w", "ours", "speed", 1.5), Row("a", "w", "ours", "speed", 2)], path)
    write([Row("b", "w", "ours", "speed", 12345.678)], path)
    assert path.read_text(encoding="utf-8").split("\n") == [
        "benchmark,workload,system,metric,value",
        "a,w,ours,speed,2",
        "b,w,ours,speed,12345.678",
        "",
    ]


def test_a_table_has_a_line_for_each_system_and_a_column_for_each_metric() -> None:
    rows = [
        Row("b", "w", "ours", "speed", 1234.5),
        Row("b", "w", "ours", "loss", 0.000123456),
        Row("b", "w", "theirs", "speed", 10.0),
    ]
    dated, _, *lines = markdown(rows).split("\n")
    assert dated.startswith("20")
    assert "cores" in dated
    assert lines == [
        "| benchmark | workload | system | speed | loss |",
        "| --- | --- | --- | --: | --: |",
        "| b | w | ours | 1,234 | 0.0001235 |",
        "| b | w | theirs | 10 |  |",
    ]


def test_the_command_prints_a_table_for_each_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "latest.csv"
    write([Row("start", "help", "ours", "seconds", 0.25), Row("a", "w", "ours", "speed", 2)], path)
    command = [sys.executable, str(SCRIPT), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[2:] == [
        "| benchmark | workload | system | speed |",
        "| --- | --- | --- | --: |",
        "| a | w | ours | 2 |",
        "",
        "| benchmark | workload | system | seconds |",
        "| --- | --- | --- | --: |",
        "| start | help | ours | 0.25 |",
        "",
    ]
