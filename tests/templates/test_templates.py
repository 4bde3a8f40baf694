from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from response_tuning.artifacts import Message
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.templates import Chat, adds_bos, install, names

USER = Message(role="user", content="Why is the sky blue?")
ASSISTANT = Message(role="assistant", content="Light scatters.")
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


def test_a_system_message_is_refused_in_words(chat: Chat) -> None:
    with pytest.raises(TemplateError, match="'tulu' has no place for a system message"):
        chat.prompt([Message(role="system", content="Be brief."), USER])


def test_a_turn_ends_in_eos_and_the_newline_only_separates_turns(chat: Chat) -> None:
    assert chat.turn_end == (chat.tokenizer.eos_token_id, "\n")


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


def test_a_turn_that_does_not_end_in_one_special_token_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML  # <|im_end|> is plain text to this tokenizer
    with pytest.raises(TemplateError, match="not one special token"):
        _ = Chat(tokenizer).turn_end


def test_an_unknown_template_names_the_known_ones(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown template 'tul': did you mean 'tulu'"):
        install(tokenizer, "tul")
    assert names() == ["native", "tulu"]


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
