"""In-context learning as a chat template: demonstrations in front of the question (URIAL).

A base model that was not tuned reads a few answers and continues with the next one (Lin et al.
2023, arXiv 2312.01552; section 6 of the paper). Such a prompt is a constant text in front of the
template ``zero-shot``, which prints the question and carries the strings that end an answer. So it
is a template like any other: saved in the tokenizer and identified by its text.
"""

import codecs
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from response_tuning.configs import Config
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.recipe import read_recipe
from response_tuning.validation import build

FOLDER = Path(__file__).parent
OURS = FOLDER / "urial.txt"
"""Our own preamble and demonstrations, in the format of URIAL's published prompts."""
_QUERY, _ANSWER = "# Query:", "# Answer:"
BYTE_ORDER_MARK = "\ufeff"
# UTF-32 before UTF-16, because its mark begins with the same bytes.
_MARKED_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class InContext(Config):
    """The text in front of the question."""

    flags: ClassVar[bool] = False
    prompt_file: Path = OURS
    """A preamble and demonstrations, each with a ``# Query:`` and an ``# Answer:``."""
    preamble: str | None = None
    """Replaces the preamble of the file; an empty string removes it."""
    queries: bool = True
    """Whether demonstrations include the query; without, they are answers alone (URIAL-R)."""
    order: tuple[int, ...] | None = None
    """Demonstrations by their number in the file, from 1; by default all, in the file's order."""
    k: int | None = Field(default=None, ge=0)
    """Use only the first so many of them."""

    def preface(self) -> str:
        """Return the text in front of the question; the kept parts of the file are verbatim.

        Raises:
            TemplateError: the file cannot be read, or a demonstration has no answer.
            ConfigError: the file has fewer demonstrations than the settings name.
        """
        preamble, *blocks = re.split(
            rf"^(?={_QUERY})", read_text(self.prompt_file), flags=re.MULTILINE
        )
        chosen = [blocks[place] for place in self._places(len(blocks))]
        if not self.queries:
            chosen = [self._answer(block) for block in chosen]
        if self.preamble is not None:
            preamble = self.preamble
        return "".join(_ending_in_a_blank_line([preamble, *chosen]))

    def jinja(self) -> str:
        """Return the template: the preface as a constant, then ``zero-shot``."""
        # A JSON string is a Jinja string in which neither braces nor quotes have a meaning.
        constant = json.dumps(self.preface(), ensure_ascii=False)
        return f"{{{{ {constant} }}}}{read_text(FOLDER / 'zero-shot.jinja')}"

    def _places(self, count: int) -> list[int]:
        order = range(1, count + 1) if self.order is None else self.order
        missing = next((number for number in order if not 1 <= number <= count), None)
        if missing is None and self.k is not None and self.k > len(order):
            missing = self.k
        if missing is not None:
            raise ConfigError(
                f"{self.prompt_file} has {count} demonstrations, numbered from 1, so there is no "
                f"demonstration {missing}; change 'order' or 'k'"
            )
        return [number - 1 for number in order][: self.k]

    def _answer(self, block: str) -> str:
        answer = re.search(rf"^{_ANSWER}", block, flags=re.MULTILINE)
        if answer is None:
            raise TemplateError(
                f"{self.prompt_file}: no line '{_ANSWER}' after {block[:60]!r}; add the answer"
            )
        return block[answer.start() :]


NAMED: dict[str, Callable[[], InContext]] = {
    "urial": InContext,
    "urial-r": partial(InContext, queries=False),
}


def read_in_context(path: Path) -> InContext:
    """Read a prompt file in URIAL's format, or a YAML file with the settings of ``InContext``.

    The path of a prompt file in a YAML file is relative to that file.

    Raises:
        ConfigError: the YAML file is unusable; the message is one line.
    """
    if path.suffix == ".txt":
        return InContext(prompt_file=path)
    settings = build(InContext, read_recipe(path), str(path))
    return settings.model_copy(update={"prompt_file": path.parent / settings.prompt_file})


def read_text(path: Path) -> str:
    """Return the text of a template's file, with every line break as a newline.

    A byte-order mark tells the encoding of the file and is not part of its text.

    Raises:
        TemplateError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        marked = (name for mark, name in _MARKED_ENCODINGS.items() if content.startswith(mark))
        text = path.read_text(encoding=next(marked, "utf-8"))
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise TemplateError(f"{path}: not UTF-8; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 without a mark, whose letters look like UTF-8
        raise TemplateError(f"{path}: not UTF-8; save the file as UTF-8")
    return text.lstrip(BYTE_ORDER_MARK)  # a converted file may have two


def _ending_in_a_blank_line(blocks: Sequence[str]) -> list[str]:
    """Add the newlines that a block lacks in front of the next one."""
    return [
        block + "\n" * max(0, 2 - (len(block) - len(block.rstrip("\n"))))
        for block in blocks
        if block
    ]
