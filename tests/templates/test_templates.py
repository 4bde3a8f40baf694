from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from response_tuning.artifacts import Message
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.templates import (
    Chat,
    TurnEnd,
    adds_bos,
    check,
    front,
    identity,
    install,
    names,
)

USER = Message(role="user", content="Why is the sky blue?")
ASSISTANT = Message(role="assistant", content="Light scatters.")
SYSTEM = Message(role="system", content="Be brief.")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZERS = ["gpt_neox_20b", "llama2", "llama3", "olmo1_dolma1_5", "olmo2_dolma2"]


def test_tulu_prints_what_the_paper_trains_on(tokenizer: Any) -> None:
    install(tokenizer, "tulu")
    rendered = tokenizer.apply_chat_template(
        [USER.model_dump(), ASSISTANT.model_dump()], tokenize=False
    )
    assert rendered == ("<s><|user|>\nWhy is the sky blue?\n<|assistant|>\nLight scatters.</s>\n")


def test_a_prompt_ends_where_the_assistant_starts_to_speak(chat: Chat) -> None:
    assert chat.prompt([USER]) == "<s><|user|>\nWhy is the sky blue?\n<|assistant|>\n"


def test_earlier_turns_stand_in_the_same_form(chat: Chat) -> None:
    assert chat.prompt([USER, ASSISTANT, USER]) == (
        "<s><|user|>\nWhy is the sky blue?\n<|assistant|>\nLight scatters.</s>\n"
        "<|user|>\nWhy is the sky blue?\n<|assistant|>\n"
    )


def test_the_opening_is_the_prompt_of_no_messages(chat: Chat) -> None:
    assert chat.opening == "<s><|assistant|>\n"
    nothing: Any = [[]]
    served: Any = chat.tokenizer.apply_chat_template(nothing, add_generation_prompt=True)
    assert served["input_ids"] == [chat.encode(chat.opening)]


def test_whitespace_of_the_users_text_is_kept(chat: Chat) -> None:
    text = " \n two  spaces\t\n"
    assert (
        chat.prompt([Message(role="user", content=text)]) == f"<s><|user|>\n{text}\n<|assistant|>\n"
    )


@pytest.mark.parametrize(("name", "user"), [("tulu", "<|user|>"), ("neutral-tags", "<|A|>")])
def test_a_system_message_is_folded_into_the_users_message_after_it(
    tokenizer: Any, name: str, user: str
) -> None:
    install(tokenizer, name)
    chat = Chat(tokenizer)
    without = chat.prompt([USER, ASSISTANT, USER])
    first = f"<s>{user}\n"
    folded = chat.prompt([SYSTEM, USER, ASSISTANT, USER])
    assert folded == without.replace(first, f"{first}Be brief.\n\n", 1)
    twice = chat.prompt([SYSTEM, SYSTEM, USER, ASSISTANT, USER])
    assert twice == without.replace(first, f"{first}Be brief.\n\nBe brief.\n\n", 1)
    # A later one belongs to what follows it, and not to a question that was answered without it.
    later = chat.prompt([USER, ASSISTANT, SYSTEM, USER])
    assert later == f"\n{user}\nBe brief.\n\n".join(without.rsplit(f"\n{user}\n", 1))


def test_tulu_system_is_tulu_with_a_turn_for_the_system(tokenizer: Any) -> None:
    install(tokenizer, "tulu")
    without = Chat(tokenizer).prompt([USER, ASSISTANT, USER])
    install(tokenizer, "tulu-system")
    chat = Chat(tokenizer)
    assert chat.prompt([USER, ASSISTANT, USER]) == without
    with_system = without.replace("<s>", "<s><|system|>\nBe brief.\n", 1)
    assert chat.prompt([SYSTEM, USER, ASSISTANT, USER]) == with_system
    assert chat.opening == "<s><|assistant|>\n"


def test_an_empty_system_message_changes_nothing(chat: Chat) -> None:
    empty = Message(role="system", content="")
    assert chat.prompt([empty, USER]) == chat.prompt([USER])


def test_a_system_message_without_a_users_message_is_refused_in_words(chat: Chat) -> None:
    for messages in ([SYSTEM], [USER, ASSISTANT, SYSTEM]):
        with pytest.raises(TemplateError, match=r"'tulu' .* there is none: add a user's message"):
            chat.prompt(messages)


def test_every_template_takes_a_system_message_and_prints_all_of_it(tokenizer: Any) -> None:
    for name in set(names()) - {"native"}:
        install(tokenizer, name)
        prompt = Chat(tokenizer).prompt([SYSTEM, USER])
        assert "Be brief." in prompt and "Why is the sky blue?" in prompt, name


