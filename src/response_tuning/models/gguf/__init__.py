"""GGUF files, which llama.cpp and its relatives use, as base models."""

from pathlib import Path
from typing import Any

from response_tuning.models.gguf.conversion import folder_of
from response_tuning.models.gguf.reading import MAGIC, check_package, parts, read

__all__ = ["check_package", "folder_of", "header", "is_gguf", "parts"]


def header(file: Path) -> dict[str, Any]:
    """Return what a GGUF file says about its model, such as ``general.architecture``.

    Raises:
        ModelError: the file is damaged, or lacks parts.
        ConfigError: the package ``gguf`` is missing.
    """
    return read(parts(file)).settings


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file: by its suffix, or as a blob of Ollama by its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as content:
        return content.read(len(MAGIC)) == MAGIC
