import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from response_tuning.cli.launchers import launcher, local, log_of, ray, slurm
from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.queue import meeting, queue, this_job
from response_tuning.cli.launchers.resources import Resources, read_resources
from response_tuning.errors import ConfigError

FOLDER = Path(slurm.__file__).parent


def job(out: Path, cell: str, shell: str) -> Job:
    return Job(cell, ("sh", "-c", shell), log_of(out, cell))


@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_a_launcher_fits_on_a_screen(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("local", "gpus", "--resources gpus: write KEY=VALUE; example: gpus=8"),
        ("local", "gpu=1", "unknown resource 'gpu': did you mean 'gpus'?"),
        ("local", "gpus=many", "--resources"),
        ("local", "partition=a100", "partition: has no effect with --launcher local"),
        ("ray", "nodes=2", "nodes: has no effect with --launcher ray"),
        ("slurm", "gpus=1", "--launcher slurm needs a limit: --resources time=4:00:00"),
        ("slurm", "time=4h", "time=4h: write it as 4:00:00 or 2-00:00:00"),
    ],
)
def test_a_resource_that_nobody_can_give_is_one_line(name: str, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_resources(name, [text])
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_resources_are_what_submitit_calls_them() -> None:
    texts = ["partition=a100,gpus=8,time=1-02:00:30", "at-once=16"]
    assert read_resources("slurm", texts).of_submitit == {
        "timeout_min": 26 * 60 + 1,
        "nodes": 1,
        "tasks_per_node": 1,
        "gpus_per_node": 8,
        "slurm_array_parallelism": 16,
        "slurm_partition": "a100",
        "slurm_signal_delay_s": 90,
    }


def test_what_is_not_installed_names_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.cli.launchers.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[slurm\]'$"):
        launcher("slurm", (), (), tmp_path)
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[ray\]'$"):
        launcher("ray", (), (), tmp_path)


def test_an_unknown_launcher_and_slurm_without_its_commands_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unknown launcher 'slrum': did you mean 'slurm'"):
        launcher("slrum", (), (), tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("response_tuning.cli.launchers.find_spec", lambda _: object())
    with pytest.raises(ConfigError, match="no 'sbatch' here"):
        launcher("slurm", (), (), tmp_path)


TORCHRUN = ("torch.distributed.run",)


@pytest.mark.parametrize(
    ("name", "resources", "several"),
    [
        ("local", "cpus=1", ()),
        ("local", "processes=2", (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m")),
        (
            "slurm",
            "nodes=4,gpus=8,time=1:00:00",
            (*TORCHRUN, "--nnodes", "4", "--nproc-per-node", "8", "-m"),
        ),
    ],
)
def test_the_job_of_a_cell_is_the_shell_line_and_torchrun_is_in_front_of_several_processes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    resources: str,
    several: tuple[str, ...],
) -> None:
    started: list[tuple[str, ...]] = []

    def start(jobs: list[Job], _: Resources) -> list[str]:
        started.extend(one.line for one in jobs)
        return [one.cell for one in jobs]

    monkeypatch.setattr({"local": local, "slurm": slurm}[name], "launch", start)
    monkeypatch.setattr("shutil.which", lambda _: "sbatch")
    monkeypatch.setattr("response_tuning.cli.launchers.find_spec", lambda _: object())
    command = ("run", "recipe.yaml", "--out", "run")
    launch = launcher(name, command, [resources], tmp_path)
    assert list(launch(["rt/seed-0"])) == ["rt/seed-0"]
    front = (sys.executable, "-m", *several)
    assert started == [(*front, "response_tuning", *command, "--only", "rt/seed-0")]


def launched_by_submitit(jobs: list[Job], resources: Resources) -> list[str]:
    return list(slurm.launch(jobs, resources, cluster="local"))


def launched_here(jobs: list[Job], resources: Resources) -> list[str]:
    return list(local.launch(jobs, resources))


@pytest.mark.parametrize(
    "launch", [launched_here, pytest.param(launched_by_submitit, marks=pytest.mark.exhaustive)]
)
def test_every_job_runs_and_a_failed_one_keeps_its_last_lines(
    tmp_path: Path, launch: Callable[[list[Job], Resources], list[str]]
) -> None:
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    good = job(tmp_path, "a/seed-0", "echo done")
    bad = job(tmp_path, "b/seed-0", "echo 'rtune: broken' >&2; exit 2")
    killed = job(tmp_path, "c/seed-0", "echo begun; kill -KILL $$")
    ended = launch([good, bad, killed], Resources(at_once=2))
    assert sorted(ended) == ["a/seed-0", "b/seed-0", "c/seed-0"]
    printed = [one.log.read_text() for one in (good, bad, killed)]
    assert printed == ["done\n", "rtune: broken\n", "begun\n"]


def test_no_more_cells_run_at_once_than_are_allowed(tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    # mkdir fails if another job is at work.
    shell = f"mkdir {busy} && sleep 0.05 && rmdir {busy} && echo alone"
    jobs = [job(tmp_path, f"cell-{n}", shell) for n in range(3)]
    assert launched_here(jobs, Resources()) == ["cell-0", "cell-1", "cell-2"]
    assert [one.log.read_text() for one in jobs] == ["alone\n"] * 3


def test_jobs_of_this_machine_end_with_their_launcher(tmp_path: Path) -> None:
    quick, slow = job(tmp_path, "quick", "true"), job(tmp_path, "slow", "exec sleep 60")
    ended = local.launch([quick, slow], Resources(at_once=2))
    assert next(iter(ended)) == "quick"
    ended.close()  # type: ignore[attr-defined]
    assert slow.process is not None
    assert slow.process.returncode == -signal.SIGTERM


def test_a_warned_job_saves_what_it_has_and_its_pickle_holds_no_process(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    one = job(tmp_path, "cell", "trap 'echo saved; exit 143' TERM; echo begun; sleep 60 & wait")
    process = one.start()
    while not (one.log.exists() and one.log.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)  # Slurm warns every process of a job
    again = slurm.Line(one).checkpoint()
    assert process.returncode == 143
    assert one.log.read_text() == "begun\nsaved\n"
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert one.__getstate__()["process"] is None


def test_a_warning_while_the_line_is_waited_for_ends_both(tmp_path: Path) -> None:
    # In a process of its own: what this is about is a deadlock.
    code = f"""
import signal, sys
from pathlib import Path
from response_tuning.cli.launchers.job import Job
one = Job("rt", ("sleep", "60"), Path({str(tmp_path / "log")!r}))
signal.signal(signal.SIGALRM, lambda number, frame: one.stop())
signal.setitimer(signal.ITIMER_REAL, 0.5)
sys.exit(one.run() + 20)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)
    assert ended.returncode == 20 - signal.SIGTERM


def test_a_preempted_job_is_requeued_and_a_cancelled_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_by_slurm() -> NoReturn:
        raise InterruptedError

    commands: list[list[str]] = []
    monkeypatch.setattr(slurm, "this_job", lambda: "7_1")
    monkeypatch.setattr(signal, "pause", ended_by_slurm)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: commands.append(words))
    before = signal.getsignal(signal.SIGTERM)
    told = job(tmp_path, "cell", f"kill -TERM {os.getpid()}; exit 143")
    try:
        monkeypatch.setattr(slurm, "is_running", lambda _: False)
        assert slurm.Line(told)() == 143
        assert commands == []
        monkeypatch.setattr(slurm, "is_running", lambda _: True)
        with pytest.raises(InterruptedError):  # no result: submitit would call it finished
            slurm.Line(told)()
        assert commands == [["scontrol", "requeue", "7_1"]]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_queue_is_what_squeue_prints_and_nothing_while_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    squeue.write_text("#!/bin/sh\necho '7_0 RUNNING'\necho '7_1 PENDING'\n")
    squeue.chmod(0o755)
    assert queue() == {"7_0": "RUNNING", "7_1": "PENDING"}
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert queue() is None
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert this_job() == "7_1"


def test_each_node_of_a_job_meets_the_others_and_has_a_log_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables are those that ``srun`` of Slurm 22.05 set on two nodes."""
    shell = "echo $PET_MASTER_ADDR $PET_MASTER_PORT $PET_NODE_RANK"
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1")
    monkeypatch.setenv("SLURM_JOB_ID", "12345")
    try:
        for node, log in enumerate(["seed-0.log", "seed-0.node-1.log"]):
            monkeypatch.setenv("SLURM_NODEID", str(node))
            assert slurm.Line(job(tmp_path, "rt/seed-0", shell))() == 0
            printed = (log_of(tmp_path, "rt/seed-0").parent / log).read_text()
            assert printed == f"10.0.0.1 20345 {node}\n"
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.setenv("SLURM_NNODES", "1")
    assert meeting() == {}


@pytest.mark.parametrize(
    ("alive", "wanted", "expected"),
    [
        (True, {"CPU": 2, "GPU": 0}, True),
        (True, {"CPU": 1, "GPU": 1}, False),
        (True, {"CPU": 1, "memory": 5e9}, False),
        (False, {"CPU": 1}, False),
    ],
)
def test_what_no_node_of_a_ray_cluster_has_is_known_before_cells_wait_for_it(
    alive: bool, wanted: dict[str, float], expected: bool
) -> None:
    node = {"Alive": alive, "Resources": {"CPU": 2.0, "memory": 4e9}}  # as ``ray.nodes`` lists it
    assert ray.has(node, wanted) is expected
