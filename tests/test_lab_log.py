import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FROM = "2026-11-28T17:30:00+00:00"
"""Since then the log is only appended to: a prediction must stay what it was."""


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot read the history: {error}")
    return done.stdout


def test_the_lab_log_is_only_appended_to() -> None:
    log = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    commits = git(
        "log", "--first-parent", f"--since={FROM}", "--format=%H", "--", "docs/log.md"
    ).split()
    changed = [
        commit for commit in commits if not log.startswith(git("show", f"{commit}:docs/log.md"))
    ]
    assert changed == []
    if not commits:
        pytest.skip("no version of the log in the history that is there")
