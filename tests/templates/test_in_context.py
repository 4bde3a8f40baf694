import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.templates import Chat, identity, install
from response_tuning.templates.in_context import OURS, InContext, read_in_context

USER = Message(role="user", content="Why is the sky blue?")
ASSISTANT = Message(role="assistant", content="Light scatters.")
BLOCK = "# Query:\n```\nWhy is the sky blue?\n```\n\n"
OPENING = "# Answer:\n```\n"
PROMPT = """# Help

You answer {in} "full"  \\o/ {{ and {% so on.


# Query:
```
One and one?
```

# Answer:
```
Two: 🙂 {{ 1 + 1 }}
```

# Query:
```
The way home?
```

# Answer:
```
Left.
```
"""
PREAMBLE = PROMPT[: PROMPT.index("# Query:")]
FIRST = "# Query:\n```\nOne and one?\n```\n\n# Answer:\n```\nTwo: 🙂 {{ 1 + 1 }}\n```\n\n"
SECOND = "# Query:\n```\nThe way home?\n```\n\n# Answer:\n```\nLeft.\n```\n\n"
ANSWERS = "".join(block[block.index("# Answer:") :] for block in (FIRST, SECOND))


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT, encoding="utf-8")
    return file


def prompt(tokenizer: Any, template: str, *messages: Message) -> str:
    install(tokenizer, template)
    return Chat(tokenizer).prompt(messages or [USER])


def rendered(tokenizer: Any, settings: InContext) -> str:
    tokenizer.chat_template = settings.jinja()
    return Chat(tokenizer).prompt([USER])


def test_zero_shot_is_the_question_and_an_open_fence_with_its_newline(tokenizer: Any) -> None:
    assert prompt(tokenizer, "zero-shot") == f"<s>{BLOCK}{OPENING}"


def test_earlier_turns_are_blocks_in_front_of_the_last(tokenizer: Any) -> None:
    assert prompt(tokenizer, "zero-shot", USER, ASSISTANT, USER) == (
        f"<s>{BLOCK}# Answer:\n```\nLight scatters.\n```\n\n{BLOCK}{OPENING}"
    )


def test_urial_is_our_prompt_file_in_front_of_zero_shot(tokenizer: Any) -> None:
    ours = OURS.read_text(encoding="utf-8")
    assert prompt(tokenizer, "urial") == f"<s>{ours}\n{BLOCK}{OPENING}"
    assert ours.count("# Query:") == ours.count("# Answer:") == 3


def test_urial_r_is_urial_without_the_queries_of_its_demonstrations(tokenizer: Any) -> None:
    whole, answers = prompt(tokenizer, "urial"), prompt(tokenizer, "urial-r")
    assert answers.count("# Query:") == 1
    assert answers.count("# Answer:") == 4
    for block in whole.split("# Query:\n")[1:-1]:
        query, answer = block.split("# Answer:")
        assert query not in answers
        assert f"# Answer:{answer}" in answers
    assert answers.endswith(BLOCK + OPENING)


def test_our_preamble_says_nothing_of_how_instructions_look(tokenizer: Any) -> None:
    preamble = prompt(tokenizer, "urial-r").partition("# Answer:")[0].lower()
    for word in ("query", "queries", "instruction", "question", "user", "conversation", "```"):
        assert word not in preamble


def test_one_of_our_demonstrations_declines_in_a_kind_way() -> None:
    answers = OURS.read_text(encoding="utf-8").split("# Answer:")[1:]
    declining = [answer for answer in answers if "I will not help" in answer]
    assert len(declining) == 1
    assert "sorry" in declining[0]
    assert "I will help you to" in declining[0]


@pytest.mark.parametrize("template", ["urial", "urial-r", "zero-shot"])
def test_replies_end_at_the_fence_and_at_headers(tokenizer: Any, template: str) -> None:
    install(tokenizer, template)
    chat = Chat(tokenizer)
    assert chat.stop_strings == ("\n```", "```", "# Query:", "# Answer:")
    assert chat.decode(chat.closing) == "\n```"
    assert chat.opening == f"<s>{OPENING}"
    with pytest.raises(TemplateError, match="not one special token"):
        _ = chat.turn_end


def test_a_system_message_begins_the_query_after_it(tokenizer: Any) -> None:
    system = Message(role="system", content="Be brief.")
    assert prompt(tokenizer, "zero-shot", system, USER) == (
        "<s># Query:\n```\nBe brief.\n\nWhy is the sky blue?\n```\n\n# Answer:\n```\n"
    )


