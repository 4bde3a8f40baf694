"""The generation config of a tuned model: the part of the base's that it keeps.

Servers and plain transformers obey all of ``generation_config.json``. Settings that suit a base can
prevent a tuned model from ever ending a reply: a stop token among ``suppress_tokens``, or a
``min_length``. So only token ids and sampling settings are carried over.
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import GenerationConfig


# These change no reply, so dropping them needs no warning.
_SILENT = {
    *("transformers_version", "use_cache", "output_attentions", "output_hidden_states"),
    *("output_scores", "output_logits", "return_dict_in_generate"),
}


def carried_over(declared: "GenerationConfig") -> tuple["GenerationConfig", list[str]]:
    """Return the part of ``declared`` that a tuned model keeps, and phrases about what it loses.

    There are no phrases if the lost settings change no reply.
    """
    from transformers import GenerationConfig

    before = {name: value for name, value in vars(declared).items() if value is not None}
    kept = {name: before[name] for name, fits in _KEPT.items() if fits(before.get(name))}
    # transformers refuses to save an invalid config, and a base may ship one.
    settings = next(
        tried for tried in _attempts(kept) if _is_valid(GenerationConfig.from_dict(tried))
    )
    standard = vars(GenerationConfig.from_dict({}))
    lost = sorted(
        name
        for name, value in before.items()
        if name not in _SILENT | settings.keys()
        and not name.startswith("_")
        and value != standard.get(name)
    )
    remarks = [f"lacks {', '.join(lost)}"] if lost else []
    if settings.get("do_sample") != kept.get("do_sample") and "do_sample" in settings:
        remarks.append("has do_sample: true, without which its sampling settings have no effect")
    return GenerationConfig.from_dict(settings), remarks


def _attempts(kept: dict[str, Any]) -> "Iterator[dict[str, Any]]":
    yield kept
    yield kept | {"do_sample": True}  # the usual fault: a temperature that is never used
    yield {name: value for name, value in kept.items() if name.endswith("_token_id")}
    yield {}


def _is_valid(generation: "GenerationConfig") -> bool:
    try:
        generation.validate(strict=True)
    except ValueError:
        return False
    return True


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_stop(value: object) -> bool:
    return _is_token(value) or (
        isinstance(value, list) and bool(value) and all(map(_is_token, value))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_KEPT: "dict[str, Callable[[Any], bool]]" = {
    "bos_token_id": _is_token,
    "eos_token_id": _is_stop,
    "pad_token_id": _is_token,
    "do_sample": lambda value: isinstance(value, bool),
    "temperature": lambda value: _is_number(value) and value > 0,
    "top_p": lambda value: _is_number(value) and 0 < value <= 1,
    "top_k": lambda value: _is_token(value),
}
