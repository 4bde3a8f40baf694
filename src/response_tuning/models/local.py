"""A causal language model in this process: prompting, batching and stopping, in one place.

The engine ``hf`` and the console chat share it, so both generate the same text.
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
    from transformers import GenerationConfig, LogitsProcessorList


ContinueBatch = Callable[[int, int], bool]
"""Called after each token with (rows that have not ended, width in tokens); False stops it all."""

Adjust = Callable[[Sequence["Draft"], "torch.Tensor"], "torch.Tensor"]
"""Returns the logits (B, V) of the next token of each draft, adjusted."""

COMPACT_AT = 1 / 8
"""Share of a batch's rows that must have ended before the others' cache is copied without them."""


class Streamer(Protocol):
    """Receives new tokens, as the streamers of ``transformers`` do."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Receive the prompt's ids first, then one new id at a time."""
        ...

    def end(self) -> None:
        """Called after the last token."""
        ...


class PromptError(EngineError):
    """The model cannot answer a prompt: it is empty, too long, or has a token without embedding."""


class Ending(NamedTuple):
    """A finished reply."""

    text: str
    finish_reason: Literal["stop", "length"]


@dataclass
class Draft:
    """A reply that is being generated."""

    prompt: list[int]
    limit: int
    """Maximum of new tokens: the requested number, or what the context has room for."""
    generated: list[int] = field(default_factory=list)
    """New tokens so far, a stop token included."""


