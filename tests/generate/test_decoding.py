import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from response_tuning.errors import EngineError
from response_tuning.generate.decoding import decode

LENGTHS = [3, 9, 5, 14, 7, 4]
LIMITS = [4, 20, 9, 14, 20, 6]
SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
ALTERNATING = ["sliding_attention", "full_attention"]
LINEAR = {f"linear_{part}": 8 for part in ("key_head_dim", "value_head_dim")}
SETTINGS: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 6, "head_dim": 8, "layer_types": ALTERNATING},
    "gemma3_text": {"sliding_window": 6, "head_dim": 8, "layer_types": ALTERNATING},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "llama": {},
    "mamba": {"state_size": 4},
    "mistral": {"sliding_window": 6},
    "qwen2": {},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "head_dim": 8,
        **LINEAR,
    },
}


def made(kind: str) -> Any:
    """A tiny random model with wide weights, so that its text depends on its prompt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "qwen2_vl":  # its positions have axes
            rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
            vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2}
            text = SHAPE | {"rope_parameters": rope}
            config = Qwen2VLConfig(text_config=text, vision_config=vision)
            model: Any = Qwen2VLForConditionalGeneration(config)
        else:
            shape = AutoConfig.for_model(kind, **SHAPE | SETTINGS.get(kind, {}))
            model = AutoModelForCausalLM.from_config(shape)  # type: ignore[no-untyped-call]
        return model.eval()


def prompts() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(1, 64) for _ in range(length)] for length in LENGTHS]


class Taker:
    """Lets each row go on up to its limit, and says what it was given."""

    def __init__(self, limits: Sequence[int]) -> None:
        self.said: list[list[int]] = [[] for _ in limits]
        self._limits = limits
        self._rows = [*range(len(limits))]

    def __call__(self, new: list[int]) -> list[int]:
        for row, token in zip(self._rows, new, strict=True):
            self.said[row].append(token)
        going = [p for p, row in enumerate(self._rows) if len(self.said[row]) < self._limits[row]]
        self._rows = [self._rows[place] for place in going]
        return going


def settings(limit: int, **more: Any) -> GenerationConfig:
    common = {"max_new_tokens": limit, "pad_token_id": 0, "use_cache": True, "do_sample": False}
    return GenerationConfig.from_dict(common | more)


def together(model: Any, rows: list[list[int]], limits: list[int]) -> list[list[int]]:
    """Decode rows as one left-padded batch."""
    width = max(map(len, rows))
    take = Taker(limits)
    model.generate(
        torch.tensor([[0] * (width - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
        generation_config=settings(max(limits)),
        custom_generate=decode,
        take=take,
    )
    return take.said


def alone(model: Any, row: list[int], limit: int) -> list[int]:
    """What ``generate`` of transformers says by itself."""
    mask = torch.ones(1, len(row), dtype=torch.long)
    said = model.generate(
        torch.tensor([row]), attention_mask=mask, generation_config=settings(limit)
    )
    return [int(token) for token in said[0, len(row) :]]


@pytest.mark.parametrize("kind", [*SETTINGS, "qwen2_vl"])
def test_rows_that_leave_at_different_times_say_what_plain_generate_says_to_each(kind: str) -> None:
    model = made(kind)
    expected = [alone(model, row, limit) for row, limit in zip(prompts(), LIMITS, strict=True)]
    assert len({*map(tuple, expected)}) == len(LIMITS)
    assert together(model, prompts(), LIMITS) == expected


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mamba"])
def test_the_memory_of_a_row_goes_with_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind)
    forward, seen = model.forward, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        found: list[int] = []
        for value in kwargs.values():
            for layer in value.layers if isinstance(value, DynamicCache) else ():
                states = [getattr(layer, name, None) for name in ("keys", "values")]
                for several in ("conv_states", "recurrent_states"):
                    states += [*dict(getattr(layer, several, {})).values()]
                found += [len(state) for state in states if isinstance(state, torch.Tensor)]
        seen.append({*found})
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", watched)
    together(model, prompts()[:3], [2, 5, 9])
    kept = [sizes for sizes in seen if sizes]
    assert kept[0] == {3}
    assert kept[-1] == {1}
    assert all(len(sizes) == 1 for sizes in kept)


def test_a_state_that_cannot_be_parted_is_refused_for_several_rows_and_right_for_one() -> None:
    model = made("rwkv")
    with pytest.raises(EngineError, match=r"type 'rwkv' answers one prompt .*--tokens-per-batch 1"):
        together(model, prompts(), LIMITS)
    assert together(model, prompts()[:1], [9]) == [alone(model, prompts()[0], 9)]


def test_sampling_draws_from_the_models_own_distribution() -> None:
    model = made("llama")
    row, kept = prompts()[0], 3
    with torch.no_grad():
        likely = model(torch.tensor([row])).logits[0, -1].topk(kept).indices.tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        take = Taker([1] * 300)
        model.generate(
            torch.tensor([row] * 300),
            attention_mask=torch.ones(300, len(row), dtype=torch.long),
            generation_config=settings(1, do_sample=True, top_k=kept),
            custom_generate=decode,
            take=take,
        )
    first = {token for (token,) in take.said}
    assert first == {*likely}
