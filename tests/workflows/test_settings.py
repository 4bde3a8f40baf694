import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from response_tuning.configs import CurationConfig, FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune.objectives import OBJECTIVES, ObjectiveConfig
from response_tuning.workflows.settings import described, recipe_schema

ROOT = Path(__file__).parents[2]
RECIPES = [
    *sorted((ROOT / "recipes").glob("*.yaml")),
    *sorted((ROOT / "recipes" / "paper").rglob("*.yaml")),
    *ROOT.glob("src/**/demo.yaml"),
]


def lines(section: str | None = None) -> list[str]:
    return [line for line in described(section) if not line.startswith(" ")]


def test_every_setting_has_its_type_and_its_default() -> None:
    assert lines("data.curation") == [
        "data.curation: section",
        "data.curation.near_duplicates: number > 0 and <= 1 or null, default null",
        "data.curation.tokenizer: string or null, default null",
        "data.curation.min_tokens: integer >= 0 or null, default null",
        "data.curation.max_tokens: integer >= 1 or null, default null",
        "data.curation.language: string or null, default null",
        'data.curation.personal_data: "keep" or "flag" or "mask" or "drop", default "keep"',
        'data.curation.restatements: "keep" or "flag" or "strip" or "drop", default "keep"',
        'data.curation.html: "keep" or "flag" or "strip" or "drop", default "keep"',
        'data.curation.quoted_mail: "keep" or "flag" or "strip" or "drop", default "keep"',
        'data.curation.signatures: "keep" or "flag" or "strip" or "drop", default "keep"',
        'data.curation.greetings: "keep" or "flag" or "strip" or "drop", default "keep"',
        'data.curation.front_matter: "keep" or "strip", default "strip"',
    ]
    assert {key.split(".")[-1].split(":")[0] for key in lines("data.curation")[1:]} == {
        *CurationConfig.model_fields
    }
    assert lines("finetune.base_model") == ["finetune.base_model: string, required"]
    assert lines("finetune.tokens_per_micro_batch") == [
        'finetune.tokens_per_micro_batch: integer >= 1 or "auto", default "auto"'
    ]
    assert lines("grade.paths") == ["grade.paths: mapping of names to string, default empty"]
    assert lines("report.confidence") == ["report.confidence: number > 0.5 and < 1, default 0.95"]


def test_the_help_of_a_setting_is_its_docstring() -> None:
    found = [*described("finetune.max_steps")]
    assert found[1] == "    Stop after this many optimizer steps; overrides 'epochs'."


def test_every_setting_has_help() -> None:
    both = [*described()]
    helped = [line for line, below in itertools.pairwise(both) if below.startswith(" ")]
    assert [line for line in lines() if line not in helped] == []


def test_all_sections_are_listed_and_a_variant_repeats_none_of_them() -> None:
    keys = [line.partition(":")[0] for line in lines()]
    assert len(set(keys)) == len(keys)
    for name in FinetuneConfig.model_fields:
        assert f"finetune.{name}" in keys
    assert "generate.settings.base_url" in keys
    assert "grade.judge.settings.base_url" in keys
    assert "variants.NAME.finetune" in keys
    assert not [key for key in keys if key.startswith("variants.NAME.finetune.")]
    assert keys[:2] == ["extends", "imports"]


@pytest.mark.parametrize("show", [lambda name: [*described(name)], recipe_schema])
def test_an_unknown_section_is_answered_with_the_nearest(show: Any) -> None:
    with pytest.raises(ConfigError, match="unknown section 'finetunes': did you mean 'finetune'"):
        show("finetunes")


def objective_settings() -> set[str]:
    """The settings of all objectives: a plug-in may add some, so the schema leaves them open."""
    entries = [OBJECTIVES.get(name) for name in OBJECTIVES.names()]
    with_settings = [
        one for one in entries if isinstance(one, type) and issubclass(one, ObjectiveConfig)
    ]
    return {key for one in with_settings for key in one.model_fields}


def unknown_keys(schema: Mapping[str, Any], part: Mapping[str, Any], value: Any) -> Iterator[str]:
    """The keys of a recipe that its schema does not have."""
    for one in part.get("anyOf", [part]):
        if "$ref" in one:
            part = schema["$defs"][one["$ref"].rpartition("/")[2]]
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        if key == "objective_settings" and key in part.get("properties", {}):
            yield from sorted({*inner} - objective_settings())
        elif key in part.get("properties", {}):
            yield from unknown_keys(schema, part["properties"][key], inner)
        elif isinstance(part.get("additionalProperties"), Mapping):
            yield from unknown_keys(schema, part["additionalProperties"], inner)
        else:
            yield str(key)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_knows_every_key_of_our_recipes(path: Path) -> None:
    schema = recipe_schema()
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert recipe
    assert not [*unknown_keys(schema, schema, recipe)]
    assert [*unknown_keys(schema, schema, {**recipe, "fintune": {}})] == ["fintune"]
    misspelt = {"finetune": {"objective_settings": {"mu": 1, "nu": 1}}}
    assert [*unknown_keys(schema, schema, {"variants": {"a": misspelt}})] == ["nu"]


def test_the_schema_closes_every_section_and_requires_nothing() -> None:
    schema = recipe_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for model in schema["$defs"].values():
        if "properties" in model:
            assert model["additionalProperties"] is False
            assert "required" not in model
    variant = schema["$defs"]["VariantConfig"]["properties"]["finetune"]
    assert {"type": "null"} in variant["anyOf"]
    assert recipe_schema("finetune")["$ref"] == "#/$defs/FinetuneConfig"
    assert json.loads(json.dumps(schema)) == schema


def test_the_command_prints_settings_and_the_schema(rtune: Any) -> None:
    page = (ROOT / "docs" / "how-to" / "settings.md").read_text(encoding="utf-8")
    result = rtune("config", "data.curation")
    assert (result.code, result.err) == (0, "")
    shown = page.split("$ rtune config data.curation\n")[1].split("...\n```")[0]
    for line in shown.splitlines():
        assert line.strip() == "..." or line in result.out.splitlines()
    assert json.loads(rtune("config", "--json-schema").out) == recipe_schema()
    wrong = rtune("config", "data.curatio")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "did you mean 'data.curation'" in wrong.err
