"""Which fields of a chat request a server knows: what one refuses, it says in an error of its own.

A field that is refused is left out, or has its other name, where that cannot change what is asked;
the one exception is a temperature of 0, which reasoning models do not have, and which is noted with
every answer.
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
    """Return the fields of a request to a server that has ``refused`` some."""
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    wanted: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.prompt],
        limit: sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.stop:
        wanted["stop"] = list(sampling.stop)
    if isinstance(request, Question):
        form = {"name": "reply", "strict": True, "schema": request.form}
        wanted["response_format"] = {"type": "json_schema", "json_schema": form}
    return {name: value for name, value in wanted.items() if name not in refused}


def refused_field(sent: dict[str, Any], param: object, message: str) -> str | None:
    """Return the field that an error of a server is about; None if it is about none."""
    names = [name for name in sent if name != "messages"]
    if "response_format" in sent and _FORM.search(f"{param} {message}"):
        return "response_format"
    if not _UNKNOWN.search(message):
        return None
    about = re.findall(r"\w+", str(param or "")) or re.findall(r"\w+", message)
    return next((word for word in about if word in names), None)


def is_spared(field: str, sampling: Sampling) -> bool:
    """Whether a request asks for the same without a field."""
    if field == "temperature":
        return sampling.temperature in (0, 1)
    if field == "top_p":
        return sampling.top_p == 1 or sampling.temperature == 0
    # Stop strings are cut off here too; a seed changes which answer is drawn, not from what.
    return field in ("max_tokens", "seed", "stop", "response_format")


def notes(refused: frozenset[str], sampling: Sampling) -> list[str]:
    """Return what an answer has to be read with, where fields were refused."""
    found = []
    if "temperature" in refused and sampling.temperature == 0:
        found.append("drawn at the server's own temperature: it has none of 0")
    if "seed" in refused and (sampling.temperature > 0 or "temperature" in refused):
        found.append("drawn without a seed, which the server does not know")
    return found
