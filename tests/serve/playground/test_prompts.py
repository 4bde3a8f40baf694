from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.serve.playground.prompts import Stretch, stretches
from response_tuning.templates import Chat, install


def talk(*words: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(role=roles[i % 2], content=text) for i, text in enumerate(words)]  # type: ignore[arg-type]


def test_answers_and_their_stop_token_have_loss(byte_tokenizer: Any) -> None:
    found = stretches(Chat(byte_tokenizer), talk("Hi.", "Yes?", "Why?"))
    assert found == (
        Stretch("<|user|>\nHi.\n<|assistant|>\n", supervised=False),
        Stretch("Yes?<|endoftext|>", supervised=True),
        Stretch("\n<|user|>\nWhy?\n<|assistant|>\n", supervised=False),
    )


@pytest.mark.parametrize("template", ["tulu", "roles", "urial", "xml", "zero-shot"])
def test_stretches_join_up_to_the_prompt(tokenizer: Any, template: str) -> None:
    install(tokenizer, template)
    chat = Chat(tokenizer)
    turns = talk("Say yes", "yes", "Say yes")
    found = stretches(chat, turns)
    assert "".join(part.text for part in found) == chat.prompt(turns)
    (loss,) = (part.text for part in found if part.supervised)
    assert loss.startswith("yes")


def test_words_of_a_question_that_an_answer_repeats_have_no_loss(byte_tokenizer: Any) -> None:
    found = stretches(Chat(byte_tokenizer), talk("tea", "tea", "tea"))
    assert [part.supervised for part in found] == [False, True, False]
    assert found[0].text.endswith("tea\n<|assistant|>\n")


def test_an_answer_that_the_template_leaves_out_has_no_loss(byte_tokenizer: Any) -> None:
    from copy import deepcopy

    deaf = deepcopy(byte_tokenizer)
    deaf.chat_template = "{% for m in messages if m.role == 'user' %}{{ m.content }}|{% endfor %}"
    found = stretches(Chat(deaf), talk("Hi.", "Yes?", "Why?"))
    assert found == (Stretch("Hi.|Why?|", supervised=False),)
