from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from response_tuning.errors import ModelError
from response_tuning.finetune.losses import DocumentLoss, Scored, Term, token_term
from response_tuning.finetune.mixup_loss import mixup_loss, split_partners
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.preference_loss import preference_loss
from response_tuning.finetune.steps import PADDED, Document, Means, Partners, Place, StepSampler
from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune import test_trainer
from tests.finetune.test_trainer import EXAMPLES, RATE, arguments, furthest, load, losses

STEPS = 3
BUDGETS = [64, 10_000]
BETA, ALPHA, MIXED_FACTOR = 0.1, 0.5, 0.2
PER_MEAN = 3


class Data(list[Document]):
    """Documents, of which some may be partners."""

    units: Sequence[Sequence[int]] | None = None


def weighted_data() -> Data:
    """Prompts of weight 0.3 in front of responses."""
    drawn = test_trainer.drawn(40)
    data = Data()
    for document in (drawn[index] for index in range(40)):
        ids, free = document.input_ids, document.labels.count(IGNORED)
        weights = [0.0] + [0.3] * (free - 1) + [1.0] * (len(ids) - free)
        data.append(Document(ids, [IGNORED, *ids[1:]], weights))
    return data


def pair_data() -> Data:
    drawn = test_trainer.drawn(40)
    data = Data(drawn[index] for index in range(40))
    data.units = [[index, index + 20] for index in range(20)]
    return data


def preference() -> DocumentLoss:
    """DPO against a reference that finds everything equally likely, with half of the usual loss."""

    def total(scored: Scored) -> Tensor:
        chosen, rejected = scored.of_documents(-scored.losses).view(-1, 2).unbind(1)
        return -F.logsigmoid(BETA * (chosen - rejected)).sum()

    def margin(scored: Scored) -> Tensor:
        chosen, rejected = scored.of_documents(-scored.losses).view(-1, 2).unbind(1)
        return (chosen - rejected).sum()

    def pairs(documents: Sequence[Document]) -> float:
        return len(documents) / 2

    return DocumentLoss(
        (
            token_term(0.5),
            Term("preference", pairs, total),
            Term("margin", pairs, margin, factor=0),
        )
    )


def shortest(documents: Sequence[Document]) -> float:
    pairs = zip(documents[::2], documents[1::2], strict=True)
    return sum(min(len(d.labels) - d.labels.count(IGNORED) for d in pair) for pair in pairs)


def mixup() -> DocumentLoss:
    """The tokens' loss and that of mixed logits, of partners drawn again each epoch (SFTMix)."""

    def total(scored: Scored) -> Tensor:
        logits, targets = scored.logits.split(scored.counts), scored.targets.split(scored.counts)  # type: ignore[no-untyped-call]
        mixed = []
        for place, document in enumerate(scored.documents[::2]):
            first, second = 2 * place, 2 * place + 1
            share = Random(document.seed).betavariate(ALPHA, ALPHA)
            count = min(scored.counts[first], scored.counts[second])
            both = share * logits[first][:count] + (1 - share) * logits[second][:count]
            mixed.append(share * F.cross_entropy(both, targets[first][:count], reduction="sum"))
            other = F.cross_entropy(both, targets[second][:count], reduction="sum")
            mixed.append((1 - share) * other)
        return torch.stack(mixed).sum()

    def partners(examples: Sequence[int]) -> Partners:
        def draw(random: Random) -> list[list[int]]:
            order = random.sample(range(len(examples)), len(examples))
            return [order[place : place + 2] for place in range(0, len(order), 2)]

        return draw

    return DocumentLoss((token_term(), Term("mixed", shortest, total, MIXED_FACTOR)), partners)


def sftmix() -> DocumentLoss:
    """SFTMix with rows split by numbers that grow with their position."""
    scores = [float(place % 7) for place in range(40)]
    return mixup_loss(0.2, 0.5, split_partners(scores, [1] * 40, "confidence", seed=0))


CASES: dict[str, tuple[Any, Any]] = {
    "sftmix": (weighted_data, sftmix),
    "dpo": (pair_data, lambda: preference_loss(BETA, nll_weight=0.5)),
    "weighted": (weighted_data, lambda: None),
    "preference": (pair_data, preference),
    "mixup": (weighted_data, mixup),
    "means": (weighted_data, lambda: None),
}


