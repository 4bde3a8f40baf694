import math
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Sampling
from response_tuning.likelihoods import Likelihood, Pair
from response_tuning.models.inference import load
from response_tuning.models.likelihood import log_likelihoods
from response_tuning.models.local import LocalModel
from response_tuning.serve.playground.surprise import read_tokens

QUESTION = (Message(role="user", content="Tell me a story."),)


@pytest.fixture(scope="session")
def local(llama: Path) -> LocalModel:
    return load(str(llama))


def prompt_of(local: LocalModel) -> list[int]:
    return local.draft(QUESTION, Sampling(max_new_tokens=1)).prompt


def test_the_tokens_of_a_reply_are_as_probable_as_its_likelihood_says(local: LocalModel) -> None:
    response = "Once upon a time."
    (known,) = log_likelihoods(local, [Pair(QUESTION, response)], 4096)
    assert isinstance(known, Likelihood)
    reply = [*local.chat.encode_reply(response), *local.chat.closing]
    readings = read_tokens(local, prompt_of(local), reply)
    logs = [math.log(one.probability) for one in readings]
    assert sum(logs[:-1]) == pytest.approx(known.total, rel=1e-5)
    assert logs[-1] == pytest.approx(known.ending, rel=1e-5)
    assert [one.id for one in readings] == reply


def test_reading_in_parts_is_reading_at_once(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = local.chat.encode_reply("A story about a little girl who plays outside in the park.")
    whole = read_tokens(local, prompt_of(local), reply)
    vocabulary = local.model.config.vocab_size
    for at_once in (1, 3, 7):
        monkeypatch.setattr(
            "response_tuning.serve.playground.surprise.LOGITS_AT_ONCE", at_once * vocabulary
        )
        parts = read_tokens(local, prompt_of(local), reply)
        assert [one.id for one in parts] == [one.id for one in whole]
        assert [one.probability for one in parts] == pytest.approx(
            [one.probability for one in whole], rel=1e-4
        )


def test_a_greedy_reply_has_rank_one_everywhere_and_leads_its_alternatives(
    local: LocalModel,
) -> None:
    sampling = Sampling(max_new_tokens=20)
    draft = local.draft(QUESTION, sampling)
    local.extend([draft], sampling)
    for one in read_tokens(local, draft.prompt, draft.generated):
        assert one.rank == 1
        first = one.alternatives[0]
        assert (first.id, first.probability) == (one.id, one.probability)
        shares = [other.probability for other in one.alternatives]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 6


def test_texts_join_up_to_the_reply(local: LocalModel) -> None:
    reply = [*local.chat.encode_reply("né ☃ there"), 0]
    texts = [one.text for one in read_tokens(local, prompt_of(local), reply)]
    assert "".join(texts[:-1]) == "né ☃ there"
    assert texts[-1] == "<|endoftext|>"
    assert "" in texts, "a part of a character shows nothing"


def test_a_sentencepiece_reply_keeps_its_spaces(tiny_lm: Path) -> None:
    story = load(str(tiny_lm), "tulu")
    sampling = Sampling(max_new_tokens=30)
    draft = story.draft(QUESTION, sampling)
    story.extend([draft], sampling)
    readings = read_tokens(story, draft.prompt, draft.generated)
    assert "".join(one.text for one in readings) == story.text(draft.prompt, draft.generated)
    others = [other.text for one in readings for other in one.alternatives]
    assert any(text.startswith(" ") for text in others)


def test_an_empty_reply_has_no_readings(local: LocalModel) -> None:
    assert read_tokens(local, prompt_of(local), []) == []


def test_an_adapter_is_read_with_it(adapter: Path) -> None:
    tuned: Any = load(str(adapter))
    assert len(read_tokens(tuned, prompt_of(tuned), tuned.chat.encode_reply("Hello."))) > 1
