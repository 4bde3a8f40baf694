"""Passages of plain documents, to train on as responses without an instruction.

The paper tunes on 1,000 passages of CC-News (appendix F). A passage here is a run of consecutive
whole paragraphs, or of consecutive whole sentences of a long paragraph.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning import readers
from response_tuning.artifacts import Record, file_digest, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import columns, sources
from response_tuning.errors import ConfigError, DataError
from response_tuning.extraction_config import ExtractionConfig
from response_tuning.readers import Row, read_texts, shown

TEXTS = ("text", "content", "document", "body", "article", "passage")
"""Usual names of a column of documents."""
_BOILERPLATE = re.compile(
    r"\b(?:cookies?|javascript|all rights reserved|copyright|click here|read more|subscribe"
    r"|newsletter|sign up|log ?in|terms of (?:use|service)|privacy policy|follow us|share this"
    r"|lorem ipsum)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[{}]|</?[a-zA-Z][^>]*>")
_LINK = re.compile(r"https?://|www\.|\S@\S|[|\u00bb\u203a\u2022]")  # the signs: menus
_CLOSING = r"[\"'\u201d\u2019)\]]*"
_WIDE_STOP = r"[\u3002\uff01\uff1f]"
"""Ends of a sentence in scripts without a space after it."""
_SENTENCE_END = re.compile(rf"(?:[.!?\u2026]|{_WIDE_STOP}){_CLOSING}$")
# White space before a possible start of a sentence: no small letter, behind quotes and brackets.
_BOUNDARY = re.compile(
    rf"(?<=[.!?\u2026]){_CLOSING}\s+(?=[\"'\u201c\u2018(\[]*[^\Wa-z_])|(?<={_WIDE_STOP})"
)
# A paragraph border lost without a space, as in documents on one line: "the end.The next".
_GLUED = re.compile(r"(?<=[a-z0-9)\"\u201d][a-z0-9)\"\u201d][.!?])(?=[A-Z][a-z]|A )")
_ABBREVIATED = re.compile(
    r"(?:\b[A-Z]|\b(?:Mrs?|Ms|Drs?|Prof|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Gov|Sen|Rep|St|Mt|Jr|Sr|Inc|Ltd"
    r"|Co|Corp|No|Nos|Vol|Fig|Eq|pp?|vs|cf|ca|al|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
    r"|e\.g|i\.e|a\.m|p\.m|[A-Z]\.[A-Z]))\.$"
)
"""Full stops that end no sentence: "Dr.", "U.S.", an initial."""
_LIST_ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)]|#+)\s")


class Passage(Record):
    """A piece of a document."""

    text: str
    words: int
    where: str
    """File and line, or record number, of the document."""


class DocumentSource(NamedTuple):
    """Rows with the field ``text``, and their origin."""

    name: str
    rows: Callable[[], Iterator[Row]]
    origin: dict[str, Any]


def extract(config: DataConfig, out: Path) -> None:
    """Write the passages of all documents to ``out``, with counts of what was left out.

    ``config`` names the documents, and its section ``extraction`` says what a passage is. Writes
    ``passages.jsonl``, in the order of the documents, and ``extraction.json``.

    Raises:
        ConfigError: ``out`` lies in the source.
        DataError: the source is unusable, or has fewer passages than requested.
    """
    settings = config.extraction or ExtractionConfig()
    documents = find(config, settings.text_column)
    folder = documents.origin.get("path")
    if folder and out.resolve().is_relative_to(folder):
        raise ConfigError(f"{out} lies in the source {documents.name}; write to another folder")
    # Passages are written while documents are read: memory holds one document. They are sampled
    # later, by ``prepare``, like examples of any other source.
    left_out: Counter[str] = Counter()
    counts = Counter({"documents": 0, "documents_used": 0, "passages": 0})
    with written_aside(out / "passages.jsonl") as kept:
        for row in documents.rows():
            counts["documents"] += 1
            before = counts["passages"]
            for text in _of_row(row, settings, left_out):
                passage = Passage(text=text, words=len(text.split()), where=row.where)
                kept.write(passage.model_dump_json() + "\n")
                counts["passages"] += 1
            counts["documents_used"] += counts["passages"] > before
        _check(counts, config.max_examples or 1, settings, documents.name)
    origin = {"name": config.source, **documents.origin}
    content: dict[str, Any] = {**counts, "left_out": dict(left_out.most_common()), "source": origin}
    used = {"source", "path", "revision", "split", "extraction"}
    content["config"] = config.model_dump(mode="json", include=used)
    write_json(out / "extraction.json", content)


def find(config: DataConfig, text_column: str | None) -> DocumentSource:
    """Find the documents of ``config``, and the column that holds their texts.

    Raises:
        DataError: the source does not exist, cannot be read, or has no column of texts.
    """
    path = Path(config.source)
    if config.source and path.is_file() and path.suffix.lower() in (".txt", ".md"):
        if text_column is not None:
            raise ConfigError(f"{path}: a text file has no columns; remove --text-column")
        origin = {"path": str(path.resolve()), "sha256": file_digest(path)}
        return DocumentSource(config.source, lambda: _of_file(path), origin)
    # Any other source is rows with a column of texts, read like a source of responses.
    source = sources.find(config)
    column = _column(source, text_column)

    def rows() -> Iterator[Row]:
        return (
            row if row.fault else row._replace(fields={"text": row.fields.get(column)})
            for row in source.rows()
        )

    return DocumentSource(source.name, rows, {**source.origin, "column": column})


def passages(text: str, config: ExtractionConfig, left_out: Counter[str]) -> Iterator[str]:
    """Yield the passages of a document, and count in ``left_out`` why other text is left out.

    A paragraph that is not prose ends a passage: no passage has a gap.
    """
    for run in _runs(text, config.max_words, left_out):
        for passage in _packed(run, config.max_words):
            words = len(passage.split())
            if words < config.min_words:
                left_out["shorter than --min-words"] += 1
            elif words > config.max_words:
                left_out["a sentence longer than --max-words"] += 1
            else:
                yield passage


def unfit(paragraph: str) -> str | None:
    """Return why a paragraph is not prose to train on; None if it is.

    Four rules come from C4 (Raffel et al. 2020, section 2.2): prose ends in a terminal
    punctuation mark, has at least five words, no braces and no "javascript".
    """
    # The first reason counts, so the most specific come first: code may also have too many digits.
    words = paragraph.split()
    if _MARKUP.search(paragraph):
        return "code or markup"
    if 8 * len(_LINK.findall(paragraph)) > len(words):
        return "links or a menu"
    if not _SENTENCE_END.search(paragraph) or len(words) < 5:
        return "a heading, an entry or a fragment"
    if len(words) < 50 and _BOILERPLATE.search(paragraph):
        return "words of a web site"
    if 5 * sum(map(str.isdigit, paragraph)) > sum(map(len, words)):
        return "too many digits"
    return None


def sentences(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph, each with the white space behind it."""
    complete: list[str] = []
    start = 0
    for boundary in _BOUNDARY.finditer(paragraph):
        sentence = paragraph[start : boundary.start()]
        if boundary.end() > start and not _ABBREVIATED.search(sentence):
            complete.append(paragraph[start : boundary.end()])
            start = boundary.end()
    return [*complete, paragraph[start:]] if start < len(paragraph) else complete


