"""The contracts on disk: the records that stages pass on, and how files are written.

A file is whole or absent: it is written under another name, flushed to the disk and renamed. Only
a journal grows in place, by whole lines; see ``journals``. A write never replaces what the command
reads, nor anything but a regular file.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from response_tuning import plugins
from response_tuning.errors import ConfigError, DataError
from response_tuning.limits import MaxNewTokens, Temperature

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers")
PACKAGES = ("python", "response-tuning", *_LIBRARIES)
SCHEMA = 1
"""Version of the files that this package writes; files of later versions are refused."""

_READ: ContextVar[tuple[Path, ...]] = ContextVar("inputs", default=())
"""Resolved files and folders that the running command reads."""


class Record(BaseModel):
    """One line of a file: closed and immutable."""

    # Validators are built at their first use; at import, they would take a tenth of every start.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Example(Record):
    """One assistant turn to train on, with the turns before it."""

    row: int
    """0-based position of the source row in its file."""
    turn: int = 0
    """0-based number of this assistant turn within the row."""
    response: str
    instruction: str | None = None
    """The user's message that the response answers; None in response-only data."""
    earlier: tuple[Message, ...] = ()
    """Turns before the instruction, oldest first."""


class Dropped(Record):
    """A row, or one assistant turn of a row, that did not become an example."""

    row: int
    turn: int = 0
    reason: str
    where: str = ""
    """File and line, or record number, for a person to look up."""
    detail: str = ""
    """What the reason is about, such as the row that this one is a near-duplicate of."""


class Flagged(Record):
    """A finding about an example that was kept, changed or dropped, for a person to look at."""

    row: int
    turn: int = 0
    where: str = ""
    what: str
    detail: str = ""
    """The opening that was stripped, or the id of the prompt that the example contains."""


class Audit(Record):
    """How many rows and examples of a data source were kept, and why the others were dropped."""

    rows: int
    """Rows in the source."""
    rows_kept: int
    """Rows that gave at least one example."""
    examples: int
    dropped: dict[str, int]
    """Reason -> number of dropped rows or turns."""
    flagged: dict[str, int] = {}
    """Finding -> number of examples."""
    contaminated: dict[str, dict[str, int]] = {}
    """Name of the prompts -> how they match -> number of examples, removed ones included."""


class Sampling(Record):
    """How a completion is drawn: greedily, as in the paper, unless a temperature is given."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # these are settings of recipes

    max_new_tokens: MaxNewTokens = 2048
    temperature: Temperature = 0.0
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Nucleus sampling: draw from the smallest set of tokens with this probability."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampling."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings at which the completion is cut; they are not part of it."""


class Request(Record):
    """A prompt for a model."""

    item_id: str
    prompt: tuple[Message, ...]


class Question(Request):
    """A prompt whose reply has a form, which an engine enforces if it can."""

    form: dict[str, Any]
    """JSON schema of the reply. The key leaves it out: a reply in another form is still a reply."""


FinishReason: TypeAlias = Literal["stop", "length", "filtered", "other"]


class Completion(Record):
    """A model's answer, or why there is none: either ``response`` or ``error`` is set."""

    item_id: str
    prompt: tuple[Message, ...]
    response: str | None
    """Unchanged, with any thoughts that the model wrote into it: see ``thoughts``."""
    finish_reason: FinishReason | None
    """``stop``: the stop token or a stop string; ``length``: the token limit; ``filtered``: the
    server gave no answer, or a part of one, of which ``detail`` has the cause; ``other``: an end
    that has another name on the server, which is in ``detail``; None: an error."""
    error: str | None = None
    detail: str = ""
    """How the server deviated from the request, in a few words."""
    reasoning: str | None = None
    """Thoughts that the server sent beside the response; empty if it withheld them."""
    tokens: int | None = None
    """New tokens, the stop token included; None where the engine reports none."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, template included; None where the engine reports none."""
    confidence: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """Mean log-likelihood of the answer's tokens, in nats, if it was asked for."""
    expected_digit: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """Mean of the digits 0 to 9 under their probabilities, if a digit was asked for."""
    key: str
    """Digest of model, template, prompt and sampling; equal keys are asked once."""
    model: str
    template: str
    sampling: Sampling


class Score(Record):
    """One number about one completion, by one rule of a benchmark."""

    item_id: str
    metric: str
    value: float
    explanation: str = ""
    """Why, in a few words, where the number does not show it."""
    group: str = ""
    """The part of the benchmark that the item belongs to, such as a task family."""
    cluster: str = ""
    """What the item asks about, if several items ask about it; empty: the item alone."""
    weight: float = Field(default=1.0, gt=0)
    """A metric is the mean of its values under these weights. They make a mean of unlike parts
    (1 / size of the part), and a ratio of counts (value x weight over weight: F1 has weight 2 for a
    hit and 1 for a miss or a false alarm)."""


