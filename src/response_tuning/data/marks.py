"""Marks in rows and messages that say whether an answer is to be learned.

OpenAI and Mistral write ``weight``, Axolotl ``training`` or ``train`` (and ``train_detail`` for
parts of a message), ms-swift ``loss``, torchtune ``masked``, LLaMA-Factory ``kto_tag``. Names are
compared without case.
"""

from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any

LEARNED = {"weight", "loss_weight", "loss_mask", "loss", "train", "training", "trainable"} | {
    *("weights", "loss_weights", "learn", "train_on", "train_on_turn", "keep", "use"),
    *("is_correct", "kto_tag"),
}
NOT_LEARNED = {"mask", "masked", "ignore", "ignored", "exclude", "excluded", "skip"} | {
    *("deleted", "is_deleted"),
}
MARKS = LEARNED | NOT_LEARNED
DETAILS = {"train_detail", "training_detail"}
_HEARD = MARKS | DETAILS
METADATA = {"metadata", "meta"}
"""Objects that may hold marks."""
_YES = {"1", "1.0", "true", "yes", "on"}
_NO = {"0", "0.0", "false", "no", "off"}
_LONGEST = 10
"""Characters of a text that can be a mark."""


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """Return the name of a field as it is compared: in lower case, with underscores."""
    return name.strip().lower().replace("-", "_")


def unlearned(fields: Mapping[str, Any], names: Container[str] | None = None) -> str:
    """Return why an answer is not to be learned, by the marks in ``fields``.

    Empty if it is to be learned. A mark that is neither yes nor no, such as ``weight: 0.5``, cannot
    be followed, so that the answer is not learned either.

    Args:
        fields: A row, a message or a part of one.
        names: The fields that may be marks; None means all with the name of one.
    """
    for name in sorted(fields):
        value, known = fields[name], plain(name)
        if value is None:
            continue
        if known in METADATA and isinstance(value, Mapping):
            # Only a plain yes or no: a weight of 0.5 there may be about anything.
            why = unlearned({key: held for key, held in value.items() if is_yes(held) is not None})
        elif known in _HEARD and (names is None or name in names):
            why = _unlearned(name, known, value)
        else:
            continue
        if why:
            return why
    return ""


def is_list_of_marks(value: object) -> bool:
    """Say whether ``value`` is a list of numbers or booleans: one mark a message or a token."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int | float) for item in value)
    )


def _unlearned(name: str, known: str, value: object) -> str:
    if known in DETAILS:
        return f"marked as not to be learned in part ({name})" if _holds_back(value) else ""
    says = is_yes(value)
    if says is None:
        return f"{name} is neither 0 nor 1"
    return f"marked as not to be learned ({name})" if says == (known in NOT_LEARNED) else ""


def is_yes(value: object) -> bool | None:
    """Read a mark: a boolean, 0 or 1, or the text of one; None is something else."""
    if isinstance(value, str):
        if len(value) > _LONGEST:
            return None
        said = value.strip().lower()
        return True if said in _YES else False if said in _NO else None
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return None


def _holds_back(detail: object) -> bool:
    """Whether one of Axolotl's spans is not to be trained on."""
    spans = detail if isinstance(detail, list) else [detail]
    return any(isinstance(span, Mapping) and unlearned(span, {"train"}) for span in spans)
