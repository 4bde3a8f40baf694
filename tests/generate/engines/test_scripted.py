from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import Request, Sampling
from response_tuning.errors import ConfigError, DataError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.generate.engines.scripted import ScriptedEngine

Ask = Callable[..., Request]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.jsonl"
    path.write_text('{"prompt": "hi", "response": "hello # there"}\n')
    return path


def test_the_last_user_message_is_looked_up(table: Path, ask: Ask) -> None:
    engine = open_engine("scripted", EngineConfig(table=table))
    (given,) = engine.complete([ask("a", "before", "reply", "hi")], Sampling())
    assert (given.response, given.finish_reason) == ("hello # there", "stop")


def test_a_response_is_cut_at_a_stop_string(table: Path, ask: Ask) -> None:
    engine = open_engine("scripted", EngineConfig(table=table))
    (given,) = engine.complete([ask("a", "hi")], Sampling(stop=("there", "#")))
    assert given.response == "hello "


@pytest.mark.parametrize("words", [["Hi"], ["hi "], []])
def test_a_prompt_that_is_not_in_the_table_is_an_error_record(ask: Ask, words: list[str]) -> None:
    (given,) = ScriptedEngine({"hi": "hello"}).complete([ask("a", *words)], Sampling())
    assert given.response is None
    assert given.error == "the table has no response for this prompt"


def test_another_table_is_another_model_whatever_its_order() -> None:
    tables = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "1", "b": "3"}]
    one, same, other = (ScriptedEngine(table).model for table in tables)
    assert one == same != other


def test_a_line_that_is_no_pair_is_named(table: Path) -> None:
    with table.open("a") as out:
        out.write('{"prompt": "no response"}\n')
    with pytest.raises(DataError, match=r"table\.jsonl:2: not a ScriptedAnswer"):
        open_engine("scripted", EngineConfig(table=table))


def test_a_contradiction_in_the_table_is_named(table: Path) -> None:
    with table.open("a") as out:
        out.write('{"prompt": "hi", "response": "bye"}\n')
    with pytest.raises(DataError, match=r"table\.jsonl:2: an earlier line"):
        open_engine("scripted", EngineConfig(table=table))


@pytest.mark.parametrize("table", [None, Path("/nowhere.jsonl")])
def test_a_missing_table_is_an_error_with_the_next_step(table: Path | None) -> None:
    with pytest.raises(ConfigError, match="--table"):
        open_engine("scripted", EngineConfig(table=table))


def test_an_unknown_engine_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="known are hf, miniature, openai, openai-batch, scripted"
    ):
        open_engine("vllm", EngineConfig())
