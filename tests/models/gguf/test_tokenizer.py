import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.models import loading
from response_tuning.models.location import locate
from response_tuning.templates import adds_bos
from tests.fixtures.gguf_files import CONTROL, write_gguf
from tests.fixtures.language_models import SENTENCES

pytestmark = pytest.mark.usefixtures("gguf_cache")
TEXTS = [
    *SENTENCES,
    "  two  spaces   three\n\n\nlines\t\ttabs ",
    " leading, and naïve café 😀 日本語",
    "In 1984, 12,345 people; 3.14 of ½",
    "It's I'LL don't",
    "\n",
]


def tokenizer_of(path: Path, folder: Path, **settings: Any) -> Any:
    named = {f"tokenizer.ggml.{key}": value for key, value in settings.items()}
    return loading.load_tokenizer(locate(str(write_gguf(path, folder, settings=named))))


def sentencepiece_model(folder: Path, *, space_in_front: bool) -> Any:
    """Train a tiny SentencePiece BPE model, as Llama 2's, whose vocabulary has 416 pieces."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_prefix=str(folder / "spm"),
        model_type="bpe",
        vocab_size=370,
        byte_fallback=True,
        character_coverage=1.0,
        add_dummy_prefix=space_in_front,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return SentencePieceProcessor(model_file=str(folder / "spm.model"))


@pytest.mark.parametrize("space_in_front", [True, False])
def test_ids_are_those_of_sentencepiece(
    space_in_front: bool, save_model: Any, tmp_path: Path
) -> None:
    from sentencepiece import sentencepiece_model_pb2 as formats

    reference = sentencepiece_model(tmp_path, space_in_front=space_in_front)
    proto: Any = formats.ModelProto  # type: ignore[attr-defined]
    pieces = proto.FromString(reference.serialized_model_proto())
    llama = resized(save_model("llama"), tmp_path / "model", len(pieces.pieces))
    tokenizer = tokenizer_of(
        tmp_path / "spm.gguf",
        llama,
        model="llama",
        pre="default",
        tokens=[piece.piece for piece in pieces.pieces],
        scores=[piece.score for piece in pieces.pieces],
        token_type=[piece.type for piece in pieces.pieces],
        merges=None,
        eos_token_id=2,
        add_space_prefix=space_in_front,
    )
    for text in TEXTS:
        if space_in_front and text.startswith(" "):
            continue  # transformers adds no second space, as for Llama 2 itself
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == reference.encode(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.convert_ids_to_tokens(tokenizer("<s>a").input_ids)[-1] == "a"
    assert (tokenizer.eos_token, tokenizer.unk_token) == ("</s>", "<unk>")


def resized(model: Path, folder: Path, size: int) -> Path:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.resize_token_embeddings(size, mean_resizing=False)
    loaded.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    return folder


def test_digits_are_split_where_the_model_learned_them_alone(llama: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((llama / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    tokens[-1] = "12"
    given: dict[str, Any] = {"tokens": tokens, "merges": ["1 2"]}
    together = tokenizer_of(tmp_path / "a.gguf", llama, **given)
    alone = tokenizer_of(tmp_path / "b.gguf", llama, pre="smollm", **given)
    assert together.tokenize("12 12") == ["12", "Ġ", "12"]
    assert alone.tokenize("12 12") == ["1", "2", "Ġ", "1", "2"]


def test_a_word_of_llama_3s_vocabulary_is_one_token_without_merges_that_reach_it(
    llama: Path, tmp_path: Path
) -> None:
    vocabulary = json.loads((llama / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    tokens[-2:] = ["ze", "Ġzebra"]
    given: dict[str, Any] = {"tokens": tokens, "merges": ["z e"]}
    merged = tokenizer_of(tmp_path / "a.gguf", llama, **given)
    whole = tokenizer_of(tmp_path / "b.gguf", llama, pre="llama-bpe", bos_token_id=0, **given)
    assert "Ġzebra" not in merged.tokenize("a zebra")
    assert whole.tokenize("a zebra") == ["a", "Ġzebra"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pre": "gpt-2"}, False),
        ({"pre": "gpt-2", "add_bos_token": True}, True),
        ({"pre": "llama-bpe"}, True),
        ({"pre": "llama-bpe", "add_bos_token": False}, False),
        ({"pre": "qwen2"}, False),
    ],
)
def test_bos_is_added_where_llama_cpp_adds_it(
    settings: dict[str, Any], expected: bool, llama: Path, tmp_path: Path
) -> None:
    found = tokenizer_of(tmp_path / "bos.gguf", llama, bos_token_id=0, **settings)
    assert adds_bos(found) is expected
    assert found("a", "b").input_ids.count(0) == 2 * expected


def test_a_control_token_is_read_whole(llama: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((llama / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    tokens[5] = "<|turn|>"
    types = [CONTROL if id_ in (0, 5) else 1 for id_ in range(len(tokens))]
    found = tokenizer_of(tmp_path / "turn.gguf", llama, tokens=tokens, token_type=types)
    assert found("a<|turn|>").input_ids[-1] == 5
    assert len(found) == len(tokens)


def test_its_chat_template_comes_along(llama: Path, tmp_path: Path) -> None:
    text = "{{ messages[0]['content'] }}<|endoftext|>"
    file = write_gguf(tmp_path / "chat.gguf", llama, settings={"tokenizer.chat_template": text})
    assert loading.load_tokenizer(locate(str(file))).chat_template == text
