"""A command that dies, or finds the disk full, at any file operation ends in the same bytes."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SAMPLED = {"full": 5, "lora": 4, "generate": 3, "run": 2}
"""How many operations of each command the exhaustive tests try; all of them with
``--every-crash``. The default run tries one."""
CLOCK = {"cost", "cells", "peak_memory_gib"}
"""Keys of manifests that hold seconds, or memory."""


class Ended(NamedTuple):
    code: int
    operations: int
    said: list[str]


class Commands:
    """Runs command lines in forks; see ``crashes.py``."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crashes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RANK": "0"},
        )

    def __call__(self, folder: Path, arguments: list[str], kind: str = "", at: int = 0) -> Ended:
        folder.mkdir(exist_ok=True)
        order = {"folder": str(folder), "arguments": arguments, "log": str(self._log)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order | {"kind": kind, "at": at}) + "\n")
        self._server.stdin.flush()
        found = json.loads(self._server.stdout.readline())
        said = self._log.read_text(errors="replace").splitlines()
        return Ended(found["code"], found["operations"], said)

    def close(self) -> None:
        self._server.communicate()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("the faults are for Linux")
    running = Commands(tmp_path_factory.mktemp("logs") / "log")
    yield running
    running.close()


@pytest.fixture(scope="module")
def arguments(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command lines; each writes to the folder that it is run in."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [
        {"instruction": f"What is {i}?", "response": f"It is {i}, of course. " * (1 + i % 3)}
        for i in range(20)
    ]
    answers, prompts = folder / "answers.jsonl", folder / "prompts.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts.write_text("".join(json.dumps({"prompt": f"Why {i}?"}) + "\n" for i in range(3)))
    # 3 steps an epoch, so that 4 end inside one; a checkpoint is one step before an epoch's end.
    steps = {"max_steps": 4, "save_steps": 2, "examples_per_step": 6, "window": 96}
    recipe = {
        "data": {"source": str(answers)},
        "finetune": {"base_model": str(tiny_base), "method": "full", **steps},
        "generate": {"max_new_tokens": 4},
        "benchmarks": ["miniature-refusal"],
        "grade": {"limit": 4},
        "variants": {"rt": {}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    tune = ["finetune", "--base-model", str(tiny_base), "--data", str(answers), "--out", "o"]
    tune += [f"--set=finetune.{key}={value}" for key, value in steps.items()]
    tune += ["--eval-fraction", "0.1"]
    return {
        "full": [*tune, "--method", "full"],
        "lora": [*tune, "--set", "finetune.lora_dropout=0.1", "--merge"],
        "generate": [
            *("generate", str(prompts), "--model", str(tiny_base), "--template", "tulu"),
            *("--max-new-tokens", "4", "--temperature", "1", "--out", "o.jsonl"),
        ],
        "run": ["run", str(folder / "recipe.yaml"), "--out", "o"],
    }


@pytest.fixture(scope="module")
def whole(
    commands: Commands, arguments: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, str], int]]:
    """What a command leaves that nothing happens to, and how many file operations it takes."""
    found: dict[str, tuple[dict[str, str], int]] = {}

    def of(name: str) -> tuple[dict[str, str], int]:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            ended = commands(folder, arguments[name])
            assert ended.code == 0, ended.said
            found[name] = contents(folder), ended.operations
        return found[name]

    return of


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file, folders included, without what the clock decides."""
    return {
        str(path.relative_to(folder)): "" if path.is_dir() else _digest(path)
        for path in folder.rglob("*")
    }


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "manifest.json":
        content = json.dumps(_without_clock(json.loads(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _without_clock(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_clock(inner) for key, inner in value.items() if key not in CLOCK}


class Points(NamedTuple):
    """Which file operations a test tries."""

    many: bool
    every: bool

    def of(self, command: str, operations: int, part: slice = slice(None)) -> list[int]:
        """One in the middle half; or ``part`` of: a sample and the last one, or all of them."""
        lots = random.Random(command)
        if not self.many:
            return [lots.randrange(operations // 4, 3 * operations // 4)]
        if self.every:
            return list(range(1, operations + 1))[part]
        sample = lots.sample(range(1, operations), SAMPLED[command] - 1)
        return [*sorted(sample), operations][part]


@pytest.fixture(params=["one", pytest.param("many", marks=pytest.mark.exhaustive)])
def points(request: pytest.FixtureRequest) -> Points:
    every = request.config.getoption("--every-crash")
    return Points(many=request.param == "many", every=bool(every))


def unlike(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_command_that_is_killed_at_any_file_operation_ends_in_the_same_bytes(
    commands: Commands,
    arguments: dict[str, list[str]],
    whole: Callable[[str], tuple[dict[str, str], int]],
    tmp_path: Path,
    points: Points,
    name: str,
) -> None:
    expected, operations = whole(name)
    wrong: dict[int, object] = {}
    for at in points.of(name, operations):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        killed = commands(tmp_path / "out", arguments[name], "SIGKILL", at)
        assert killed.code == -9, killed.said
        ended = commands(tmp_path / "out", arguments[name])
        if ended.code != 0 or (unequal := unlike(contents(tmp_path / "out"), expected)):
            wrong[at] = ended.said[-3:] if ended.code else unequal
    assert wrong == {}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_disk_that_is_full_at_any_file_operation_is_one_line_and_the_command_goes_on_later(
    commands: Commands,
    arguments: dict[str, list[str]],
    whole: Callable[[str], tuple[dict[str, str], int]],
    tmp_path: Path,
    points: Points,
    name: str,
) -> None:
    expected, operations = whole(name)
    wrong: dict[int, object] = {}
    for at in points.of(name, operations, slice(-1)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        full = commands(tmp_path / "out", arguments[name], "full", at)
        errors = [line for line in full.said if line.startswith(("rtune:", "Traceback"))]
        if full.code == 0 and not unlike(contents(tmp_path / "out"), expected):
            continue  # nothing was written after that
        if full.code != 2 or len(errors) != 1 or "No space left on device" not in errors[0]:
            wrong[at] = full.said[-5:]
            continue
        ended = commands(tmp_path / "out", arguments[name])
        if ended.code != 0 or (unequal := unlike(contents(tmp_path / "out"), expected)):
            wrong[at] = ended.said[-3:] if ended.code else unequal
    assert wrong == {}


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 0)])
def test_a_signal_at_any_file_operation_is_answered_in_a_line_and_changes_no_bytes(
    commands: Commands,
    arguments: dict[str, list[str]],
    whole: Callable[[str], tuple[dict[str, str], int]],
    tmp_path: Path,
    points: Points,
    signal: str,
    code: int,
) -> None:
    expected, operations = whole("full")
    wrong: dict[int, object] = {}
    # Ctrl-C is answered at once too: what follows takes a step.
    most = 3 if signal == "SIGINT" else 2
    for at in points.of("full", operations, slice(1, -1, 2)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        stopped = commands(tmp_path / "out", arguments["full"], signal, at)
        said = [line for line in stopped.said if line.startswith(("rtune:", "Traceback"))]
        told = [line for line in said if line.endswith("run the same command to continue")]
        if stopped.code != code or len(told) != (code != 0) or not 0 < len(said) <= most:
            wrong[at] = stopped.said[-5:]
            continue
        ended = commands(tmp_path / "out", arguments["full"])
        if ended.code != 0 or (unequal := unlike(contents(tmp_path / "out"), expected)):
            wrong[at] = ended.said[-3:] if ended.code else unequal
    assert wrong == {}
