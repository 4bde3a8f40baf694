import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.workflows.experiment import cells
from response_tuning.workflows.followers import Followers
from tests.fixtures.experiments import Make, settings
from tests.fixtures.processes import run_command, run_in_processes


def test_launched_processes_share_one_cell_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = cells(make())
    Followers(every).call(tune=True)  # a process alone has nobody to call
    monkeypatch.setenv("WORLD_SIZE", "2")
    Followers(every[:1])
    with pytest.raises(ConfigError, match="2 launched processes share one cell, and there are 4"):
        Followers(every)


def test_two_processes_tune_a_cell_together_and_the_first_one_answers(
    miniature_base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps(settings(miniature_base)))
    words = ("run", str(recipe), "--out", str(run), "--only", "rt/seed-0")
    codes = run_in_processes(run_command, tmp_path / "printed", *words, count=2)
    printed = [Path(f"{tmp_path}/printed.{rank}").read_text() for rank in range(2)]
    assert codes == [0, 0], printed
    assert printed[0].count("\nreport: ") == 1
    assert printed[1] == ""
    for name in ("generate/miniature-unseen-validation.jsonl", "grade"):
        assert (run / "rt/seed-0" / name).exists()
    files = (out / "rt/seed-0/finetune/metrics.jsonl" for out in (run, uninterrupted))
    mine, theirs = (
        [json.loads(line)["loss"] for line in file.read_text().splitlines()] for file in files
    )
    assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.exhaustive
def test_a_launcher_puts_torchrun_in_front_of_a_cell_of_two_processes(
    miniature_base: Path, tmp_path: Path
) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    values = settings(miniature_base)
    values["finetune"] |= {"shard": "full"}
    recipe.write_text(json.dumps(values | {"seeds": [0]}))
    launcher = ("--launcher", "local", "--resources", "processes=2", "--only", "rt")
    done = subprocess.run(
        [sys.executable, "-m", "response_tuning", "run", recipe, "--out", run, *launcher],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[1/1] rt/seed-0: done\n" in done.stdout
    assert "sharded over 2 processes: " in (run / ".jobs/rt/seed-0.log").read_text()
