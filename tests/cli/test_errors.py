import errno
from collections.abc import Callable
from typing import Any

import pytest

from response_tuning.cli import errors
from response_tuning.cli.main import app
from response_tuning.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "said", "expected"),
    [
        ("finetune --out x", "use a smaller --window", "use a smaller --window"),
        ("run r.yaml", "use a smaller --window", "use a smaller --set finetune.window=..."),
        ("run r.yaml", "name it with --path FILE", "name it with --set data.path=FILE"),
        ("eval m", "lower --tokens-per-batch", "lower --set generate.tokens_per_batch=..."),
        ("probe m d", "use --column", "use --column (of 'rtune generate')"),
        ("data x.jsonl", "use --split", "use --split"),
        ("data mix x.jsonl", "use --language", "use --language (of 'rtune data prepare')"),
        ("miniature build", "use --set x=1", "use --set x=1"),
        (
            "report r",
            "again (rtune run RECIPE --out FOLDER)",
            "again (rtune run RECIPE --out FOLDER)",
        ),
        ("run r.yaml", "grade.data (--data): no use", "grade.data: no use"),
        ("eval m", "grade.data (--data): no use", "grade.data (--data): no use"),
        (
            "run r.yaml",
            "it needs a judge, such as --judge openai --judge-model MODEL --judge-url http://x/v1",
            "it needs a judge, such as --set grade.judge.engine=openai --set "
            "grade.judge.settings.model=MODEL --set grade.judge.settings.base_url=http://x/v1",
        ),
        (
            "run r.yaml",
            "extend it with --continue-from x",
            "extend it with --continue-from (of 'rtune finetune') x",
        ),
        ("list", "use --login elsewhere", "use --login elsewhere"),
    ],
)
def test_an_error_names_flags_that_the_command_has(command: str, said: str, expected: str) -> None:
    assert errors.ours(ConfigError(said), app, command.split()) == f"rtune: {expected}"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--out", "no such option '--out'"),
        ("--imprt", "no such option '--imprt': did you mean '--i"),
    ],
)
def test_an_unknown_option_gets_no_far_fetched_suggestion(
    rtune: Callable[..., Any], flag: str, said: str
) -> None:
    ended = rtune("report", "run", flag, "x")
    assert ended.code == 2
    assert ended.err.startswith(f"rtune: report: {said}")
    assert "import" not in ended.err or flag == "--imprt"


def test_too_many_open_files_have_a_next_step_of_their_own() -> None:
    assert "ulimit -n" in errors.system(OSError(errno.EMFILE, "Too many open files"))
    assert errors.system(OSError(errno.ENOSPC, "No space left on device", "x")) == (
        "rtune: x: No space left on device; check the path, its permissions and the free "
        "space on the disk"
    )
