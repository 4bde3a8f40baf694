"""Passages cut in half: the first half is an instruction, the second a response.

Xie et al. 2024 (arXiv 2409.00096) do not say what a half is. The choice here: sentences stay whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Record, read_json, read_jsonl, write_json, written_aside
from response_tuning.continuation_config import ContinuationConfig
from response_tuning.data.passages import Passage, sentences
from response_tuning.data.tokens import token_starts
from response_tuning.errors import DataError

HALVES = "halves.jsonl"
INSTRUCTION, RESPONSE = "first_half", "second_half"
"""Columns of ``halves.jsonl``."""
ONE_SENTENCE = "passage: one sentence, which has no end inside"

Starts = Callable[[str], list[int]]
"""Returns where each token of a text begins, in characters."""


class Half(Record):
    """A passage in two halves."""

    first_half: str
    second_half: str
    source: str
    """File and line, or record number, of the document."""


class _Cut(NamedTuple):
    starts: Starts
    exact: bool

    def __call__(self, text: str) -> tuple[str, str] | None:
        """Return both halves; None if there is no place to cut at."""
        starts = self.starts(text)
        middle = starts[len(starts) // 2]
        places = [middle] if self.exact else _ends(text)
        place = min(places, key=lambda end: abs(end - middle), default=0)
        halves = text[:place].strip(), text[place:].strip()
        return halves if all(halves) else None


def write_halves(folder: Path, config: ContinuationConfig) -> None:
    """Cut the passages in ``folder/passages.jsonl`` into ``folder/halves.jsonl``.

    ``extraction.json`` gets the counts.

    Raises:
        ModelError: the tokenizer cannot be loaded.
        DataError: no passage can be cut.
    """
    starts = token_starts(config.tokenizer) if config.tokenizer else word_starts
    cut = _Cut(starts, config.cut == "exact")
    counts = Counter({"cut": 0, ONE_SENTENCE: 0})
    with written_aside(folder / HALVES) as out:
        for passage in read_jsonl(folder / "passages.jsonl", Passage):
            halves = cut(passage.text)
            counts["cut" if halves else ONE_SENTENCE] += 1
            if halves:
                first, second = halves
                half = Half(first_half=first, second_half=second, source=passage.where)
                out.write(half.model_dump_json() + "\n")
        if not counts["cut"]:
            raise DataError(
                f"{folder}: none of its {counts.total():,} passages can be cut between two "
                "sentences; cut at a token: --cut exact --tokenizer NAME"
            )
    record: dict[str, Any] = read_json(folder / "extraction.json")
    record["halves"] = counts["cut"]
    if counts[ONE_SENTENCE]:
        record["left_out"][ONE_SENTENCE] = counts[ONE_SENTENCE]
    record["config"]["continuation"] = config.model_dump(mode="json")
    write_json(folder / "extraction.json", record)


def word_starts(text: str) -> list[int]:
    """Return where each word of ``text`` begins."""
    before = " " + text
    return [
        place
        for place, (left, character) in enumerate(zip(before, text, strict=False))
        if left.isspace() and not character.isspace()
    ]


def _ends(text: str) -> list[int]:
    """Return where sentences end, the last one left out."""
    return [*_running_ends(text)][:-1]


def _running_ends(text: str) -> Iterator[int]:
    end = 0
    for sentence in sentences(text):
        end += len(sentence)
        yield end