def test_a_turn_ends_in_eos_and_the_newline_only_separates_turns(chat: Chat) -> None:
    assert chat.turn_end == TurnEnd(chat.tokenizer.eos_token_id, rest="\n")


def test_native_keeps_the_tokenizers_own_template(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    install(tokenizer, "native")
    chat = Chat(tokenizer)
    assert chat.opening == "<|im_start|>assistant\n"
    assert chat.turn_end.stop_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_native_renders_a_system_message_where_the_template_does(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    prompt = Chat(tokenizer).prompt([Message(role="system", content="Be brief."), USER])
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_native_needs_a_template(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="has no chat template; use --template tulu"):
        install(tokenizer, "native")


def test_native_takes_the_default_of_several_templates(tokenizer: Any) -> None:
    tokenizer.chat_template = {"tool_use": "{{ tools }}", "default": CHATML}
    install(tokenizer, "native")
    assert tokenizer.chat_template == CHATML
    assert Chat(tokenizer).opening == "<|im_start|>assistant\n"


def test_a_turn_that_does_not_end_in_one_special_token_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML  # <|im_end|> is plain text to this tokenizer
    with pytest.raises(TemplateError, match="not one special token"):
        _ = Chat(tokenizer).turn_end


def test_an_unknown_template_names_the_known_ones(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown template 'tul': did you mean 'tulu'"):
        install(tokenizer, "tul")
    assert names() == [
        *("capital-roles", "chatml-text", "instruction", "native", "neutral-tags", "plain"),
        *("roles", "tulu", "tulu-system", "urial", "urial-r", "xml", "zero-shot"),
    ]


def test_neutral_tags_stand_where_tulus_do(tokenizer: Any) -> None:
    install(tokenizer, "neutral-tags")
    chat = Chat(tokenizer)
    rendered = tokenizer.apply_chat_template(
        [USER.model_dump(), ASSISTANT.model_dump()], tokenize=False
    )
    assert rendered == "<s><|A|>\nWhy is the sky blue?\n<|B|>\nLight scatters.</s>\n"
    assert chat.opening == "<s><|B|>\n"
    assert chat.turn_end == TurnEnd(tokenizer.eos_token_id, rest="\n")
    assert chat.closing == [tokenizer.eos_token_id]
    assert chat.stop_strings == ()


def test_a_file_of_the_users_is_a_template_and_gets_a_bos_unless_it_places_one(
    tokenizer: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}\n")
    install(tokenizer, str(file))
    assert Chat(tokenizer).prompt([USER]) == "<s>[Why is the sky blue?]"
    file.write_text("{% for m in messages %}{{ bos_token }}({{ m.content }}){% endfor %}")
    install(tokenizer, str(file))
    assert Chat(tokenizer).prompt([USER]) == "<s>(Why is the sky blue?)"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", [".jinja", ".txt"])
def test_a_file_of_any_system_is_the_same_template(
    tmp_path: Path, encoding: str, line_end: str, suffix: str
) -> None:
    text = "{{ bos_token }}# Query:\n\u00e9\n# Answer:\n{% for m in messages %}{% endfor %}\n"
    plain, saved = tmp_path / f"plain{suffix}", tmp_path / f"saved{suffix}"
    plain.write_bytes(text.encode())
    mark = "" if encoding == "utf-8" else "\ufeff"  # a second one, where the encoding writes one
    saved.write_bytes((mark + text.replace("\n", line_end)).encode(encoding))
    assert identity(str(saved)) == identity(str(plain))


def test_a_file_in_another_encoding_or_without_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    for content in ("{{ messages }}".encode("utf-16-le"), "{{ 'é' }}".encode("latin-1")):
        file.write_bytes(content)
        with pytest.raises(TemplateError, match=r"mine.jinja: not UTF-8; save the file as UTF-8"):
            check(str(file))
    file.write_bytes("\ufeff\r\n".encode())
    with pytest.raises(TemplateError, match=r"mine.jinja: the template is empty"):
        check(str(file))


@pytest.mark.parametrize(
    "text",
    [
        "{# no bos_token here #}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{# ours #}\n{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "<s>{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_every_prompt_has_one_bos_however_the_file_writes_it(
    tokenizer: Any, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(text)
    install(tokenizer, str(file))
    chat = Chat(tokenizer)
    prompt = chat.encode(chat.prompt([USER]))
    assert prompt.count(tokenizer.bos_token_id) == 1
    assert chat.opening.strip() == "<s>"


@pytest.mark.parametrize("name", ["tulu", "neutral-tags", "urial", "mine.jinja"])
def test_marks_that_a_tokenizer_puts_in_front_of_a_text_are_in_front_of_every_prompt(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["[gMASK]", "<sop>"]})
    ids = tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>"])
    tokenizer.bos_token = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[gMASK] <sop> $A",
        special_tokens=list(zip(["[gMASK]", "<sop>"], ids, strict=True)),
    )
    assert front(tokenizer) == ids
    install(tokenizer, name)
    chat = Chat(tokenizer)
    for text in (chat.opening, chat.prompt([USER]), chat.prompt([USER, ASSISTANT, USER])):
        assert chat.encode(text)[:2] == ids
        assert text.count("[gMASK]<sop>") == 1
    again = str(tokenizer.chat_template)
    Path("mine.jinja").write_text(again)
    install(tokenizer, "mine.jinja")
    assert tokenizer.chat_template == again


def test_a_byte_order_mark_in_front_of_the_tokenizers_own_template_is_no_part_of_it(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = "\ufeff" + CHATML
    install(tokenizer, "native")
    assert tokenizer.chat_template == CHATML


def test_one_of_several_own_templates_is_chosen_by_name(tokenizer: Any) -> None:
    several = {"rag": CHATML + "R", "tool_use": CHATML + "T"}
    tokenizer.chat_template = dict(several)
    for name in ("native", "native:chat"):
        with pytest.raises(
            TemplateError, match=r"'rag', 'tool_use'.*choose one, such as --template native:rag"
        ):
            install(tokenizer, name)
    check("native:tool_use")
    install(tokenizer, "native:tool_use")
    assert tokenizer.chat_template == several["tool_use"]
    with pytest.raises(TemplateError, match="has a single chat template; use --template native"):
        install(tokenizer, "native:rag")
    tokenizer.chat_template = several | {"default": CHATML}
    install(tokenizer, "native")
    assert tokenizer.chat_template == CHATML


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            "{% for m in messages %}\n{{ m.content }",
            "the chat template fails in line 2: unexpected",
        ),
        ("{{ nothing_there + 'x' }}", "the chat template fails: 'nothing_there' is undefined"),
        ("{{ messages[0].content + 1 }}", "the chat template fails: can only concatenate str"),
        ("{{ raise_exception('not so') }}", "not so"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_line(
    tokenizer: Any, template: str, why: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=f"^{why}"):
        Chat(tokenizer).prompt([USER])


def test_a_template_that_leaves_out_what_the_assistant_says_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0].content }}{{ eos_token }}"
    with pytest.raises(TemplateError, match="does not print the assistant's messages"):
        _ = Chat(tokenizer).turn_end


def test_a_file_that_is_not_there_is_one_line(tokenizer: Any, tmp_path: Path) -> None:
    for name in ("mine.jinja", "mine.txt"):
        with pytest.raises(TemplateError, match=f"{name}: cannot be read: No such file"):
            install(tokenizer, str(tmp_path / name))


def test_the_identity_of_a_template_is_its_text(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jinja", tmp_path / "other.jinja"
    one.write_text("{{ messages }}")
    other.write_text("{{ messages }}")
    assert identity(str(one)) == identity(str(other))
    other.write_text("{{ messages }} ")
    assert identity(str(one)) != identity(str(other))
    assert identity("native") == "native"
    assert len({identity(name) for name in names()}) == len(names())


def test_checking_a_template_refuses_what_installing_would(tmp_path: Path) -> None:
    for name in names():
        check(name)
    with pytest.raises(ConfigError, match="unknown template 'uriel': did you mean 'urial'"):
        check("uriel")
    with pytest.raises(TemplateError, match="cannot be read"):
        check(str(tmp_path / "missing.jinja"))


@pytest.mark.parametrize(
    "jinja", ["{% set stop_strings = [1] %}", "{% set stop_strings = messages %}"]
)
def test_stop_strings_that_are_no_strings_are_refused(tokenizer: Any, jinja: str) -> None:
    tokenizer.chat_template = jinja + CHATML
    with pytest.raises(TemplateError, match="stop_strings"):
        _ = Chat(tokenizer).stop_strings


def test_what_ends_a_reply_is_the_stop_token_or_the_first_stop_string(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% set stop_strings = ['END', 'STOP'] %}" + CHATML
    chat = Chat(tokenizer)
    assert chat.stop_strings == ("END", "STOP")
    assert chat.decode(chat.closing) == "END"


def test_a_reply_that_quotes_a_special_token_holds_none(chat: Chat) -> None:
    ids = chat.encode_reply("a</s>b")
    assert chat.tokenizer.eos_token_id not in ids
    assert chat.decode(ids) == "a</s>b"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bos_is_in_the_template_when_and_only_when_the_tokenizer_adds_it(
    public_data: Path, name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(public_data / "tokenizers" / name)
    install(tokenizer, "tulu")
    assert adds_bos(tokenizer) == (name in {"llama2", "llama3"})
    assert str(tokenizer.chat_template).startswith("{{ bos_token }}") == adds_bos(tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_saved_tokenizer_serves_the_prefix_that_was_trained(
    public_data: Path, tmp_path: Path, name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(public_data / "tokenizers" / name)
    install(tokenizer, "tulu")
    chat = Chat(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("hello", " \n\n🙂 naïve  text ", "<|assistant|>\n", ""):
        messages = [Message(role="user", content=text), ASSISTANT, USER]
        ids = served.apply_chat_template(
            [m.model_dump() for m in messages], add_generation_prompt=True, return_dict=False
        )
        assert ids == chat.encode(chat.prompt(messages))
        bos = served.bos_token_id
        assert bos is None or (ids[0] == bos and ids[1] != bos)


BODY = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.mark.parametrize(
    "condition",
    [
        "messages[0].role == 'system'",
        "messages[0].role != 'system'",
        "messages|length > 1",
        "messages|length == 1",
        "messages|length > 4",
    ],
)
def test_a_bos_under_a_condition_is_refused(tokenizer: Any, tmp_path: Path, condition: str) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% if " + condition + " %}{{ bos_token }}{% endif %}" + BODY)
    with pytest.raises(TemplateError, match=r"prints '<s>' in front .* under no condition"):
        install(tokenizer, str(file))


@pytest.mark.parametrize("condition", ["messages[0].role == 'system'", "messages|length > 1"])
def test_a_second_bos_under_a_condition_is_refused(
    tokenizer: Any, tmp_path: Path, condition: str
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ bos_token }}{% if " + condition + " %}{{ bos_token }}{% endif %}" + BODY)
    with pytest.raises(TemplateError, match=r"'<s>' twice; take one out"):
        install(tokenizer, str(file))


@pytest.mark.parametrize("bos", ["", "{{ bos_token }}", "\n{{ bos_token }}\n"])
def test_a_bos_under_no_condition_stands_once_in_front_of_every_prompt(
    tokenizer: Any, tmp_path: Path, bos: str
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(bos + BODY)
    install(tokenizer, str(file))
    chat = Chat(tokenizer)
    for messages in ([USER], [SYSTEM, USER], [USER, ASSISTANT, USER]):
        assert chat.encode(chat.prompt(messages)).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("content", "probe"),
    [
        ("m.content", None),
        ("m.content | trim", None),
        ("m.content[:10]", "a user's message"),
        ("m.content[:1000]", "a user's message"),
        ("m.content | lower", "a user's message"),
        ("m.content | e", "a user's message"),
        ("m.content | tojson", "a user's message"),
        ("m.content if m.role != 'system'", "a system message"),
        ("m.content if loop.last", "a second question"),
    ],
)
def test_a_template_that_leaves_out_or_changes_a_message_is_reported_once(
    tokenizer: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: str,
    probe: str | None,
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(BODY.replace("m.content", content))
    for _ in range(2):
        install(tokenizer, str(file))
    assert [record.getMessage() for record in caplog.records] == (
        [f"template '{file}': in a conversation with {probe}, it leaves out or changes a message"]
        if probe
        else []
    )


LLAMA_2 = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{%- set question = (system if loop.first else '') + message['content'] | trim -%}
{{ bos_token + '[INST] ' + question + ' [/INST]' }}
{%- else -%}
{{ ' ' + message['content'] | trim + ' ' + eos_token }}
{%- endif -%}
{%- endfor -%}
"""


def test_llama_2s_own_template_is_a_native_one(public_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(public_data / "tokenizers" / "llama2")
    tokenizer.chat_template = LLAMA_2
    install(tokenizer, "native")
    chat = Chat(tokenizer)
    assert chat.opening == "<s>"
    assert chat.turn_end == TurnEnd(tokenizer.eos_token_id, rest="", gap=" ")
    assert chat.prompt([USER, ASSISTANT, USER]) == (
        "<s>[INST] Why is the sky blue? [/INST] Light scatters. </s>"
        "<s>[INST] Why is the sky blue? [/INST]"
    )


@pytest.mark.parametrize("gap", ["", " ", "\n", " \n\n", "\t"])
@pytest.mark.parametrize("rest", ["", "\n"])
def test_white_space_in_front_of_the_stop_token_is_a_gap(
    tokenizer: Any, gap: str, rest: str
) -> None:
    tokenizer.chat_template = CHATML.replace("<|im_end|>\n", gap + "<|im_end|>" + rest)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert Chat(tokenizer).turn_end == TurnEnd(stop, rest, gap)


def test_words_in_front_of_the_stop_token_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} over</s>{% endfor %}"
    with pytest.raises(TemplateError, match="' over</s>', which is not one special token"):
        _ = Chat(tokenizer).turn_end


def test_a_turn_that_ends_in_nothing_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(TemplateError, match="not one special token"):
        _ = Chat(tokenizer).turn_end
