"""What a model folder holds, looked at before anything is loaded of it."""

from collections.abc import Iterator
from pathlib import Path

from response_tuning.artifacts import read_json
from response_tuning.errors import ModelError

ADAPTER, CONFIG, GENERATION = "adapter_config.json", "config.json", "generation_config.json"
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
"""All that decides what a model says. Of a hub repository, nothing else is downloaded."""

_POINTER = b"version https://git-lfs"
_FOREIGN = ["*.bin", "*.pth", "*.pt", "*.ckpt", "*.gguf", "*.msgpack", "*.h5", "*.onnx"]
_FLOATS = {"F16", "BF16", "F32", "F64"}
"""How safetensors calls numbers that need no scales; all other kinds are refused as weights."""
_MASKS = (".attn.bias", ".attention.bias", ".masked_bias", "position_ids")
"""Buffers of older checkpoints, which transformers computes itself and leaves unread."""


def kind(folder: Path) -> str:
    """Return the name of the file that says what ``folder`` holds: an adapter or a whole model.

    Raises:
        ModelError: it is neither, or both.
    """
    has_adapter = (folder / ADAPTER).is_file()
    whole = has_weights(folder)
    if has_adapter and whole and (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: holds both an adapter ({ADAPTER_WEIGHTS}) and a whole model, so it is not "
            "clear which one is meant; move one of them to a folder of its own"
        )
    if has_adapter and not whole:
        return ADAPTER
    if (folder / CONFIG).is_file():
        return CONFIG
    if has_adapter:
        return ADAPTER
    raise ModelError(f"{folder}: no {CONFIG} or {ADAPTER}, so it is no model folder")


def check_folder(folder: Path) -> None:
    """Refuse a file in place of a folder, and a clone without its large files.

    Raises:
        ModelError: it is a file, or one of its files is a pointer of Git LFS.
    """
    if folder.is_file():
        raise ModelError(f"{folder}: a file; give the folder that holds the model")
    for file in files(folder):
        with file.open("rb") as content:
            if content.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"{folder}: cannot be loaded: {file.name} is a Git LFS pointer in place of the "
                    "file; run 'git lfs pull' there, or download the model again"
                )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not there, not all there, quantised, or an adapter's too.

    Raises:
        ModelError: they cannot be loaded as they are.
        DataError: a file beside them is no JSON.
    """
    check_folder(folder)
    if (folder / ADAPTER).is_file() and has_weights(folder):
        # transformers would load the base model that it names in place of these weights.
        raise ModelError(
            f"{folder}: holds a whole model and a stray {ADAPTER} without an adapter's weights; "
            f"delete {folder / ADAPTER} to use the whole model"
        )
    if (folder / GENERATION).is_file():
        read_json(folder / GENERATION)  # transformers passes over one that it cannot read
    if (folder / WEIGHTS).is_file():
        _check_stored([folder / WEIGHTS])
    elif (folder / INDEX).is_file():
        _check_stored([_there(folder, name) for name in _shards(folder / INDEX)])
    else:
        raise ModelError(f"{folder}: no {WEIGHTS}{_what_else(folder)}")


def has_weights(folder: Path) -> bool:
    """Say whether ``folder`` holds a whole model's weights, as far as their names say."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def has_tokenizer(folder: Path) -> bool:
    """Say whether ``folder`` holds a tokenizer of any kind."""
    return any(True for pattern in TOKENIZER for _ in folder.glob(pattern))


def check_adapter(folder: Path) -> None:
    """Refuse an adapter whose weights are not there, or quantised.

    Raises:
        ModelError: they cannot be loaded as they are.
    """
    check_folder(folder)
    _check_stored([_there(folder, ADAPTER_WEIGHTS)])


def files(folder: Path) -> list[Path]:
    """Return the files of ``folder`` that decide what its model says."""
    found = {file for pattern in FILES for file in folder.glob(pattern) if file.is_file()}
    return sorted(found)


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ModelError(f"{folder}: no {name}{_what_else(folder)}")
    return folder / name


def _shards(index: Path) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{index}: no weight_map with the files of the weights; save it again")
    return sorted(set(map(str, shards.values())))


def _what_else(folder: Path) -> str:
    """Say in which format the weights are there, if in any, and what to do."""
    found = [file.name for pattern in _FOREIGN for file in sorted(folder.glob(pattern))]
    if found:
        return (
            f", only {found[0]}, and other formats than safetensors are not loaded; convert its "
            "weights to safetensors"
        )
    return "; download the model again, or save it with save_pretrained"


def _check_stored(paths: list[Path]) -> None:
    from safetensors import SafetensorError

    for path in paths:
        try:
            for name, stored in _types(path):
                if stored not in _FLOATS and not _is_mask(name, stored):
                    raise ModelError(
                        f"{path.parent}: its weights are quantised ({name} is stored as {stored}), "
                        "and only unquantised weights are loaded; give the unquantised model"
                    )
        except (SafetensorError, OSError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"{path.parent}: cannot be loaded: {path.name}: {error}; it is cut short or "
                "damaged: download or save it again"
            ) from error


def _is_mask(name: str, stored: str) -> bool:
    return name.endswith(_MASKS) or (stored == "BOOL" and not name.endswith("weight"))


def _types(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the number format of each tensor; only the header is read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as content:
        for name in content.keys():  # noqa: SIM118 - not a mapping
            yield name, content.get_slice(name).get_dtype()
