"""HTML in a response, such as the body of a mail: the text that a reader sees."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

_INLINE = frozenset(
    {"a", "abbr", "b", "big", "del", "em", "font", "i", "img", "ins", "s", "small", "span"}
    | {"strike", "strong", "sub", "sup", "tt", "u", "o:p"}
)
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "br", "caption", "center", "dd", "div", "dl"}
    | {"dt", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html"}
    | {"label", "li", "link", "main", "meta", "ol", "p", "pre", "script", "section", "style"}
    | {"table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul"}
)
_HIDDEN = ("head", "script", "style", "title")
_PARAGRAPHS = ("blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "p", "pre", "table")
_INSIDE_A_LINE = ("td", "th", "label", "link", "meta")
_TAG = re.compile(
    rf"</?(?:{'|'.join(sorted(_INLINE | _BLOCKS))})(?:\s[^<>]*)?/?>"
    r"|&(?:nbsp|amp|lt|gt|quot|#\d{2,5});",
    re.IGNORECASE,
)
_BLOCK = re.compile(rf"</?(?:{'|'.join(sorted(_BLOCKS))})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_UNSEEN = re.compile(r"<!--.*?-->|<!doctype[^>]*>|<!\[[^>]*>|<\?xml[^>]*>", re.I | re.S)
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_OPEN, _CLOSE = "\x02", "\x03"
"""Lines around a quotation while the text is read."""


def is_html(text: str) -> bool:
    """Whether a text has tags or entities of HTML outside of Markdown's code."""
    return ("<" in text or "&" in text) and bool(_TAG.search(_CODE.sub("", text)))


def visible(text: str) -> str:
    """Return the text that a browser would show, each of its lines on a line.

    Quotations become lines with ``> ``, and list items lines with ``- ``. What looks like a tag and
    is none of HTML's, such as ``<anna@example.com>``, stays. Line breaks of the source count only
    in a text without blocks, which is plain text with a few tags.
    """
    reader = _Reader(keeps_lines=not _BLOCK.search(text))
    reader.feed(_UNSEEN.sub("", text))
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return re.sub(r"\n(?:>? *\n){2,}", "\n\n", "\n".join(_quoted(lines))).strip()


class _Reader(HTMLParser):
    """Collects the visible text, with line breaks and marks of quotations."""

    def __init__(self, *, keeps_lines: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._space = re.compile(r"[ \t]+" if keeps_lines else r"\s+")
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Break the line where the tag does; keep what is no tag of HTML."""
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "blockquote":
            self.parts.append(f"\n{_OPEN}\n")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag in _INSIDE_A_LINE:
            self.parts.append(" ")
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag not in _INLINE:
            self.handle_data(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        """Break the line where the tag does; keep what is no tag of HTML."""
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "blockquote":
            self.parts.append(f"\n{_CLOSE}\n")
        elif tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag not in _INLINE and tag not in _BLOCKS:
            self.handle_data(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """Keep text; a line break in the source of a page is a space."""
        if not self._hidden:
            self.parts.append(self._space.sub(" ", data))


def _quoted(lines: Iterable[str]) -> Iterator[str]:
    depth = 0
    for line in lines:
        if line in (_OPEN, _CLOSE):
            depth = max(0, depth + (1 if line == _OPEN else -1))
            yield ""
        else:
            yield "> " * depth + line if line else line
