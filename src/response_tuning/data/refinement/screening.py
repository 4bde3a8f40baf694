"""Screening: how much of a set of texts is instructions or answers to them?

Xie et al. 2024 (arXiv 2409.00096) report about 0.7 % by GPT-4. Two measures here: signs that a rule
finds (question marks, imperatives, second person), and a judge's yes or no.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    Message,
    Record,
    Request,
    digest,
    read_json,
    read_jsonl,
    write_json,
    written_aside,
)
from response_tuning.data.passages import sentences
from response_tuning.errors import DataError
from response_tuning.thoughts import answer

if TYPE_CHECKING:
    import jinja2

Sign = Literal["question mark", "imperative", "second person"]
SIGNS: tuple[Sign, ...] = ("question mark", "imperative", "second person")
Verdict = Literal["yes", "no", "unread"]
Drop = Literal["nothing", "signs", "judged"]
"""What is left out: nothing, examples with a sign in either text, or those judged ``yes``."""
Ask: TypeAlias = Callable[[Iterable[Request]], Iterator[Completion]]

_SECOND_PERSON = re.compile(r"\byou(?:r|rs|rself|rselves)?\b", re.IGNORECASE)
_IMPERATIVE = re.compile(
    r"[\W\d]*(?:please\s+|kindly\s+)?(?:answer|calculate|classify|compare|complete|consider|convert"
    r"|create|define|describe|discuss|explain|fill|find|generate|give|help|identify|imagine|list"
    r"|name|provide|remember|remind|rewrite|say|show|solve|suggest|summari[sz]e|tell|translate|try"
    r"|use|write)\b(?!['\u2019]|\s+(?:is|are|was|were|has|had|of)\b)",
    re.IGNORECASE,
)
"""A sentence that begins with a verb by which people ask for something."""


class Screened(Record):
    """What was found in one example."""

    row: int
    turn: int
    instruction: tuple[Sign, ...]
    """Signs in the instruction; empty where there is none."""
    response: tuple[Sign, ...]
    verdict: Verdict | None
    """The judge's; None without a judge."""


def signs(text: str) -> tuple[Sign, ...]:
    """Return the signs that ``text`` asks somebody for something."""
    found: dict[Sign, bool] = {
        "question mark": "?" in text,
        "imperative": any(_IMPERATIVE.match(sentence) for sentence in sentences(text)),
        "second person": _SECOND_PERSON.search(text) is not None,
    }
    return tuple(sign for sign in SIGNS if found[sign])


def screen(source: Path, out: Path, ask: Ask | None, drop: Drop) -> None:
    """Screen the examples that ``prepare`` wrote to ``source``, into ``out``.

    ``ask`` asks a judge. ``screened.jsonl`` has a ``Screened`` for each example.

    Raises:
        DataError: no example is left.
    """
    examples = list(read_jsonl(source / "examples.jsonl", Example))
    verdicts = _verdicts(examples, ask)
    screened = [
        Screened(
            row=example.row,
            turn=example.turn,
            instruction=signs(example.instruction or ""),
            response=signs(example.response),
            verdict=verdict,
        )
        for example, verdict in zip(examples, verdicts, strict=True)
    ]
    left = [not _is_dropped(one, drop) for one in screened]
    if not any(left):
        raise DataError(f"{out}: no example is left: all have {drop} (--drop)")
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "screened.jsonl") as found,
        written_aside(out / "dropped.jsonl") as dropped,
    ):
        for record in read_jsonl(source / "dropped.jsonl", Dropped):
            dropped.write(record.model_dump_json() + "\n")
        for example, one, keep in zip(examples, screened, left, strict=True):
            found.write(one.model_dump_json() + "\n")
            if keep:
                kept.write(example.model_dump_json() + "\n")
            else:
                reason = Dropped(row=one.row, turn=one.turn, reason=f"screening: {drop}")
                dropped.write(reason.model_dump_json() + "\n")
    audit = read_json(source / "audit.json")
    number = left.count(False)
    if number:
        audit["dropped"] = {**audit["dropped"], f"screening: {drop}": number}
        audit["examples"] = left.count(True)
        audit["rows_kept"] = len(
            {one.row for one, keep in zip(screened, left, strict=True) if keep}
        )
    audit["screening"] = _counts(screened, examples) | {"drop": drop}
    write_json(out / "audit.json", audit)


def ask_about(example: Example) -> Request:
    """Return the question to the judge about one example."""
    content = _template().render(first=example.instruction or "", second=example.response)
    message = Message(role="user", content=content)
    return Request(item_id=f"{example.row}.{example.turn}", prompt=(message,))


def read_verdict(reply: Completion) -> Verdict:
    """Return the judge's first word, if it is yes or no."""
    said = re.match(r"\W*(yes|no)\b", answer(reply).text if reply.response else "", re.IGNORECASE)
    if said is None:
        return "unread"
    return "yes" if said[1].lower() == "yes" else "no"


def _verdicts(examples: list[Example], ask: Ask | None) -> list[Verdict | None]:
    if ask is None:
        return [None] * len(examples)
    return [read_verdict(reply) for reply in ask(map(ask_about, examples))]


def _is_dropped(one: Screened, drop: Drop) -> bool:
    if drop == "signs":
        return bool(one.instruction or one.response)
    return drop == "judged" and one.verdict == "yes"


def _counts(screened: list[Screened], examples: list[Example]) -> dict[str, Any]:
    """Return how many texts have each sign, and how many examples each verdict."""
    instructed = sum(example.instruction is not None for example in examples)
    counts: dict[str, Any] = {
        "instructions": {sign: sum(sign in one.instruction for one in screened) for sign in SIGNS}
        | {"all": instructed},
        "responses": {sign: sum(sign in one.response for one in screened) for sign in SIGNS}
        | {"all": len(screened)},
    }
    verdicts = Counter(one.verdict for one in screened if one.verdict is not None)
    if verdicts:
        counts["judged"] = dict(verdicts)
        counts["prompt_digest"] = digest(_wording())
    return counts


@cache
def _template() -> "jinja2.Template":
    import jinja2

    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(_wording())


def _wording() -> str:
    return Path(__file__).with_name("screen.jinja").read_text(encoding="utf-8")
