from typing import Any

import pytest

from response_tuning.configs import DataConfig, FinetuneConfig, GenerateConfig, GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.recipe import Recipe
from response_tuning.validation import build, settings_at
from response_tuning.workflows.experiment import Experiment

DATA = {"source": "a"}
RECIPE = {"data": DATA, "finetune": {"base_model": "b"}}
EXPERIMENT = {"benchmarks": ["b"], "variants": {"rt": {}}}


def error_of(kind: type[Any], values: dict[str, Any], **how: Any) -> str:
    with pytest.raises(ConfigError) as error:
        build(kind, values, "here", **how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FinetuneConfig, {"base_model": "b", "lora_rank": 8}, "unknown key 'lora_rank': did you"),
        (DataConfig, DATA | {"mixture": {"refusal": 1}}, "mixture: unknown key 'refusal': did you"),
        (
            DataConfig,
            DATA | {"refinement": {"settings": {"modle": "m"}}},
            "refinement.settings: unknown key 'modle': did you mean 'model'?",
        ),
        (
            DataConfig,
            DATA | {"refinement": {"sampling": {"top_k": 1}}},
            "refinement.sampling: unknown key 'top_k': did you mean 'top_p'?",
        ),
        (
            GradeConfig,
            {"judge": {"settings": {"modle": "gpt"}}},
            "judge.settings: unknown key 'modle': did you mean 'model'?",
        ),
        (
            GenerateConfig,
            {"settings": {"base_ur": "x"}},
            "settings: unknown key 'base_ur': did you",
        ),
        (
            Experiment,
            EXPERIMENT | {"variants": {"rt": {"dose": [1]}}},
            "variants.rt: unknown key 'dose': did you mean 'doses'?",
        ),
        (Experiment, EXPERIMENT | {"extend": "x"}, "unknown key 'extend': did you mean 'extends'?"),
        (
            Experiment,
            EXPERIMENT | {"import": ["x"]},
            "unknown key 'import': did you mean 'imports'?",
        ),
        (Recipe, RECIPE | {"presets": "small"}, "unknown key 'presets': did you mean 'preset'?"),
        (
            Experiment,
            EXPERIMENT | {"confidence": 0.9},
            "unknown key 'confidence': did you mean 'report.confidence'?",
        ),
    ],
)
def test_an_unknown_key_gets_a_suggestion_at_any_depth(
    kind: type[Any], values: dict[str, Any], message: str
) -> None:
    assert error_of(kind, values).startswith(f"here: {message}")


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("method", "loar", "'lora'"),
        ("scheduler", "cosin", "'cosine'"),
        ("tokens_per_micro_batch", "atuo", "'auto'"),
        ("gradient_checkpointing", "autoo", "'auto'"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(key: str, value: str, hint: str) -> None:
    message = error_of(FinetuneConfig, {"base_model": "b", key: value})
    assert message.startswith(f"here: {key}: Input should be ")
    assert message.endswith(f"; did you mean {hint}? (got '{value}')")


def test_a_misspelt_outcome_gets_a_suggestion() -> None:
    policies = {"refinement": {"policies": {"no-markr": "drop"}}}
    assert "did you mean 'no-marker'?" in error_of(DataConfig, DATA | policies)


def test_the_value_of_an_unknown_key_is_not_repeated() -> None:
    settings = {"api_key": "planted", "headers": {"x": "planted"}}
    for key, value in settings.items():
        assert "planted" not in error_of(GradeConfig, {"judge": {"settings": {key: value}}})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            GradeConfig,
            {"judge": {"settings": {"timeout_s": "planted"}}},
            "judge.settings.timeout_s: Input should be a valid number, unable to parse string as a "
            "number",
        ),
        (
            GradeConfig,
            {"judge": {"settings": "planted"}},
            "judge.settings: expected settings, found a value",
        ),
        (GradeConfig, {"judge": "planted"}, "judge: expected settings, found a value"),
        (
            Experiment,
            EXPERIMENT | {"generate": "planted"},
            "generate: expected settings, found a value",
        ),
        (
            GenerateConfig,
            {"settings": {"device": "cpux"}},
            "settings.device: Input should be 'auto' or 'cpu'; did you mean 'cpu'?",
        ),
        (
            DataConfig,
            DATA | {"refinement": {"settings": {"table": 3}}},
            "refinement.settings.table: Input is not a valid path for <class 'pathlib.Path'>",
        ),
    ],
)
def test_the_value_of_an_engines_setting_is_not_repeated(
    kind: type[Any], values: dict[str, Any], message: str
) -> None:
    assert error_of(kind, values) == f"here: {message}"


def test_an_error_begins_with_the_layer_of_the_key_or_of_the_section_around_it() -> None:
    origins = {"finetune": "a.yaml", "finetune.epochs": "--set", "finetune.window": ""}
    how = {"origins": origins, "section": ["finetune"]}
    base = {"base_model": "b"}
    assert error_of(FinetuneConfig, base | {"epochs": 0}, **how).startswith("--set: finetune.ep")
    assert error_of(FinetuneConfig, base | {"seed": -1}, **how).startswith("a.yaml: finetune.seed")
    assert error_of(FinetuneConfig, base | {"window": 0}, **how).startswith("finetune.window: ")
    assert error_of(FinetuneConfig, {}, **how).startswith("a.yaml: finetune.base_model: not given")


def test_a_section_that_is_none_is_empty() -> None:
    assert settings_at({"a": {"b": {"c": 1}}}, ["a", "b"]) == {"c": 1}
    for path in (["x"], ["a", "b", "c"], ["a", "x", "y"]):
        assert settings_at({"a": {"b": {"c": 1}}}, path) == {}
