from typing import Any

import pytest
from transformers import AutoTokenizer

from response_tuning.errors import TemplateError
from response_tuning.templates import Chat, front

SPECIAL = [
    *("[gMASK]", "<sop>", "<|im_start|>", "<|im_end|>", "<|q|>", "<|a|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|header|>", "<|end_header|>", "<|eot|>", "<extra_id_0>", "<extra_id_1>"),
]
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN_TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
)
BOS = "{{ bos_token }}"


@pytest.fixture(params=["puts BOS in front", "puts nothing in front"])
def tokenizer(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    if request.param == "puts nothing in front":
        from tokenizers.processors import ByteLevel

        tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    assert front(tokenizer) == ([] if "nothing" in request.param else [tokenizer.bos_token_id])
    return tokenizer


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        (TURNS + ASK, "<|im_start|>assistant\n"),
        (BOS + TURNS + ASK, "<s><|im_start|>assistant\n"),
        (BOS + "\n" + PLAIN_TURNS, "<s>\n<|assistant|>\n"),
        ("\n\n" + BOS + PLAIN_TURNS, "\n\n<s><|assistant|>\n"),
        ("<!-- ours -->" + BOS + PLAIN_TURNS, "<!-- ours --><s><|assistant|>\n"),
        ("[gMASK]<sop>" + PLAIN_TURNS, "[gMASK]<sop><|assistant|>\n"),
        ("[gMASK] <sop>\n" + TURNS + ASK, "[gMASK] <sop>\n<|im_start|>assistant\n"),
        (BOS + "[gMASK]" + TURNS + ASK, "<s>[gMASK]<|im_start|>assistant\n"),
        (  # as Llama 2 has it: each of the user's turns begins with BOS
            "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} "
            "[/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
            "<s>",
        ),
        (  # as Llama 3: BOS with the first message
            "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|header|>"
            "{{ m.role }}<|end_header|>\n\n{{ m.content }}<|eot|>{% endfor %}"
            "{% if add_generation_prompt %}<|header|>assistant<|end_header|>\n\n{% endif %}",
            "<s><|header|>assistant<|end_header|>\n\n",
        ),
        (  # as Gemma: turns must alternate, and there is no system message
            BOS + "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('alternate') }}{% endif %}<start_of_turn>{{ m.role }}\n"
            "{{ m.content }}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
            "<s><start_of_turn>model\n",
        ),
        # A system prompt that the template writes itself is a turn, with whatever tokens.
        (DEFAULT_SYSTEM + TURNS + ASK, "<|im_start|>assistant\n"),
        (BOS + DEFAULT_SYSTEM + TURNS + ASK, "<s><|im_start|>assistant\n"),
        (
            "<extra_id_0>System\nBe kind.\n{% for m in messages %}<extra_id_1>{{ m.role }}\n"
            "{{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}<extra_id_1>assistant\n{% endif %}",
            "<extra_id_1>assistant\n",
        ),
        ("Be kind.\n" + PLAIN_TURNS, "<|assistant|>\n"),
        (  # of a single turn, so its tag cannot be seen a second time
            "<|q|>{{ messages[0].content }}<|a|>{% if messages|length > 2 %}"
            "{{ raise_exception('one turn only') }}{% endif %}",
            "",
        ),
    ],
)
def test_the_opening_is_what_prompts_begin_with_and_the_generation_prompt(
    tokenizer: Any, template: str, opening: str
) -> None:
    tokenizer.chat_template = template
    assert Chat(tokenizer).opening == opening


def test_where_eos_is_bos_too_it_marks_a_beginning_at_the_beginning_alone(tokenizer: Any) -> None:
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.chat_template = "System: be kind.{{ eos_token }}\n" + PLAIN_TURNS
    assert Chat(tokenizer).opening == "<|assistant|>\n"
    tokenizer.chat_template = "\n{{ bos_token }}" + PLAIN_TURNS
    assert Chat(tokenizer).opening == "\n</s><|assistant|>\n"


def test_an_opening_that_depends_on_the_turns_before_it_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TURNS + (
        "{% if add_generation_prompt and messages|length > 1 %}Again: {% endif %}"
    )
    with pytest.raises(TemplateError, match=r"the first answer with .* and a later one with"):
        _ = Chat(tokenizer).opening


@pytest.mark.parametrize("name", ["llama2", "llama3"])
def test_published_tokenizers_keep_their_bos(public_data: Any, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(public_data / "tokenizers" / name)
    tokenizer.chat_template = "\n" + BOS + PLAIN_TURNS
    chat = Chat(tokenizer)
    assert tokenizer.bos_token_id in chat.encode(chat.opening)


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ("messages[0].role == 'system'", "a later one|after a system message"),
        ("messages|length > 2", "a later one"),
        ("messages|length > 3", "a later one"),
    ],
)
def test_an_opening_that_differs_in_any_kind_of_conversation_is_refused(
    tokenizer: Any, condition: str, where: str
) -> None:
    tokenizer.chat_template = (
        TURNS + "{% if add_generation_prompt %}{% if " + condition + " %}<|q|>{% else %}<|a|>"
        "{% endif %}{% endif %}"
    )
    with pytest.raises(TemplateError, match=rf"opens the first answer .*(?:{where}).*<\|q\|>"):
        _ = Chat(tokenizer).opening