def _runs(text: str, max_words: int, left_out: Counter[str]) -> Iterator[list[str]]:
    """Yield runs without a gap: of whole paragraphs, and of the sentences of long ones."""
    run: list[str] = []
    for paragraph in _paragraphs(text):
        reason = unfit(paragraph)
        if reason is None:
            is_long = len(paragraph.split()) > max_words
            *others, last = sentences(paragraph) if is_long else [paragraph]
            run += [*others, f"{last}\n\n"]
        else:
            left_out[reason] += 1
            yield run
            run = []
    yield run


def _packed(pieces: list[str], max_words: int) -> Iterator[str]:
    """Join as many pieces as fit into ``max_words``, at least one."""
    passage: list[str] = []
    words = 0
    for piece in pieces:
        length = len(piece.split())
        if passage and words + length > max_words:
            yield "".join(passage).strip()
            passage, words = [], 0
        passage.append(piece)
        words += length
    if passage:
        yield "".join(passage).strip()


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs: blocks between blank lines, or lines if the text has no blank line.

    The lines of a block are joined, since prose is wrapped, unless some are items of a list.
    """
    # A text without a blank line has one paragraph a line, as news corpora do.
    lines = [line.strip() for line in _GLUED.sub("\n\n", text).split("\n")]
    wrapped = "" in lines
    for has_text, block in groupby(lines, key=bool):
        if not has_text:
            continue
        inside = list(block)
        if wrapped and not any(map(_LIST_ITEM.match, inside)):
            yield " ".join(inside)
        elif wrapped:
            yield "\n".join(inside)
        else:
            yield from inside


def _of_row(row: Row, config: ExtractionConfig, left_out: Counter[str]) -> Iterator[str]:
    text = row.fields.get("text")
    if row.fault or not isinstance(text, str) or not text.strip():
        left_out[f"document: {row.fault or 'no text'}"] += 1
        return
    yield from passages(text, config, left_out)


def _of_file(path: Path) -> Iterator[Row]:
    """Yield the documents of a text file.

    A Markdown file is one document. In plain text, each block between blank lines is one, or each
    line if the file has no blank line in between.
    """
    if path.suffix.lower() == ".md":
        yield from read_texts([path])
        return
    lines = ((number, line.strip()) for number, line in enumerate(readers.lines(path), start=1))
    if not _has_blocks(path):
        yield from (Row(f"{path}:{number}", {"text": line}) for number, line in lines if line)
        return
    for has_text, block in groupby(lines, key=lambda numbered: bool(numbered[1])):
        if has_text:
            inside = list(block)
            text = " ".join(line for _, line in inside)
            yield Row(f"{path}:{inside[0][0]}", {"text": text})


def _has_blocks(path: Path) -> bool:
    """Whether a blank line separates two other lines."""
    blocks = groupby(readers.lines(path), key=lambda line: bool(line.strip()))
    return [has_text for has_text, _ in blocks].count(True) > 1


def _column(source: sources.Source, named: str | None) -> str:
    """Return the column of documents: the named one, or the first usual one, if possible a text."""
    present = sources.columns(source).columns
    usual = sorted((key for key in TEXTS if key in present), key=lambda key: not present[key].texts)
    column = named or next(iter(usual), None)
    if column is None or column not in present:
        listed = columns.listed(present)
        wanted = f"column {shown(named)}" if named else "column with texts"
        raise DataError(f"{source.name}: no {wanted} among {listed}; name it with --text-column")
    return column


def _check(counts: Counter[str], wanted: int, settings: ExtractionConfig, name: str) -> None:
    count = counts["passages"]
    if count < wanted:
        request = f"{wanted:,} passages requested (--max-passages), but " if count else ""
        raise DataError(
            f"{name}: {request}its {counts['documents']:,} documents hold {count:,} of "
            f"{settings.min_words} to {settings.max_words} words; see --min-words and --max-words"
        )
