from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune import mixup_loss as module
from response_tuning.finetune.losses import DocumentLoss, Scored
from response_tuning.finetune.mixup_loss import drawn_share, mixed, mixup_loss, split_partners
from response_tuning.finetune.objectives import IGNORED, build_objective, loss_on
from response_tuning.finetune.steps import PADDED, Document
from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune.test_losses import Data, one_by_one, weighted_data
from tests.finetune.test_trainer import arguments, furthest, load, losses

VOCABULARY, WIDTH, STEPS = 11, 5, 3
MU, ALPHA = 0.2, 0.5


def documents(*lengths: int, seed: int = 3) -> list[Document]:
    """Partners two by two, with so many supervised tokens; an odd one at the end is alone."""
    draw = Random(1)
    found = []
    for place, length in enumerate(lengths):
        ids = [0] + [draw.randrange(VOCABULARY) for _ in range(length)]
        alone = len(lengths) % 2 and place == len(lengths) - 1
        group = -1 if alone else place // 2
        found.append(Document(ids, [IGNORED, *ids[1:]], group=group, seed=seed + place // 2))
    return found


def scored(given: Sequence[Document], logits: Tensor) -> Scored:
    targets = torch.tensor([token for each in given for token in each.input_ids[1:]])
    return Scored(logits, targets, torch.ones(len(targets)), given)


def explicitly(given: Sequence[Document], hidden: Tensor, head: Tensor) -> Tensor:
    """The definition: mixed hidden states against mixed one-hot targets."""
    counts = [document.supervised for document in given]
    states = hidden.split(counts)  # type: ignore[no-untyped-call]
    total = hidden.new_zeros(())
    for place in range(0, len(given) - 1, 2):
        first, second = given[place], given[place + 1]
        share, count = drawn_share(first, ALPHA), min(counts[place], counts[place + 1])
        state = share * states[place][:count] + (1 - share) * states[place + 1][:count]
        one_hot = [
            F.one_hot(torch.tensor(each.input_ids[1 : count + 1]), VOCABULARY).to(hidden.dtype)
            for each in (first, second)
        ]
        target = share * one_hot[0] + (1 - share) * one_hot[1]
        total = total - (target * (state @ head.T).log_softmax(-1)).sum()
    return total


def test_mixed_logits_are_mixed_hidden_states_against_mixed_targets_with_their_gradients() -> None:
    given = documents(4, 7, 3, 3, 5)
    torch.manual_seed(0)
    count = sum(document.supervised for document in given)
    hidden = torch.randn(count, WIDTH, dtype=torch.float64, requires_grad=True)
    head = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    ours = mixed(scored(given, hidden @ head.T), ALPHA)
    theirs = explicitly(given, hidden, head)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    assert float(ours.detach()) > 0
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, head)),
        torch.autograd.grad(theirs, (hidden, head)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-12)
        # A fake that mixes one row alone, or detaches one, has no gradient for the other.
    reached = torch.autograd.grad(mixed(scored(given, hidden @ head.T), ALPHA), hidden)[0]
    counts = [document.supervised for document in given]
    per_document = [part.abs().sum() for part in reached.split(counts)]  # type: ignore[no-untyped-call]
    assert [bool(part > 0) for part in per_document] == [True, True, True, True, False]


def test_a_share_of_1_is_the_confident_rows_first_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "drawn_share", lambda *_: 1.0)
    given = documents(4, 7)
    logits = torch.randn(11, VOCABULARY, dtype=torch.float64)
    expected = F.cross_entropy(logits[:4], torch.tensor(given[0].input_ids[1:5]), reduction="sum")
    assert float(mixed(scored(given, logits), ALPHA)) == pytest.approx(float(expected), rel=1e-12)


def test_the_share_is_of_the_pair_and_follows_beta() -> None:
    shares = [drawn_share(Document([], [], seed=seed), ALPHA) for seed in range(4000)]
    assert drawn_share(Document([1], [1], seed=5), ALPHA) == shares[5]
    # Beta(.5, .5) has mean 1/2 and variance 1/8.
    assert sum(shares) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum((share - 0.5) ** 2 for share in shares) / 4000 == pytest.approx(0.125, abs=0.01)


def partners_of(scores: Sequence[float], split: Any = "confidence", seed: int = 0) -> Any:
    lengths = [1 + place % 5 for place in range(len(scores))]
    return split_partners(scores, lengths, split, seed)(range(len(scores)))


def test_each_pair_has_a_confident_row_first_and_every_row_is_there_once() -> None:
    scores = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0]  # the median, 4, is unconfident
    draw = partners_of(scores)
    units = draw(Random(0))
    assert sorted(place for unit in units for place in unit) == [*range(7)]
    pairs = [unit for unit in units if len(unit) == 2]
    assert len(pairs) == 3
    assert {first for first, _ in pairs} == {0, 5, 6}
    assert draw(Random(1)) != units
    assert draw(Random(0)) == units


def test_ties_at_the_median_are_unconfident() -> None:
    assert all(len(unit) == 1 for unit in partners_of([1.0] * 6)(Random(0)))
    pairs = [unit for unit in partners_of([1.0, 1.0, 1.0, 2.0])(Random(0)) if len(unit) == 2]
    assert [first for first, _ in pairs] == [3]


