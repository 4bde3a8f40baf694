"""What every test may use. Nothing here imports torch: a test of pure code starts in a second."""

import gc
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, which reads it then
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

from response_tuning import terminal
from response_tuning.artifacts import Audit, Dropped, Example, read_jsonl
from response_tuning.cli.main import main
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.terminal import quiet_libraries

pytest_plugins = [
    "fixtures.browser",
    "fixtures.chat_server",
    "fixtures.gguf_files",
    "fixtures.language_models",
]

# On a busy machine, commands print no more lines of progress than on an idle one.
terminal.PLAIN_EVERY_S = math.inf

Prepared = tuple[Audit, list[Example], list[Dropped]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files from what is found"
    )
    parser.addoption(
        "--every-crash",
        action="store_true",
        help="tests/test_crashes.py: fail at every file operation, not at a sample of them",
    )


def pytest_configure() -> None:
    """Have Ctrl-C act: a shell without job control starts background processes that ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exempt imported libraries from collection: accelerate collects garbage after each training.

    Looking at all objects of torch and transformers takes as long as training the tests' models.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(autouse=True, scope="session")
def _fast_disk() -> Iterator[None]:
    """Check the file in place of flushing it to the disk.

    Only a power cut would show the difference, and an experiment's test flushes hundreds of files.
    Processes that a test starts flush theirs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Keep the libraries quiet, but do not import them for a test that uses none."""
    if "transformers" in sys.modules:
        quiet_libraries()


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def rtune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """The command line, in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public files that some checks need and that nobody may commit."""
    root = os.environ.get("RESPONSE_TUNING_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("RESPONSE_TUNING_DATA does not name a folder of public data")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def tiny_lm(public_data: Path) -> Path:
    """A real pretrained model of 260,032 parameters."""
    return public_data / "tiny_lm_stories260k" / "hf"


@pytest.fixture
def prepare_source(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepare a source into ``out``; keywords are settings."""

    def run(source: Path | str, **settings: object) -> Prepared:
        out = tmp_path / "out"
        audit = prepare(DataConfig.model_validate({"source": str(source), **settings}), out)
        examples = list(read_jsonl(out / "examples.jsonl", Example))
        return audit, examples, list(read_jsonl(out / "dropped.jsonl", Dropped))

    return run


@pytest.fixture
def prepare_rows(
    tmp_path: Path, prepare_source: Callable[..., Prepared]
) -> Callable[..., Prepared]:
    """Prepare rows that are written to a JSONL file first."""

    def run(rows: list[Any], **settings: object) -> Prepared:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return prepare_source(path, **settings)

    return run
