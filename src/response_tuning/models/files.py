"""What a model folder holds, read before anything is loaded from it."""

import os
from collections.abc import Iterator
from pathlib import Path

from response_tuning.artifacts import read_json
from response_tuning.errors import ModelError

CACHE = "RESPONSE_TUNING_CACHE"
"""Environment variable: the folder that ``cache_folder`` returns."""
ADAPTER_CONFIG, CONFIG, GENERATION_CONFIG = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
)
ADAPTER_WEIGHTS, WEIGHTS, INDEX = (
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
)
TOKENIZER = ["tokenizer*", "*.model", "vocab*", "merges.txt"]
WITHOUT_WEIGHTS = [
    *["*config.json", *TOKENIZER],
    *["special_tokens_map.json", "added_tokens.json", "chat_template*"],
]
FILES = [*WITHOUT_WEIGHTS, ADAPTER_WEIGHTS, "model*.safetensors*"]
"""The files that decide what a model generates; a hub repository's other files stay there."""

_POINTER = b"version https://git-lfs"
_FOREIGN = ["*.bin", "*.pth", "*.pt", "*.ckpt", "*.gguf", "*.msgpack", "*.h5", "*.onnx"]
_FLOATS = {"F16", "BF16", "F32", "F64"}
"""Safetensors' names of numbers that need no scales; weights of other types are refused."""
_MASKS = (".attn.bias", ".attention.bias", ".masked_bias", "position_ids")
"""Buffers of older checkpoints: transformers computes them itself and does not read them."""


def kind(folder: Path) -> str:
    """Return ``ADAPTER_CONFIG`` for the folder of an adapter, ``CONFIG`` for a whole model's.

    Raises:
        ModelError: it holds neither, or both.
    """
    # Some tools save the base's config.json beside an adapter, and a merge may leave
    # adapter_config.json beside a whole model. So the weights decide where they are present.
    has_adapter = (folder / ADAPTER_CONFIG).is_file()
    whole = has_weights(folder)
    if has_adapter and whole and (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: holds both an adapter ({ADAPTER_WEIGHTS}) and a whole model, so it is not "
            "clear which one to load; move one of them to another folder"
        )
    if has_adapter and not whole:
        return ADAPTER_CONFIG
    if (folder / CONFIG).is_file():
        return CONFIG
    if has_adapter:
        return ADAPTER_CONFIG
    ggufs = sorted(folder.glob("*.gguf"))
    hint = f"; to use {ggufs[0].name} in it, give that file" if ggufs else ""
    raise ModelError(
        f"{folder}: not a model folder: it has no {CONFIG} and no {ADAPTER_CONFIG}{hint}"
    )


def check_folder(folder: Path) -> None:
    """Refuse a file in place of a folder, and a git clone without its large files.

    Raises:
        ModelError: it is a file, or one of its files is a Git LFS pointer.
    """
    if folder.is_file():
        raise ModelError(f"{folder}: a file; give the folder that holds the model")
    # Every file that is read later: a tokenizer may be stored in LFS as well as the weights.
    for file in files(folder):
        with file.open("rb") as content:
            if content.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"{folder}: cannot be loaded: {file.name} is a Git LFS pointer, not the "
                    "file; run 'git lfs pull' there, or download the model again"
                )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are missing, incomplete, quantised, or beside a stray adapter.

    Only the headers of the weight files are read.

    Raises:
        ModelError: the weights cannot be loaded as they are.
        DataError: a file beside them is not JSON.
    """
    check_folder(folder)
    if (folder / ADAPTER_CONFIG).is_file() and has_weights(folder):
        # transformers would load the base that the adapter names, and ignore these weights.
        raise ModelError(
            f"{folder}: holds a whole model and a stray {ADAPTER_CONFIG} without an adapter's "
            f"weights; delete {folder / ADAPTER_CONFIG} to use the whole model"
        )
    if (folder / GENERATION_CONFIG).is_file():
        read_json(folder / GENERATION_CONFIG)  # transformers ignores one that it cannot read
    if (folder / WEIGHTS).is_file():
        _check_types([folder / WEIGHTS])
    elif (folder / INDEX).is_file():
        _check_types([_required(folder, name) for name in _shards(folder / INDEX)])
    else:
        raise ModelError(f"{folder}: no {WEIGHTS}{_other_format(folder)}")


def has_weights(folder: Path) -> bool:
    """Say whether ``folder`` holds a whole model's weights, judging by file names."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def has_tokenizer(folder: Path) -> bool:
    """Say whether ``folder`` holds a tokenizer of any kind."""
    return any(True for pattern in TOKENIZER for _ in folder.glob(pattern))


def check_adapter(folder: Path) -> None:
    """Refuse an adapter whose weights are missing or quantised.

    Raises:
        ModelError: they cannot be loaded as they are.
    """
    check_folder(folder)
    _check_types([_required(folder, ADAPTER_WEIGHTS)])


def files(folder: Path) -> list[Path]:
    """Return the files of ``folder`` that decide what its model generates, sorted."""
    matching = {file for pattern in FILES for file in folder.glob(pattern) if file.is_file()}
    return sorted(matching)


def _required(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ModelError(f"{folder}: no {name}{_other_format(folder)}")
    return folder / name


def _shards(index: Path) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(
            f"{index}: no weight_map that names the weight files; save the model again"
        )
    return sorted(set(map(str, shards.values())))


def _other_format(folder: Path) -> str:
    """Return the end of a message: which other format the folder has, if any, and what to do."""
    foreign = [file.name for pattern in _FOREIGN for file in sorted(folder.glob(pattern))]
    if foreign:
        return (
            f", only {foreign[0]}, and only safetensors are loaded; convert its weights to "
            "safetensors"
        )
    return "; download the model again, or save it with save_pretrained"


def _check_types(paths: list[Path]) -> None:
    from safetensors import SafetensorError

    # transformers would load 8-bit integers as if they were weights, without their scales.
    for path in paths:
        try:
            types = dict(_types(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"{path.parent}: cannot be loaded: {path.name}: {error}; it is truncated or "
                "damaged: download or save it again"
            ) from error
        for name, stored in types.items():
            if stored not in _FLOATS and not _is_mask(name, stored):
                raise ModelError(
                    f"{path.parent}: its weights are quantised ({name} is stored as {stored}), and "
                    "only unquantised weights are loaded; give the unquantised model"
                )


def _is_mask(name: str, stored: str) -> bool:
    """Whether a tensor is a causal mask or the like, whose type does not matter."""
    return name.endswith(_MASKS) or (stored == "BOOL" and not name.endswith("weight"))


def _types(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the number format of each tensor; only the header is read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as content:
        for name in content.keys():  # noqa: SIM118 - not a mapping
            yield name, content.get_slice(name).get_dtype()


def cache_folder() -> Path:
    """Return the user's folder for what is made once: converted models and their converter."""
    if own := os.environ.get(CACHE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "response-tuning"