def test_the_saved_tokenizer_renders_the_same(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    here = prompt(tokenizer, "urial")
    tokenizer.save_pretrained(tmp_path)
    chat = Chat(AutoTokenizer.from_pretrained(tmp_path))
    assert chat.prompt([USER]) == here
    assert chat.stop_strings == Chat(tokenizer).stop_strings


def test_a_prompt_file_stands_in_the_prompt_word_for_word(
    tokenizer: Any, prompt_file: Path
) -> None:
    assert prompt(tokenizer, str(prompt_file)) == f"<s>{PROMPT}\n{BLOCK}{OPENING}"


@pytest.mark.parametrize(
    ("settings", "preface"),
    [
        ({}, PREAMBLE + FIRST + SECOND),
        ({"queries": False}, PREAMBLE + ANSWERS),
        ({"preamble": "Be kind."}, f"Be kind.\n\n{FIRST}{SECOND}"),
        ({"preamble": ""}, FIRST + SECOND),
        ({"k": 1}, PREAMBLE + FIRST),
        ({"k": 0}, PREAMBLE),
        ({"k": 0, "preamble": ""}, ""),
        ({"order": (2, 1)}, PREAMBLE + SECOND + FIRST),
        ({"order": (2, 1, 2), "k": 1}, PREAMBLE + SECOND),
    ],
)
def test_demonstrations_are_chosen_ordered_and_shown_as_told(
    tokenizer: Any, prompt_file: Path, settings: dict[str, Any], preface: str
) -> None:
    found = InContext(prompt_file=prompt_file, **settings)
    assert rendered(tokenizer, found) == f"{preface}{BLOCK}{OPENING}"


def test_settings_may_stand_in_a_file_beside_the_prompt(
    tokenizer: Any, prompt_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("prompt_file: prompt.txt\nqueries: false\nk: 1\n")
    expected = InContext(prompt_file=prompt_file, queries=False, k=1)
    assert read_in_context(file) == expected
    assert prompt(tokenizer, str(file)) == f"<s>{rendered(tokenizer, expected)}"
    file.write_text("k: 2\n")
    assert read_in_context(file) == InContext(k=2)


def test_other_settings_are_another_template(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("k: 3\n")
    same = identity(str(file))
    file.write_text("k: 2\n")
    assert same == identity("urial") != identity(str(file))


@pytest.mark.parametrize("settings", [{"k": 3}, {"order": (1, 3)}, {"order": (0,)}])
def test_a_demonstration_that_is_not_there_is_refused(
    prompt_file: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"prompt.txt has 2 demonstrations, numbered from 1"):
        InContext(prompt_file=prompt_file, **settings).preface()


def test_unusable_settings_are_one_line_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("demos: 3\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'demos': "):
        read_in_context(file)


def test_a_demonstration_without_an_answer_is_refused_where_answers_are_wanted(
    tmp_path: Path,
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Help.\n\n# Query:\n```\nWhat?\n```\n")
    with pytest.raises(TemplateError, match=r"prompt.txt: no line '# Answer:' after '# Query:"):
        InContext(prompt_file=file, queries=False).preface()


def test_a_prompt_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match=r"prompt.txt: not UTF-8"):
        InContext(prompt_file=file).preface()


def test_blocks_of_a_file_without_a_last_newline_are_still_apart(
    tokenizer: Any, tmp_path: Path
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT.rstrip("\n"), encoding="utf-8")
    assert prompt(tokenizer, str(file)) == f"<s>{PROMPT}\n{BLOCK}{OPENING}"


def test_the_template_holds_the_preface_as_one_constant(prompt_file: Path) -> None:
    jinja = InContext(prompt_file=prompt_file).jinja()
    constant = jinja[3 : jinja.index(" }}{%- set stop_strings")]
    assert json.loads(constant) == f"{PROMPT}\n"


def test_the_published_prompts_stand_in_the_prompt_word_for_word(
    tokenizer: Any, public_data: Path
) -> None:
    files = sorted((public_data / "urial").glob("*.txt"))
    assert len(files) == 8
    for file in files:
        text = file.read_text(encoding="utf-8")
        blank = "\n" * (2 - (len(text) - len(text.rstrip("\n"))))
        assert prompt(tokenizer, str(file)) == f"<s>{text}{blank}{BLOCK}{OPENING}"


def test_the_papers_prompt_has_three_demonstrations_and_its_r_none_of_their_queries(
    public_data: Path,
) -> None:
    file = public_data / "urial" / "inst_1k_v4.txt"
    whole = InContext(prompt_file=file).preface()
    answers = InContext(prompt_file=file, queries=False).preface()
    assert (whole.count("\n# Query:"), whole.count("\n# Answer:")) == (3, 3)
    assert (answers.count("\n# Query:"), answers.count("\n# Answer:")) == (0, 3)
    assert 'Users place their queries under "# Query:"' in answers
