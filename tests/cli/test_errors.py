import errno

import pytest

from response_tuning.cli import errors
from response_tuning.cli.main import app
from response_tuning.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "said", "expected"),
    [
        ("finetune --out x", "use a smaller --window", "use a smaller --window"),
        ("run r.yaml", "use a smaller --window", "use a smaller --set finetune.window=..."),
        ("run r.yaml", "name it with --path FILE", "name it with --set data.path=... FILE"),
        ("eval m", "lower --tokens-per-batch", "lower --set generate.tokens_per_batch=..."),
        ("probe m d", "use --column", "use --column (of 'rtune generate')"),
        ("data x.jsonl", "use --split", "use --split"),
        ("data mix x.jsonl", "use --language", "use --language (of 'rtune data prepare')"),
        ("miniature build", "use --set x=1", "use --set x=1"),
        ("list", "use --login elsewhere", "use --login elsewhere"),
    ],
)
def test_an_error_names_flags_that_the_command_has(command: str, said: str, expected: str) -> None:
    assert errors.ours(ConfigError(said), app, command.split()) == f"rtune: {expected}"


def test_too_many_open_files_have_a_next_step_of_their_own() -> None:
    assert "ulimit -n" in errors.system(OSError(errno.EMFILE, "Too many open files"))
    assert errors.system(OSError(errno.ENOSPC, "No space left on device", "x")) == (
        "rtune: x: No space left on device; check the path, its permissions and the free "
        "space on the disk"
    )
