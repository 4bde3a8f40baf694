import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.configs import DataConfig
from response_tuning.data.inspection.inspection import Inspection, inspect
from response_tuning.data.inspection.page import print_inspection, tables, write_page
from response_tuning.errors import DataError

Write = Callable[[list[Any]], DataConfig]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows to a JSONL file, and return the settings that name it."""

    def run(rows: list[Any]) -> DataConfig:
        path = tmp_path / "rows.jsonl"
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return DataConfig(source=str(path))

    return run


def test_every_turn_of_every_row_is_looked_at(write: Write) -> None:
    messages = [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"}]
    result = inspect(write([{"messages": [*messages, *messages[:1]]}, {"messages": messages[:1]}]))
    assert (result.rows, result.turns, result.with_instruction, result.repeats) == (2, 3, 1, 2)


def test_what_is_not_looked_at_is_counted_by_reason(write: Write) -> None:
    rows = [{"response": "Yes."}, {"response": " "}, "", {"response": 1}, {"response": "\ud800"}]
    result = inspect(write(rows))
    assert (result.rows, result.turns) == (5, 1)
    assert result.not_looked_at == {
        "empty response": 1,
        "blank line": 1,
        "response is a number, not text": 1,
        "half a surrogate pair, which is not text": 1,
    }


def test_of_a_named_dataset_the_part_is_looked_at_that_is_used(tmp_path: Path) -> None:
    path = tmp_path / "lima.jsonl"
    row = json.dumps({"conversations": ["Who?", "I.", "Why?", "So."]})
    path.write_text(f"{row}\n" * 1001, encoding="utf-8")
    result = inspect(DataConfig(source="lima", path=path))
    assert (result.rows, result.turns) == (1001, 1000)
    assert result.not_looked_at == {
        "after the first turn, which alone the paper uses": 1000,
        "beyond the first 1,000 rows, which the paper uses": 1,
    }


def test_settings_that_drop_or_draw_change_nothing(write: Write) -> None:
    config = write([{"response": "Yes."}] * 3)
    drawn = config.model_copy(update={"max_examples": 1, "keep_duplicates": True})
    assert inspect(drawn) == inspect(config)
    assert inspect(config).repeats == 2


def test_a_response_that_is_its_instruction_is_counted(write: Write) -> None:
    rows = [{"prompt": "Yes?", "response": "Yes?\n"}, {"prompt": "Yes?", "response": "Yes."}]
    assert inspect(write(rows)).same_as_instruction == 1


def test_the_source_is_named_with_its_columns_and_digest(write: Write) -> None:
    config = write([{"prompt": "Who?", "response": "I."}])
    source = inspect(config).source
    assert source["name"] == config.source
    assert source["columns"] == {"response": "response", "instruction": "prompt", "input": None}
    assert len(source["sha256"]) == 64


def test_tokens_are_there_only_with_something_that_counts_them(write: Write) -> None:
    config = write([{"response": "Yes, we do."}])
    assert [*inspect(config).lengths] == ["characters", "words"]
    with_tokens = inspect(config, lambda texts: [len(text.split()) + 1 for text in texts])
    assert with_tokens.lengths["tokens"].max == 4


def test_personal_data_are_told_by_place_and_never_by_value(write: Write) -> None:
    letter = "Here is a letter to max@firma.de about love:\n\nDear Max, write to max@firma.de"
    config = write([{"response": letter}, {"response": letter}, {"response": "Hi"}])
    result = inspect(config)
    assert result.personal_data == {"e-mail": 2}
    assert result.personal_data_places == {"e-mail": [f"{config.source}:{n}" for n in (1, 2)]}
    assert "firma" not in result.model_dump_json()


def test_an_inspection_survives_json(write: Write) -> None:
    written = inspect(write([{"response": "Yes."}, {"response": "Yes."}])).model_dump_json()
    assert Inspection.model_validate_json(written).model_dump_json() == written


def test_a_source_without_a_usable_row_is_an_error_that_says_why(write: Write) -> None:
    with pytest.raises(DataError, match=r"none of its 2 rows is usable \(empty response: 2\)"):
        inspect(write([{"response": ""}, {"response": None}]))
    with pytest.raises(DataError, match="it has no rows"):
        inspect(write([]))


PRIVATE = ["+49 30 901820", "+44 20 7183 8750", "(212) 684-4700", "030 901820", "max@firma.de"]
PRIVATE += ["ghp_" + "a1B2" * 9]


@pytest.mark.parametrize("private", PRIVATE)
@pytest.mark.parametrize(
    "form",
    [
        "{} is ours.",
        "Call {}",
        "Our new number: {}",
        "{}",
        "Here is the number {} of love:\n\nRoses.",
    ],
)
@pytest.mark.parametrize("tail", ["", " and more words than are shown of a response"])
def test_no_part_of_personal_data_is_shown(
    write: Write, private: str, form: str, tail: str, tmp_path: Path
) -> None:
    rows = [{"prompt": f"q{n}", "response": form.format(private) + tail} for n in range(3)]
    rows += [{"response": "Hello there, you."}] * 2
    result = inspect(write(rows))
    out = io.StringIO()
    print_inspection(result, Console(file=out, markup=False, width=200))
    write_page(result, tmp_path / "page.html")
    path = str(tmp_path)
    pages = [
        result.model_dump_json(exclude={"source"}),
        out.getvalue(),
        (tmp_path / "page.html").read_text(),
    ]
    pieces = [piece for piece in re.split(r"[ ()-]+", private) if len(piece) > 2]
    for page in pages:
        assert not any(piece in page.replace(path, "") for piece in pieces)
        assert "Hello there, you." in page


def test_a_role_that_is_an_address_is_not_shown(write: Write) -> None:
    messages = [{"from": "max@firma.de", "value": "Hi"}]
    result = inspect(write([{"messages": messages}, {"response": "", "messages": ["q", "r"]}]))
    assert result.not_looked_at == {"role [address] is not supported": 1}


def test_columns_that_are_not_used_are_named(write: Write) -> None:
    result = inspect(write([{"response": "Yes.", "tools": "[]", "id": "1"}]))
    assert result.columns_not_used == ("tools",)
    rows = next(table for table in tables(result) if table.title == "Rows")
    assert "Not used: 'tools'." in rows.note


def test_a_turn_that_is_not_to_be_learned_is_not_looked_at(write: Write) -> None:
    messages = [
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "assistant", "content": "b"},
    ]
    result = inspect(write([{"messages": messages}]))
    assert (result.turns, result.not_looked_at) == (1, {"marked as not to be learned (weight)": 1})
