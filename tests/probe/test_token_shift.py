import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from response_tuning.artifacts import Message, Request
from response_tuning.errors import ModelError
from response_tuning.likelihoods import Pair
from response_tuning.models.inference import load
from response_tuning.models.likelihood import EncodedPair, encode_pair
from response_tuning.models.local import LocalModel
from response_tuning.probe.token_shift import ByPosition, LeftOut, Reply, Shift, scores, token_shift

SaveModel = Callable[..., Path]
WIDE = 100_000


@pytest.fixture(scope="module")
def tuned(llama: Path) -> LocalModel:
    return load(str(llama))


@pytest.fixture(scope="module")
def base(llama: Path) -> LocalModel:
    """The same architecture with weights that are some way off."""
    local = load(str(llama))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for weights in local.model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return local


@pytest.fixture(scope="module")
def replies(varied: list[Request]) -> list[Reply]:
    texts = ["Paris.", "The quick brown fox. " * 2, "naïve"]
    return [
        Reply(one.item_id, Pair(one.prompt, texts[n % 3]), ended=n % 2 == 0)
        for n, one in enumerate(varied[::3])
    ]


def shifts(
    tuned: LocalModel, base: LocalModel, replies: list[Reply], tokens: int = WIDE
) -> dict[str, Shift]:
    found = list(token_shift(tuned, base, replies, tokens))
    return {one.item_id: one for one in found if isinstance(one, Shift)}


def a_shift(**changes: Any) -> Shift:
    values: dict[str, Any] = {
        "item_id": "a",
        "ended": True,
        "end_length": 1,
        "tokens": ("A", "b", "b", "</s>"),
        "kl": (1.0, 2.0, 0.0, 8.0),
        "rank": (1, 3, 4, 50),
        "agree": (True, True, False, False),
        "own": (True, False, True, True),
        "stop_tuned": (0.1, 0.2, 0.3, 0.9),
        "stop_base": (0.0, 0.0, 0.3, 0.01),
    }
    return Shift(**values | changes)


def test_a_model_is_not_shifted_from_itself(tuned: LocalModel, replies: list[Reply]) -> None:
    found = shifts(tuned, tuned, replies)
    assert len(found) == len(replies)
    for shift in found.values():
        assert set(shift.kl) == {0.0}
        assert all(shift.agree)
        assert shift.stop_tuned == shift.stop_base
        assert shift.own == tuple(rank == 1 for rank in shift.rank)


@pytest.mark.parametrize("tokens", [WIDE, 1])
def test_the_numbers_are_what_the_definitions_say(
    tuned: LocalModel, base: LocalModel, replies: list[Reply], tokens: int
) -> None:
    found = shifts(tuned, base, replies, tokens)
    for reply in replies:
        row = encode_pair(tuned, reply.pair)
        assert isinstance(row, EncodedPair)
        said = row.reply if reply.ended else row.reply[:-1]
        p, q = (_log_probabilities(local, row.prefix, said) for local in (tuned, base))
        shift = found[reply.item_id]
        assert shift.kl == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), rel=1e-3, abs=1e-5)
        ranks = [1 + int((line > line[token]).sum()) for line, token in zip(q, said, strict=True)]
        assert shift.rank == tuple(ranks)
        assert shift.agree == tuple((p.argmax(-1) == q.argmax(-1)).tolist())
        assert shift.own == tuple((p.argmax(-1) == torch.tensor(said)).tolist())
        stop = tuned.chat.turn_end.stop_id
        assert shift.stop_tuned == pytest.approx(p[:, stop].exp().tolist(), rel=1e-3)
        assert shift.stop_base == pytest.approx(q[:, stop].exp().tolist(), rel=1e-3)
        assert shift.end_length == reply.ended
        assert shift.words == len(row.reply) - 1
        assert len(shift.tokens) == len(said)
    assert max(rank for shift in found.values() for rank in shift.rank) > 3


def _log_probabilities(local: LocalModel, prefix: list[int], said: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([prefix + said])).logits[0].double()
    found: torch.Tensor = logits.log_softmax(-1)[len(prefix) - 1 : -1]
    return found


