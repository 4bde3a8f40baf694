import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Example, Message, Request, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data import prepare, read_prompts
from response_tuning.errors import DataError

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
]


def read(tmp_path: Path, *rows: Any, column: str | None = None) -> list[Request]:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_prompts(path, column))


def prompt_of(tmp_path: Path, row: dict[str, Any], column: str | None = None) -> str:
    (request,) = read(tmp_path, row, column=column)
    (message,) = request.prompt
    assert message.role == "user"
    return message.content


@pytest.mark.parametrize("name", ["instruction", "prompt", "question", "query", "input"])
def test_a_prompt_is_found_under_its_usual_names(tmp_path: Path, name: str) -> None:
    assert prompt_of(tmp_path, {name: " Why?\n", "output": "So."}) == " Why?\n"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "Add.", "input": "1 2"}, "Add.\n\n1 2"),
        ({"instruction": "Who?", "context": "Ada."}, "Who?\n\nAda."),
        ({"instruction": "Who?", "input": "", "context": "Ada."}, "Who?\n\nAda."),
        ({"instruction": "Who?", "input": "Ada.", "context": "Bob."}, "Who?\n\nAda.\n\nBob."),
        ({"question": "Who?", "context": ["Ada.", "Bob."]}, "Who?"),
        ({"instruction": "", "input": "1 2"}, "1 2"),
        ({"prompt": None, "question": "Who?"}, "Who?"),
    ],
)
def test_what_an_instruction_is_about_stands_below_it(
    tmp_path: Path, row: dict[str, Any], prompt: str
) -> None:
    assert prompt_of(tmp_path, row) == prompt


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Add.", "input": "1 2"},
        {"instruction": "Add.", "context": "1 2"},
        {"question": "Who?", "input": "", "context": "Ada."},
        {"prompt": "Who?", "input": "Ada.", "context": "Bob."},
        {"input": "1 2"},
        {"instruction": "", "input": "1 2"},
        {"prompt": "", "question": "Who?"},
        {"system": "Be brief.", "prompt": "Who?", "history": [["Hi", "Hello."]]},
        {"system": "Be brief.", "messages": TALK[:4]},
    ],
)
def test_a_row_is_asked_as_it_is_trained(tmp_path: Path, row: dict[str, Any]) -> None:
    answered = {**row, "response": "So."}
    if "messages" in row:
        answered = {**row, "messages": [*row["messages"], TALK[4]]}
    path = tmp_path / "rows.jsonl"
    # What the first row lacks must make no difference.
    lines = [{key: value for key, value in answered.items() if key in ("response", "messages")}]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, answered]))
    prepare(DataConfig(source=str(path), keep_duplicates=True), tmp_path / "out")
    *_, example = read_jsonl(tmp_path / "out" / "examples.jsonl", Example)
    trained = (*example.earlier, Message(role="user", content=example.instruction or ""))
    (request,) = read(tmp_path, row)
    assert request.prompt == trained


def test_the_input_of_a_named_column_is_asked_with_it(tmp_path: Path) -> None:
    row = {"ticket": "Add.", "input": "1 2"}
    assert prompt_of(tmp_path, row, column="ticket") == "Add.\n\n1 2"


def test_turns_after_what_is_asked_do_not_matter(tmp_path: Path) -> None:
    (request,) = read(tmp_path, {"messages": [*TALK[:4], {"role": "tool", "content": "4"}]})
    assert request.prompt == tuple(Message.model_validate(message) for message in TALK[:4])


def test_a_column_can_be_named(tmp_path: Path) -> None:
    row = {"prompt": "no", "dialogue": "yes"}
    assert prompt_of(tmp_path, row, column="dialogue") == "yes"


@pytest.mark.parametrize("name", ["messages", "conversations", "prompt"])
def test_a_conversation_is_asked_up_to_its_last_user_message(tmp_path: Path, name: str) -> None:
    (request,) = read(tmp_path, {name: TALK})
    assert request.prompt == tuple(Message.model_validate(message) for message in TALK[:4])


def test_an_id_is_kept_and_else_it_is_the_number_of_the_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"id": "x", "prompt": "b"}, {"item_id": 7, "id": "y", "prompt": "c"}]
    rows += [{"id": None, "prompt": "d"}]
    assert [request.item_id for request in read(tmp_path, *rows)] == ["0", "x", "7", "3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Hi"}, "no column with a prompt among 'text'; name it with --column"),
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": " \n"}, "empty prompt"),
        ({"messages": [*TALK[:1], {"role": "user", "content": ""}]}, "empty prompt"),
        ({"messages": TALK[:1]}, "no user message"),
        ({"messages": []}, "no user message"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "role 'tool' is not supported"),
        ({"messages": [{"role": "tool", "content": "4"}, TALK[1]]}, "role 'tool' is not supported"),
        ({"prompt": "Hi", "history": [["a"]]}, "history is not a list of pairs"),
        ({"prompt": 4}, "prompt is a number, not text"),
        ({"prompt": "half \ud83d"}, "half a surrogate pair, which is not text"),
        ({"id": "first", "prompt": "again"}, "id 'first' is not unique; change it"),
        (["Hi"], "expected an object"),
    ],
)
def test_a_row_without_a_prompt_is_named_with_file_and_line(
    tmp_path: Path, row: Any, message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, {"id": "first", "prompt": "Hi"}, row)
    assert str(error.value).startswith(f"{tmp_path / 'prompts.jsonl'}:2: {message}")


def test_a_named_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"jsonl:1: no column ask among 'prompt'"):
        read(tmp_path, {"prompt": "Hi"}, column="ask")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", "it has no rows"),
        ("p.jsonl", '{"prompt": "Hi"}\n\n', "p.jsonl:2: blank line"),
        ("p.jsonl", None, "cannot be read: No such file"),
        ("p.txt", "Hi", "not a file of prompts; give one of .csv, .eml, .json, .jsonl"),
        ("", None, "not a file of prompts; give one of .csv, .eml, .json, .jsonl"),
    ],
)
def test_a_file_without_prompts_is_one_line(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        list(read_prompts(tmp_path / name))
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_table_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "prompts.CSV"
    path.write_text('id,prompt\na,"One, two"\n')
    (request,) = read_prompts(path)
    assert (request.item_id, request.prompt[0].content) == ("a", "One, two")
