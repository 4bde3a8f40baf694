from typing import Any

import pytest
from pydantic import ValidationError

from response_tuning.configs import DataConfig, FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.validation import build

FLAGS: dict[str, dict[str, Any]] = {
    "data": {"source": "answers.jsonl"},
    "finetune": {"base_model": "base"},
}


@pytest.mark.parametrize("kind", [DataConfig, FinetuneConfig])
def test_settings_are_closed_and_frozen(kind: type[DataConfig | FinetuneConfig]) -> None:
    whole = {DataConfig: FLAGS["data"], FinetuneConfig: FLAGS["finetune"]}[kind]
    with pytest.raises(ConfigError, match=r"^here: unknown key 'more': "):
        build(kind, {**whole, "more": 1}, "here")
    with pytest.raises(ValidationError, match="frozen"):
        build(kind, whole, "here").seed = 1


@pytest.mark.parametrize("key", ["source", "base_model"])
def test_what_has_no_default_must_be_given(key: str) -> None:
    kind = DataConfig if key == "source" else FinetuneConfig
    with pytest.raises(ConfigError, match=f"^here: {key}: not given; name it with --"):
        build(kind, {}, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("lora_r", 0), ("lora_alpha", 0), ("lora_dropout", 1), ("lora_dropout", -0.1)],
        *[("learning_rate", 0), ("learning_rate", float("inf")), ("learning_rate", "fast")],
        *[("epochs", 0), ("epochs", float("inf")), ("max_steps", 0), ("warmup_steps", -1)],
        *[("weight_decay", -1), ("max_grad_norm", 0), ("max_grad_norm", float("nan"))],
        *[("examples_per_step", 0), ("window", 7), ("tokens_per_micro_batch", 0)],
        *[("eval_fraction", 1), ("eval_fraction", -0.1), ("save_steps", 0)],
        *[("seed", -1), ("seed", 2**32), ("seed", 0.5)],
        *[("method", "dora"), ("scheduler", "cosin"), ("precision", "float16"), ("device", "tpu")],
    ],
)
def test_an_impossible_value_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        build(FinetuneConfig, FLAGS["finetune"] | {key: value}, "here")
    assert str(error.value).startswith(f"here: {key}: Input should be ")
    assert str(error.value).endswith(f"(got {value!r})")


@pytest.mark.parametrize(("key", "value"), [("max_examples", 0), ("seed", -1), ("seed", 2**32)])
def test_data_have_bounds_too(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"^here: {key}: .* \(got {value}\)$"):
        build(DataConfig, FLAGS["data"] | {key: value}, "here")


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("mixture", {"refusals": -1}, "mixture.refusals: Input should be greater"),
        ("mixture", {"selector": "regex"}, "mixture.selector: Input should be 'phrases', "),
        ("curation", {"near_duplicates": 0}, "curation.near_duplicates: Input should be greater"),
        ("curation", {"near_duplicates": 1.1}, "curation.near_duplicates: Input should be less"),
        ("curation", {"language": "English"}, "curation.language: String should match"),
        ("curation", {"personal_data": "hide"}, "curation.personal_data: Input should be 'keep', "),
        ("curation", {"min_tokens": 1}, "curation: min_tokens and max_tokens need a tokenizer"),
        ("curation", {"tokenizer": "t"}, "curation: a tokenizer has no use without min_tokens"),
        (
            "curation",
            {"tokenizer": "t", "min_tokens": 9, "max_tokens": 8},
            "curation: min_tokens (9) is more than max_tokens (8)",
        ),
        ("decontamination", {"threshold": 0}, "decontamination.threshold: Input should be greater"),
        ("decontamination", {"remove": True}, "decontamination: remove needs prompts: name "),
        (
            "decontamination",
            {"aginst": []},
            "decontamination: unknown key 'aginst': did you mean 'against'? ",
        ),
    ],
)
def test_a_section_of_the_data_is_checked(section: str, values: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(DataConfig, FLAGS["data"] | {section: values}, "here")
    assert str(error.value).startswith(f"here: {said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bounds", [(2, 8), (8, 8), (0, None), (None, 1)])
def test_token_bounds_with_a_tokenizer_are_possible(bounds: tuple[int | None, int | None]) -> None:
    values = {"tokenizer": "t", "min_tokens": bounds[0], "max_tokens": bounds[1]}
    built = build(DataConfig, FLAGS["data"] | {"curation": values}, "here").curation
    assert (built.min_tokens, built.max_tokens) == bounds


def test_only_an_adapter_can_be_merged() -> None:
    with pytest.raises(ConfigError, match=r"^here: merge needs an adapter, .*merge=false$"):
        build(FinetuneConfig, FLAGS["finetune"] | {"method": "full", "merge": True}, "here")
