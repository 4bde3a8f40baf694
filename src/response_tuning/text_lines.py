"""Lines of a text file, decoded: the encoding is given, or found out from the bytes.

Excel and Outlook write the encoding of the user's Windows, and say nowhere which one. The rule here
knows the letters of the languages that are written in each encoding. Where two encodings read the
same bytes as different, plausible texts, it does not choose. Of ten short files, charset-normalizer
3.5.3 gives a wrong text for four, such as French in cp1252. This rule gives none, and asks at one.
"""

import codecs
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from response_tuning.errors import DataError
from response_tuning.rows import check_is_file, shown, unreadable

LINE_LIMIT = 2**28
"""Bytes of the longest line (256 MiB): a row must fit into memory."""
UTF_8 = "utf-8"
_UTF_16_MARKS = (BOM_UTF16_LE, BOM_UTF16_BE)
_CHUNK = 2**20
_SAMPLE = 2**16
"""Most bytes outside ASCII that the rule looks at."""
_PLAUSIBLE = 0.9
"""Share of the characters outside ASCII that must be letters of one group of languages."""

_GERMAN, _FRENCH, _ITALIAN = "äöüßÄÖÜ", "àâæçéèêëîïôœùûÀÂÇÉÈÊÎÔ", "àèéìòùÈ"
_WESTERN = (
    _GERMAN + _FRENCH + _ITALIAN,
    "áéíóúüñªºàâãçêôõÁÉÍÓÚÑÂÃÇÕ" + _FRENCH,  # Spanish, Portuguese, Catalan
    "æøåéäöÆØÅÄÖ" + _GERMAN,  # Danish, Norwegian, Swedish, Finnish
    "áðéíóúýþæöÁÐÉÍÓÚÝÞÆÖ",  # Icelandic
)
_CENTRAL = (
    "ąćęłńóśźżĄĆĘŁŃÓŚŹŻ",
    "áčďéěíňóřšťúůýžäľôÁČĎÉĚÍŇŘŠŤÚŽÝ",  # Czech, Slovak
    "áéíóöőúüűÁÉÍÓÖŐÚÜŰ",
    "ăâîşţĂÂÎŞŢ",
    "čćđšžČĆĐŠŽ",
)
_CYRILLIC = ("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґАБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯІЇЄҐ",)
_LETTERS = {
    "cp1252": _WESTERN,
    "iso8859-15": _WESTERN,
    "cp1250": _CENTRAL,
    "cp1251": _CYRILLIC,
    "mac-roman": _WESTERN,
    "cp850": _WESTERN,
}
"""Encoding of one byte -> letters of the languages that are written in it, the usual one first."""
_MARKS = (
    "\u20ac£§°·\u2022\u2122©®\u2026\u2013\u2014"
    "\u2018\u2019\u201a\u201c\u201d\u201e«»\u2039\u203a¡¿½¼²³\u00d7\u00a0\u00ad"
)
"""Signs that texts in any language have; not inside a word."""
_WORDS = "ÀÉÈÁÓÍ"
"""Capitals that are words by themselves."""
_IN_WORDS = "\u2019\u00ad·"


class Reading(NamedTuple):
    """The text of some bytes under one encoding."""

    encoding: str
    text: str
    """Its characters outside ASCII, each with the character on either side."""
    share: float
    """Share of them that fit the languages of the encoding."""


def lines(
    path: Path, encoding: str | None = None, limit: int | None = None
) -> Generator[str, None, None]:
    """Yield lines with their ends, split at line feeds only: texts may contain other separators.

    Without an ``encoding``: UTF-8, or UTF-16 with a byte-order mark, as Excel and Notepad write it.

    Raises:
        DataError: the file cannot be read or is not text; one line with file and line.
    """
    check_is_file(path)
    try:
        with path.open("rb") as content:
            _check_is_text(content.peek(4), path)
            marked = content.peek(2)[:2] in _UTF_16_MARKS
            named = encoding or ("utf-16" if marked else UTF_8)
            most = limit or LINE_LIMIT
            with closing(
                _utf_8(content, path, most)
                if is_utf_8(named)
                else _decoded(content, path, most, named)
            ) as decoded:
                yield from _without_nul(decoded, path, 1)
    except OSError as error:
        raise unreadable(path, error) from error


