from collections.abc import Sequence
from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.errors import ModelError
from response_tuning.models import inference
from response_tuning.models.local import LocalModel
from response_tuning.serve.export import proof
from response_tuning.serve.export.llama import Answer

CONVERSATIONS = [
    [Message(role="user", content=text)]
    for text in ("What colour is the sky?", "Name a number.", "Say <b>so</b>  twice.")
]
LIMIT = 12


class Copy:
    """A file in llama.cpp that is our model, up to the fault that a test gives it."""

    def __init__(self, local: LocalModel, samples: Sequence[proof.Sample] = ()) -> None:
        self.local = local
        self.samples = {tuple(sample.prompt): sample for sample in samples}
        self.stops = True

    def properties(self) -> dict[str, Any]:
        return {"bos_token": "", "eos_token": "<other>"}

    def prompt(self, messages: Sequence[Message]) -> str:
        return self.local.chat.prompt(messages)

    def encode(self, text: str) -> list[int]:
        return self.local.chat.encode(text)

    def answer(self, prompt: Sequence[int], limit: int, **more: object) -> Answer:
        if more:
            return Answer([0], self.stops, [0.0])
        return Answer(self.samples[tuple(prompt)].answer, True, [])

    def chat(self, messages: Sequence[Message], limit: int) -> tuple[str, str]:
        sample = next(each for each in self.samples.values() if each.messages == messages)
        ended = sample.answer[-1] in self.local.stop_ids
        text = self.local.text(sample.prompt, sample.answer)
        return text, "stop" if ended else "length"


def ignore(done: int, total: int) -> None:
    assert done <= total


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return inference.load("miniature", "tulu", device="cpu")


@pytest.fixture(scope="module")
def samples(local: LocalModel) -> list[proof.Sample]:
    return proof.answered(local, CONVERSATIONS, LIMIT, ignore)


def checked(local: LocalModel, copy: Any, samples: Sequence[proof.Sample], kind: str) -> Any:
    return proof.check_answers(local, copy, samples, kind, ignore)


def test_a_faithful_file_passes_and_is_counted(
    local: LocalModel, samples: list[proof.Sample]
) -> None:
    copy: Any = Copy(local, samples)
    # The opening, and each conversation alone, after a system message, and with a second question.
    assert proof.check_prompts(local, copy, CONVERSATIONS) == 1 + 3 * len(CONVERSATIONS)
    proof.check_stop(local, copy)
    found = checked(local, copy, samples, "f16")
    assert (found.answers, found.equal, found.near_ties) == (3, 3, ())


def test_another_token_is_named_with_its_place_and_likely_cause(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local)
    monkeypatch.setattr(copy, "encode", lambda text: [5, *local.chat.encode(text)[1:]])
    with pytest.raises(
        ModelError, match=r"token 0 is '<\|' \(id \d+\) in training and .* \(id 5\)"
    ) as e:
        proof.check_prompts(local, copy, CONVERSATIONS)
    assert "tokenizer.model" in str(e.value) and "pre-tokenizer" in str(e.value)


def test_a_bos_that_only_one_of_them_has_is_named(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local)
    monkeypatch.setattr(copy, "encode", lambda text: [0, *local.chat.encode(text)])
    with pytest.raises(ModelError, match="one of them has a BOS token in front"):
        proof.check_prompts(local, copy, CONVERSATIONS)


def test_another_prompt_is_shown_from_the_first_difference_on(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local)

    def without_system(messages: Sequence[Message]) -> str:
        return local.chat.prompt([each for each in messages if each.role != "system"])

    monkeypatch.setattr(copy, "prompt", without_system)
    with pytest.raises(ModelError, match=r"another prompt from character 9 on: ours is 'Answer in"):
        proof.check_prompts(local, copy, CONVERSATIONS)


def test_a_file_that_goes_on_after_the_stop_token_is_refused(local: LocalModel) -> None:
    copy: Any = Copy(local)
    copy.stops = False
    with pytest.raises(ModelError, match=r"does not stop at '</s>' \(id 0\).*its own is '<other>'"):
        proof.check_stop(local, copy)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_another_answer_is_an_error_but_for_formats_that_lose_precision(
    local: LocalModel, samples: list[proof.Sample], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local, samples)
    other = [*samples[0].answer[:2], 17, *samples[0].answer[3:]]
    copy.samples[tuple(samples[0].prompt)] = samples[0]._replace(answer=other)
    if kind == "q8_0":
        found = checked(local, copy, samples[:1], kind)
        assert (found.equal, len(found.near_ties)) == (0, 1)
        assert found.near_ties[0] > proof.NEAR_TIE
        return
    with pytest.raises(
        ModelError, match=r"otherwise: token 2 is .* \(id 17\) in the file, .* nats"
    ):
        checked(local, copy, samples[:1], kind)


def test_a_near_tie_is_counted_and_no_error(
    local: LocalModel, samples: list[proof.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local, samples)
    scores = proof._logprobs(local, samples[0])
    runner_up = int(scores[0].topk(2).indices[1])
    gap = float(scores[0].max() - scores[0, runner_up])
    other = [runner_up, *samples[0].answer[1:]]
    copy.samples[tuple(samples[0].prompt)] = samples[0]._replace(answer=other)
    monkeypatch.setattr(proof, "NEAR_TIE", gap + 1e-6)
    found = checked(local, copy, samples, "f16")
    assert (found.equal, found.near_ties) == (2, (pytest.approx(gap),))
    monkeypatch.setattr(proof, "NEAR_TIE", gap - 1e-6)
    with pytest.raises(ModelError, match="rounding does not explain"):
        checked(local, copy, samples, "f16")


def test_an_answer_that_ends_elsewhere_is_never_a_near_tie(
    local: LocalModel, samples: list[proof.Sample]
) -> None:
    copy: Any = Copy(local, samples)
    short = samples[0]._replace(answer=samples[0].answer[:3])
    copy.samples[tuple(samples[0].prompt)] = short
    with pytest.raises(ModelError, match=r"token 3 is .* in the tuned model and no token"):
        checked(local, copy, samples[:1], "f16")


def test_what_a_chat_client_gets_is_compared_too(
    local: LocalModel, samples: list[proof.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Any = Copy(local, samples)
    monkeypatch.setattr(copy, "chat", lambda messages, limit: ("Else.", "stop"))
    with pytest.raises(ModelError, match=r"a chat client gets 'Else\.' \(stop\)"):
        checked(local, copy, samples, "f16")