def tuned(base: Path, out: Path, case: str, **how: Any) -> tuple[list[float], dict[str, Tensor]]:
    data, loss = CASES[case]
    settings = arguments(out, max_steps=STEPS, **how.pop("arguments", {}))
    trainer = ResponseTrainer(
        load(base),
        settings,
        train_dataset=data(),
        loss=loss(),
        **{"examples_per_step": EXAMPLES, **how},
    )
    trainer.examples_per_mean = PER_MEAN if case == "means" else None
    trainer.train()
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    return losses(trainer), {name: p.data for name, p in model.named_parameters()}


def one_by_one(model: Any, documents: Sequence[Document]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits, targets and weights of the supervised tokens of each document alone."""
    result = []
    for document in documents:
        logits = model(input_ids=torch.tensor([document.input_ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(document.labels[1:])
        weights = torch.tensor(document.weights or [1.0] * len(document.labels))[1:]
        keep = labels != IGNORED
        result.append((logits[keep], labels[keep], weights[keep]))
    return result


def tokens_alone(rows: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    summed = [(w * F.cross_entropy(x, y, reduction="none")).sum() for x, y, w in rows]
    return torch.stack(summed).sum() / torch.cat([w for _, _, w in rows]).sum()


def mean_of_means(rows: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    parts = [rows[start : start + PER_MEAN] for start in range(0, len(rows), PER_MEAN)]
    return torch.stack([tokens_alone(part) for part in parts]).mean()


def preference_alone(rows: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    sums = [-F.cross_entropy(x, y, reduction="sum") for x, y, _ in rows]
    pairs = [-F.logsigmoid(BETA * (a - b)) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    return 0.5 * tokens_alone(rows) + torch.stack(pairs).mean()


def stepped(base: Path, case: str, alone: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Train by hand, with ``alone`` as the loss of a step: losses and weights."""
    data, model = CASES[case][0](), load(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    fixed = data.units
    sampler = StepSampler(
        [len(document.input_ids) for document in data],
        EXAMPLES,
        seed=0,
        partners=None if fixed is None else lambda _: fixed,
    )
    history: list[float] = []
    for epoch in range(STEPS):
        sampler.set_epoch(epoch)
        for step in [*sampler][: STEPS - len(history)]:
            loss = alone(one_by_one(model, [data[place.document] for place in step]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            history.append(float(loss.detach()))
    return history, dict(model.named_parameters())


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    ("case", "alone"),
    [
        ("weighted", tokens_alone),
        ("preference", preference_alone),
        ("means", mean_of_means),
    ],
)
def test_steps_equal_an_independent_computation_whatever_the_token_budget(
    tiny_base: Path, tmp_path: Path, case: str, alone: Any, budget: int
) -> None:
    expected, reference = stepped(tiny_base, case, alone)
    history, weights = tuned(tiny_base, tmp_path, case, tokens_per_micro_batch=budget)
    assert history == pytest.approx(expected, rel=1e-6)
    assert furthest(weights, reference) < 1e-5


def test_what_a_loss_draws_does_not_depend_on_the_token_budget_or_the_layout(
    tiny_base: Path, tmp_path: Path
) -> None:
    one = tuned(tiny_base, tmp_path, "mixup")
    small = tuned(tiny_base, tmp_path, "mixup", tokens_per_micro_batch=64)
    padded = tuned(tiny_base, tmp_path, "mixup", layout=PADDED, tokens_per_micro_batch=200)
    other = tuned(tiny_base, tmp_path, "mixup", arguments={"seed": 1})
    for history, weights in (small, padded):
        assert history == pytest.approx(one[0], rel=1e-6)
        assert furthest(weights, one[1]) < 1e-5
    assert other[0][0] != pytest.approx(one[0][0], abs=1e-3)


def test_weights_of_1_change_nothing_and_of_0_hide_a_token(tiny_base: Path, tmp_path: Path) -> None:
    drawn = test_trainer.drawn(40)
    plain = Data(drawn[index] for index in range(40))

    def train(data: Data) -> tuple[list[float], dict[str, Tensor]]:
        trainer = ResponseTrainer(
            load(tiny_base), arguments(tmp_path, max_steps=STEPS), train_dataset=data
        )
        trainer.train()
        model: Any = trainer.model
        return losses(trainer), dict(model.named_parameters())

    expected = train(plain)
    ones = train(Data(each._replace(weights=[1.0] * len(each.labels)) for each in plain))
    hidden = train(
        Data(
            each._replace(
                labels=[IGNORED, *each.input_ids[1:]],
                weights=[float(label != IGNORED) for label in each.labels],
            )
            for each in plain
        )
    )
    for history, weights in (ones, hidden):
        assert history == pytest.approx(expected[0], rel=1e-6)
        assert furthest(weights, expected[1]) < 1e-5


def test_every_term_is_kept_for_the_log_and_evaluation_measures_the_tokens_alone(
    tiny_base: Path, tmp_path: Path
) -> None:
    data = pair_data()
    trainer = ResponseTrainer(
        load(tiny_base),
        arguments(tmp_path, max_steps=1, learning_rate=1e-9),
        train_dataset=data,
        loss=preference(),
        examples_per_step=40,
    )
    trainer.train()
    terms = trainer.step_terms
    assert list(terms) == ["tokens", "preference", "margin"]
    assert losses(trainer)[0] == pytest.approx(
        0.5 * terms["tokens"] + terms["preference"], abs=1e-6
    )
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(terms["tokens"], abs=1e-5)


def test_a_weighted_validation_loss_is_the_one_of_training(tiny_base: Path, tmp_path: Path) -> None:
    model = load(tiny_base)
    trainer = ResponseTrainer(
        model, arguments(tmp_path), train_dataset=weighted_data(), tokens_per_micro_batch=64
    )
    with torch.no_grad():
        expected = float(tokens_alone(one_by_one(model, weighted_data()[:9])))
    assert trainer.evaluate(weighted_data()[:9])["eval_loss"] == pytest.approx(expected, abs=1e-6)


def test_a_pair_that_does_not_fit_is_not_parted_and_ends_in_one_line(
    tiny_base: Path, tmp_path: Path
) -> None:
    class Full(ResponseTrainer):
        def compute_loss(self, *_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError

    trainer = Full(
        load(tiny_base), arguments(tmp_path), train_dataset=pair_data(), loss=preference()
    )
    with pytest.raises(ModelError, match="does not fit by itself"):
        trainer.train()


@pytest.mark.parametrize("case", ["weighted", "preference"])
def test_a_model_whose_own_loss_would_ignore_the_objective_is_refused(
    tiny_base: Path, tmp_path: Path, case: str
) -> None:
    model = load(tiny_base)
    model.loss_function = lambda **_: None
    data, loss = CASES[case]
    with pytest.raises(ModelError, match="LlamaForCausalLM computes a loss of its own"):
        ResponseTrainer(
            model, arguments(tmp_path), train_dataset=data(), loss=loss(), layout=PADDED
        ).train()


def test_sums_over_documents_follow_their_supervised_tokens() -> None:
    documents = [Document([1, 2, 3], [IGNORED, 2, 3]), Document([4, 5], [IGNORED, IGNORED])]
    documents += [Document([6, 7], [IGNORED, 7])]
    values: Any = SimpleNamespace(logits=None, targets=None, weights=None, documents=documents)
    scored = Scored(**vars(values))
    assert scored.counts == [2, 0, 1]
    assert scored.of_documents(torch.tensor([1.0, 2.0, 4.0])).tolist() == [3.0, 0.0, 4.0]


def test_a_mean_of_means_is_not_the_mean_over_tokens(tiny_base: Path, tmp_path: Path) -> None:
    of_means, of_tokens = (tuned(tiny_base, tmp_path, case)[0] for case in ("means", "weighted"))
    assert abs(of_means[0] - of_tokens[0]) > 1e-4


@pytest.mark.parametrize("count", [1, 3, 5])
def test_documents_that_share_a_mean_share_a_weight_of_1(count: int) -> None:
    weights = [2.0, 3.0, 0.0, 5.0, 1.0]
    step = Means(count, weights).applied([Place(document) for document in (4, 2, 0, 1, 3)])
    totals = [
        sum(weights[place.document] * place.factor for place in step[start : start + count])
        for start in range(0, 5, count)
    ]
    # The document without weight is a mean of its own, which is no mean, if there is one each.
    assert totals == pytest.approx([1, 0, 1, 1, 1] if count == 1 else [1.0] * len(totals))
