import math
from pathlib import Path

import pytest
import torch

from response_tuning.artifacts import Message
from response_tuning.errors import ModelError
from response_tuning.judging import DIGITS
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models.inference import load
from response_tuning.models.labels import expected, label_probabilities
from response_tuning.models.likelihood import log_likelihoods

PROMPTS = [
    (Message(role="user", content=text),)
    for text in ("How good is it?", "Rate this answer from 0 to 9. " * 4, "x")
]


@pytest.mark.parametrize("tokens", [100_000, 1])
def test_probabilities_are_the_likelihoods_of_the_labels_renormalised(
    tiny_lm: Path, tokens: int
) -> None:
    local = load(str(tiny_lm), "tulu")
    found = label_probabilities(local, PROMPTS, tokens)
    for prompt, shares in zip(PROMPTS, found, strict=True):
        one_by_one = log_likelihoods(local, [Pair(prompt, label) for label in DIGITS], 100_000)
        totals = [one.total for one in one_by_one if isinstance(one, Likelihood)]
        assert len(totals) == 10
        assert not isinstance(shares, Unscored)
        assert math.fsum(shares) == pytest.approx(1)
        expected_shares = torch.tensor(totals).double().softmax(0).tolist()
        assert shares == pytest.approx(expected_shares, rel=1e-4)


def test_the_expected_digit_is_the_mean_under_the_probabilities() -> None:
    assert expected([0.0] * 9 + [1.0]) == 9
    assert expected([0.1] * 10) == pytest.approx(4.5)
    assert expected([0.25, 0.75], [-1, 1]) == pytest.approx(0.5)


def test_labels_of_several_tokens_and_labels_that_are_alike_are_refused(tiny_lm: Path) -> None:
    local = load(str(tiny_lm), "tulu")
    with pytest.raises(ModelError, match=r"writes the label 'seventeen' as \d+ tokens"):
        label_probabilities(local, PROMPTS, 1000, ("1", "seventeen"))
    with pytest.raises(ModelError, match="two of the labels alike"):
        label_probabilities(local, PROMPTS, 1000, ("1", "1"))


def test_a_prompt_that_is_too_long_is_not_scored_and_the_others_are(tiny_lm: Path) -> None:
    local = load(str(tiny_lm), "tulu")
    long = (Message(role="user", content="word " * 2000),)
    first, second, third = label_probabilities(local, [PROMPTS[0], long, PROMPTS[2]], 1000)
    assert isinstance(second, Unscored)
    assert not isinstance(first, Unscored)
    assert not isinstance(third, Unscored)
    assert math.fsum(first) == pytest.approx(1)
