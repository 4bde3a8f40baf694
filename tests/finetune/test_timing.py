from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ModelError
from response_tuning.finetune import memory, timing
from response_tuning.finetune.steps import Document

DOCUMENTS = [Document(list(range(3, 3 + n)), list(range(3, 3 + n))) for n in (10, 20, 30, 40)]


def configured(folder: Path, **changes: Any) -> FinetuneConfig:
    values = {"base_model": str(folder), "method": "full", "device": "cpu"}
    return FinetuneConfig.model_validate(values | changes)


@pytest.fixture
def deep(tiny_base: Path, tmp_path: Path) -> Path:
    """An architecture of seven layers, without weights."""
    shape: Any = AutoConfig.from_pretrained(tiny_base)
    shape.num_hidden_layers = 7
    shape.save_pretrained(tmp_path)
    return tmp_path


def timed(*seconds: float) -> Callable[..., float]:
    """Return what stands in for the clock: each act takes place, and takes so long."""
    left: Iterator[float] = iter(seconds)

    def took(_: object, act: Callable[[], object]) -> float:
        act()
        return next(left)

    return took


@pytest.mark.parametrize("method", ["full", "lora"])
def test_layers_that_are_not_built_count_as_those_that_are(
    deep: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    config = configured(deep, method=method)
    size = memory.measure(config)
    # The four layers and the head take 9 s, the head alone 1 s: with seven layers, 1 + 7/4 x 8 s.
    monkeypatch.setattr(timing, "_seconds", timed(9.0, 1.0, 0.5))
    found = timing.measured(config, DOCUMENTS, 60, size)
    assert found.token == pytest.approx(15 / (10 + 20 + 30))
    assert found.step == pytest.approx(0.5 * size.trainable / timing.UPDATED)


def test_a_head_that_seems_slower_than_the_whole_leaves_no_negative_time(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(deep)
    monkeypatch.setattr(timing, "_seconds", timed(1.0, 2.0, 0.0))
    found = timing.measured(config, DOCUMENTS, 60, memory.measure(config))
    assert found.token == pytest.approx(2 / 60)


def test_what_is_measured_is_positive_and_leaves_the_random_numbers_alone(deep: Path) -> None:
    config, state = configured(deep, method="lora"), torch.get_rng_state()
    found = timing.measured(config, DOCUMENTS, 4096, memory.measure(config))
    assert 0 < found.token < 1
    assert found.step >= 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("tokens", "taken"), [(1, 1), (29, 1), (30, 2), (99, 3), (1000, 4)])
def test_a_sample_is_at_most_a_micro_batch_or_one_document(tokens: int, taken: int) -> None:
    assert timing._sample(DOCUMENTS, tokens) == DOCUMENTS[:taken]


def test_a_model_that_cannot_be_built_smaller_is_one_line(tmp_path: Path, tiny_base: Path) -> None:
    shape: Any = AutoConfig.from_pretrained(tiny_base)
    shape.num_attention_heads = 5  # of 32 units: no layer can be built
    config = configured(tiny_base)
    size = memory.measure(config)
    (tmp_path / "config.json").write_text(shape.to_json_string(), encoding="utf-8")
    with pytest.raises(ModelError, match=r"^[^\n]+$"):
        timing.measured(configured(tmp_path), DOCUMENTS, 100, size)
