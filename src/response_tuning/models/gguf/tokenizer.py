"""The tokenizer inside a GGUF file, as a fast tokenizer that gives the ids of llama.cpp.

transformers 5.23 builds most of it. What it leaves out changes ids, so it is corrected here: the
rule that splits text for vocabularies such as SmolLM's, whole words of Llama 3 that no merges
reach, BOS where the file does not mention it, and SentencePiece without a space in front of a text.
The rules are those of llama.cpp (src/llama-vocab.cpp), with one exception: text after BOS gets no
space (docs/decisions/0019).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError
from response_tuning.models.gguf.reading import Checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_LLAMA_3 = frozenset(
    ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"]
)
_WHOLE_WORDS = _LLAMA_3 | {"tekken"}
"""Pre-tokenizers under which a word of the vocabulary is one token, whatever its merges, and BOS is
added by default."""
_LIKE_GPT_2 = frozenset(["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion"])
_SINGLE_DIGITS = frozenset(
    ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"]
)
"""As GPT-2 splits, after every digit has been split off."""
_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SENTENCEPIECE = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""llama.cpp's ids for a SentencePiece vocabulary that does not name them."""


def build(checkpoint: Checkpoint, name: str) -> "PreTrainedTokenizerFast":
    """Return the tokenizer of a GGUF model, with its chat template if it has one.

    Raises:
        ModelError: there is none, it is of an unknown kind, or an id would change.
    """
    from transformers import PreTrainedTokenizerFast

    found = _settings(checkpoint.settings)
    tokens = found.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ModelError(
            f"{name}: it has no tokenizer inside; give a GGUF file with one, or the model as a "
            "Hugging Face folder"
        )
    backend = _backend(checkpoint.architecture, found, name)
    special = {kind: _token(found, key, name) for kind, key in _SPECIAL.items()}
    _add_marks(backend, found, special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)  # type: ignore[no-untyped-call]
    tokenizer.chat_template = checkpoint.settings.get("tokenizer.chat_template")
    if len(tokenizer) != len(tokens):
        raise ModelError(
            f"{name}: its tokenizer cannot be rebuilt: it has {len(tokens):,} tokens, and "
            f"{len(tokenizer):,} come out; give the model as a Hugging Face folder"
        )
    return tokenizer


def end_ids(settings: Mapping[str, Any]) -> list[int]:
    """Return the ids that end an answer: EOS, and the end of a turn where that is another."""
    found = _settings(settings)
    ids = [found.get(key) for key in ("eos_token_id", "eot_token_id")]
    return list(dict.fromkeys(id_ for id_ in ids if id_ is not None))


def special_ids(settings: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the ids of BOS, EOS and padding, under transformers' names."""
    found = _settings(settings)
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id"}
    keys |= {"pad_token_id": "padding_token_id"}
    return {name: found.get(key) for name, key in keys.items()}


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "tokenizer.ggml."
    found = {
        key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)
    }
    return {**_SENTENCEPIECE, **found} if found.get("model") == "llama" else found


def _backend(architecture: str, found: Mapping[str, Any], name: str) -> "Tokenizer":
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    names = GGUF_TOKENIZER_MAPPING["tokenizer"].items()
    known = {to: found[key] for at, to in names if (key := at.removeprefix("ggml.")) in found}
    try:
        backend: Tokenizer = convert_gguf_tokenizer(architecture, known)[0]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{name}: its tokenizer cannot be rebuilt: {error}; give the model as a Hugging Face "
            "folder"
        ) from error
    if found["model"] == "gpt2":
        _split_like_llama_cpp(backend, found.get("pre"), name)
    is_spaced = isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace)
    if is_spaced and not found.get("add_space_prefix", True):
        _without_space_in_front(backend)
    return backend


def _split_like_llama_cpp(backend: "Tokenizer", rule: str | None, name: str) -> None:
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if rule in _WHOLE_WORDS:
        backend.model.ignore_merges = True
    if rule in _SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif rule not in GGUF_PRE_TOKENIZER_SPLITS and rule not in _LIKE_GPT_2:
        raise ModelError(
            f"{name}: its tokenizer splits text by the rule {rule!r}, which is not known here, so "
            "its tokens would be others; give the model as a Hugging Face folder"
        )


def _without_space_in_front(backend: "Tokenizer") -> None:
    from tokenizers import decoders, pre_tokenizers

    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )


def _token(found: Mapping[str, Any], key: str, name: str) -> str | None:
    id_, tokens = found.get(key), found["tokens"]
    if id_ is None:
        return None
    if not 0 <= id_ < len(tokens):
        raise ModelError(
            f"{name}: its tokenizer has {len(tokens):,} tokens, and {key} is {id_}; the file is "
            "damaged: download it again"
        )
    token: str = tokens[id_]
    return token


def _add_marks(
    backend: "Tokenizer", found: Mapping[str, Any], special: Mapping[str, str | None]
) -> None:
    """Put BOS in front of a text and EOS behind it, where the model expects them."""
    from tokenizers.processors import TemplateProcessing

    adds_bos = found["model"] == "llama" or found.get("pre") in _WHOLE_WORDS
    wanted = {
        "bos_token": found.get("add_bos_token", adds_bos),
        "eos_token": found.get("add_eos_token", False),
    }
    marks = {kind: special[kind] for kind, is_wanted in wanted.items() if is_wanted}
    bos, eos = marks.get("bos_token"), marks.get("eos_token")
    text = [*([bos] if bos else []), "$A", *([eos] if eos else [])]
    second = [part if part != "$A" else "$B" for part in text]
    backend.post_processor = TemplateProcessing(
        single=text,
        pair=[*text, *(f"{part}:1" for part in second)],
        special_tokens=[(mark, backend.token_to_id(mark)) for mark in marks.values() if mark],
    )
