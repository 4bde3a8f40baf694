import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import base, cross_entropy, memory
from response_tuning.finetune.cross_entropy import in_place
from response_tuning.finetune.memory import CPU_TOKENS, ENOUGH_TOKENS, MOST_TOKENS, Load, MemoryFit
from response_tuning.finetune.selftest import arguments, attending
from response_tuning.finetune.steps import FLATTENED, Document

LOAD = Load(longest=2000, step=16 * 2000, supervised=0.9)


def configured(folder: Path, **changes: Any) -> FinetuneConfig:
    values = {"base_model": str(folder), "method": "full", "device": "cpu"}
    return FinetuneConfig.model_validate(values | changes)


def saved_bytes(model: Any, tokens: int, *, autocast: bool) -> int:
    """What is kept of a forward pass over four documents, but for the parameters."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, weakref.ref[Tensor]]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # The mask of a sliding window is left out: a GPU's kernel needs none.
        if storage.data_ptr() not in weights and tensor.shape != (len(ids), len(ids)):
            kept[storage.data_ptr()] = (storage.nbytes(), weakref.ref(tensor))
        return tensor

    ids = torch.randint(3, 128, (tokens // 4,)).tolist()
    batch = FLATTENED.build([Document(ids, ids)] * 4)
    model.train()
    # Their gradient takes their place, and is no tensor that autograd saves.
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: keep(logits))
    with (
        in_place(model.get_base_model() if hasattr(model, "peft_config") else model),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        out = model(**arguments(batch), num_items_in_batch=1)
    assert out.loss.requires_grad
    return sum(size for size, tensor in kept.values() if tensor() is not None)


@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [
        *((name, False) for name in ("llama", "mistral", "gemma2", "gemma3", "qwen3", "gpt-neox")),
        ("llama", True),
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_estimate_covers_what_a_forward_pass_keeps(
    build: Callable[[str], Any],
    tmp_path: Path,
    name: str,
    checkpointing: bool,
    method: str,
    precision: str,
) -> None:
    config = configured(tmp_path, method=method, precision=precision, lora_r=1)
    model = build(name).to(base.weight_type(config))
    model.config.save_pretrained(tmp_path)
    # All logits at once; ``head_bytes`` counts those of a deferred head, whatever the tokens.
    size = memory.measure(config)._replace(deferred=False)
    adapted = base.with_adapter(model, config) if method == "lora" else model
    if checkpointing:
        model.activation_checkpointing_enable()
    with attending(model, FLATTENED):
        kept = [saved_bytes(adapted, n, autocast=precision == "bfloat16") for n in (64, 192)]
    load = Load(longest=192 // 4, step=0, supervised=1.0)
    estimate = memory.token_bytes(config, size, load, checkpointing=checkpointing)
    # Between two lengths, so that what does not grow with the tokens is left out.
    measured = (kept[1] - kept[0]) / (192 - 64)
    # What comes later is estimated too: the logits' gradient, and the layer computed again.
    assert measured < estimate < (6 if checkpointing else 2) * measured


def test_the_estimate_knows_what_each_setting_costs(tiny_base: Path) -> None:
    def bytes_a_token(load: Load = LOAD, *, checkpointing: bool = False, **changes: Any) -> float:
        config = configured(tiny_base, **changes)
        size = memory.measure(config)
        return memory.token_bytes(config, size, load, checkpointing=checkpointing)

    plain = bytes_a_token(method="lora")
    assert bytes_a_token(method="lora", lora_dropout=0.1) > plain
    assert bytes_a_token(method="lora", precision="bfloat16") < plain
    assert bytes_a_token(method="lora", checkpointing=True) < plain
    assert bytes_a_token(LOAD._replace(supervised=0.5), method="lora") < plain


@pytest.mark.parametrize(
    ("method", "precision", "optimizer", "expected"),
    [
        ("full", "float32", "adamw_torch", 16),
        ("full", "bfloat16", "adamw_torch", 18),  # with the copy that autocast keeps
        ("full", "bfloat16", "adamw_8bit", 12),
        ("full", "float32", "adafactor", 8.1),
    ],
)
def test_weights_gradients_and_moments_are_counted(
    tiny_base: Path, method: str, precision: str, optimizer: str, expected: float
) -> None:
    config = configured(tiny_base, method=method, precision=precision, optimizer=optimizer)
    size = memory.measure(config)
    assert memory.state_bytes(config, size) == pytest.approx(expected * size.total)


def test_an_adapter_costs_its_own_parameters_and_the_base_in_its_precision(tiny_base: Path) -> None:
    config = configured(tiny_base, method="lora", precision="bfloat16")
    size = memory.measure(config)
    assert memory.state_bytes(config, size) == 2 * size.total + 16 * size.trainable


def needed(config: FinetuneConfig, tokens: int, *, checkpointing: bool) -> int:
    """The free memory in which ``tokens`` at once just fit."""
    size = memory.measure(config)
    each = memory.token_bytes(config, size, LOAD, checkpointing=checkpointing)
    fixed = memory.state_bytes(config, size) + memory.head_bytes(config, size, LOAD)
    return int(tokens * each / memory.SHARE + memory.RESERVE + fixed) + 100


@pytest.mark.parametrize(
    ("tokens", "checkpointing", "expected"),
    [
        (5000, False, MemoryFit(5000, checkpointing=False)),
        (ENOUGH_TOKENS, False, MemoryFit(ENOUGH_TOKENS, checkpointing=False)),
        # Twice as much memory as the documents have use for.
        (2 * LOAD.step, False, MemoryFit(LOAD.step, checkpointing=False)),
        (3000, True, MemoryFit(3000, checkpointing=True)),
        # Not even the longest document, which nevertheless goes through whole.
        (1000, True, MemoryFit(LOAD.longest, checkpointing=True)),
    ],
)
def test_tokens_and_checkpointing_are_chosen_by_what_is_free(
    tiny_base: Path, tokens: int, checkpointing: bool, expected: MemoryFit
) -> None:
    config = configured(tiny_base)
    free = needed(config, tokens, checkpointing=checkpointing)
    found = memory.fit(config, LOAD, free)
    assert found[:2] == expected[:2]
    assert f"{found.tokens:,} tokens at once" in found.reason
    assert ("gradient checkpointing" in found.reason) == found.checkpointing


def test_more_tokens_than_make_a_step_faster_are_not_chosen(tiny_base: Path) -> None:
    load = LOAD._replace(step=10 * MOST_TOKENS)
    assert memory.fit(configured(tiny_base), load, 2**50)[:2] == (MOST_TOKENS, False)


def test_of_what_is_said_only_the_rest_is_chosen(tiny_base: Path) -> None:
    def found(free: int | None, **said: Any) -> tuple[int, bool]:
        tokens, checkpointing, _ = memory.fit(configured(tiny_base, **said), LOAD, free)
        return tokens, checkpointing

    some = needed(configured(tiny_base), 5000, checkpointing=False)
    assert found(some, tokens_per_micro_batch=4900) == (4900, False)
    assert found(some, tokens_per_micro_batch=5100) == (5100, True)
    assert found(some, gradient_checkpointing=False) == (5000, False)
    assert found(some, gradient_checkpointing=True)[0] > 5000
    less = needed(configured(tiny_base), 3000, checkpointing=False)
    assert found(less, gradient_checkpointing=False) == (3000, False)
    assert found(1, tokens_per_micro_batch=7, gradient_checkpointing=False) == (7, False)


def test_on_a_cpu_tokens_take_a_gibibyte_and_are_neither_few_nor_many(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, least, most = configured(tiny_base), *CPU_TOKENS
    size = memory.measure(config)
    for checkpointing in (False, True):
        settings = config.model_copy(update={"gradient_checkpointing": checkpointing})
        each = memory.token_bytes(config, size, LOAD, checkpointing=checkpointing)
        for room, tokens in ((1000 * each, 1000), (9 * each, least), (9000 * each, most)):
            monkeypatch.setattr(memory, "CPU_ROOM", room + 1)
            assert memory.fit(settings, LOAD, None) == MemoryFit(tokens, checkpointing)


def test_on_a_cpu_what_is_set_is_not_estimated(tmp_path: Path) -> None:
    missing = configured(tmp_path / "no model", tokens_per_micro_batch=9)
    assert memory.fit(missing, LOAD, None) == MemoryFit(9, checkpointing=False)
    on = missing.model_copy(update={"gradient_checkpointing": True})
    assert memory.fit(on, LOAD, None) == MemoryFit(9, checkpointing=True)


def test_a_vocabulary_costs_a_chunk_of_logits_however_many_tokens_there_are(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tiny_base, method="lora")
    size = memory.measure(config)
    assert size.deferred
    wide = size._replace(vocabulary=1000 * size.vocabulary)
    for each in (size, wide):
        assert memory.token_bytes(config, each, LOAD, checkpointing=False) == memory.token_bytes(
            config, size, LOAD, checkpointing=False
        )
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": 10_000_000})
    assert memory.head_bytes(config, wide, LOAD) == 4 * 10_000_000
    few = LOAD._replace(step=100)
    assert memory.head_bytes(config, size, few) == 4 * 100 * 0.9 * size.vocabulary
    # Trained weights: the gradients of the head and of the embedding too.
    more = memory.head_bytes(configured(tiny_base), size, few) - memory.head_bytes(
        config, size, few
    )
    assert more == 2 * 4 * size.vocabulary * size.hidden
    whole = wide._replace(deferred=False)
    assert memory.head_bytes(config, whole, LOAD) == 0
    assert memory.token_bytes(config, whole, LOAD, checkpointing=False) > 4 * 0.9 * wide.vocabulary
