from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from response_tuning.errors import ModelError
from response_tuning.finetune import attention, selftest
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.selftest import arguments, attending, choose_layout
from response_tuning.finetune.steps import FLATTENED, PADDED, BatchLayout, Document

FLAT = ["llama", "mistral", "gemma2", "gemma3", "qwen3", "olmo2", "gpt-neox", "phi3", "gpt2"]
NOT_FLAT = ["qwen3.5", "gpt-oss", "bloom", "mpt", "gptj", "stablelm", "falcon-h1"]


def documents() -> list[Document]:
    """Nine documents of 6 to 70 tokens with holes in their supervision."""
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for length in (6, 70, 13, 24, 9, 41, 17, 33, 8):
        ids = torch.randint(3, 128, (length,), generator=generator).tolist()
        drawn.append(Document(ids, [t if i % 4 else IGNORED for i, t in enumerate(ids)]))
    return drawn


def gradients(model: Any) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def one_by_one(model: Any) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over all supervised tokens: each document alone, stock attention, all logits."""
    total, count = 0.0, sum(label != IGNORED for d in documents() for label in d.labels[1:])
    for document in documents():
        ids, labels = torch.tensor([document.input_ids]), torch.tensor([document.labels])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum") / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, gradients(model)


def as_step(model: Any, layout: BatchLayout, budget: int) -> tuple[float, dict[str, Tensor]]:
    total, count = 0.0, sum(label != IGNORED for d in documents() for label in d.labels[1:])
    with attending(model, layout):
        for batch in layout.micro_batches(documents(), budget):
            loss = model(**arguments(batch), num_items_in_batch=count).loss
            loss.backward()
            total += float(loss.detach())
    return total, gradients(model)


@pytest.mark.parametrize("budget", [100, 10_000])
@pytest.mark.parametrize("name", FLAT + NOT_FLAT)
def test_a_step_has_the_loss_and_gradients_of_its_documents_one_by_one(
    build: Callable[[str], Any], name: str, budget: int
) -> None:
    model = build(name)
    model.train(False)
    layout = choose_layout(model, window=70).layout
    assert layout is (FLATTENED if name in FLAT else PADDED)
    expected_loss, expected = one_by_one(model)
    loss, found = as_step(model, layout, budget)
    assert abs(loss - expected_loss) < 5e-6
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        difference = float((found[parameter] - gradient).abs().max())
        assert difference < 1e-6, parameter


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt-oss", "does not implement s_aux"),
        ("qwen3.5", "packed sequences"),
        ("bloom", "logits differ"),
        ("mpt", "logits differ"),
        ("gptj", "0 of its 2 layers"),
        ("stablelm", "without document boundaries"),
        ("falcon-h1", "logits differ"),
    ],
)
def test_why_a_model_is_not_flattened_is_said(
    build: Callable[[str], Any], name: str, reason: str
) -> None:
    choice = choose_layout(build(name), window=64)
    assert choice.layout is PADDED
    assert reason in choice.reason


def test_the_models_own_attention_is_given_back(build: Callable[[str], Any]) -> None:
    model = build("gemma2")
    before = model.config._attn_implementation
    choose_layout(model, window=64)
    assert model.config._attn_implementation == before
    assert model.training


def test_an_attention_that_forgets_the_sliding_window_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = attention.document_attention

    def forgetful(*args: Any, sliding_window: int | None = None, **kwargs: Any) -> Any:
        return real(*args, **kwargs)

    monkeypatch.setattr(attention, "document_attention", forgetful)
    choice = choose_layout(build("mistral"), window=64)
    assert choice.layout is PADDED
    assert "logits differ" in choice.reason


def test_a_window_that_no_document_outgrows_is_not_tested(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = selftest._documents(build("mistral"), window=16)
    assert max(len(document.input_ids) for document in drawn) == 24
    drawn = selftest._documents(build("mistral"), window=17)
    assert max(len(document.input_ids) for document in drawn) == 24
    model = build("mistral")
    model.config.sliding_window = 40
    drawn = selftest._documents(model, window=64)
    assert max(len(document.input_ids) for document in drawn) == 48


def test_a_model_that_is_exact_in_neither_layout_is_refused(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_difference", lambda *_: 0.5)
    with pytest.raises(ModelError, match="cannot be trained exactly"):
        choose_layout(build("llama"), window=64)


def test_boundaries_that_change_nothing_prove_nothing(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    choice = choose_layout(model, window=64)
    assert "changes nothing" in choice.reason


def test_a_small_fresh_model_passes(tiny_base: Any) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert choose_layout(model, window=64).layout is FLATTENED