class Total(Record):
    """One number about all answers of a file that is not a mean, such as a fitted rate."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    """Distinct items."""
    note: str = ""
    """How it was computed, in a few words."""


R = TypeVar("R", bound=Record)


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a file that this package wrote.

    Raises:
        DataError: the file cannot be read, or a line is not a ``kind``; the message names file
            and line.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: not a regular file; a pipe or a device may never end")
    try:
        lines = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            yield read_record(line, kind, f"{path}:{number}")


def read_record(line: bytes, kind: type[R], where: str) -> R:
    """Return the record on one line.

    Raises:
        DataError: it is not a ``kind``; the message starts with ``where``.
    """
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{part}: " for part in first["loc"])
        raise DataError(f"{where}: not a {kind.__name__}: {key}{first['msg']}") from error


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write ``records`` atomically, one a line, and return their number."""
    count = 0
    with written_aside(path) as out:
        for record in records:
            out.write(record.model_dump_json() + "\n")
            count += 1
    return count


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write one indented JSON value atomically; an object gets a schema version."""
    stamped = {"schema": SCHEMA} | value if isinstance(value, dict) else value
    with written_aside(path) as out:
        json.dump(stamped, out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Return a JSON object that this package wrote and that has ``keys``, without its version.

    Raises:
        DataError: the file is missing, is no JSON object, lacks one of ``keys``, or is of a later
            version of this package.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    check_schema(path, value.pop("schema", SCHEMA))
    for key in keys:
        if key not in value:
            raise DataError(
                f"{path}: holds no '{key}': written by another command or version, or damaged; "
                "give the folder that holds it to the command that made it, or delete it"
            )
    return value


def check_schema(path: Path, version: object) -> None:
    """Refuse a file that a later version of this package wrote.

    Raises:
        DataError: this package does not know the schema ``version``.
    """
    if type(version) is not int or not 1 <= version <= SCHEMA:
        raise DataError(
            f"{path}: has schema version {version!r}, and this response-tuning reads up to "
            f"{SCHEMA}; upgrade it"
        )


@contextmanager
def keeping(inputs: Iterable[Path]) -> Iterator[None]:
    """Refuse every write to or into one of ``inputs`` inside the block."""
    before = _READ.set((*_READ.get(), *(path.resolve() for path in inputs)))
    try:
        yield
    finally:
        _READ.reset(before)


def writable(path: Path) -> Path:
    """Return the regular file that a write to ``path`` changes; symlinks are followed.

    Raises:
        ConfigError: the command reads that file, or it is not a regular file.
    """
    place = path.resolve()
    for read in _READ.get():
        if place == read or read in place.parents:
            raise ConfigError(
                f"{path}: would be written over {read}, which this command reads; "
                "choose another output"
            )
    if place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "not a regular file"
        raise ConfigError(f"{path}: is {kind}; choose the name of a new file")
    return place


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """Open ``path`` for writing; the file gets its name only when the block ends without an error.

    Raises:
        ConfigError: ``path`` must not be written; see ``writable``.
    """
    place = writable(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(place)
        sync_folder(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush a file that a library wrote to the disk, before it is renamed."""
    with path.open("rb+") as content:
        os.fsync(content.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk, so that a rename survives a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot flush a folder
        pass
    finally:
        os.close(descriptor)


def digest(*parts: str) -> str:
    """Return a 16-character digest of ``parts``; ("ab", "c") and ("a", "bc") differ."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def file_digest(path: Path, known: Mapping[Path, str] | None = None) -> str:
    """Return the SHA-256 of a file, or of a folder's file names and contents.

    Hidden files and folders, such as ``.git``, are left out. Files with a ``known`` SHA-256 are not
    read again.
    """
    if known and path in known:
        return known[path]
    if not path.is_dir():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    files = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    named = [
        f"{name.as_posix()}\0{file_digest(file, known)}"
        for name, file in files.items()
        if not any(part.startswith(".") for part in name.parts)
    ]
    return hashlib.sha256("\n".join(sorted(named)).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of Python, packages and loaded plug-ins: what can change a result."""
    versions = {name: _version(name) for name in PACKAGES}
    return versions | {f"plug-in {name}": what for name, what in plugins.versions().items()}


@cache  # it reads a file of the package, and a run asks for each of its cells
def _version(package: str) -> str:
    import platform
    from importlib import metadata

    if package == "python":
        return platform.python_version()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cut(text: str, stop: Sequence[str]) -> str | None:
    """Return ``text`` up to the first stop string, or None if it contains none."""
    positions = [position for position in map(text.find, stop) if position >= 0]
    return text[: min(positions)] if positions else None
