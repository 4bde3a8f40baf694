"""Marks in rows and messages that say whether an answer is to be learned.

OpenAI and Mistral write ``weight``, Axolotl ``training`` or ``train`` (and ``train_detail`` for
parts of a message), ms-swift ``loss``, torchtune ``masked``, LLaMA-Factory ``kto_tag``.
"""

from collections.abc import Mapping
from typing import Any

LEARNED = {"weight", "loss_weight", "loss_mask", "loss", "train", "training", "trainable"} | {
    "learn",
    "kto_tag",
}
NOT_LEARNED = {"masked"}
MARKS = LEARNED | NOT_LEARNED
DETAILS = {"train_detail", "training_detail"}
_YES = {"1", "1.0", "true", "yes"}
_NO = {"0", "0.0", "false", "no"}


def unlearned(fields: Mapping[str, Any], names: set[str] = MARKS | DETAILS) -> str:
    """Return why an answer is not to be learned, by those marks of ``fields`` that are ``names``.

    Empty if it is to be learned. A mark that is neither yes nor no, such as ``weight: 0.5``, cannot
    be kept to here, so that the answer is not learned either.
    """
    for name in sorted(names & fields.keys()):
        value = fields[name]
        if value is None:
            continue
        if name in DETAILS:
            if _holds_back(value):
                return f"marked as not to be learned in part ({name})"
            continue
        says = is_yes(value)
        if says is None:
            return f"{name} is neither 0 nor 1"
        if says == (name in NOT_LEARNED):
            return f"marked as not to be learned ({name})"
    return ""


def is_yes(value: object) -> bool | None:
    """Read a mark: a boolean, 0 or 1, or the text of one; None is something else."""
    if isinstance(value, str):
        said = value.strip().lower()
        return True if said in _YES else False if said in _NO else None
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return None


def _holds_back(detail: object) -> bool:
    """Whether one of Axolotl's spans is not to be trained on."""
    spans = detail if isinstance(detail, list) else [detail]
    return any(isinstance(span, Mapping) and unlearned(span, {"train"}) for span in spans)
