import random
from collections import Counter
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
from response_tuning.models.decoding import decode

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


class Batch:
    """Lets each row go on up to its limit, and says what it was given."""

    def __init__(self, limits: Sequence[int], chances: Sequence[float] = ()) -> None:
        self._chances = chances
        self.said: list[list[int]] = [[] for _ in limits]
        self._limits = limits
        self._rows = [*range(len(limits))]

    def draw(self) -> Sequence[float]:
        return self._chances

    def append(self, new: list[int]) -> list[int]:
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
    batch = Batch(limits)
    model.generate(
        torch.tensor([[0] * (width - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
        generation_config=settings(max(limits)),
        custom_generate=decode,
        batch=batch,
    )
    return batch.said


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


def drawn(model: Any, chances: Sequence[float], **how: Any) -> list[int]:
    """The first token of as many equal rows as there are chances."""
    row, batch = prompts()[0], Batch([1] * len(chances), chances)
    model.generate(
        torch.tensor([row] * len(chances)),
        attention_mask=torch.ones(len(chances), len(row), dtype=torch.long),
        generation_config=settings(1, do_sample=True, **how),
        custom_generate=decode,
        batch=batch,
    )
    return [token for (token,) in batch.said]


@pytest.mark.parametrize("kept", [3, 64])
def test_chances_that_are_evenly_spread_draw_each_token_as_often_as_it_is_probable(
    kept: int,
) -> None:
    model, count = made("llama"), 500
    with torch.no_grad():
        logits = model(torch.tensor([prompts()[0]])).logits[0, -1]
    probable = logits.masked_fill(logits < logits.topk(kept).values[-1], -torch.inf).softmax(-1)
    found = Counter(drawn(model, [(n + 0.5) / count for n in range(count)], top_k=kept))
    for token, share in enumerate(probable.tolist()):
        assert abs(found[token] - count * share) <= 1


def test_the_smallest_and_the_largest_chance_draw_a_token_that_is_possible() -> None:
    model = made("llama")
    ends = drawn(model, [0.0, 1 - 2**-53], top_k=3)
    assert {*ends} <= {*drawn(model, [n / 100 for n in range(100)], top_k=3)}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("do_sample", [False, True])
def test_logits_that_are_no_numbers_are_no_answer(number: float, do_sample: bool) -> None:
    model = made("llama")
    with torch.no_grad():
        model.lm_head.weight[5] = number
    with pytest.raises(EngineError, match="logits are NaN or infinite"):
        model.generate(
            torch.tensor([[1, 2, 3]]),
            generation_config=settings(1, do_sample=do_sample),
            custom_generate=decode,
            batch=Batch([1], [0.5]),
        )
