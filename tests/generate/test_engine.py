from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.generate.engine import check_settings


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("hf", {"model": "m", "base_url": "http://127.0.0.1/v1"}, "no use for base_url"),
        ("hf", {"model": "m", "table": "t.jsonl"}, "no use for table"),
        ("openai", {"model": "m", "tokens_per_batch": 5}, "no use for tokens_per_batch"),
        ("scripted", {"table": "t.jsonl", "concurrency": 2}, "no use for concurrency"),
        ("hf", {"model": ".", "revision": "v1"}, "is a folder, which has none"),
    ],
)
def test_a_setting_that_an_engine_has_no_use_for_is_refused(
    name: str, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_engine(name, EngineConfig.model_validate(settings))


def test_a_setting_at_its_default_is_no_setting() -> None:
    check_settings("hf", EngineConfig(model="m", concurrency=8, base_url=None))
    check_settings("an engine of the user's", EngineConfig(concurrency=9, table=Path("t.jsonl")))
