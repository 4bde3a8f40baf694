import json
import socket
from pathlib import Path

import pytest

from response_tuning.workflows.holders import Holder, held, holder_of
from tests.fixtures.processes import run_in_processes


def die_holding(folder: Path) -> None:
    import os

    with held(folder):
        os._exit(9)


def test_who_has_a_cell_is_known_while_he_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert holder_of(tmp_path) is None
    with held(tmp_path):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert str(holder).startswith(f"{socket.gethostname()}:")
        assert str(holder).endswith(" (job 7_1)")
        assert not holder.has_ended
    assert holder_of(tmp_path) is None
    assert [*tmp_path.iterdir()] == []


def test_a_killed_process_is_known_to_have_ended_on_its_machine_alone(tmp_path: Path) -> None:
    assert run_in_processes(die_holding, tmp_path) == [9]
    holder = holder_of(tmp_path)
    assert holder is not None
    assert holder.has_ended
    assert not holder._replace(host="elsewhere").has_ended


def test_the_steps_that_a_cell_had_before_do_not_count_for_its_holder(tmp_path: Path) -> None:
    metrics = tmp_path / "finetune" / "metrics.jsonl"
    metrics.parent.mkdir()
    lines = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 2.0}, {"step": 2, "loss": 1.0}]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    with held(tmp_path):
        holder = holder_of(tmp_path)
        assert isinstance(holder, Holder)
        assert holder.steps == 2