def test_both_are_given_the_prompt_of_the_tuned_model(
    llama: Path, tuned: LocalModel, base: LocalModel, replies: list[Reply]
) -> None:
    other = replace(base, chat=load(str(llama), "neutral-tags").chat)
    assert shifts(tuned, other, replies) == shifts(tuned, base, replies)
    assert shifts(other, tuned, replies) != shifts(base, tuned, replies)


def test_what_cannot_be_compared_is_said_first(
    tuned: LocalModel, base: LocalModel, replies: list[Reply]
) -> None:
    prompt = (Message(role="user", content="hello"),)
    odd = [
        Reply("long", Pair(prompt, "x" * 400)),
        Reply("nothing", Pair(prompt, ""), ended=False),
        Reply("at once", Pair(prompt, "")),
    ]
    found = list(token_shift(tuned, base, [replies[0], *odd], WIDE))
    assert found[:2] == [
        LeftOut(item_id="long", reason="longer than the model's context of 256 tokens"),
        LeftOut(item_id="nothing", reason="an empty reply that was cut"),
    ]
    assert {one.item_id for one in found[2:]} == {replies[0].item_id, "at once"}
    short = replace(base, context=20)
    reasons = {
        one.reason for one in token_shift(tuned, short, replies, WIDE) if isinstance(one, LeftOut)
    }
    assert reasons == {"longer than the base's context of 20 tokens"}


def test_models_with_other_tokenizers_are_refused(
    tuned: LocalModel, tiny_base: Path, replies: list[Reply]
) -> None:
    with pytest.raises(ModelError, match="have different tokenizers"):
        next(token_shift(tuned, load(str(tiny_base), "tulu"), replies, WIDE))


def test_the_metrics_of_a_reply_are_of_its_own_tokens_and_of_its_end_apart() -> None:
    found = {score.metric: (score.value, score.weight) for score in scores(a_shift())}
    third = pytest.approx(1 / 3)
    assert found == {
        "kl": (1.0, 3),
        "agree": (pytest.approx(2 / 3), 3),
        "own": (pytest.approx(2 / 3), 3),
        "unshifted": (third, 3),
        "marginal": (third, 3),
        "shifted": (third, 3),
        "stop_early_tuned": (pytest.approx(0.2), 3),
        "stop_early_base": (pytest.approx(0.1), 3),
        "ended": (1.0, 1),
        "kl_at_end": (8.0, 1),
        "stops_tuned": (pytest.approx(1.5), 1),
        "stops_base": (pytest.approx(0.31), 1),
        "stop_at_end_tuned": (0.9, 1),
        "stop_at_end_base": (0.01, 1),
    }


def test_a_reply_that_was_cut_says_nothing_of_its_end() -> None:
    cut = a_shift(ended=False, end_length=0)
    found = {score.metric: score.value for score in scores(cut)}
    assert not [metric for metric in found if "at_end" in metric]
    assert found["ended"] == 0
    assert found["stops_tuned"] == pytest.approx(1.5)
    assert found["kl"] == 11 / 4


def test_a_reply_that_only_ended_has_no_metrics_of_tokens() -> None:
    numbers = {"kl": (8.0,), "rank": (50,), "agree": (False,), "own": (True,)}
    ends = {"stop_tuned": (0.9,), "stop_base": (0.01,)}
    found = {s.metric for s in scores(a_shift(tokens=("</s>",), **numbers, **ends))}
    assert "kl" not in found
    assert {"ended", "kl_at_end", "stops_base", "stop_at_end_tuned"} <= found


def test_positions_are_summed_up_in_ranges_that_double() -> None:
    by_position = ByPosition()
    by_position.add(a_shift())
    by_position.add(a_shift(kl=(3.0, 2.0, 2.0, 0.0), rank=(4, 1, 9, 1)))
    first, second, third = by_position.positions()
    assert first == {"from": 1, "to": 1, "n": 2, "kl": 2.0, "unshifted": 0.5, "shifted": 0.5}
    assert second == {"from": 2, "to": 2, "n": 2, "kl": 2.0, "unshifted": 0.5, "shifted": 0.0}
    assert (third["from"], third["to"], third["n"]) == (3, 4, 2)
    assert by_position.most_shifted() == [
        {"token": "b", "shifted": 2, "n": 4},
        {"token": "A", "shifted": 1, "n": 2},
    ]
    json.dumps(by_position.positions())
