import pytest
from pydantic import ValidationError

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError
from response_tuning.generate import open_engine
from response_tuning.generate.engine import check_settings
from response_tuning.likelihoods import Unscored
from response_tuning.miniature import BASE
from response_tuning.models.inference import load
from response_tuning.models.labels import expected, label_probabilities

TEXTS = ("How good is it?", "Rate this answer. " * 4, "x", "word " * 2000)


def test_a_reply_is_the_most_probable_digit_with_the_mean_beside_it() -> None:
    requests = [
        Request(item_id=str(n), prompt=(Message(role="user", content=text),))
        for n, text in enumerate(TEXTS)
    ]
    config = EngineConfig(model=str(BASE), template="roles", device="cpu", digits=True)
    engine = open_engine("hf", config)
    *graded, too_long = engine.complete(requests, Sampling(max_new_tokens=1))
    local = load(str(BASE), "roles", device="cpu")
    shares = label_probabilities(local, [one.prompt for one in requests[:3]], 10_000)
    for reply, share in zip(graded, shares, strict=True):
        assert not isinstance(share, Unscored)
        assert reply.response == str(max(range(10), key=lambda digit: share[digit]))
        assert reply.expected_digit == pytest.approx(expected(share), abs=1e-4)
    assert too_long.expected_digit is None
    assert "context" in str(too_long.error)
    assert engine.model.endswith("+digits"), "answers in words never count as grades"


def test_digits_exclude_a_confidence_and_other_engines() -> None:
    with pytest.raises(ValidationError, match="digits is one token"):
        EngineConfig(model="m", digits=True, confidence=True)
    with pytest.raises(ConfigError, match="engine 'openai' has no use for digits"):
        check_settings("openai", EngineConfig(model="m", digits=True))
