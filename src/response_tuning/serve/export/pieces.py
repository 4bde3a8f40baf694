"""SentencePiece's ``tokenizer.model``, which GGUF needs and transformers 5 does not save.

Without it, the converter gives every piece the same score. llama.cpp then splits text into other
tokens than training did, and says nothing. So it is copied from the base, or rebuilt on request, or
the export is refused.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from response_tuning.errors import ModelError

TOKENIZER_MODEL = "tokenizer.model"
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def is_needed(folder: Path) -> bool:
    """Whether the tokenizer in ``folder`` is SentencePiece's, and its own file is missing."""
    return _is_sentencepiece(folder) and not (folder / TOKENIZER_MODEL).is_file()


def provide(folder: Path, bases: Iterable[Path], *, rebuild: bool) -> str:
    """Put ``tokenizer.model`` into ``folder`` if it needs one, and return where it came from.

    Args:
        folder: The model.
        bases: Folders that may have it: the model's own, and its base's.
        rebuild: Make it from tokenizer.json where no folder has it.

    Raises:
        ModelError: it is needed, and there is none.
    """
    if not is_needed(folder):
        return ""
    for base in bases:
        if (base / TOKENIZER_MODEL).is_file():
            shutil.copy(base / TOKENIZER_MODEL, folder)
            return "copied from the base"
    if not rebuild:
        raise ModelError(
            f"SentencePiece without {TOKENIZER_MODEL}: a GGUF file of this model would split text "
            f"into other tokens than training did; copy {TOKENIZER_MODEL} of the base into the "
            "base's folder, or give --rebuild-tokenizer to make it from tokenizer.json"
        )
    (folder / TOKENIZER_MODEL).write_bytes(rebuilt(folder))
    return "rebuilt from tokenizer.json"


def rebuilt(folder: Path) -> bytes:
    """Return a ``tokenizer.model`` that merges in the order of the merges in tokenizer.json.

    SentencePiece merges the pair whose union has the highest score. tokenizer.json lists pairs in
    the order in which they are merged. The two agree where every pair of pieces that make a third
    is listed, in the order of the unions' ids; the score is then minus the id.

    Raises:
        ModelError: it is no such list.
    """
    protocol = _protocol()
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    added = {token["content"]: bool(token["special"]) for token in spec["added_tokens"]}
    _check_order(spec, vocabulary, added)
    model = protocol.ModelProto()
    names = {place: piece for piece, place in vocabulary.items()}
    unknown = spec["model"].get("unk_token")
    for place in range(len(names)):
        kind = _kind(names[place], unknown, added)
        model.pieces.add(piece=names[place], score=-float(place), type=kind)
    model.trainer_spec.model_type = protocol.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = bool(spec["model"].get("byte_fallback"))
    model.trainer_spec.vocab_size = len(names)
    model.trainer_spec.unk_id = vocabulary.get(unknown, 0)
    model.normalizer_spec.add_dummy_prefix = "Prepend" in json.dumps(spec["normalizer"])
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return bytes(model.SerializeToString())


def _is_sentencepiece(folder: Path) -> bool:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return False
    spec = json.loads(path.read_text(encoding="utf-8"))
    if spec["model"]["type"] == "Unigram":
        return True
    # Byte-level tokenizers, such as Llama 3's, write a space as another character.
    parts = json.dumps([spec.get("normalizer"), spec.get("pre_tokenizer")], ensure_ascii=False)
    return bool(spec["model"]["type"] == "BPE" and (_SPACE in parts or "Metaspace" in parts))


def _check_order(
    spec: Mapping[str, Any], vocabulary: Mapping[str, int], added: Mapping[str, bool]
) -> None:
    if spec["model"]["type"] != "BPE":
        raise ModelError(
            f"{TOKENIZER_MODEL} cannot be rebuilt: tokenizer.json is a {spec['model']['type']} "
            "model, which has no merges; copy the file from the base"
        )
    pairs = [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair)
        for pair in spec["model"]["merges"]
    ]
    unions = [vocabulary["".join(pair)] for pair in pairs]
    missing = _unlisted(set(pairs), vocabulary, added)
    if unions != sorted(unions) or missing:
        why = (
            f"{missing[0]!r} + {missing[1]!r} is no merge" if missing else "merges are not in order"
        )
        raise ModelError(
            f"{TOKENIZER_MODEL} cannot be rebuilt from tokenizer.json, because {why}; copy the "
            "file from the base"
        )


def _unlisted(
    pairs: set[tuple[str, ...]], vocabulary: Mapping[str, int], added: Mapping[str, bool]
) -> tuple[str, str] | None:
    """Return two pieces whose union is a piece, and which are never merged."""
    for piece in vocabulary.keys() - added.keys():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary and (left, right) not in pairs:
                return left, right
    return None


def _protocol() -> Any:  # noqa: ANN401 - a generated module without types
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2


def _kind(piece: str, unknown: str | None, added: Mapping[str, bool]) -> int:
    """Return SentencePiece's type of a piece."""
    kinds = _protocol().ModelProto.SentencePiece
    if piece == unknown:
        return int(kinds.UNKNOWN)
    if piece in added:
        return int(kinds.CONTROL if added[piece] else kinds.USER_DEFINED)
    is_byte = len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")
    return int(kinds.BYTE if is_byte else kinds.NORMAL)
