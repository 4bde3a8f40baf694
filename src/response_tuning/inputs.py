"""What a command reads: the files and folders that its settings name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from response_tuning.errors import ConfigError

_PATHS = frozenset(
    [
        *("source", "path", "base_model", "model", "template", "table", "tokenizer", "data"),
        *("paths", "reference", "difficulties", "against", "checked", "labels", "tokens"),
    ]
)
"""Settings that may name a file or a folder; ``main`` and ``train`` are no paths elsewhere."""


def inputs_of(*read: object) -> list[Path]:
    """Return the files and folders that paths, and settings that name some, stand for.

    The sub-folders of a folder of benchmark copies (``data``) are inputs, and not the folder
    itself: answers may be written beside them.
    """
    inputs: list[Path] = []
    for each in read:
        if isinstance(each, Path):
            inputs += [each] if each.exists() else []
        elif isinstance(each, BaseModel):
            inputs += _named({name: getattr(each, name) for name in type(each).model_fields})
        elif isinstance(each, Mapping):
            inputs += _named(each)
    return inputs


def _named(settings: Mapping[str, object]) -> list[Path]:
    inputs = []
    for name, value in settings.items():
        if isinstance(value, BaseModel) or (isinstance(value, Mapping) and name != "paths"):
            inputs += inputs_of(value)
        elif name in _PATHS:
            values = value.values() if isinstance(value, Mapping) else value
            several = values if isinstance(values, list | tuple) else [values]
            paths = [path for path in map(_existing, several) if path is not None]
            inputs += (
                [child for path in paths for child in _copies(path)] if name == "data" else paths
            )
    return inputs


def _existing(value: object) -> Path | None:
    if not isinstance(value, str | Path) or not str(value):
        return None
    path = Path(value)
    try:
        return path if path.exists() else None
    except (OSError, ValueError):  # too long for a path, or with a null byte in it
        return None


def _copies(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else [folder]


def check_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a folder for outputs that is, holds, or lies in one of ``inputs``.

    Raises:
        ConfigError: it does; the message names the input.
    """
    place = out.resolve()
    for path in inputs:
        read = path.resolve()
        if place == read or place in read.parents:
            raise ConfigError(f"{out}: {path} is read from it; choose another folder")
        if read in place.parents:
            raise ConfigError(
                f"{out}: lies in {path}, which is read, and would change it; choose another folder"
            )
