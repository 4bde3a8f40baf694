import argparse
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOKENIZER = Path(__file__).parents[1] / "assets/tiny_tokenizer"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "prepare_million.py"))


def test_the_share_of_the_raw_speed_leaves_out_set_up_and_the_yardstick(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"response": f"It is {number}. " * (1 + number % 9)} for number in range(300)]
    (tmp_path / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = script["beside_raw"](tmp_path, str(TOKENIZER))
    assert found["of_raw"] == pytest.approx(found["raw"] / found["own"])
    assert all(value > 0 for value in found.values())
    assert (tmp_path / "beside" / "examples.jsonl").read_text().count("\n") == 300


def test_the_table_has_a_line_for_each_command(
    script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def ran(words: list[str], out: Path, kill_at: int | None = None) -> Any:
        calls.append((words[words.index("--processes") + 1], kill_at))
        return script["Took"](2.0, 1.0, 80.0, 160.0, "digest")

    def build(folder: Path, rows: int, arguments: argparse.Namespace) -> None:
        lines = [json.dumps({"instruction": "q", "response": f"r{n}"}) + "\n" for n in range(rows)]
        (folder / "input.jsonl").write_text("".join(lines))

    main = script["main"]
    main.__globals__.update(ran=ran, build=build)
    command = ["x", "--rows", "50", "--data", "-", "--processes", "3"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "digest" in line]
    assert calls == [("1", None), ("3", None), ("3", 0), ("3", None), ("3", None)]
    assert lines[0] == "| 1 process | 2 | 1.0 | 50 | 80 | 160 | digest |"
    assert len(lines) == 5


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_memory_that_processes_share_counts_once(script: dict[str, Any]) -> None:
    family, proportional = script["family"], script["proportional"]
    assert next(iter(family(os.getpid()))) == os.getpid()
    alone, held = proportional(os.getpid()), bytearray(b"1" * 2**26)
    with_memory = proportional(os.getpid())
    assert with_memory > alone + 60
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert child in family(os.getpid())
        together = sum(map(proportional, (os.getpid(), child)))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(held) == 2**26
    assert together < with_memory + 40, "not 64 MiB more: the child holds the same memory"
    assert proportional(2**22 + 1) == 0, "no such process"
