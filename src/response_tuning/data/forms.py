"""How each file of a source is read: found out once, before any row is, and logged."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning.configs import SourceConfig
from response_tuning.data import files
from response_tuning.errors import ConfigError
from response_tuning.readers import TEXT_SUFFIXES, Form
from response_tuning.spreadsheets import csv_form, described
from response_tuning.terminal import printable
from response_tuning.text_lines import UTF_8, encoding_of

logger = logging.getLogger(__name__)

LOCAL = ("encoding", "delimiter", "sheet", "sender")
"""Settings of files that this package opens itself."""
_HAVE_DELIMITERS, _HAVE_SHEETS = (".csv", ".tsv"), (".xlsx", ".xlsm")
_ENCODED = (*_HAVE_DELIMITERS, *TEXT_SUFFIXES, ".jsonl", ".ndjson", ".json")
_LISTED = 5
"""Most files of a folder that a line lists."""


def check_read_locally(name: str, config: SourceConfig) -> None:
    """Refuse settings of files for a dataset that a library reads.

    Raises:
        ConfigError: one of them is given.
    """
    for flag in LOCAL:
        if getattr(config, flag) is not None:
            raise ConfigError(f"{name}: --{flag} has no effect on a dataset; it is for files")


def forms_of(path: Path, chosen: files.Files, config: SourceConfig) -> dict[Path, Form]:
    """Find out how each file is read, and log what was not given.

    Raises:
        ConfigError: a setting has no effect on any of the files.
        DataError: the content of a file does not decide how it is read.
    """
    suffixes = {file.suffix.lower() for file in chosen.read}
    places = {"encoding": _ENCODED, "delimiter": _HAVE_DELIMITERS, "sheet": _HAVE_SHEETS}
    for flag, having in places.items():
        if getattr(config, flag) is not None and suffixes.isdisjoint(having):
            raise ConfigError(
                f"{path}: --{flag} has no effect; it is for {', '.join(having)} files"
            )
    forms = {file: _form(file, chosen, config) for file in chosen.read}
    if path.is_dir():
        _list(path, chosen)
    found = config.encoding is None or config.delimiter is None
    for file, how in read_as(path, forms).get("read_as", {}).items():
        if found and how != _USUAL and file.lower().endswith(_ENCODED):
            name = printable(str(path / file if path.is_dir() else path))
            wrong = "--encoding or --delimiter" if "between" in how else "--encoding"
            logger.warning("%s: read as %s; if that is wrong, give %s", name, how, wrong)
    return forms


_USUAL = "UTF-8 with commas between cells"


def _form(file: Path, chosen: files.Files, config: SourceConfig) -> Form:
    given = Form(config.encoding, config.delimiter, config.sheet)
    suffix = file.suffix.lower()
    if chosen.are_texts and suffix in TEXT_SUFFIXES:
        return given if config.encoding else Form(encoding_of(file))
    return csv_form(file, given) if suffix in _HAVE_DELIMITERS else given


def read_as(path: Path, forms: Mapping[Path, Form]) -> dict[str, Any]:
    """Return how files were read, for the audit: each table, and texts that are not UTF-8."""
    named: dict[str, str] = {}
    for file, form in forms.items():
        name = str(file.relative_to(path)) if file != path else file.name
        if file.suffix.lower() in _HAVE_DELIMITERS:
            named[name] = described(form)
        elif form.encoding not in (None, UTF_8):
            named[name] = str(form.encoding).upper()
        elif form.sheet is not None and file.suffix.lower() in _HAVE_SHEETS:
            named[name] = f"sheet {form.sheet}"
    return {"read_as": named} if named else {}


def _list(path: Path, chosen: files.Files) -> None:
    """Log which files of a folder are read, before any of them is."""
    others = [path / name for name in chosen.not_read]
    read = chosen.read
    if chosen.are_texts:
        read = [file for file in chosen.read if file.suffix.lower() in TEXT_SUFFIXES]
        others += [file for file in chosen.read if file not in read]
    logger.warning("%s: reading %s", printable(str(path)), _listed(path, read))
    if others:
        logger.warning("%s: not reading %s", printable(str(path)), _listed(path, others))


def _listed(path: Path, read: Sequence[Path]) -> str:
    names = [printable(str(file.relative_to(path))) for file in read[:_LISTED]]
    more = f" and {len(read) - _LISTED:,} more" if len(read) > _LISTED else ""
    return f"{len(read):,} {'file' if len(read) == 1 else 'files'}: {', '.join(names)}{more}"
