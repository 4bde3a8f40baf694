from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.steps import (
    FLATTENED,
    PADDED,
    Batch,
    BatchLayout,
    Document,
    Documents,
    Place,
    StepSampler,
    flattened,
    pack,
    pack_rows,
    padded,
)

A = Document([5, 6, 7], [IGNORED, 6, 7])
B = Document([8, 9], [IGNORED, 9])


def plain(batch: Batch) -> dict[str, Any]:
    return {k: v if isinstance(v, int) else v.numpy().tolist() for k, v in batch.items()}


def supervised(batch: Batch) -> int:
    labels = batch["shift_labels"]
    assert isinstance(labels, torch.Tensor)
    return int((labels != IGNORED).sum())


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def test_documents_come_back_as_they_went_in() -> None:
    documents = Documents([A[:2], B[:2]])
    assert [documents[0], documents[1]] == [A._replace(example=0), B._replace(example=1)]
    assert (len(documents), documents.lengths) == (2, [3, 2])


def test_flattening_restarts_positions_and_shifts_labels_inside_each_document() -> None:
    batch = flattened([A, B])
    assert plain(batch) == {
        "input_ids": [[5, 6, 7, 8, 9]],
        "position_ids": [[0, 1, 2, 0, 1]],
        "shift_labels": [[6, 7, IGNORED, 9, IGNORED]],
        "cu_seq_lens_q": [0, 3, 5],
        "max_length_q": 3,
    }


def test_padding_is_on_the_right_and_carries_no_loss() -> None:
    batch = padded([A, B])
    assert plain(batch) == {
        "input_ids": [[5, 6, 7], [8, 9, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "shift_labels": [[6, 7, IGNORED], [9, IGNORED, IGNORED]],
    }


@given(LENGTHS, st.integers(1, 100))
def test_packing_loses_nothing_and_keeps_the_budget(lengths: list[int], budget: int) -> None:
    units = [[length] for length in lengths]
    bins = [[lengths[i] for i in each] for each in pack(units, budget)]
    rows = [[lengths[i] for i in each] for each in pack_rows(units, budget)]
    assert sorted(chain(*bins)) == sorted(chain(*rows)) == sorted(lengths)
    assert all(sum(each) <= budget or len(each) == 1 for each in bins)
    assert all(len(each) * max(each) <= budget or len(each) == 1 for each in rows)


@pytest.mark.parametrize(("layout", "expected"), [(FLATTENED, 2), (PADDED, 3)])
def test_every_document_of_a_step_is_in_one_micro_batch(layout: BatchLayout, expected: int) -> None:
    batches = list(layout.micro_batches([A, B, A, B], 5))
    assert len(batches) == expected
    assert sum(map(supervised, batches)) == 6


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.integers(1, 4))
def test_shares_of_a_step_join_up_to_the_step_whatever_the_number_of_processes(
    lengths: list[int], size: int, epoch: int, world: int
) -> None:
    def sampler(rank: int, world: int) -> StepSampler:
        result = StepSampler(lengths, size, seed=7, rank=rank, world=world)
        result.set_epoch(epoch)
        return result

    whole = list(sampler(0, 1))
    shares = [list(sampler(rank, world)) for rank in range(world)]
    assert [sorted(step) for step in whole] == [
        sorted(i for share in parts for i in share) for parts in zip(*shares, strict=True)
    ]
    assert sorted(place.document for step in whole for place in step) == list(range(len(lengths)))
    assert len(whole) == len(sampler(0, world)) == -(-len(lengths) // size)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[list[Place]]:
        sampler = StepSampler([1] * 50, 8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler.steps())

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_shares_of_long_steps_are_balanced() -> None:
    lengths = [
        int(length)
        for length in torch.randint(5, 500, (640,), generator=torch.Generator().manual_seed(0))
    ]
    shares = [list(StepSampler(lengths, 64, seed=0, rank=rank, world=4)) for rank in range(4)]
    for parts in zip(*shares, strict=True):
        tokens = [sum(lengths[place.document] for place in part) for part in parts]
        assert min(tokens) / max(tokens) > 0.95


@given(LENGTHS, st.integers(1, 100))
def test_flattened_micro_batches_hold_the_documents_tokens_and_no_other(
    lengths: list[int], budget: int
) -> None:
    # Every token is another number, and the first of a document predicts nothing.
    ids = iter(range(1, sum(lengths) + 1))
    documents = []
    for length in lengths:
        tokens = [next(ids) for _ in range(length)]
        documents.append(Document(tokens, [IGNORED, *tokens[1:]]))
    batches = [plain(batch) for batch in FLATTENED.micro_batches(documents, budget)]
    tokens = [token for batch in batches for token in batch["input_ids"][0]]
    assert sorted(tokens) == list(range(1, sum(lengths) + 1))
    scored = [label for batch in batches for label in batch["shift_labels"][0] if label != IGNORED]
    assert sorted(scored) == [t for document in documents for t in document.input_ids[1:]]
