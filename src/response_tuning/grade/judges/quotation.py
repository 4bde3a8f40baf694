"""Whether a judge's statement may be a quotation: the judged text makes the same statement.

A judge may quote with other line breaks, marks, quotes and escapes than the text has, or quote part
of an object. Therefore words are compared, not lines or objects.
"""

import re
import unicodedata

_ESCAPED = re.compile(r"\\{1,8}u([0-9a-f]{4})", re.IGNORECASE)
_MARKS = re.compile(r"(?:[^\w:=|]|_)+")
_GAP = r"(?: is)? ?[:=|][:=| ]*"
"""The separator of a name and its value: a colon, or the bar of a table."""


def words(text: str) -> str:
    """Return the words of ``text`` in one form: lower case, one space, no marks, no escapes."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    seen = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")  # zero-width
    return _MARKS.sub(" ", unicodedata.normalize("NFKC", seen).casefold())


def says(material: str, name: str, value: object) -> bool:
    """Whether the ``words`` of a text give ``name`` the value ``value``, in any notation."""
    wanted = words(str(value)).strip()
    # No boundary before the name: an escaped line break leaves an n there.
    pattern = rf"{re.escape(words(name).strip())}{_GAP}{re.escape(wanted)}(?!\w)"
    return bool(wanted) and re.search(pattern, material) is not None


def says_within(material: str, outer: str, name: str, value: object) -> bool:
    """Whether the ``words`` of a text give ``name`` that value anywhere after ``outer``."""
    at = material.find(words(outer).strip())
    return at >= 0 and says(material[at:], name, value)
