from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from response_tuning.finetune.cross_entropy import cross_entropy, in_place
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.selftest import arguments
from response_tuning.finetune.steps import Document, padded

VOCABULARY = 50
Loss = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def blocks_of_three_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("response_tuning.finetune.cross_entropy.BLOCK", {"cpu": 3 * VOCABULARY})


def scored(
    function: Loss, rows: int, dtype: torch.dtype, factor: float = 2
) -> tuple[float, Tensor, Tensor]:
    """The loss; the gradient that reaches the logits, and the logits afterwards."""
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(rows, VOCABULARY, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    logits = leaf * 1
    value = function(logits, labels, VOCABULARY, torch.tensor(17), shift_labels=labels)
    torch.autograd.backward(factor * value)
    assert leaf.grad is not None
    return float(value.detach()), leaf.grad, logits.detach()


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 3, 10])
def test_loss_and_gradient_are_those_of_transformers(rows: int, factor: float) -> None:
    expected, gradient, _ = scored(ForCausalLMLoss, rows, torch.float32, factor)
    found, ours, _ = scored(cross_entropy, rows, torch.float32, factor)
    assert found == pytest.approx(expected, rel=1e-6)
    assert torch.equal(ours, gradient)


def test_half_precision_is_rounded_once() -> None:
    expected, gradient, _ = scored(ForCausalLMLoss, 10, torch.bfloat16)
    found, ours, _ = scored(cross_entropy, 10, torch.bfloat16)
    assert found == pytest.approx(expected, rel=1e-6)
    assert torch.equal(ours, gradient)


def test_the_gradient_takes_no_memory_beside_the_logits() -> None:
    _, gradient, logits = scored(cross_entropy, 10, torch.float32)
    assert torch.equal(logits, gradient)
    _, gradient, logits = scored(ForCausalLMLoss, 10, torch.float32)
    assert not torch.equal(logits, gradient)


def test_where_nothing_is_trained_logits_stay_what_they_are() -> None:
    logits, labels = torch.randn(4, VOCABULARY), torch.tensor([1, 2, 3, 4])
    before = logits.clone()
    cross_entropy(logits, labels, VOCABULARY, 1, shift_labels=labels)
    assert torch.equal(logits, before)


def test_a_model_that_needs_its_logits_again_is_an_error_and_no_wrong_gradient() -> None:
    labels = torch.tensor([1, 2])
    capped = torch.tanh(torch.randn(2, VOCABULARY, requires_grad=True))
    value = cross_entropy(capped, labels, VOCABULARY, 2, shift_labels=labels)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(value)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "gpt2"])
def test_a_model_gets_the_same_gradients_and_its_own_loss_back(
    build: Callable[[str], Any], name: str
) -> None:
    documents = [Document([5, 6, 7, 8], [IGNORED, 6, 7, 8]), Document([9, 3], [IGNORED, 3])]

    def gradients() -> dict[str, Tensor]:
        model = build(name)
        with in_place(model) if ours else torch.enable_grad():
            model(**arguments(padded(documents)), num_items_in_batch=4).loss.backward()
            assert (model.loss_function is cross_entropy) == ours
        assert model.loss_function is ForCausalLMLoss
        return {key: weight.grad for key, weight in model.named_parameters()}

    ours = False
    expected = gradients()
    ours = True
    for key, gradient in gradients().items():
        assert torch.allclose(gradient, expected[key], atol=1e-7), key


def test_a_loss_of_a_models_own_is_left_alone() -> None:
    model: Any = SimpleNamespace(loss_function=max)
    with in_place(model):
        assert model.loss_function is max
