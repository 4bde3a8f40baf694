"""In-context learning as a chat template: demonstrations in front of the question (URIAL).

An untouched base model is shown a few answers and goes on with the next one (Lin et al. 2023,
2312.01552; section 6 of the paper). Such a prompt is a constant text in front of ``zero-shot``,
which asks the question and carries the strings that end an answer; so it is a template like any
other, saved in the tokenizer and known by its text.
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
"""Our own preamble and demonstrations, in the form in which URIAL publishes its prompts."""
_QUERY, _ANSWER = "# Query:", "# Answer:"
BYTE_ORDER_MARK = "\ufeff"
# The longer ones first: UTF-32's begins with that of UTF-16.
_MARKED_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class InContext(Config):
    """What stands in front of the question."""

    flags: ClassVar[bool] = False
    prompt_file: Path = OURS
    """A preamble and demonstrations, each with a ``# Query:`` and an ``# Answer:``."""
    preamble: str | None = None
    """In place of the file's; empty: none."""
    queries: bool = True
    """Whether demonstrations say what was asked; without, they are answers alone (URIAL-R)."""
    order: tuple[int, ...] | None = None
    """Demonstrations by their number in the file, from 1; None: all as they stand there."""
    k: int | None = Field(default=None, ge=0)
    """Only so many of them, from the first on."""

    def preface(self) -> str:
        """Return the text in front of the question; all that is kept of the file is verbatim.

        Raises:
            TemplateError: the file cannot be read, or a demonstration has no answer.
            ConfigError: there are fewer demonstrations than asked for.
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
        # A JSON string is a Jinja string, in which neither braces nor quotes mean anything.
        constant = json.dumps(self.preface(), ensure_ascii=False)
        return f"{{{{ {constant} }}}}{read_text(FOLDER / 'zero-shot.jinja')}"

    def _places(self, there: int) -> list[int]:
        order = range(1, there + 1) if self.order is None else self.order
        missing = next((number for number in order if not 1 <= number <= there), None)
        if missing is None and self.k is not None and self.k > len(order):
            missing = self.k
        if missing is not None:
            raise ConfigError(
                f"{self.prompt_file} has {there} demonstrations, numbered from 1, so there is no "
                f"demonstration {missing}; change 'order' or 'k'"
            )
        return [number - 1 for number in order][: self.k]

    def _answer(self, block: str) -> str:
        found = re.search(rf"^{_ANSWER}", block, flags=re.MULTILINE)
        if found is None:
            raise TemplateError(
                f"{self.prompt_file}: no line '{_ANSWER}' after {block[:60]!r}; add the answer"
            )
        return block[found.start() :]


NAMED: dict[str, Callable[[], InContext]] = {
    "urial": InContext,
    "urial-r": partial(InContext, queries=False),
}


def read_in_context(path: Path) -> InContext:
    """Read a prompt file of URIAL's, or a YAML file with the settings of ``InContext``.

    A prompt file that the YAML file names is looked for beside it.

    Raises:
        ConfigError: the YAML file is unusable; one line that says why.
    """
    if path.suffix == ".txt":
        return InContext(prompt_file=path)
    settings = build(InContext, read_recipe(path), str(path))
    return settings.model_copy(update={"prompt_file": path.parent / settings.prompt_file})


def read_text(path: Path) -> str:
    """Return the text of a template's file, with line breaks of any system as newlines.

    A byte-order mark says how the file is encoded, and is no part of its text.

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
    if "\0" in text:  # UTF-16 without a mark, where letters look like UTF-8
        raise TemplateError(f"{path}: not UTF-8; save the file as UTF-8")
    return text.lstrip(BYTE_ORDER_MARK)  # a file that was converted may have two


def _ending_in_a_blank_line(blocks: Sequence[str]) -> list[str]:
    """Add the newlines that a block lacks in front of the next one."""
    return [
        block + "\n" * max(0, 2 - (len(block) - len(block.rstrip("\n"))))
        for block in blocks
        if block
    ]
