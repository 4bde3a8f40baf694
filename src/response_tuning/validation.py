"""Settings become a model, or one line that says which key of which layer is wrong and why."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted
from response_tuning.registry import suggestion, unknown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Validated = TypeVar("Validated", bound=BaseModel)
_UNION_TAGS = {"bool", "constrained-int"}
"""Parts of a location that name no key: what a setting that may be "auto" was tried as."""
_NO_SECTION = {"model_type", "model_attributes_type", "dict_type"}


def build(
    kind: type[Validated],
    values: Mapping[str, Any],
    where: str,
    origins: Mapping[str, str] | None = None,
    *,
    section: Sequence[str] = (),
) -> Validated:
    """Validate ``values``, the content of ``section``, as a ``kind``.

    ``origins`` holds, by dotted key, the layer that a value comes from. An error begins with the
    origin of its key or of the innermost section around it, or else with ``where``.

    Raises:
        ConfigError: one line with the place, the key, its value and what is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        path = [str(part) for part in errors[0]["loc"] if part not in _UNION_TAGS]
        outer = _model_at(kind, path[:-1])
        path = [*section, *path]
        origin = _nearest(path, origins or {})
        place = where if origin is None else origin
        parts = (place, *_explained(outer, path, errors))
        raise ConfigError(": ".join(filter(None, parts))) from error


def settings_at(content: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """Return the section at ``path``; empty if there is none, or if it is not a section."""
    for name in path:
        inner = content.get(name)
        content = inner if isinstance(inner, Mapping) else {}
    return content


def _explained(
    section: type[BaseModel], path: Sequence[str], errors: "Sequence[ErrorDetails]"
) -> tuple[str, str]:
    """Return the key of the first error, which is in a ``section``, and what is wrong with it."""
    first, key = errors[0], ".".join(path)
    if first["type"] == "extra_forbidden":
        # The value of an unknown key is not repeated: it may be a secret, such as an api_key.
        return ".".join(path[:-1]), str(unknown("key", path[-1], _known(section, path[-1])))
    if first["type"] == "missing":
        flag = {"source": "--data"}.get(path[-1], f"--{path[-1].replace('_', '-')}")
        has_flags = getattr(section, "flags", True)
        return key, f"not given; name it with {flag}, or in a recipe" if has_flags else "missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # our own validators say what a user needs to know
        return key, message
    if first["type"] in _NO_SECTION:  # not the value, which may be a secret too
        return key, "expected settings, found a value"
    hint = _literal_suggestion(first["input"], errors)
    if section.model_config.get("hide_input_in_errors"):
        return key, f"{message}; {hint}" if hint else message
    got = f"(got {redacted(repr(first['input']))})"
    return key, f"{message}; {hint} {got}" if hint else f"{message} {got}"


def _known(section: type[BaseModel], key: str) -> list[str]:
    """Return the keys of a section; if no key is similar, add inner sections that have ``key``."""
    known = [*section.model_fields, *getattr(section, "keywords", ())]
    if suggestion(key, known):
        return known
    inside = [
        f"{name}.{key}"
        for name, field in section.model_fields.items()
        if (model := model_in(field.annotation)) is not None and key in model.model_fields
    ]
    return [*known, *inside]


def _literal_suggestion(value: object, errors: "Sequence[ErrorDetails]") -> str:
    """Return the most similar of the words that a setting takes, if it takes words."""
    words = [
        word
        for error in errors
        if error["type"] == "literal_error" and error["input"] == value
        for word in re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))
    ]
    return suggestion(value, words) if isinstance(value, str) else ""


def _model_at(kind: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """Return the model of the section at ``path``; names of variants and places in lists pass."""
    for part in path:
        field = kind.model_fields.get(part)
        kind = (model_in(field.annotation) if field else None) or kind
    return kind


def model_in(annotation: object) -> type[BaseModel] | None:
    """Return the first model in an annotation such as ``dict[str, VariantConfig] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def _nearest(path: Sequence[str], origins: Mapping[str, str]) -> str | None:
    """Return the origin of a key, or of the innermost section around it that has one."""
    for length in range(len(path), 0, -1):
        if (origin := origins.get(".".join(path[:length]))) is not None:
            return origin
    return None
