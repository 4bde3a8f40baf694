import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data import prepare

Result = tuple[Audit, list[Example], list[Dropped]]


@pytest.fixture
def prepare_source(tmp_path: Path) -> Callable[..., Result]:
    """Prepare a source into ``out``; keywords are settings."""

    def run(source: Path | str, **settings: object) -> Result:
        out = tmp_path / "out"
        audit = prepare(DataConfig.model_validate({"source": str(source), **settings}), out)
        examples = list(read_jsonl(out / "examples.jsonl", Example))
        return audit, examples, list(read_jsonl(out / "dropped.jsonl", Dropped))

    return run


@pytest.fixture
def prepare_rows(tmp_path: Path, prepare_source: Callable[..., Result]) -> Callable[..., Result]:
    """Prepare rows that are written to a JSONL file first."""

    def run(rows: list[Any], **settings: object) -> Result:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return prepare_source(path, **settings)

    return run


@pytest.fixture
def public_data() -> Path:
    folder = os.environ.get("RESPONSE_TUNING_DATA")
    if not folder:
        pytest.skip("RESPONSE_TUNING_DATA does not name a folder of public data files")
    return Path(folder)
