"""A causal language model in this process: prompting, batching and stopping, in one place.

The engine ``hf`` and the console chat share it, so that both say the same.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from logging import ERROR
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from response_tuning.artifacts import Message, Sampling, cut
from response_tuning.errors import EngineError
from response_tuning.models.decoding import Weights, decode
from response_tuning.templates import Chat

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig


GoOn = Callable[[int, int], bool]
"""Is told the rows of a batch that have not ended and its width in tokens, after each token."""

WORTH_A_COPY = 8
"""One row in so many has to have ended before the others' cache is copied without it."""


class Streamer(Protocol):
    """Hears of new tokens, as ``transformers`` says them."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Take the prompt's ids first, then one new id at a time."""
        ...

    def end(self) -> None:
        """Take note that there are no more."""
        ...


class PromptError(EngineError):
    """This model cannot be asked a prompt: it is too long, or holds a token without embedding."""


class Ending(NamedTuple):
    """A finished reply."""

    text: str
    finish_reason: Literal["stop", "length"]


@dataclass
class Draft:
    """A reply in the making."""

    prompt: list[int]
    limit: int
    """New tokens that are allowed: as many as were asked for, or as the context has room for."""
    said: list[int] = field(default_factory=list)
    """New tokens so far, a stop token included."""


@dataclass(frozen=True)
class LocalModel:
    """A loaded model with its chat template, and where it stops."""

    identity: str
    """``id@commit`` of a hub model; a digest of the files' content of a local folder."""
    model: Weights
    chat: Chat
    stop_ids: tuple[int, ...]
    context: int | None
    """Longest sequence in tokens, prompt included; None where the model has no such limit."""
    rows: int | None = None
    """Of the embedding of its input: ids from there on have none. None where that is not known."""

    def stops(self, sampling: Sampling) -> tuple[str, ...]:
        """Return the strings that end a reply: the template's, and those asked for."""
        return (*self.chat.stop_strings, *sampling.stop)

    def draft(self, messages: Sequence[Message], sampling: Sampling) -> Draft:
        """Return the empty reply to ``messages``.

        Raises:
            TemplateError: the chat template cannot render them.
            PromptError: not one new token fits into the context, or a token has no embedding.
        """
        with quiet():
            prompt = self.chat.encode(self.chat.prompt(messages))
        self.check_ids(prompt)
        if self.context is None:
            return Draft(prompt, sampling.max_new_tokens)
        room = self.context - len(prompt)
        if room < 1:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens, which leaves no room for a reply in the "
                f"model's context of {self.context}"
            )
        return Draft(prompt, min(sampling.max_new_tokens, room))

    def check_ids(self, ids: Sequence[int]) -> None:
        """Refuse ids for which the model has no embedding.

        Raises:
            PromptError: there is one among them.
        """
        last = max(ids, default=0)
        if self.rows is not None and last >= self.rows:
            raise PromptError(
                f"the prompt has the token {self.chat.decode([last])!r} (id {last}), for which the "
                f"model's embedding of {self.rows} rows has none"
            )

    def extend(
        self,
        drafts: Sequence[Draft],
        sampling: Sampling,
        streamer: Streamer | None = None,
        go_on: GoOn = lambda rows, width: True,
    ) -> None:
        """Continue ``drafts`` as one batch, each up to its end, while ``go_on`` says so.

        Raises:
            EngineError: the batch does not fit into the GPU's memory.
        """
        import torch

        batch = _Batch(self, list(drafts), sampling, go_on, streamer)
        rows = [draft.prompt + draft.said for draft in drafts]
        pad, width = self._pad_id, batch.width
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        device = self.model.device
        try:
            with quiet():
                self.model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=self._settings(sampling),
                    streamer=streamer,
                    custom_generate=decode,
                    batch=batch,
                )
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"out of GPU memory at {len(drafts)} rows: lower --tokens-per-batch"
            ) from error
        if streamer is not None:
            streamer.end()

    def ending(self, draft: Draft, sampling: Sampling) -> Ending | None:
        """Return the reply, or None while it may go on."""
        text = self.text(draft.prompt, draft.said)
        kept = cut(text, self.stops(sampling))
        if kept is not None:
            return Ending(kept, "stop")
        if draft.said and draft.said[-1] in self.stop_ids:
            return Ending(text, "stop")
        return Ending(text, "length") if len(draft.said) >= draft.limit else None

    def text(self, before: Sequence[int], new: Sequence[int]) -> str:
        """Return what ``new`` says after ``before``, up to a stop token.

        Decoded alone, the first word would lose its space: SentencePiece tokenizers strip it.
        """
        spoken = [*new[:-1], *(token for token in new[-1:] if token not in self.stop_ids)]
        return self._decode([*before, *spoken])[len(self._decode(before)) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self.chat.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    @property
    def _pad_id(self) -> int:
        # Any token will do: padding is masked, and what follows a stop token is cut off.
        return self.stop_ids[0] if self.stop_ids else 0

    def has_ended(self, draft: Draft, stop: Sequence[str]) -> bool:
        """Whether a stop token, a stop string or the limit ends the reply at its last token."""
        said = draft.said
        if said[-1] in self.stop_ids or len(said) >= draft.limit:
            return True
        if not stop:
            return False
        # A token that is shown has at least one byte, so no more than these can hold the string.
        # Not the ``stop_strings`` of transformers, which also match text that begins in the
        # prompt: a reply to a prompt that ends in a newline would stop at its own first newline.
        window = said[-max(len(string.encode()) for string in stop) :]
        before = (draft.prompt[-1:] + said)[-len(window) - 1 : -len(window)]
        return cut(self.text(before, window), stop) is not None

    def _settings(self, sampling: Sampling) -> "GenerationConfig":
        from transformers import GenerationConfig

        settings: dict[str, Any] = {
            # A length that it asks for and we do not: where rows end is up to ``_Batch``.
            "max_new_tokens": sampling.max_new_tokens,
            "pad_token_id": self._pad_id,
            "use_cache": True,
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            # top_k 0: transformers would otherwise keep the 50 likeliest tokens only.
            settings |= {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        return GenerationConfig.from_dict(settings)


class _Batch:
    """Rows that are decoded together; each leaves soon after it has ended."""

    def __init__(
        self,
        local: LocalModel,
        drafts: list[Draft],
        sampling: Sampling,
        go_on: GoOn,
        streamer: Streamer | None,
    ) -> None:
        self.width = max(len(draft.prompt) + len(draft.said) for draft in drafts)
        self._local = local
        self._drafts = drafts
        self._seed = sampling.seed
        self._stop = local.stops(sampling)
        self._go_on = go_on
        self._streamer = streamer
        self._going = list(range(len(drafts)))

    def take(self, new: list[int]) -> list[int]:
        """Add a token to each reply that has not ended, and return the rows that stay."""
        import torch

        if self._streamer is not None:
            self._streamer.put(torch.tensor(new))
        for place in self._going:
            self._drafts[place].said.append(new[place])
        self.width += 1
        self._going = [
            place
            for place in self._going
            if not self._local.has_ended(self._drafts[place], self._stop)
        ]
        if not (self._going and self._go_on(len(self._going), self.width)):
            return []
        return self._leave() if self._should_leave() else list(range(len(self._drafts)))

    def draw(self) -> list[float]:
        """Return what chance decides of each row's next token, evenly spread over 0 to 1.

        It depends on the seed, the row's prompt and the token's place alone: not on the rows
        beside it, nor on what was answered before a kill.
        """
        return [_chance(self._begun[id(draft)], len(draft.said)) for draft in self._drafts]

    @cached_property
    def _begun(self) -> "dict[int, hashlib._Hash]":
        """What each row's chances have in common, hashed once."""
        return {
            id(draft): hashlib.sha256(f"{self._seed} {draft.prompt} ".encode())
            for draft in self._drafts
        }

    def _should_leave(self) -> bool:
        """Whether rows that have ended cost more than the copy of the cache that lets them go."""
        ended = len(self._drafts) - len(self._going)
        # At its limit, a row may be at the last position that the model has.
        full = any(len(draft.said) >= draft.limit for draft in self._drafts)
        return full or ended * WORTH_A_COPY >= len(self._drafts)

    def _leave(self) -> list[int]:
        stay = self._going
        self._drafts = [self._drafts[place] for place in stay]
        self._going = list(range(len(stay)))
        return stay


def _chance(begun: "hashlib._Hash", place: int) -> float:
    """Return a number from 0 to below 1; all together they are evenly spread, by SHA-256."""
    whole = begun.copy()
    whole.update(str(place).encode())
    return (int.from_bytes(whole.digest()[:8]) >> 11) * 2.0**-53


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and notices away: what matters of them is an error here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
