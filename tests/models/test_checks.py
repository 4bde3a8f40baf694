from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertLMHeadModel

from response_tuning.errors import ModelError
from response_tuning.models.checks import (
    check_causal,
    check_converged,
    check_finite,
    check_ids,
    is_untrained,
    tokens_without_row,
)

STOP, ROWS = 7, 40


@pytest.fixture
def model(tiny_base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_base)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_a_weight_that_is_no_number_is_named(model: Any, number: float, name: str) -> None:
    check_finite(model, "base")
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = number
    with pytest.raises(ModelError, match=f"^base: {name} holds NaN or infinite numbers"):
        check_finite(model, "base")


def test_finite_weights_whose_logits_are_infinite_are_refused(model: Any) -> None:
    check_causal(model, "base")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name:
                weight *= 1e30
    check_finite(model, "base")
    with pytest.raises(ModelError, match=r"^base: its logits are NaN or infinite"):
        check_causal(model, "base")


@pytest.mark.parametrize("scale", [0.0, 1e30])
def test_a_tuned_model_that_finds_every_token_as_likely_or_none_has_diverged(
    model: Any, scale: float
) -> None:
    check_converged(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name or "norm" in name:
                weight *= scale
    with pytest.raises(ModelError, match="training has diverged; lower --learning-rate"):
        check_converged(model)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decodes", [True, False])
def test_a_model_that_sees_what_is_to_come_is_refused(kind: torch.dtype, decodes: bool) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape["initializer_range"] = 0.4
    config = BertConfig(vocab_size=60, intermediate_size=64, is_decoder=decodes, **shape)
    model: Any = BertLMHeadModel(config)
    model.to(kind).eval()
    if decodes:
        check_causal(model, "bert")
        return
    with pytest.raises(ModelError, match="bert: not a causal language model"):
        check_causal(model, "bert")


def test_only_tokens_that_are_used_need_a_row(tiny_base: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_base)
    size = len(tokenizer)
    tokenizer.add_tokens(["attic", "kettle"])
    assert tokens_without_row(tokenizer, size + 2) == {}
    without_row = tokens_without_row(tokenizer, size)
    assert without_row == {size: "attic", size + 1: "kettle"}
    check_ids([0, size - 1], without_row, "row 3 has")
    with pytest.raises(ModelError, match=rf"^row 3 has the token 'kettle' \(id {size + 1}\)"):
        check_ids([0, size + 1], without_row, "row 3 has")


def headed(rows: torch.Tensor) -> Any:
    return SimpleNamespace(get_output_embeddings=lambda: SimpleNamespace(weight=rows))


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("like", ["another token", "the mean"])
def test_a_row_that_is_like_another_is_untrained(like: str, noise: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(ROWS, 16)
    assert not is_untrained(headed(rows), STOP)
    others = torch.cat([rows[:STOP], rows[STOP + 1 :]])
    rows[STOP] = rows[3] if like == "another token" else others.mean(0)
    rows[STOP] += noise * torch.randn(16)
    assert is_untrained(headed(rows), STOP)


def test_one_row_of_zeros_can_be_learnt_and_several_cannot() -> None:
    torch.manual_seed(0)
    rows = torch.randn(ROWS, 16)
    rows[STOP] = 0
    assert not is_untrained(headed(rows), STOP)
    rows[STOP + 1] = 0
    assert is_untrained(headed(rows), STOP)
