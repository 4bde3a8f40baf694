"""Whether an exported file is the model that was tuned: its tokens, prompts, stop and answers.

Four things are compared with the tuned model in this process, cheapest first. The first difference
is an error that names the token and the likely cause. Answers are compared token by token. Two
programs round differently, so a token may differ where our model found both nearly as likely: by at
most ``NEAR_TIE`` nats. Any other difference is an error, for the formats that keep 16 bits or more.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from response_tuning.artifacts import Message, Sampling
from response_tuning.errors import ModelError, TemplateError
from response_tuning.models.local import Draft, LocalModel, PromptError
from response_tuning.serve.export.llama import Answer, Llama

NEAR_TIE = 0.1
"""Largest gap between the log-probabilities of two tokens, in nats, that rounding may close."""
LOSSY = frozenset({"q8_0"})
"""Number formats whose other answers are reported, and are no error."""
_AT_ONCE = 16
"""Rows of a batch: the answers of one do not depend on it but for rounding."""
_SHARE_OF_CHATS = 20
"""One answer in so many is also asked for as a chat client asks."""
_SYSTEM = Message(role="system", content="Answer in one sentence.")
_AGAIN = Message(role="user", content="Why?")

Conversation = Sequence[Message]
Progress = Callable[[int, int], None]
"""Receives (done, all)."""


class Sample(NamedTuple):
    """A prompt and our greedy answer to it."""

    messages: Conversation
    prompt: list[int]
    answer: list[int]
    """Token ids, the stop token included."""


class Difference(NamedTuple):
    """Where an answer of the file leaves ours."""

    sample: Sample
    position: int
    theirs: int | None
    """Their token there; None if they have ended at the limit."""
    gap: float
    """How much more probable our model finds its own token, in nats."""


class Proof(NamedTuple):
    """What was compared, and how it came out."""

    prompts: int
    """Rendered prompts whose text and token ids are equal."""
    answers: int
    equal: int
    """Answers that are equal token by token."""
    near_ties: tuple[float, ...]
    """Gaps of the differences that rounding explains, or that a lossy format made."""
    logprob_difference: float
    """Median difference of the log-probability of a token, in nats, over equal answers."""

    def record(self) -> dict[str, Any]:
        """Return the proof for a JSON file."""
        return self._asdict() | {
            "near_ties": len(self.near_ties),
            "largest_gap": max(self.near_ties, default=0.0),
        }


def answered(
    local: LocalModel, conversations: Sequence[Conversation], limit: int, show: Progress
) -> list[Sample]:
    """Return our greedy answers of at most ``limit`` tokens; what does not fit is left out."""
    sampling = Sampling(max_new_tokens=limit)
    drafts: list[tuple[Conversation, Draft]] = []
    for messages in conversations:
        try:
            drafts.append((messages, local.draft(messages, sampling)))
        except (PromptError, TemplateError):  # too long, or refused by the template: not served
            continue
    drafts.sort(key=lambda each: len(each[1].prompt))
    for start in range(0, len(drafts), _AT_ONCE):
        batch = [draft for _, draft in drafts[start : start + _AT_ONCE]]
        local.extend(batch, sampling)
        show(start + len(batch), len(drafts))
    return [Sample(messages, draft.prompt, draft.generated) for messages, draft in drafts]


def check_prompts(local: LocalModel, llama: Llama, conversations: Sequence[Conversation]) -> int:
    """Compare rendered prompts and their token ids, and return how many are equal.

    Each conversation is also rendered with a system message and with a second question, and the
    assistant's opening alone, which response tuning trains after.

    Raises:
        ModelError: one differs.
    """
    chat = local.chat
    texts = {chat.opening: None}
    for messages in conversations:
        for variant in _variants(messages):
            try:
                ours = chat.prompt(variant)
            except TemplateError:
                continue  # a template may refuse a system message
            _check_rendered(ours, llama.prompt(variant), llama)
            texts[ours] = None
    for text in texts:
        _check_ids(local, text, llama.encode(_without_bos(text, llama)))
    return len(texts)


def check_stop(local: LocalModel, llama: Llama) -> None:
    """Have the file generate the stop token, and see that it ends the answer.

    Raises:
        ModelError: it goes on.
    """
    try:
        stop = local.chat.turn_end.stop_id
    except TemplateError:
        return  # turns end in stop strings, which the client sends
    prompt = local.chat.encode(local.chat.opening)
    forced = llama.answer(prompt, 2, logit_bias=[[stop, 1e6]])
    if not forced.stopped:
        raise ModelError(
            f"the exported file does not stop at {local.chat.decode([stop])!r} (id {stop}), which "
            f"ends a reply of the tuned model; its own is {llama.properties()['eos_token']!r}"
        )


def check_answers(
    local: LocalModel, llama: Llama, samples: Sequence[Sample], kind: str, show: Progress
) -> Proof:
    """Compare greedy answers, and return how many are equal.

    Raises:
        ModelError: one differs by more than rounding, and ``kind`` is not lossy.
    """
    gaps: list[float] = []
    logprobs: list[float] = []
    for place, sample in enumerate(samples):
        theirs = llama.answer(sample.prompt, len(sample.answer))
        difference = _difference(local, sample, theirs)
        if difference is None:
            logprobs += _logprob_differences(local, sample, theirs)
            if place % _SHARE_OF_CHATS == 0:
                _check_chat(local, llama, sample)
        else:
            _check_gap(local, difference, kind)
            gaps.append(difference.gap)
        show(place + 1, len(samples))
    return Proof(
        prompts=0,
        answers=len(samples),
        equal=len(samples) - len(gaps),
        near_ties=tuple(gaps),
        logprob_difference=sorted(logprobs)[len(logprobs) // 2] if logprobs else 0.0,
    )


def _variants(messages: Conversation) -> Iterator[list[Message]]:
    answer = Message(role="assistant", content="Because of this, and \U0001f642 <b>that</b>.")
    yield [*messages]
    yield [_SYSTEM, *messages]
    yield [*messages, answer, _AGAIN]


def _check_rendered(ours: str, theirs: str, llama: Llama) -> None:
    if theirs in (ours, _without_bos(ours, llama)):
        return
    place = next((i for i, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b), len(theirs))
    raise ModelError(
        f"the exported file renders another prompt from character {place} on: ours is "
        f"{ours[place : place + 40]!r}, its {theirs[place : place + 40]!r}; llama.cpp's template "
        "engine does not read this chat template as transformers does: use another template, or "
        "report it to llama.cpp"
    )


def _without_bos(text: str, llama: Llama) -> str:
    """Return a prompt without the BOS in front, which llama.cpp adds itself if the file says so."""
    bos = llama.properties()["bos_token"]
    adds = bool(bos) and llama.encode("a")[:1] == llama.encode(bos)[-1:]
    return text.removeprefix(bos) if adds else text


def _check_ids(local: LocalModel, text: str, theirs: list[int]) -> None:
    ours = local.chat.encode(text)
    if ours == theirs:
        return
    place = next(i for i, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b)
    tokens = [_token(local, ids[place] if place < len(ids) else None) for ids in (ours, theirs)]
    raise ModelError(
        f"the exported file splits {text[:60]!r} into other tokens: token {place} is {tokens[0]} "
        f"in training and {tokens[1]} in the file; {_cause(place, ours, theirs)}"
    )


def _cause(place: int, ours: list[int], theirs: list[int]) -> str:
    if place == 0 and (ours[1:] == theirs or theirs[1:] == ours):
        return "one of them has a BOS token in front that the other has not"
    return (
        "likely a SentencePiece model without its tokenizer.model, or a pre-tokenizer that this "
        "converter takes for another one"
    )


def _token(local: LocalModel, token: int | None) -> str:
    return "no token" if token is None else f"{local.chat.decode([token])!r} (id {token})"


def _difference(local: LocalModel, sample: Sample, theirs: Answer) -> Difference | None:
    if sample.answer == theirs.tokens:
        return None
    place = next(i for i, (a, b) in enumerate(zip_longest(sample.answer, theirs.tokens)) if a != b)
    token = theirs.tokens[place] if place < len(theirs.tokens) else None
    if token is None or place >= len(sample.answer):
        return Difference(sample, place, token, float("inf"))
    scores = _logprobs(local, sample)[place]
    gap = float(scores[sample.answer[place]] - scores[token])
    return Difference(sample, place, token, gap)


def _check_gap(local: LocalModel, difference: Difference, kind: str) -> None:
    if kind in LOSSY or difference.gap <= NEAR_TIE:
        return
    sample, place = difference.sample, difference.position
    ours = sample.answer[place] if place < len(sample.answer) else None
    raise ModelError(
        f"the exported file answers {sample.messages[-1].content[:60]!r} otherwise: token {place} "
        f"is {_token(local, ours)} in the tuned model and {_token(local, difference.theirs)} in "
        f"the file, and our model finds its own {difference.gap:.2f} nats more probable, which "
        f"rounding does not explain; the weights were not converted as they are"
    )


def _check_chat(local: LocalModel, llama: Llama, sample: Sample) -> None:
    """Compare the text and the finish reason that a chat client gets."""
    text, reason = llama.chat(sample.messages, len(sample.answer))
    ended = sample.answer[-1:] and sample.answer[-1] in local.stop_ids
    ours = local.text(sample.prompt, sample.answer), "stop" if ended else "length"
    if (text, reason) != ours:
        raise ModelError(
            f"a chat client gets {text!r} ({reason}) from the exported file, and {ours[0]!r} "
            f"({ours[1]}) from the tuned model, of the same tokens"
        )


def _logprobs(local: LocalModel, sample: Sample) -> Any:  # noqa: ANN401 - a torch tensor
    """Return (T, V) log-probabilities at the positions of our answer's tokens."""
    import torch

    ids = torch.tensor([sample.prompt + sample.answer], device=local.model.device)
    with torch.no_grad():
        logits: Any = local.model(input_ids=ids, logits_to_keep=len(sample.answer) + 1).logits
    return logits[0, :-1].float().log_softmax(-1)


def _logprob_differences(local: LocalModel, sample: Sample, theirs: Answer) -> list[float]:
    scores = _logprobs(local, sample)
    ours = [float(scores[i, token]) for i, token in enumerate(sample.answer)]
    return [abs(a - b) for a, b in zip(ours, theirs.logprobs, strict=False)]