def is_utf_8(encoding: str) -> bool:
    """Whether this is a name of UTF-8, with or without a byte-order mark."""
    return codecs.lookup(encoding).name in (UTF_8, "utf-8-sig")


def can_be_cut(path: Path, encoding: str | None) -> bool:
    """Whether ``extents`` may cut a file: its lines are UTF-8, as far as its first bytes say."""
    with path.open("rb") as content:
        start = content.read(4)
    marked = start[:2] in _UTF_16_MARKS or any(map(start.startswith, _OTHER_FORMATS))
    return not marked and is_utf_8(encoding or UTF_8)


class Extent(NamedTuple):
    """Whole lines of a file."""

    start: int = 0
    """Place of the first byte."""
    stop: int | None = None
    """Place after the last byte; None: the end of the file."""
    line: int = 1
    """Number of the first line."""


WHOLE = Extent()


def extents(path: Path, size: int) -> list[Extent]:
    """Cut a file at line ends into parts of at least ``size`` bytes, the last one excepted."""
    found: list[Extent] = []
    start, line = 0, 1
    with path.open("rb") as content:
        while block := content.read(size) + content.readline(LINE_LIMIT):
            found.append(Extent(start, start + len(block), line))
            start += len(block)
            line += block.count(b"\n")
    return found


def utf_8_lines(
    content: BinaryIO, path: object, extent: Extent = WHOLE
) -> Generator[str, None, None]:
    """Yield the lines of a part of a UTF-8 file that is open; ``path`` is its name in errors.

    Raises:
        DataError: as ``lines``.
    """
    content.seek(extent.start)
    yield from _without_nul(_utf_8(content, path, LINE_LIMIT, extent), path, extent.line)


