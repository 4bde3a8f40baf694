"""The header of a GGUF file, or of all parts of a split one: settings, and where its tensors lie.

``gguf.GGUFReader`` makes several NumPy arrays for every string of a vocabulary: 19 s for Gemma 3's
262,144 tokens, where this takes 1 s (2026-11-28, one core, busy). transformers' own reader refuses
the later parts of a split file. Neither checks that the tensors fit into the file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"GGUF"
_LFS = b"version https://git-lfs"
_VERSIONS = (2, 3)
"""Version 1 counted in 32 bits; no file in use has it. Both are little-endian here."""
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""How llama.cpp's ``gguf-split`` names the parts of a model, from 00001."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9
_FLOATS = {"F32", "F16", "BF16", "F64"}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    """In torch's order: the slowest dimension first."""
    type: int
    """A ``gguf.GGMLQuantizationType``."""
    file: Path
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def type_name(self) -> str:
        """The type's name, such as ``Q4_K``."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType(self.type).name

    @property
    def is_quantised(self) -> bool:
        """Whether it holds blocks with scales, not plain numbers."""
        return self.type_name not in _FLOATS

    def read(self) -> "NDArray[np.float32]":
        """Return its values, dequantised, shaped like ``shape``."""
        import numpy as np
        from gguf import GGMLQuantizationType, dequantize

        raw = np.memmap(self.file, np.uint8, "r", self.offset, (self.size,))
        kind = GGMLQuantizationType(self.type)
        rows = prod(self.shape[:-1])
        values: NDArray[np.float32] = dequantize(raw.reshape(rows, -1), kind)
        return values.reshape(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """What a GGUF file says about its model; of a split file, what all parts say together."""

    settings: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as ``llama``."""
        return str(self.settings.get("general.architecture", ""))


def parts(first: Path) -> list[Path]:
    """Return the files of a model: ``first`` alone, or all parts of a split file.

    Raises:
        ModelError: it is no GGUF file, is a later part, or lacks parts.
    """
    _check_magic(first)
    named = _PART.fullmatch(first.name)
    if named is None:
        return [first]
    count = int(named["count"])
    files = [
        first.with_name(f"{named['stem']}-{number:05}-of-{named['count']}.gguf")
        for number in range(1, count + 1)
    ]
    if int(named["number"]) != 1:
        raise ModelError(f"{first}: a later part of a split file; give the first: {files[0].name}")
    for file in files[1:]:
        if not file.is_file():
            raise ModelError(f"{first}: {file.name} is missing beside it; download all parts")
        _check_magic(file)
    return files


def read(files: list[Path]) -> Checkpoint:
    """Read the headers of a model's files.

    Raises:
        ModelError: one is damaged or cut short, or the files are no whole model.
        ConfigError: the package ``gguf`` is missing.
    """
    check_package()
    headers = [_Header(file).read() for file in files]
    settings = headers[0].settings
    count = settings.get("split.count") or 1
    if count != len(files):
        raise ModelError(
            f"{files[0]}: one of {count} parts; keep the names that end in "
            f"-00001-of-{count:05}.gguf, and give the first"
        )
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    wanted = settings.get("split.tensors.count") or len(tensors)
    if wanted != len(tensors):
        raise ModelError(
            f"{files[0]}: its parts hold {len(tensors)} of {wanted} tensors; download them again"
        )
    return Checkpoint(settings, tensors)


def check_package() -> None:
    """Refuse a GGUF file without the package that knows its quantised types.

    Raises:
        ConfigError: it is not installed; the message holds the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise ConfigError(
            "a GGUF model needs the package gguf: pip install 'response-tuning[gguf]'"
        )


def _check_magic(file: Path) -> None:
    with file.open("rb") as content:
        begins = content.read(len(_LFS))
    if begins == _LFS:
        raise ModelError(
            f"{file}: a Git LFS pointer, not the file; run 'git lfs pull' there, or download it "
            "again"
        )
    if not begins.startswith(MAGIC):
        raise ModelError(f"{file}: not a GGUF file: it does not begin with 'GGUF'")


class _Header:
    """Reads one file's header from front to back."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settings: dict[str, Any] = {}
        self.tensors: list[Tensor] = []

    def read(self) -> "_Header":
        size = self.file.stat().st_size
        with self.file.open("rb") as content, _mapped(content.fileno()) as self._bytes:
            self._at = len(MAGIC)
            try:
                self._read_all()
            except ModelError:
                raise
            except (struct.error, IndexError, KeyError, ValueError, OverflowError) as error:
                raise self._damaged(f"its header cannot be read ({error})") from error
        end = max((tensor.offset + tensor.size for tensor in self.tensors), default=0)
        if end > size:
            raise self._damaged(f"its tensors end at byte {end:,}, and it has {size:,} bytes")
        return self

    def _read_all(self) -> None:
        (version,) = self._unpack("I")
        if version not in _VERSIONS:
            raise ModelError(
                f"{self.file}: GGUF version {version} (or a big-endian file), and versions "
                f"{' and '.join(map(str, _VERSIONS))} are read; convert it again with llama.cpp"
            )
        tensors, settings = self._unpack("QQ")
        for _ in range(settings):
            key = self._string()
            self.settings[key] = self._value(*self._unpack("I"))
        places = [self._place() for _ in range(tensors)]
        alignment = self.settings.get("general.alignment", 32)
        start = -(-self._at // alignment) * alignment
        self.tensors = [self._tensor(start, *place) for place in places]

    def _place(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (dimensions,) = self._unpack("I")
        shape = self._unpack(f"{dimensions}Q")
        kind, offset = self._unpack("IQ")
        return name, tuple(reversed(shape)), kind, offset

    def _tensor(
        self, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
    ) -> Tensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            elements, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{self.file}: {name} has the type {kind}, which this version of the package gguf "
                "does not know; upgrade it: pip install -U gguf"
            ) from error
        size = prod(shape) // elements * size
        return Tensor(name, shape, kind, self.file, start + offset, size)

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - whatever the file holds
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack(_SCALARS[kind])[0]
        kind, count = self._unpack("IQ")
        if kind in _SCALARS:
            return list(self._unpack(f"{count}{_SCALARS[kind]}"))
        return [self._value(kind) for _ in range(count)]

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        begin, self._at = self._at, self._at + length
        if self._at > len(self._bytes):
            raise IndexError("a text goes on after its end")
        return self._bytes[begin : self._at].decode("utf-8")

    def _unpack(self, types: str) -> tuple[Any, ...]:
        layout = "<" + types
        values = struct.unpack_from(layout, self._bytes, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _damaged(self, why: str) -> ModelError:
        return ModelError(f"{self.file}: truncated or damaged: {why}; download it again")


def _mapped(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
