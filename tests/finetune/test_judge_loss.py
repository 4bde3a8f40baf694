import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from response_tuning.artifacts import Example
from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune.judge_loss import judge_loss
from response_tuning.finetune.losses import Scored
from response_tuning.finetune.objectives import (
    IGNORED,
    ObjectiveConfig,
    UnfitError,
    build_objective,
)
from response_tuning.finetune.steps import Document
from response_tuning.templates import Chat

VOCABULARY, PAIRS = 12, 3
WEIGHTS = {"with_reference": 1.0, "without_reference": 0.3, "divergence": 2.0}


def documents(supervised: int = 2) -> list[Document]:
    ids = [1, 2, 3, *range(4, 4 + supervised)]
    labels = [IGNORED] * 3 + ids[3:]
    return [Document(ids, labels, example=place) for place in range(2 * PAIRS)]


def scored(logits: torch.Tensor) -> Scored:
    targets = torch.arange(4 * PAIRS) % VOCABULARY
    return Scored(logits, targets, torch.ones(4 * PAIRS), documents())


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(4 * PAIRS, VOCABULARY, requires_grad=True)


def terms(of: Scored) -> dict[str, torch.Tensor]:
    """Each term's mean."""
    loss = judge_loss(1.0, 0.3, 2.0)
    return {term.name: term.total(of) / term.size(of.documents) for term in loss.terms}


def test_the_terms_have_the_published_weights() -> None:
    loss = judge_loss(1.0, 0.3, 2.0)
    assert {term.name: term.factor for term in loss.terms} == WEIGHTS
    built = build_objective("self-judge")
    assert isinstance(built, ObjectiveConfig)
    published = built.loss()
    assert published is not None
    assert {term.name: term.factor for term in published.terms} == WEIGHTS


def test_every_term_equals_its_formula(logits: torch.Tensor) -> None:
    logits = logits.detach()
    found = terms(scored(logits))
    targets = torch.arange(4 * PAIRS) % VOCABULARY
    losses = F.cross_entropy(logits, targets, reduction="none").view(PAIRS, 2, 2)
    assert found["with_reference"] == pytest.approx(float(losses[:, 0].mean()))
    assert found["without_reference"] == pytest.approx(float(losses[:, 1].mean()))
    shares = logits.softmax(-1).view(PAIRS, 2, 2, VOCABULARY)[:, :, 0].tolist()
    by_hand = [
        sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
        for teacher, student in shares
    ]
    assert found["divergence"] == pytest.approx(sum(by_hand) / PAIRS, rel=1e-5)


def test_the_divergence_teaches_only_the_branch_without_the_reference_and_only_the_digit(
    logits: torch.Tensor,
) -> None:
    terms(scored(logits))["divergence"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    moved = logits.grad.view(PAIRS, 2, 2, VOCABULARY).abs().amax(-1)
    assert (moved[:, 0] == 0).all(), "the branch with the reference"
    assert (moved[:, 1, 1] == 0).all(), "the stop token"
    assert (moved[:, 1, 0] > 0).all()


def test_two_branches_that_agree_do_not_diverge(logits: torch.Tensor) -> None:
    both = logits.detach().view(PAIRS, 2, 2, VOCABULARY).clone()
    both[:, 1] = both[:, 0]
    found = terms(scored(both.view(-1, VOCABULARY)))
    assert found["divergence"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("supervised", [1, 3])
def test_documents_without_one_digit_and_one_stop_token_are_refused(supervised: int) -> None:
    wrong = documents(supervised)
    for term in judge_loss(1.0, 0.3, 2.0).terms:
        with pytest.raises(DataError, match=rf"example 1 has {supervised} tokens with a loss"):
            term.size(wrong)


def test_masks_of_unequal_length_are_refused() -> None:
    uneven: Sequence[Document] = [documents(2)[0], documents(3)[1]]
    with pytest.raises(DataError, match="example 2 has 3 tokens"):
        judge_loss(1.0, 0.3, 2.0).terms[2].size(uneven)


def test_only_a_digit_of_one_token_can_be_learnt(chat: Chat) -> None:
    objective = build_objective("self-judge")
    example = Example(row=0, instruction="Grade it.", response="7")

    def another() -> Example:
        raise AssertionError

    prompt, digit = objective(example, another, chat)
    assert prompt.text.endswith(chat.opening.removeprefix(chat.marks))
    assert not prompt.weight
    assert digit.text == "7"
    for response in ("10", "good", ""):
        with pytest.raises(UnfitError, match="no digit from 0 to 9"):
            objective(example.model_copy(update={"response": response}), another, chat)


def test_a_weight_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="kl_weight"):
        build_objective("self-judge", {"kl_weight": -1})
