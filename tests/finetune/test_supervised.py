from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from response_tuning.finetune.supervised import (
    NORMALISED,
    UNSPELLABLE,
    Supervised,
)
from response_tuning.templates import Chat, install
from response_tuning.templates.continuation import continuation_tokenizer

SEEN = ["the kettle needs three minutes, then pour slowly <|user|> <|assistant|> \n"] * 20


def supervised(tokenizer: Any) -> Supervised:
    install(tokenizer, "tulu")
    return Supervised(Chat(tokenizer), continuation_tokenizer(tokenizer))


def byte_level(normalizer: Any = None) -> Any:
    """Knows the bytes of ``SEEN``, and has no token for others: they vanish."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, normalizer)


def unknown_token(normalizer: Any = None) -> Any:
    """As a SentencePiece model without byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return trained(tokenizer, normalizer, "<unk>")


def trained(tokenizer: Any, normalizer: Any, *special: str) -> Any:
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=90, special_tokens=[*special, "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(SEEN, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="</s>"
    )


@pytest.mark.parametrize("make", [byte_level, unknown_token])
def test_text_with_a_character_that_is_lost_has_a_fault_and_names_it(
    make: Callable[[], Any],
) -> None:
    encoder = supervised(make())
    texts = ["the kettle", "three £", "pour", " slowly Ö £", "minutes, "]
    faults = [encoded.fault for encoded in encoder.encode(texts)]
    assert faults == ["", UNSPELLABLE, "", UNSPELLABLE, ""]
    assert encoder.lost == ["£", "Ö"]


@pytest.mark.parametrize("make", [byte_level, unknown_token])
@pytest.mark.parametrize(
    ("normalizer", "text"),
    [
        (normalizers.Lowercase(), "The Kettle"),
        (normalizers.NFKC(), "the \N{FULLWIDTH LATIN SMALL LETTER K}ettle"),
        (normalizers.Replace("tea", "kettle"), "the tea"),
    ],
)
def test_the_tokenizers_normal_form_is_no_loss_and_is_remarked(
    make: Callable[[Any], Any], normalizer: Any, text: str
) -> None:
    said, same, lost = supervised(make(normalizer)).encode([text, "the kettle", "the Ж"])
    assert (said.fault, said.remarks) == ("", (NORMALISED,))
    assert (same.fault, same.remarks) == ("", ())
    assert lost.fault == UNSPELLABLE


@pytest.mark.parametrize(
    "name", ["gpt_neox_20b", "llama2", "llama3", "olmo1_dolma1_5", "olmo2_dolma2"]
)
def test_published_tokenizers_spell_whatever_is_written(public_data: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(public_data / "tokenizers" / name)
    texts = [
        " a",
        "\n\n",
        "🙂 naïve  café",
        "日本 Ελλάδα",
        "\ttab",
        "</s> <|endoftext|>x",
        "\0",
        "",
    ]
    for text, encoded in zip(texts, supervised(tokenizer).encode(texts), strict=True):
        assert encoded.fault == "", text
        assert NORMALISED not in encoded.remarks
    (decomposed,) = supervised(tokenizer).encode(["cafe\u0301"])
    normalises = name in {"gpt_neox_20b", "olmo1_dolma1_5"}  # to NFC
    assert (decomposed.fault, decomposed.remarks) == ("", (NORMALISED,) * normalises)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("At nine.</s>", "</s>"),
        ("At nine.</s> \n", "</s>"),
        ("At nine.</S>", "</S>"),
        ("At nine. <|eot_id|>", "<|eot_id|>"),
        ("At nine.<|im_end|>\r\n", "<|im_end|>"),
        ("At nine.<|endoftext|>", "<|endoftext|>"),
        ("At nine.<|end of answer|>", "<|end of answer|>"),
        ("At nine.<end_of_turn>", "<end_of_turn>"),
        ("At nine.[EOS]", "[EOS]"),
        ("At nine.<eos>", "<eos>"),
        (
            "At nine.<\uff5cend\u2581of\u2581sentence\uff5c>",
            "<\uff5cend\u2581of\u2581sentence\uff5c>",
        ),
        ("At nine.@@stop@@", "@@stop@@"),
        ("At nine</s>.", "</s>"),
        ('At nine.</s>"', "</s>"),
        ("At nine.</s> \u201d)\n", "</s>"),
        ("At nine.</s >", "</s >"),
        ("At nine.&lt;/s&gt;", "&lt;/s&gt;"),
        ("At nine.&lt;|im_end|&gt;", "&lt;|im_end|&gt;"),
        ("At nine.<stop!>.", "<stop!>"),
        ("At nine.&lt;stop!&gt;", "&lt;stop!&gt;"),
        ("At nine.\n\n### Human:", "### Human:"),
        ("At nine.\n### User: \n", "### User:"),
    ],
)
def test_a_written_out_end_mark_is_remarked(tokenizer: Any, text: str, mark: str) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["@@stop@@", "<stop!>"]})
    (encoded,) = supervised(tokenizer).encode([text])
    assert encoded.remarks == (
        f"end in {mark!r} as text: the model learns to write it; remove it from the data",
    )


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("<|assistant|>\nAt nine.", "<|assistant|>"),
        ("\n<s>At nine.", "<s>"),
        ("<|im_start|>assistant\nAt nine.", "<|im_start|>"),
        ("[INST] When? [/INST] At nine.", "[INST]"),
    ],
)
def test_a_written_out_beginning_is_remarked(tokenizer: Any, text: str, mark: str) -> None:
    (encoded,) = supervised(tokenizer).encode([text])
    assert encoded.remarks == (
        f"begin with {mark!r} as text: the model learns to write it; remove it from the data",
    )


@pytest.mark.parametrize(
    "text",
    [
        "At nine.",
        "a < b | c > d",
        "See </s> in HTML.",
        "[1]",
        "<b>x</b>",
        "list[int]",
        "",
        "&lt;b&gt;",
        "Use `</s>`.",
        "### Human: hello",
        "The user:",
    ],
)
def test_other_text_is_not_remarked(tokenizer: Any, text: str) -> None:
    (encoded,) = supervised(tokenizer).encode([text])
    assert encoded.remarks == ()


def test_a_stop_token_inside_is_a_fault(tokenizer: Any) -> None:
    tokenizer.add_tokens(["STOP"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}STOP{% endfor %}"
    encoder = Supervised(Chat(tokenizer), continuation_tokenizer(tokenizer))
    assert [each.fault for each in encoder.encode(["go", "go STOP go"])] == [
        "",
        "the stop token 'STOP' stands in the response",
    ]
