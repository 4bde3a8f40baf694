"""Fields of a chat request, and what to do when a server rejects one.

Servers differ in the fields they know, and name the one they reject in an error. It is then left
out, or sent under its other name, if that does not change the request. The one exception is a
temperature of 0, which reasoning models lack: every answer then carries a note.
"""

import re
from typing import Any

from response_tuning.artifacts import Question, Request, Sampling

_UNKNOWN = re.compile(
    r"unsupported|not (?:\w+ )?support|n't (?:\w+ )?support|unrecogni[sz]ed|unexpected"
    r"|unknown (?:\w+ )?(?:parameter|argument|field|name|key)"
    r"|extra[ _](?:inputs|fields|keys|forbidden|parameters)|not permitted|not allowed"
    r"|additional propert|cannot both|max_completion_tokens",
    re.IGNORECASE,
)
_FORM = re.compile(r"response_format|json_schema|schema|grammar|guided|structured", re.IGNORECASE)


def fields(
    request: Request, sampling: Sampling, refused: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the fields of a request to a server that rejected the ``refused`` ones."""
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    sent: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.prompt],
        limit: sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.stop:
        sent["stop"] = list(sampling.stop)
    if isinstance(request, Question):
        # A server without structured output answers freely; the caller then parses what it gets.
        form = {"name": "reply", "strict": True, "schema": request.form}
        sent["response_format"] = {"type": "json_schema", "json_schema": form}
    return {name: value for name, value in sent.items() if name not in refused}


def refused_field(sent: dict[str, Any], param: object, message: str) -> str | None:
    """Return the field that a server's error rejects; None if it rejects none."""
    names = [name for name in sent if name != "messages"]
    if "response_format" in sent and _FORM.search(f"{param} {message}"):
        return "response_format"
    if not _UNKNOWN.search(message):
        return None
    words = re.findall(r"\w+", str(param or "")) or re.findall(r"\w+", message)
    return next((word for word in words if word in names), None)


def can_omit(field: str, sampling: Sampling) -> bool:
    """Whether a request means the same without a field."""
    if field == "temperature":
        return sampling.temperature in (0, 1)
    if field == "top_p":
        return sampling.top_p == 1 or sampling.temperature == 0
    # rtune cuts at stop strings itself; a seed changes which answer is drawn, not the distribution.
    return field in ("max_tokens", "seed", "stop", "response_format")


def notes(refused: frozenset[str], sampling: Sampling) -> list[str]:
    """Return the notes of an answer, where rejected fields changed how it was drawn."""
    remarks = []
    if "temperature" in refused and sampling.temperature == 0:
        remarks.append("drawn at the server's own temperature: it does not support 0")
    if "seed" in refused and (sampling.temperature > 0 or "temperature" in refused):
        remarks.append("drawn without a seed: the server does not support one")
    return remarks
