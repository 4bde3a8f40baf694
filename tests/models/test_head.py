from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from response_tuning.models.head import deferred, has_plain_head, is_deferrable

SMALL: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
PLAIN = [LlamaConfig(**SMALL), LlamaConfig(**SMALL, tie_word_embeddings=True), Qwen3Config(**SMALL)]
CHANGED = [
    Gemma2Config(**SMALL),  # caps its logits
    CohereConfig(**SMALL, logit_scale=0.1),
    GraniteConfig(**SMALL, logits_scaling=8.0),
]


def build(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("config", PLAIN, ids=lambda config: config.model_type)
def test_a_deferred_head_leaves_what_it_would_have_been_given(config: PretrainedConfig) -> None:
    model, ids = build(config), torch.tensor([[5, 6, 7]])
    assert is_deferrable(model)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with deferred(model) as head:
            hidden = model(input_ids=ids).logits
        assert head.is_unchanged(hidden)
        assert torch.equal(nn.functional.linear(hidden, head.weight, head.bias), expected)
        assert torch.equal(model(input_ids=ids).logits, expected), "the head is back"


@pytest.mark.parametrize("config", CHANGED, ids=lambda config: config.model_type)
def test_a_model_that_changes_its_logits_keeps_its_head(config: PretrainedConfig) -> None:
    assert not is_deferrable(build(config))


def test_logits_that_are_scaled_in_place_are_changed() -> None:

    model = build(PLAIN[0])
    forward = model.forward

    def scaling(**inputs: Any) -> Any:
        loss = model.loss_function
        model.loss_function = lambda logits, *rest, **more: loss(logits.mul_(2), *rest, **more)
        return forward(**inputs)

    model.forward = scaling
    assert not is_deferrable(model)


def test_it_is_known_without_weights() -> None:
    with torch.device("meta"):
        models = [build(config) for config in (PLAIN[0], CHANGED[0])]
    assert [is_deferrable(model) for model in models] == [True, False]


def hooked(head: nn.Linear) -> None:
    head.register_forward_hook(lambda *given: given[2] * 2)


def replaced(head: nn.Linear) -> None:
    head.forward = lambda hidden: hidden  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("change", [hooked, replaced])
def test_a_head_that_others_changed_is_not_touched(change: Callable[[nn.Linear], None]) -> None:
    model = build(PLAIN[0])
    change(model.get_output_embeddings())
    assert not has_plain_head(model)
    assert not is_deferrable(model)


def test_a_head_of_another_class_is_not_touched() -> None:
    class Adapted(nn.Linear):
        """As LoRA's, or FSDP2's."""

    model = build(PLAIN[0])
    model.set_output_embeddings(Adapted(16, 48, bias=False))
    assert not is_deferrable(model)


def test_looking_changes_neither_the_model_nor_what_is_drawn_next() -> None:
    model = build(PLAIN[0]).train()
    loss, state = model.loss_function, torch.get_rng_state()
    is_deferrable(model)
    assert model.training
    assert model.loss_function is loss
    assert torch.equal(torch.get_rng_state(), state)


def test_a_head_is_back_after_an_error() -> None:
    model = build(PLAIN[0])
    with pytest.raises(IndexError), deferred(model):
        model(input_ids=torch.tensor([[48]]))
    hidden: Tensor = torch.zeros(1, 16)
    assert model.get_output_embeddings()(hidden).shape == (1, 48)
