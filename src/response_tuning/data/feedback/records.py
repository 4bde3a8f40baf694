"""What ``rtune data feedback`` writes: rows that ``--source`` and recipes read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from response_tuning.data.feedback.labels import Answer
from response_tuning.data.steps import personal

LISTS = {"satisfied": "satisfied.jsonl", "dissatisfied": "dissatisfied.jsonl"}
LISTS |= {"neither": "neither.jsonl"}
"""Label -> the file of its answers."""
PAIRS = "pairs.jsonl"
AUDIT = "feedback.json"


def single(answer: Answer) -> dict[str, Any]:
    """Return an answer as a row of training data."""
    return _context(answer) | {"response": answer.response, "metadata": _metadata(answer)}


def pair(
    answer: Answer, chosen: str, rejected: str, made: str, wishes: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a row of preference data about an answer that displeased.

    ``made`` says where ``chosen`` comes from: ``log``, ``rewritten``, ``rewritten without wishes``
    or ``on-policy``, where a model wrote ``rejected``, too.
    """
    about = _metadata(answer) | {"made": made, "wishes": [*wishes]}
    return _context(answer) | {"chosen": chosen, "rejected": rejected, "metadata": about}


def personal_data(row: Mapping[str, Any]) -> str:
    """Return the kinds of personal data in the texts of a row; empty if there are none."""
    texts = [message["content"] for message in row["earlier"]]
    texts += [row[key] for key in ("instruction", "response", "chosen", "rejected") if key in row]
    kinds = Counter(kind for text in texts for kind in personal.kinds_in(text))
    return ", ".join(sorted(kinds))


def _context(answer: Answer) -> dict[str, Any]:
    earlier = [message.model_dump() for message in answer.earlier]
    return {"instruction": answer.instruction, "earlier": earlier}


def _metadata(answer: Answer) -> dict[str, Any]:
    place = {"dialogue": answer.dialogue, "turn": answer.turn}
    return place | {"label": answer.label, "feedback": answer.feedback}