def _without_nul(decoded: Iterable[str], path: object, first: int) -> Iterator[str]:
    for number, text in enumerate(decoded, start=first):
        if "\0" in text:
            raise DataError(
                f"{path}:{number}: a NUL byte, which is not text; save the file as UTF-8"
            )
        yield text


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16, or the one whose letters make sense.

    Raises:
        DataError: two encodings make sense, or none does; the message shows how each reads it.
    """
    check_is_file(path)
    try:
        with path.open("rb") as content:
            start = content.peek(4096)[:4096]
            _check_is_text(start[:4], path)
            if wide := _utf_16_of(start):
                return wide
            place = _first_not_utf_8(content)
            if place is None:
                return UTF_8
            content.seek(0)
            pieces = _outside_ascii(content)
    except OSError as error:
        raise unreadable(path, error) from error
    readings = [reading for name in _LETTERS if (reading := _reading(pieces, name))]
    likely = [reading for reading in readings if reading.share >= _PLAUSIBLE]
    if len({reading.text for reading in likely}) == 1:
        return likely[0].encoding
    fits = "several encodings fit" if likely else "no encoding fits"
    texts = [f"{reading.encoding} reads {_quoted(reading)}" for reading in likely or readings]
    raise DataError(
        f"{path}: byte {place} is not UTF-8, and {fits}: {', '.join(texts)}; name the right one "
        "with --encoding, or save the file as UTF-8 (in Excel: 'CSV UTF-8')"
    )


def _utf_16_of(start: bytes) -> str:
    """Return UTF-16 if the file begins with its mark or has a NUL in every second byte."""
    if start[:2] in _UTF_16_MARKS:
        return "utf-16"
    half = len(start) // 2
    even, odd = start[::2].count(0), start[1::2].count(0)
    if half >= 4 and max(even, odd) > 0.6 * half and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return ""


def _first_not_utf_8(content: BinaryIO) -> int | None:
    """Return the place of the first byte that is not UTF-8; None if all of them are."""
    decoder, place = codecs.getincrementaldecoder(UTF_8)(), 0
    while True:
        chunk = content.read(_CHUNK)
        if b"\0" in chunk:  # no text; ``lines`` refuses it by its line
            return None
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return place - pending + error.start
        if not chunk:
            return None
        place += len(chunk)


def _outside_ascii(content: BinaryIO) -> list[bytes]:
    """Return the first runs of bytes outside ASCII, with the byte on either side."""
    pieces: list[bytes] = []
    total = 0
    for line in iter(partial(content.readline, _CHUNK), b""):
        if line.isascii():
            continue
        start = 0
        while start < len(line) and total < _SAMPLE:
            if line[start] < 128:
                start += 1
                continue
            end = start
            while end < len(line) and line[end] >= 128:
                end += 1
            pieces.append(line[max(0, start - 1) : end + 1])
            total += end - start
            start = end
        if total >= _SAMPLE:
            break
    return pieces


def _reading(pieces: list[bytes], encoding: str) -> Reading | None:
    """Return how an encoding reads the pieces; None if one of their bytes is no sign in it."""
    try:
        texts = [piece.decode(encoding) for piece in pieces]
    except UnicodeDecodeError:
        return None
    if any("\x80" <= sign < "\xa0" for text in texts for sign in text):
        return None  # control characters, which nobody types
    signs = [(text, place) for text in texts for place, sign in enumerate(text) if sign > "\x7f"]
    share = max(
        sum(_fits(text, place, letters) for text, place in signs) / len(signs)
        for letters in _LETTERS[encoding]
    )
    return Reading(encoding, " ".join(texts), share)


def _fits(text: str, place: int, letters: str) -> bool:
    sign = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if sign in _MARKS:
        return sign in _IN_WORDS or not (before.isalpha() and after.isalpha())
    # A capital inside a word in small letters, and two scripts in a word, show a wrong encoding.
    mixed = sign in _CYRILLIC[0] and any(one.isascii() and one.isalpha() for one in (before, after))
    # So does a letter beside a digit (a pound sign is a letter in cp1250), or a capital alone.
    beside = before + after
    lonely = sign.isupper() and sign < "\u0400" and not any(map(str.isalpha, beside))
    odd = mixed or any(map(str.isdigit, beside)) or (lonely and sign not in _WORDS)
    return sign in letters and not odd and not (sign.isupper() and before.islower())


def _quoted(reading: Reading) -> str:
    return shown(" ".join(dict.fromkeys(reading.text.split()))[:30])


def _decoded(
    content: BinaryIO, path: Path, limit: int, encoding: str
) -> Generator[str, None, None]:
    text = io.TextIOWrapper(content, encoding=encoding, newline="\n")
    number = 0
    try:
        for number, line in enumerate(iter(partial(text.readline, limit + 1), ""), start=1):
            _check_length(line, limit, path, number)
            yield line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:  # also UTF-16 without its mark
        why = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"{path}:{number + 1}: not {encoding.upper()}: {why}; name its encoding with "
            "--encoding, or save it as UTF-8"
        ) from error
    finally:
        text.detach()  # the caller closes the file


def _utf_8(
    content: BinaryIO, path: object, limit: int, extent: Extent = WHOLE
) -> Generator[str, None, None]:
    start, stop, first = extent
    for number, line in enumerate(iter(partial(content.readline, limit + 1), b""), start=first):
        _check_length(line, limit, path, number)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {start + error.start} of the file is "
                f"0x{line[error.start]:02x}, which is not UTF-8; name its encoding with "
                "--encoding, or save the file as UTF-8"
            ) from error
        start += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text
        if start == stop:
            return


def _check_length(line: bytes | str, limit: int, path: object, number: int) -> None:
    if len(line) > limit:
        raise DataError(
            f"{path}:{number}: a line of more than {limit >> 20:,} MiB; write one row a line"
        )


_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive, such as an Excel workbook",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
}
"""First bytes of a file in another format than its name claims."""


def _check_is_text(start: bytes, path: Path) -> None:
    for mark, name in _OTHER_FORMATS.items():
        if start.startswith(mark):
            raise DataError(
                f"{path}: its content is {name}, not {path.suffix}; unpack the file, or rename it"
            )
