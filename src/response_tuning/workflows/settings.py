"""``rtune config``: every setting of a recipe, from the JSON schema that Pydantic derives.

The models in ``configs`` are the one source: type and default come from a field, its help from the
docstring below it. Editors read the same schema, so that they complete and check recipes.
"""

import json
from collections.abc import Iterator
from textwrap import fill
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from response_tuning.configs import Config, DataConfig, FinetuneConfig, GenerateConfig
from response_tuning.registry import unknown
from response_tuning.workflows.arms import VariantConfig
from response_tuning.workflows.experiment import Experiment

Schema = dict[str, Any]

_SECTIONS: dict[str, type[Config]] = {
    "data": DataConfig,
    "finetune": FinetuneConfig,
    "generate": GenerateConfig,
}
"""Sections that a recipe may give in part, because a variant or a preset gives the rest; the
experiment therefore holds them as plain mappings until all parts are laid over each other."""
_REFERENCE = "#/$defs/"
_EACH = "NAME"
"""Stands for the name of a variant in a dotted key."""
_LARGEST_SHOWN = 2**31
"""Bounds from here on are limits of the machine, not of the setting."""


def recipe_schema(section: str | None = None) -> Schema:
    """Return the JSON schema of recipes, or of one section. No setting is required in it.

    A recipe of ``rtune finetune`` has two sections of one of ``rtune run``, and every setting may
    come from a preset, another recipe or a flag.

    Raises:
        ConfigError: there is no such section.
    """
    schema = _whole()
    for model in schema["$defs"].values():
        model.pop("required", None)
    if section is None:
        return schema
    found = {key: part for key, part, _ in _settings(schema)}
    if section not in found:
        raise unknown("section", section, [*found])
    return {"$schema": schema["$schema"], **found[section], "$defs": schema["$defs"]}


def described(section: str | None = None) -> Iterator[str]:
    """Yield lines with the type, the default and the help of every setting, or of one section's.

    Raises:
        ConfigError: there is no such section.
    """
    schema = _whole()
    found = [*_settings(schema)]
    if section is not None:
        keys = [key for key, _, _ in found]
        found = [part for part in found if f"{part[0]}.".startswith(f"{section}.")]
        if not found:
            raise unknown("section", section, keys)
    for key, part, required in found:
        yield f"{key}: {_type(schema, part)}{_default(schema, part, required=required)}"
        if text := part.get("description") or _model(schema, part).get("description", ""):
            text = " ".join(text.replace("``", "'").split())
            yield fill(text, 96, initial_indent="    ", subsequent_indent="    ")


_READ_FIRST: Schema = {
    "extends": {
        "type": "string",
        "description": "Another recipe, relative to this one; the settings here win.",
    },
    "imports": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Modules of your own to import, because they register names.",
    },
}
"""Keys of the file that are gone when its settings are validated."""


def _whole() -> Schema:
    models: list[type[BaseModel]] = [Experiment, VariantConfig, *_SECTIONS.values()]
    _, schema = models_json_schema([(model, "validation") for model in models])
    definitions = schema["$defs"]
    recipe = definitions[Experiment.__name__]
    recipe["properties"] = {**_READ_FIRST, **recipe["properties"]}
    for name, model in _SECTIONS.items():
        for owner in (Experiment, VariantConfig):
            plain = definitions[owner.__name__]["properties"][name]
            # Only a variant may say null: it is not tuned.
            empty = [one for one in plain.get("anyOf", []) if one == {"type": "null"}]
            reference = {"$ref": f"{_REFERENCE}{model.__name__}"}
            shown = {"anyOf": [reference, *empty]} if empty else reference
            if "description" in plain:
                shown["description"] = plain["description"]
            definitions[owner.__name__]["properties"][name] = shown
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of response-tuning",
        "$ref": f"{_REFERENCE}{Experiment.__name__}",
        **schema,
    }


def _settings(schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Yield (dotted key, schema, whether it is required) of every setting.

    A variant holds whole sections of the recipe again; their settings are not repeated.
    """
    seen: set[str] = set()

    def walk(model: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
        for name, part in model.get("properties", {}).items():
            yield f"{path}{name}", part, name in model.get("required", ())
            # A mapping has one model for all its values, as for all variants.
            of_each = part.get("additionalProperties")
            inner = _model(schema, of_each if isinstance(of_each, dict) else part)
            title = inner.get("title", "")
            if title and (title not in seen or _EACH not in path):
                seen.add(title)
                each = f"{_EACH}." if isinstance(of_each, dict) else ""
                yield from walk(inner, f"{path}{name}.{each}")

    yield from walk(_model(schema, schema), "")


def _model(schema: Schema, part: Schema) -> Schema:
    """Return the model that a part refers to, alone or beside null; empty if it does not."""
    for one in (part, *part.get("anyOf", ())):
        if "$ref" in one:
            return dict(schema["$defs"][one["$ref"].removeprefix(_REFERENCE)])
    return {}


def _type(schema: Schema, part: Schema) -> str:
    if "$ref" in part:
        model = _model(schema, part)
        return "section" if "properties" in model else _type(schema, model)
    if "anyOf" in part:
        return " or ".join(_type(schema, one) for one in part["anyOf"])
    if "enum" in part or "const" in part:
        return " or ".join(map(json.dumps, part.get("enum", [part.get("const")])))
    kind = part.get("type", "any value")
    if kind == "array":
        return f"list of {_type(schema, part.get('items', {}))}"
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"mapping of names to {_type(schema, part['additionalProperties'])}"
    return f"{kind}{_bounds(part)}"


def _bounds(part: Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    shown = [
        f"{sign} {part[name]}"
        for name, sign in signs.items()
        if name in part and part[name] < _LARGEST_SHOWN
    ]
    return f" {' and '.join(shown)}" if shown else ""


def _default(schema: Schema, part: Schema, *, required: bool) -> str:
    if required:
        return ", required"
    if "default" in part:
        return f", default {json.dumps(part['default'])}"
    return "" if _model(schema, part) else ", default empty"
