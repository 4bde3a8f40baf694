import json
import os
import shutil
from pathlib import Path

import pytest

from response_tuning.artifacts import read_json, write_json
from response_tuning.errors import ConfigError
from response_tuning.workflows.experiment import cells
from response_tuning.workflows.holders import held
from response_tuning.workflows.status import row_of, show_status
from tests.fixtures.experiments import Make, quiet


def test_a_cell_that_is_tuned_shows_its_steps_its_speed_and_its_holder(
    make: Make, run: Path
) -> None:
    experiment = make()
    cell = cells(experiment)[0]
    folder = cell.folder(run)
    for name in ("manifest.json", "completions.journal"):
        (folder / name).unlink()
    shutil.rmtree(folder / "grade")
    with held(folder):
        manifest, metrics = folder / "finetune/manifest.json", folder / "finetune/metrics.jsonl"
        write_json(manifest, read_json(manifest) | {"status": "running"})
        lines = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join([*lines, *lines[:4]]))
        os.utime(manifest, (1000, 1000))
        os.utime(metrics, (1002, 1002))
        name, state, progress, speed, holder = row_of(cell, experiment, run)
    tokens = [int(json.loads(line)["tokens"]) for line in lines[:4]]
    assert (name, state) == ("rt/seed-0", "tuning")
    assert progress == f"step 4/{len(lines)}"
    assert speed == f"{sum(tokens) / 2:,.0f} tokens/s"
    assert holder.endswith(f":{os.getpid()}")


def test_answers_are_counted(make: Make, run: Path) -> None:
    experiment = make()
    cell = cells(experiment)[2]
    (cell.folder(run) / "manifest.json").unlink()
    shutil.rmtree(cell.folder(run) / "grade")
    with held(cell.folder(run)):
        assert row_of(cell, experiment, run)[1:4] == ("answering", "79 answers", "")


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run has begun here \(no manifest.json\)"):
        show_status(tmp_path, quiet())
