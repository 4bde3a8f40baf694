from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from response_tuning.finetune.cross_entropy import cross_entropy, in_place, of_hidden
from response_tuning.finetune.losses import MicroBatchLoss
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.selftest import arguments
from response_tuning.finetune.steps import Document, padded
from response_tuning.models.head import Deferred, deferred, is_deferrable

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


WIDTH = 8


def from_hidden(
    chunk: int | None,
    rows: int,
    dtype: torch.dtype = torch.float32,
    *,
    weighted: bool = False,
    frozen: bool = False,
    factor: float = 1,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and the gradients of hidden states, weight and bias, in chunks of so many rows.

    ``None`` makes all logits at once, by the head itself.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator) if weighted else None
    linear = torch.nn.Linear(WIDTH, VOCABULARY, dtype=dtype).requires_grad_(not frozen)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    if chunk is None:
        value = cross_entropy(
            linear(hidden), labels, VOCABULARY, 17, shift_labels=labels, weights=weights
        )
    else:
        most = {"cpu": chunk * VOCABULARY}
        monkeypatch.setattr("response_tuning.finetune.cross_entropy.CHUNK", most)
        head = Deferred(linear)
        head.keep(hidden)
        value = of_hidden(head, labels, 17, weights)
    torch.autograd.backward(factor * value)
    return value.detach(), [hidden.grad, *(each.grad for each in linear.parameters())]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 10])
def test_chunks_of_the_head_change_loss_and_gradients_by_rounding_alone(
    rows: int, factor: float, frozen: bool, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(chunk: int | None) -> tuple[Tensor, list[Tensor | None]]:
        how = {"weighted": weighted, "frozen": frozen, "factor": factor}
        return from_hidden(chunk, rows, **how, monkeypatch=monkeypatch)  # type: ignore[arg-type]

    expected, gradients = found(None)
    for chunk in (1, 4, 10):
        loss, ours = found(chunk)
        assert loss == pytest.approx(float(expected), rel=1e-6)
        for one, other in zip(ours, gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    # Up to one chunk, to the last bit: the numbers of small vocabularies stay what they were.
    loss, ours = found(10)
    assert loss == expected
    assert all(
        one is other or torch.equal(one, other)  # type: ignore[arg-type]
        for one, other in zip(ours, gradients, strict=True)
    )


def test_in_half_precision_a_chunk_is_rounded_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, gradients = from_hidden(None, 10, torch.bfloat16, monkeypatch=monkeypatch)
    found, ours = from_hidden(4, 10, torch.bfloat16, monkeypatch=monkeypatch)
    assert found == pytest.approx(float(expected), rel=1e-6)
    for one, other in zip(ours, gradients, strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one.float(), other.float(), rtol=2e-2, atol=2e-3)


def test_logits_of_all_positions_exist_at_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = [0]
    linear = torch.nn.functional.linear

    def watched(*given: Tensor) -> Tensor:
        result = linear(*given)
        largest[0] = max(largest[0], result.numel())
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    from_hidden(2, 10, monkeypatch=monkeypatch)
    assert largest[0] == 2 * VOCABULARY


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3", "gpt2"])
def test_a_model_with_a_deferred_head_gets_the_same_gradients(
    build: Callable[[str], Any], name: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document([5, 6, 7, 8], [IGNORED, 6, 7, 8]), Document([9, 3], [IGNORED, 3])]
    monkeypatch.setattr("response_tuning.finetune.cross_entropy.CHUNK", {"cpu": 2 * 128})

    def tuned(*, defers: bool) -> tuple[float, dict[str, Tensor]]:
        model, loss = build(name), MicroBatchLoss()
        assert is_deferrable(model)
        inputs = arguments(padded(documents))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), in_place(model, loss):
            if defers:
                with deferred(model) as loss.head:
                    value = model(**inputs, num_items_in_batch=4).loss
            else:
                value = model(**inputs, num_items_in_batch=4).loss
        value.backward()
        return float(value.detach()), {key: weight.grad for key, weight in model.named_parameters()}

    (expected, before), (found, after) = tuned(defers=False), tuned(defers=True)
    assert found == pytest.approx(expected, rel=1e-3 if autocast else 1e-6)
    # In bfloat16, a gradient of the head is rounded once a chunk.
    rtol, atol = (3e-2, 3e-2) if autocast else (1e-5, 1e-6)
    for key, gradient in after.items():
        assert torch.allclose(gradient, before[key], rtol=rtol, atol=atol), key
