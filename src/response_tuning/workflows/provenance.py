"""What a report is made from and with: command, date, versions, bases and data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import DataError
from response_tuning.workflows.cell_manifest import base_of
from response_tuning.workflows.experiment import Cell

NOT_RECORDED = "not recorded"
"""By a call from Python, or by an earlier version."""
DIGEST_CHARACTERS = 16
MOST_DIGESTS = 6
"""Most digests of examples that are listed; the manifests of the cells have all of them."""


def provenance(
    manifest: Mapping[str, Any], whole: Sequence[Cell], run: Path
) -> list[tuple[str, str]]:
    """Return the lines at the foot of a report, each a name with its value.

    Everything comes from what the run recorded, so that a report written again has the same bytes.
    Folders are named without their path: a report is passed on.
    """
    packages = manifest.get("packages")
    versions = packages.items() if isinstance(packages, dict) else ()
    facts = {
        "command": manifest.get("command") or NOT_RECORDED,
        "date": manifest.get("date") or NOT_RECORDED,
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
        "device": manifest.get("device", ""),
        "base": _listed(_bases(whole, run)),
        "data": _listed(_sources(whole, run)),
        "examples": _listed(_examples(whole, run)),
        "write again": f"rtune report {run.resolve().name}",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _bases(whole: Iterable[Cell], run: Path) -> Iterator[str]:
    for cell in whole:
        (name, revision), identity = base_of(cell, run)
        at = f" at {revision}" if revision not in ("", "main") else ""
        if name:
            yield f"{_without_folder(name)}{at}{f' ({identity})' if identity else ''}"


def _sources(whole: Iterable[Cell], run: Path) -> Iterator[str]:
    for cell in whole:
        source = _content(cell.folder(run) / "data" / "audit.json").get("source")
        if isinstance(source, dict):
            kind = next((key for key in ("sha256", "commit", "revision") if source.get(key)), "")
            origin = f", {kind} {str(source[kind])[:DIGEST_CHARACTERS]}" if kind else ""
            yield f"{_without_folder(str(source.get('name', '')))}{origin}"


def _examples(whole: Iterable[Cell], run: Path) -> Iterator[str]:
    """Yield the digest of each file of examples that a model was tuned on."""
    for cell in whole:
        manifest = _content(cell.folder(run) / "finetune" / "manifest.json")
        if digest := manifest.get("examples_sha256"):
            yield f"sha256 {str(digest)[:DIGEST_CHARACTERS]}"


def _listed(names: Iterable[str]) -> str:
    different = [*dict.fromkeys(names)]
    shown = ", ".join(different[:MOST_DIGESTS])
    more = len(different) - MOST_DIGESTS
    return f"{shown} and {more} more" if more > 0 else shown


def _without_folder(name: str) -> str:
    """Return a hub id or a registered name as it is, and of a path its last part."""
    path = Path(name)
    is_hub_id = not path.is_absolute() and name.count("/") == 1 and not path.exists()
    return name if "/" not in name or is_hub_id else path.name


def _content(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DataError:
        return {}
