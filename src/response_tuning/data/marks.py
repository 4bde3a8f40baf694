"""Marks in rows and messages that say whether to train on an answer.

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
MARK_NAMES = LEARNED | NOT_LEARNED
DETAILS = {"train_detail", "training_detail"}
_FOLLOWED = MARK_NAMES | DETAILS
METADATA = {"metadata", "meta"}
"""Objects that may hold marks."""
_YES = {"1", "1.0", "true", "yes", "on"}
_NO = {"0", "0.0", "false", "no", "off"}
_LONGEST = 10
"""Most characters of a text that can be a mark."""


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """Return the name of a field for comparison: in lower case, with underscores."""
    return name.strip().lower().replace("-", "_")


def unlearned(fields: Mapping[str, Any], names: Container[str] | None = None) -> str:
    """Return why the marks in ``fields`` exclude an answer from training; empty if they do not.

    Training cannot follow a mark that is neither yes nor no, such as ``weight: 0.5``, so such a
    mark excludes the answer as well.

    Args:
        fields: A row, a message or a part of one.
        names: The fields that may be marks; None means all fields with the name of a mark.
    """
    for name in sorted(fields):  # so that the reason does not depend on the order of the columns
        value, known = fields[name], plain(name)
        if value is None:
            continue
        if known in METADATA and isinstance(value, Mapping):
            # Only a plain yes or no counts: in metadata, a weight of 0.5 can mean anything.
            flags = {key: flag for key, flag in value.items() if is_yes(flag) is not None}
            why = unlearned(flags)
        elif known in _FOLLOWED and (names is None or name in names):
            why = _unlearned(name, known, value)
        else:
            continue
        if why:
            return why
    return ""


def is_list_of_marks(value: object) -> bool:
    """Whether ``value`` is a list of numbers or booleans: a mark for each message or token."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int | float) for item in value)
    )


def _unlearned(name: str, known: str, value: object) -> str:
    if known in DETAILS:
        return f"marked as not to be learned in part ({name})" if _holds_back(value) else ""
    flag = is_yes(value)
    if flag is None:
        return f"{name} is neither 0 nor 1"
    return f"marked as not to be learned ({name})" if flag == (known in NOT_LEARNED) else ""


def is_yes(value: object) -> bool | None:
    """Read a mark: a boolean, 0 or 1, or either as text; None if it is anything else."""
    if isinstance(value, str):
        if len(value) > _LONGEST:
            return None
        word = value.strip().lower()
        return True if word in _YES else False if word in _NO else None
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return None


def _holds_back(detail: object) -> bool:
    """Whether training must skip one of Axolotl's spans."""
    spans = detail if isinstance(detail, list) else [detail]
    return any(isinstance(span, Mapping) and unlearned(span, {"train"}) for span in spans)
