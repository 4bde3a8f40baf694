import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [block.strip() for block in re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)]
VARIES = "\0"


@cache
def messages() -> tuple[str, ...]:
    """Every text in the source; what an f-string fills in is ``VARIES``."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else VARIES
                    for part in node.values
                )
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def holds(message: str, quoted: str) -> bool:
    """Whether a text of the source reads as quoted, where ``...`` stands for anything."""
    parts = [re.escape(part.strip()) for part in quoted.split("...")]
    return re.search(r".*".join(parts), message, flags=re.DOTALL) is not None


def test_the_page_quotes_many_messages() -> None:
    assert len(QUOTED) > 20
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("quoted", QUOTED)
def test_every_message_that_the_page_quotes_is_in_the_source(quoted: str) -> None:
    assert any(holds(message, quoted) for message in messages())


def test_a_message_that_changed_is_noticed() -> None:
    assert not any(holds(m, "...: no answer column among ...; name it") for m in messages())


def test_an_error_reads_as_the_page_quotes_it(rtune: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"question": "a", "remark": 1}\n')
    result = rtune("data", "inspect", tmp_path / "odd.jsonl")
    assert result.code == 2
    assert any(holds(result.err, quoted) for quoted in QUOTED)
