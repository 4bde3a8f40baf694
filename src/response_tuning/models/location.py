"""The one place that locates a model and gives it an identity.

A model is a folder, a GGUF file, the shipped ``miniature``, or a hub id at a commit. Every stage
locates models here, so a model has the same identity in every manifest, key and report.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from response_tuning import miniature
from response_tuning.artifacts import digest, file_digest, read_json
from response_tuning.errors import ModelError
from response_tuning.models import files, gguf
from response_tuning.readers import one_line
from response_tuning.redaction import redacted
from response_tuning.registry import suggestion

_FOLDER, _WHOLE_FOLDER, _GGUF = "local@", "sha256:", "gguf@"
"""How the identity of a folder begins now, and in earlier versions, and that of a GGUF file."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model or an adapter: the user's own, or the hub's cache."""

    name: str
    """The user's name of it; messages about the model begin with it."""
    path: Path
    commit: str = ""
    """Commit of a hub model; empty for a local folder."""
    gguf: str = ""
    """SHA-256 of the GGUF file that ``path`` was converted from; empty for any other model."""

    @property
    def identity(self) -> str:
        """``id@commit`` of a hub model, ``gguf@<SHA-256>``, or ``local@<digest>`` of a folder.

        The digest covers the files that decide what the model generates. A folder's path, README
        and manifest are no part of it: a copy is the same model.
        """
        if self.commit:
            return f"{self.name}@{self.commit}"
        if self.gguf:
            return _GGUF + self.gguf
        return _FOLDER + digest(*(f"{f.name} {sha256(f)}" for f in files.files(self.path)))

    @property
    def source(self) -> str:
        """What names the model to other tools: its hub id, or the path as the user gave it."""
        return miniature.resolved(self.name)

    def is_known_as(self, recorded: str) -> bool:
        """Whether an identity that a run recorded is this model's.

        Earlier versions recorded a digest of all files in the base's folder.
        """
        if not recorded.startswith(_WHOLE_FOLDER):
            return recorded == self.identity
        known = {file: sha256(file) for file in files.files(self.path)}
        return recorded == f"{_WHOLE_FOLDER}{file_digest(self.path, known)}"


def locate(model: str, revision: str = "main", *, weights: bool = True) -> ModelFolder:
    """Return the folder of a model; download what the hub's cache lacks, convert a GGUF file once.

    Without ``weights``, only the configuration and the tokenizer are downloaded.

    Raises:
        ModelError: it is no folder, and neither the hub nor its cache has it, or it is a GGUF file
            that cannot be converted.
        ConfigError: it is a GGUF file, and the package ``gguf`` is missing.
    """
    check_name(model)
    folder = Path(miniature.resolved(model))
    if folder.is_dir():
        return ModelFolder(model, folder)
    if gguf.is_gguf(folder):
        parts = gguf.parts(folder)
        sha = _sha256_of_parts(parts)
        return ModelFolder(model, gguf.folder_of(tuple(parts), sha, model), gguf=sha)
    path = _snapshot(model, revision, files.FILES if weights else files.WITHOUT_WEIGHTS)
    return ModelFolder(model, path, commit=path.name)


def is_here(model: str, revision: str = "main") -> bool:
    """Say whether a model's weights are on this machine; asks no network."""
    from huggingface_hub import snapshot_download

    if Path(miniature.resolved(model)).exists():
        return True
    try:
        cached = Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return False
    return files.has_weights(cached) or (cached / files.ADAPTER_CONFIG).exists()


def is_shipped(model: str) -> bool:
    """Whether ``model`` is the name of the base model that this package ships."""
    return model == miniature.MINIATURE


def check_name(model: str) -> None:
    """Refuse a name that is neither a folder, a GGUF file nor a hub id; asks no network.

    Raises:
        ModelError: one line, with ``miniature`` if the name is similar.
        ConfigError: it is a GGUF file, and the package ``gguf`` is missing.
    """
    folder = Path(miniature.resolved(model))
    if folder.is_dir():
        return
    if gguf.is_gguf(folder):
        gguf.check_package()
        gguf.parts(folder)
        return
    if folder.exists():
        raise ModelError(f"{model}: a file; give the folder that holds the model, or a .gguf file")
    if model.lower().endswith(".gguf"):
        raise ModelError(f"{model}: no such file")
    # Not a hub id: asking the hub would only turn a typo into a confusing message.
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"{model}: no such folder")
    # A hub id has an owner; only a few old ones lack it, and none of those is similar.
    if "/" not in model and (hint := suggestion(model, [miniature.MINIATURE])):
        raise ModelError(f"{redacted(model)}: no such folder; {hint}")


def locate_base(adapter: ModelFolder) -> ModelFolder:
    """Return the folder of the model that an adapter was trained on.

    Raises:
        ModelError: the adapter names no base, or the base is missing or an adapter itself.
    """
    where = adapter.path / files.ADAPTER_CONFIG
    settings = read_json(where)
    named = settings.get("base_model_name_or_path")
    if not (named and isinstance(named, str)):
        raise ModelError(f"{where}: it names no base model; set base_model_name_or_path")
    # A base that PEFT saved without a revision is the hub's main branch.
    try:
        base = locate(named, settings.get("revision") or "main")
        kind = files.kind(base.path)
    except ModelError as error:
        raise ModelError(f"{where}: its base model: {error}") from error
    if kind == files.ADAPTER_CONFIG:
        raise ModelError(f"{where}: its base model {base.path} is an adapter: merge that")
    return base


def identity(model: str, revision: str = "main") -> str:
    """Return which model ``model`` is, without loading it; an adapter's includes its base's.

    Raises:
        ModelError: the model is missing.
    """
    check_name(model)
    if gguf.is_gguf(Path(model)):  # without converting it
        return _GGUF + _sha256_of_parts(gguf.parts(Path(model)))
    folder = locate(model, revision)
    if files.kind(folder.path) == files.ADAPTER_CONFIG:
        return f"{folder.identity}+{locate_base(folder).identity}"
    return folder.identity


def is_of_folder(identity: str) -> bool:
    """Return whether an identity belongs to local files, and not to a hub model."""
    return identity.startswith((_FOLDER, _WHOLE_FOLDER, _GGUF))


def is_of_earlier_version(identity: str) -> bool:
    """Say whether an identity is the digest of a whole folder, as earlier versions took it."""
    return identity.startswith(_WHOLE_FOLDER)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file; a process reads an unchanged file once.

    Every variant and seed of a run needs the base's identity: hashing its gigabytes for each would
    take minutes.
    """
    # As git's index does: a file with the same inode, size and times has not changed.
    at = file.stat()
    return _sha256(file.resolve(), at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)


@cache
def _sha256(file: Path, *_unchanged: int) -> str:
    return file_digest(file)


def _sha256_of_parts(parts: list[Path]) -> str:
    """Return the SHA-256 of a GGUF file; of a split one, that of its parts' sums."""
    sums = [sha256(part) for part in parts]
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _snapshot(model: str, revision: str, patterns: list[str]) -> Path:
    """Return the folder of the hub's cache, which is named after the commit."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model}: no such folder, and the hub cannot give it: {one_line(error).rstrip('.')}; "
            "check the name and the revision, or log in with 'hf auth login' and accept the "
            "model's licence"
        ) from error
