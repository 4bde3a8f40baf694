import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "decline.md").read_text(encoding="utf-8")
SESSIONS = re.findall(
    r"^\$ rtune (data mix .*)\n((?:[^$`].*\n)+)", PAGE.replace("\\\n", ""), flags=re.MULTILINE
)
ROWS = re.findall(r"^\| ([^|]+\?) \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("answers.jsonl", "refusals.jsonl"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "printed"), SESSIONS)
def test_mixing_prints_what_the_page_shows(
    command: str, printed: str, desk: Path, rtune: Callable[..., Any]
) -> None:
    result = rtune(*shlex.split(command))
    assert result.code == 0, result.err
    assert result.out == printed


@pytest.mark.exhaustive
def test_the_model_declines_as_the_page_shows(desk: Path, rtune: Callable[..., Any]) -> None:
    assert len(ROWS) == 5
    (desk / "wishes.jsonl").write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt, _, _ in ROWS)
    )
    shown = re.findall(r"^\$ rtune (.*)$", PAGE.replace("\\\n", ""), flags=re.MULTILINE)[:3]
    for command in shown:
        assert rtune(*shlex.split(command)).code == 0
    said = [json.loads(line)["response"] for line in (desk / "declined.jsonl").open()]
    assert said == [declining for _, _, declining in ROWS]