def test_a_random_split_forgets_the_scores_and_a_split_by_length_keeps_them_within_lengths() -> (
    None
):
    scores = [float(place) for place in range(100)]

    def sure(split: str, seed: int = 0) -> set[int]:
        units = partners_of(scores, split, seed)(Random(0))
        return {unit[0] for unit in units if len(unit) == 2}

    assert sure("confidence") == {*range(50, 100)}
    assert sure("random") not in (sure("confidence"), sure("random", seed=1))
    assert len(sure("random")) == 50
    by_length = Counter(place % 5 for place in sure("length"))
    assert set(by_length.values()) == {10}  # half of the 20 rows of each length


def test_a_row_without_a_score_is_one_line() -> None:
    with pytest.raises(DataError, match="no confidence of example 2; tune it with the same"):
        partners_of([1.0, float("nan"), 2.0])


def trained(base: Path, out: Path, loss: DocumentLoss | None, **how: Any) -> Any:
    trainer = ResponseTrainer(
        load(base),
        arguments(out, max_steps=STEPS, **how.pop("arguments", {})),
        train_dataset=plain(),
        loss=loss,
        **how,
    )
    trainer.train()
    return trainer


def plain() -> Data:
    return Data(document._replace(weights=None) for document in weighted_data()[:32])


def by_position(mu: float, tokens_factor: float = 1.0) -> DocumentLoss:
    scores = [float(place) for place in range(32)]
    partners = split_partners(scores, [1] * 32, "confidence", seed=0)
    return mixup_loss(mu, ALPHA, partners, tokens_factor)


def weights(trainer: Any) -> dict[str, Tensor]:
    return dict(trainer.model.named_parameters())


def test_without_mixtures_it_is_the_stock_trainer_on_the_same_order_of_rows(
    tiny_base: Path, tmp_path: Path
) -> None:
    whole = {"examples_per_step": 32}  # all rows in each step, so that their order is no matter
    ours = trained(tiny_base, tmp_path, by_position(0.0), **whole)
    stock = trained(tiny_base, tmp_path, None, **whole)
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-6)
    assert furthest(weights(ours), weights(stock)) < 2e-5
    mixing = trained(tiny_base, tmp_path, by_position(1.0), **whole)
    assert furthest(weights(mixing), weights(stock)) > 1e-4


def test_the_token_budget_and_the_layout_change_nothing(tiny_base: Path, tmp_path: Path) -> None:
    one = trained(tiny_base, tmp_path, by_position(MU))
    for how in ({"tokens_per_micro_batch": 64}, {"layout": PADDED, "tokens_per_micro_batch": 200}):
        other = trained(tiny_base, tmp_path, by_position(MU), **how)
        assert losses(other) == pytest.approx(losses(one), rel=1e-6)
        assert furthest(weights(other), weights(one)) < 1e-5


def test_a_step_is_half_confident_and_its_loss_is_the_definitions(
    tiny_base: Path, tmp_path: Path
) -> None:
    steps: list[list[Document]] = []

    class Watching(ResponseTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Tensor:
            steps.append(inputs["documents"])
            return super().training_step(model, inputs, *rest)

    trainer = Watching(
        load(tiny_base),
        arguments(tmp_path, max_steps=1),
        train_dataset=plain(),
        loss=by_position(MU, tokens_factor=1.5),
        examples_per_step=8,
    )
    trainer.train()
    (step,) = steps
    assert [document.example >= 16 for document in step] == [True, False] * 4
    rows = one_by_one(load(tiny_base), step)
    with torch.no_grad():
        tokens = torch.cat([F.cross_entropy(x, y, reduction="none") for x, y, _ in rows])
        total, count = torch.zeros(()), 0
        for place in range(0, 8, 2):
            (first, wanted, _), (second, other, _) = rows[place], rows[place + 1]
            size = min(len(wanted), len(other))
            share = drawn_share(step[place], ALPHA)
            both = share * first[:size] + (1 - share) * second[:size]
            total += share * F.cross_entropy(both, wanted[:size], reduction="sum")
            total += (1 - share) * F.cross_entropy(both, other[:size], reduction="sum")
            count += size
    terms = trainer.step_terms
    assert terms["mixed"] == pytest.approx(float(total) / count, rel=1e-5)
    assert losses(trainer)[0] == pytest.approx(
        1.5 * float(tokens.mean()) + MU * float(total) / count, rel=1e-5
    )
    lengths = [document.supervised for document in step]
    assert terms["mixed_share"] == pytest.approx(2 * count / sum(lengths))
    same = sum(a == b for a, b in zip(lengths[::2], lengths[1::2], strict=True))
    assert terms["mixed_stops"] == pytest.approx(1 + same / 4)


@pytest.mark.parametrize("name", ["sftmix", "rt-sftmix"])
def test_a_mixture_needs_the_confidence_of_a_reference(name: str) -> None:
    with pytest.raises(ConfigError, match=r"record_confidence=true .*confidence\.jsonl"):
        loss_on(build_objective(name), [], seed=0)
