"""What a person should look at before tuning on a source, and the flag that changes it."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from response_tuning.data.inspection.inspection import Inspection
from response_tuning.data.inspection.tallies import UNDETERMINED

Severity: TypeAlias = Literal["high", "medium", "low"]
SEVERITIES: dict[Severity, str] = {
    "high": "do not tune before you have looked at it",
    "medium": "the model learns it",
    "low": "good to know",
}
"""Severity -> what it means, the most severe first."""
OTHER_LANGUAGES = 0.02
"""Share of responses in other languages than the most frequent one from which this is a finding."""


class Finding(NamedTuple):
    """Something about a source that a person should know."""

    severity: Severity
    responses: int
    what: str
    fix: str
    """The flag of ``rtune data`` that changes it, or what to do where there is none."""


def findings(inspection: Inspection) -> list[Finding]:
    """Return the findings, the most severe first, and of equals the most frequent."""
    order = [*SEVERITIES]
    found = [one for one in _all(inspection) if one.responses]
    return sorted(found, key=lambda one: (order.index(one.severity), -one.responses))


def _all(inspection: Inspection) -> Iterator[Finding]:
    kinds = ", ".join(inspection.personal_data)
    yield Finding(
        "high",
        inspection.with_personal_data,
        f"hold personal data ({kinds}), which a model can repeat to anybody",
        "--personal-data mask",
    )
    yield Finding(
        "high",
        inspection.same_as_instruction,
        "equal their instruction: the columns may be mixed up",
        "--response-column NAME",
    )
    yield Finding(
        "medium", inspection.restatements, "restate their instruction", "--restatements strip"
    )
    yield Finding(
        "medium",
        inspection.cut,
        "seem to stop within a sentence",
        "no flag: look for a limit of length where the file was made",
    )
    yield Finding(
        "medium",
        inspection.refusals["phrases"],
        "are refusals, which teach refusing",
        "no flag: remove them, or mix in a known number with rtune data mix",
    )
    yield _languages(inspection)
    yield Finding(
        "low",
        inspection.repeats,
        "are exact duplicates of an earlier one, and are dropped; near-duplicates are kept",
        "--near-duplicates 0.8, or --keep-duplicates",
    )
    yield Finding(
        "low",
        sum(inspection.not_looked_at.values()),
        "rows or turns are not used: the table of rows has the reasons",
        "--response-column NAME, if they should be",
    )


def _languages(inspection: Inspection) -> Finding:
    """Return the responses that are in another language than most."""
    known = {code: n for code, n in inspection.languages.items() if code != UNDETERMINED}
    first = next(iter(known), "")
    others = sum(known.values()) - known.get(first, 0)
    few = others < OTHER_LANGUAGES * inspection.turns
    return Finding(
        "low",
        0 if few else others,
        f"are in another language than {first}, the most frequent one",
        f"--language {first}",
    )
