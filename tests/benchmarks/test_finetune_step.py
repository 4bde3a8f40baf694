import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

STEP = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/finetune_step.py"))
work: Callable[..., float] = STEP["work"]


@pytest.fixture
def model() -> LlamaForCausalLM:
    shape = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(shape)


def document(tokens: int, prefix: int) -> dict[str, list[int]]:
    ids = list(range(1, tokens + 1))
    return {"input_ids": ids, "labels": [-100] * prefix + ids[prefix:]}


def test_the_work_of_a_step_is_what_torch_counts(model: LlamaForCausalLM) -> None:
    one = document(20, 5)
    labels = torch.tensor([[*one["labels"][1:], -100]])
    keep = labels != -100
    with FlopCounterMode(display=False) as counted:
        model(
            input_ids=torch.tensor([one["input_ids"]]),
            labels=labels[keep],
            shift_labels=labels[keep],
            logits_to_keep=keep,
            use_cache=False,
        ).loss.backward()
    operations = counted.get_flop_counts()["Global"]
    products = operations[torch.ops.aten.mm]
    attention = 6 * 2 * 16 * 20**2  # causal: of all pairs, half
    assert work(model, [one]) == products + attention


def test_a_document_attends_to_itself_alone(model: LlamaForCausalLM) -> None:
    two, whole = [document(10, 5), document(10, 5)], [document(20, 10)]
    assert work(model, whole) - work(model, two) == 6 * 2 * 16 * (20**2 - 2 * 10**2)