@dataclass(frozen=True)
class LocalModel:
    """A loaded model with its chat template and its stop tokens."""

    identity: str
    """See ``location.identity``."""
    model: Weights
    chat: Chat
    stop_ids: tuple[int, ...]
    context: int | None
    """Longest sequence in tokens, prompt included; None if the model has no limit."""
    rows: int | None = None
    """Rows of the input embedding: ids from there on have none. None if unknown."""
    adjust: Adjust | None = None
    """Changes the logits of every token, before a temperature does."""
    declared_stops: tuple[int, ...] = ()
    """Those of the stop tokens that the model's generation settings name, whatever the template."""

    def stops(self, sampling: Sampling) -> tuple[str, ...]:
        """Return the strings that end a reply: the template's and the user's."""
        return (*self.chat.stop_strings, *sampling.stop)

    def draft(self, messages: Sequence[Message], sampling: Sampling) -> Draft:
        """Return the empty reply to ``messages``.

        Raises:
            TemplateError: the chat template cannot render them.
            PromptError: the prompt is empty, not one new token fits into the context, or a token
                has no embedding.
        """
        with quiet():
            prompt = self.chat.encode(self.chat.prompt(messages))
        if not prompt:
            raise PromptError("the prompt has no token, so there is nothing to continue")
        self.check_ids(prompt)
        # Positions end at the context: beyond it, a model computes nonsense or fails.
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
            PromptError: ``ids`` holds one.
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
        continue_batch: ContinueBatch = lambda rows, width: True,
    ) -> None:
        """Continue ``drafts`` as one batch, each up to its end, while ``continue_batch`` is true.

        Raises:
            EngineError: the batch does not fit into the GPU's memory.
        """
        import torch

        batch = _Batch(self, list(drafts), sampling, continue_batch, streamer)
        rows = [draft.prompt + draft.generated for draft in drafts]
        # (B, width), padded on the left: the next token of every row is then at the right edge.
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
                    logits_processor=batch.processors,
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
        """Return the finished reply, or None while it may continue."""
        text = self.text(draft.prompt, draft.generated)
        kept = cut(text, self.stops(sampling))
        if kept is not None:
            return Ending(kept, "stop")
        if draft.generated and draft.generated[-1] in self.stop_ids:
            return Ending(text, "stop")
        return Ending(text, "length") if len(draft.generated) >= draft.limit else None

    def text(self, before: Sequence[int], new: Sequence[int]) -> str:
        """Return the text of ``new`` after ``before``, without a stop token at its end.

        Decoded alone, the first word would lose its space: SentencePiece tokenizers strip it.
        """
        shown = [*new[:-1], *(token for token in new[-1:] if token not in self.stop_ids)]
        return self._decode([*before, *shown])[len(self._decode(before)) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self.chat.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    @property
    def _pad_id(self) -> int:
        # Any token will do: the mask hides padding, and the text after a stop token is cut off.
        return self.stop_ids[0] if self.stop_ids else 0

    def has_ended(self, draft: Draft, stop: Sequence[str]) -> bool:
        """Whether a stop token, a stop string or the limit ends the reply at its last token."""
        tokens = draft.generated
        if tokens[-1] in self.stop_ids or len(tokens) >= draft.limit:
            return True
        if not stop:
            return False
        # Decoding the whole reply at every token would take quadratic time. Each token of text has
        # at least one byte, so the last N tokens hold every string of N bytes that ends here.
        # transformers' ``stop_strings`` also match text that begins in the prompt: a reply to a
        # prompt that ends in a newline would stop at its own first newline.
        window = tokens[-max(len(string.encode()) for string in stop) :]
        before = (draft.prompt[-1:] + tokens)[-len(window) - 1 : -len(window)]
        return cut(self.text(before, window), stop) is not None

    def _settings(self, sampling: Sampling) -> "GenerationConfig":
        from transformers import GenerationConfig

        settings: dict[str, Any] = {
            # transformers requires a length; ``_Batch`` decides where rows end.
            "max_new_tokens": sampling.max_new_tokens,
            "pad_token_id": self._pad_id,
            "use_cache": True,
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            # top_k 0: transformers would otherwise keep only the 50 likeliest tokens.
            settings |= {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        return GenerationConfig.from_dict(settings)


class _Batch:
    """Drafts that are decoded together; each leaves soon after it has ended."""

    def __init__(
        self,
        local: LocalModel,
        drafts: list[Draft],
        sampling: Sampling,
        continue_batch: ContinueBatch,
        streamer: Streamer | None,
    ) -> None:
        self.width = max(len(draft.prompt) + len(draft.generated) for draft in drafts)
        self._local = local
        self._drafts = drafts
        self._seed = sampling.seed
        self._stop = local.stops(sampling)
        self._continue_batch = continue_batch
        self._streamer = streamer
        self._active = list(range(len(drafts)))
        """Indices of the drafts that have not ended."""

    @property
    def processors(self) -> "LogitsProcessorList":
        """What changes the logits of each row of the batch."""
        from transformers import LogitsProcessorList

        adjust = self._local.adjust
        if adjust is None:
            return LogitsProcessorList()

        def adjusted(input_ids: "torch.Tensor", logits: "torch.Tensor") -> "torch.Tensor":
            # Not from ``input_ids``: only a draft knows where its prompt ends.
            return adjust(self._drafts, logits)

        return LogitsProcessorList([adjusted])

    def append(self, new: list[int]) -> list[int]:
        """Append a token to each active draft, and return the rows that stay in the batch.

        An ended row may stay for some tokens: its new tokens are dropped.
        """
        import torch

        # The loop of transformers, which this one replaces, would have fed the streamer.
        if self._streamer is not None:
            self._streamer.put(torch.tensor(new))
        for row in self._active:
            self._drafts[row].generated.append(new[row])
        self.width += 1
        self._active = [
            row for row in self._active if not self._local.has_ended(self._drafts[row], self._stop)
        ]
        if not (self._active and self._continue_batch(len(self._active), self.width)):
            return []
        return self._compact() if self._should_compact() else list(range(len(self._drafts)))

    def draw(self) -> list[float]:
        """Return a uniform number in [0, 1) for each row's next token.

        It depends only on the seed, the row's prompt and the token's position: not on the other
        rows, and not on what was answered before a kill.
        """
        return [_uniform(self._seeded[id(draft)], len(draft.generated)) for draft in self._drafts]

    @cached_property
    def _seeded(self) -> "dict[int, hashlib._Hash]":
        """The part that all numbers of a row have in common, hashed once."""
        return {
            id(draft): hashlib.sha256(f"{self._seed} {draft.prompt} ".encode())
            for draft in self._drafts
        }

    def _should_compact(self) -> bool:
        """Whether the rows that have ended cost more than copying the cache without them."""
        ended = len(self._drafts) - len(self._active)
        # A row at its limit may be at the model's last position: it must not compute another token.
        full = any(len(draft.generated) >= draft.limit for draft in self._drafts)
        return full or ended >= len(self._drafts) * COMPACT_AT

    def _compact(self) -> list[int]:
        staying = self._active
        self._drafts = [self._drafts[row] for row in staying]
        self._active = list(range(len(staying)))
        return staying


def _uniform(seeded: "hashlib._Hash", position: int) -> float:
    """Return a number in [0, 1); SHA-256 spreads them evenly. 53 bits are what a float can hold."""
    hashed = seeded.copy()
    hashed.update(str(position).encode())
    return (int.from_bytes(hashed.digest()[:8]) >> 11) * 2.0**-53


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' bars and notices: this package raises its own errors where it matters."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    loud = verbosity != ERROR  # a command sets it: each change empties a cache of every logger
    if loud:
        logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if loud:
            logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
