import math
from pathlib import Path

import pytest

from response_tuning.artifacts import Message
from response_tuning.likelihoods import Pair
from response_tuning.models.inference import load
from response_tuning.models.local import LocalModel
from response_tuning.probe.positions import from_positions, h_score

PAIRS = [
    Pair((Message(role="user", content=f"Say {n}."),), f"It is {n}." if n % 2 else f"No, not {n}.")
    for n in range(12)
]


@pytest.fixture(scope="module")
def local(tiny_base: Path) -> LocalModel:
    return load(str(tiny_base), "tulu", device="cpu")


def test_ranks_and_stops_are_those_of_the_logits(local: LocalModel) -> None:
    import torch

    from response_tuning.models.likelihood import EncodedPair, encode_pair

    first = three = tokens = 0
    at_end, inside = [], []
    for pair in PAIRS:
        encoded = encode_pair(local, pair)
        assert isinstance(encoded, EncodedPair)
        ids = torch.tensor([encoded.prefix + encoded.reply])
        with torch.inference_mode():
            logits = local.model(input_ids=ids).logits[0, len(encoded.prefix) - 1 : -1]
        stops = torch.log_softmax(logits, -1)[:, local.chat.closing[0]].tolist()
        inside += stops[:-1]
        at_end.append(stops[-1])
        for row, token in zip(logits[:-1], encoded.reply, strict=False):
            rank = int((row > row[token]).sum()) + 1
            first, three, tokens = first + (rank == 1), three + (rank <= 3), tokens + 1
    found = from_positions(local, PAIRS, 4096)
    assert found["token_rank"] == pytest.approx(first / tokens)
    assert found["token_rank_3"] == pytest.approx(three / tokens)
    wins = sum((end > other) + (end == other) / 2 for end in at_end for other in inside)
    assert found["stop_auc"] == pytest.approx(wins / len(at_end) / len(inside), abs=1e-3)


def test_the_h_score_needs_two_first_tokens_and_is_higher_for_states_that_tell_them(
    local: LocalModel,
) -> None:
    by_kind = [
        Pair((Message(role="user", content="Say a." if n % 2 else "Deny all of it now."),), text)
        for n in range(12)
        for text in ["It is so." if n % 2 else "No, not so."]
    ]
    mixed = [Pair(pair.prompt, by_kind[n // 2 % 2].response) for n, pair in enumerate(by_kind)]
    assert h_score(local, by_kind) > h_score(local, mixed) >= 0
    assert math.isnan(h_score(local, [pair._replace(response="It is.") for pair in PAIRS]))
