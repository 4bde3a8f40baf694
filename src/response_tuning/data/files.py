"""Which files of a path to read: one data file, the data files of a folder, or its texts."""

import re
from pathlib import Path, PurePath
from typing import NamedTuple

from response_tuning.errors import DataError
from response_tuning.readers import (
    COMPRESSED_SUFFIXES,
    READERS,
    TEXT_SUFFIXES,
    check_is_file,
    format_of,
)

ABOUT = {"readme", "license", "licence", "changelog", "citation", "notice", "authors"} | {
    *("contributing", "code_of_conduct", "security", "copying", "requirements", "datasheet"),
    "dataset_card",
}
"""Names of texts that describe the data files beside them."""
ABOUT_TABLES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"} | {
    "croissant.json"
}
"""Files of ``datasets``, LLaMA-Factory and the hub that describe the data files beside them."""
SPLITS = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing", "eval", "evaluation"},
)
"""Words in file names that name the split of a file, as on the hub."""

_SAVED_AS = {
    **dict.fromkeys((".xls", ".ods", ".numbers"), "save the sheet as .xlsx or CSV"),
    **dict.fromkeys((".pst", ".ost", ".msg"), "export the mails from Outlook as CSV, or as .mbox"),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pdf"), "save each text as .txt or .md"),
}
"""Suffix of a file of an office program -> what to do with it."""

ARROW = ".arrow"
LISTED_FOLDERS = 10
"""Most folders that an error lists."""


class Files(NamedTuple):
    """The files of a source, in reading order."""

    read: list[Path]
    are_texts: bool = False
    """Whether each file is one response; otherwise each is a table of rows."""
    not_read: tuple[str, ...] = ()


def choose(path: Path, split: str) -> Files:
    """Choose the files to read at ``path``, without data files named for another split.

    Raises:
        DataError: no file can be read, or the choice is ambiguous.
    """
    if not path.is_dir():
        check_is_file(path)
    inside = _visible_files(path) if path.is_dir() else [path]
    for file in inside:
        if file.suffix.lower() in COMPRESSED_SUFFIXES:
            raise DataError(f"{file}: compressed files cannot be read; unpack it first")
    tables = [file for file in inside if format_of(file) in READERS]
    if path.is_dir():
        tables = [table for table in tables if table.name.lower() not in ABOUT_TABLES]
    texts = [file for file in inside if file.suffix.lower() in TEXT_SUFFIXES]
    responses = [text for text in texts if text.stem.lower() not in ABOUT]
    arrow = [file for file in inside if file.suffix.lower() == ARROW]
    # A README beside texts is a response like them; beside tables or Arrow files it is about them.
    if path.is_dir() and texts and not tables and (responses or not arrow):
        return Files(inside, are_texts=True)
    if not tables:
        raise DataError(_nothing(path, texts, arrow))
    if responses:
        raise DataError(
            f"{path}: holds data files ({tables[0].name}) and texts ({responses[0].name}); "
            "give one of the two"
        )
    read = [table for table in tables if may_hold(table.relative_to(path), split)]
    if not read:
        raise DataError(f"{path}: no file for the split '{split}' (--split) among its data files")
    _check_one_configuration(path, read, split)
    not_read = sorted(str(file.relative_to(path)) for file in set(inside) - set(read))
    return Files(read, not_read=tuple(not_read))


def is_saved(path: Path) -> bool:
    """Whether ``path`` is a folder that ``save_to_disk`` of ``datasets`` wrote."""
    single = all((path / name).is_file() for name in ("dataset_info.json", "state.json"))
    return single or (path / "dataset_dict.json").is_file()


def is_file_name(name: str) -> bool:
    """Whether ``name`` has the suffix of a known or compressed format."""
    return Path(name).suffix.lower() in {*READERS, *TEXT_SUFFIXES, *COMPRESSED_SUFFIXES}


def _visible_files(folder: Path) -> list[Path]:
    files = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    visible = {
        name.as_posix(): file
        for name, file in files.items()
        if not any(part.startswith(".") for part in name.parts)
    }
    return [visible[name] for name in sorted(visible)]


def may_hold(name: PurePath, split: str) -> bool:
    """Whether a file is of a split: its path names that split, or none."""
    words = set(re.split(r"[^a-z]+", name.as_posix().lower()))
    named = [spellings for spellings in SPLITS if spellings & words]
    return not named or any(split in spellings for spellings in named)


def _check_one_configuration(path: Path, read: list[Path], split: str) -> None:
    """Refuse several folders with the same split: they are variants of a dataset, not its parts.

    Raises:
        DataError: several folders hold the split.
    """
    # en/train.jsonl and de/train.jsonl are two datasets; train/a.jsonl and train/b.jsonl are one.
    folders: dict[str, None] = {}
    for file in read:
        parts = file.relative_to(path).parts
        names_split = [place for place, part in enumerate(parts) if _names(part, split)]
        if names_split:
            folders["/".join(parts[: names_split[0]])] = None
    if len(folders) > 1:
        names = [str(path / folder) for folder in folders]
        more = f" and {len(names) - LISTED_FOLDERS:,} more" if len(names) > LISTED_FOLDERS else ""
        raise DataError(
            f"{path}: {len(names)} of its folders hold the split '{split}' "
            f"({', '.join(names[:LISTED_FOLDERS])}{more}); give one of them"
        )


def _names(part: str, split: str) -> bool:
    words = set(re.split(r"[^a-z]+", part.lower()))
    return any(split in spellings and spellings & words for spellings in SPLITS)


def _nothing(path: Path, texts: list[Path], arrow: list[Path]) -> str:
    formats = ", ".join((*READERS, *TEXT_SUFFIXES))
    if arrow:
        return (
            f"{arrow[0]}: an Arrow file can only be read in the folder that save_to_disk wrote, "
            "with dataset_info.json and state.json; give that folder"
        )
    if texts:
        return f"{path}: one text file is one response; give the folder of the texts"
    if path.is_dir():
        return f"{path}: the folder has no file that can be read; formats are {formats}"
    instead = _SAVED_AS.get(path.suffix.lower(), f"formats are {formats}")
    return f"{path}: files of type '{path.suffix}' cannot be read; {instead}"
