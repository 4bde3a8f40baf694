"""A causal language model in this process: prompting, batching and stopping, in one place.

The engine ``hf`` and the console chat share it, so that both say the same.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import ERROR
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from response_tuning.artifacts import Message, Sampling, digest
from response_tuning.errors import EngineError
from response_tuning.generate.engine import cut
from response_tuning.templates import Chat

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

Weights = Any
"""A ``PreTrainedModel``, or a ``PeftModel`` around one: they share what is used of them here."""


class Streamer(Protocol):
    """Hears of new tokens, as ``transformers`` says them."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Take the prompt's ids first, then one new id at a time."""
        ...

    def end(self) -> None:
        """Take note that there are no more."""
        ...


class PromptTooLongError(EngineError):
    """A prompt leaves no room for a reply in the model's context."""


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

    def stops(self, sampling: Sampling) -> tuple[str, ...]:
        """Return the strings that end a reply: the template's, and those asked for."""
        return (*self.chat.stop_strings, *sampling.stop)

    def draft(self, messages: Sequence[Message], sampling: Sampling) -> Draft:
        """Return the empty reply to ``messages``.

        Raises:
            TemplateError: the chat template cannot render them.
            PromptTooLongError: not one new token fits into the context.
        """
        with quiet():
            prompt = self.chat.encode(self.chat.prompt(messages))
        if self.context is None:
            return Draft(prompt, sampling.max_new_tokens)
        room = self.context - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens, which leaves no room for a reply in the "
                f"model's context of {self.context}"
            )
        return Draft(prompt, min(sampling.max_new_tokens, room))

    def extend(
        self, drafts: Sequence[Draft], sampling: Sampling, streamer: Streamer | None = None
    ) -> None:
        """Continue ``drafts`` as one batch until all have ended or one is at its limit.

        The others are then continued by another call: near the end of the context, rows must
        not run on beyond the last position that the model has, nor be cut by their neighbours.

        Raises:
            EngineError: the batch does not fit into the GPU's memory.
        """
        import torch

        rows = [draft.prompt + draft.said for draft in drafts]
        width = max(map(len, rows))
        pad = self._pad_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        device = self.model.device
        try:
            with quiet(), _seeded(sampling, rows, device):
                out = self.model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=self._settings(drafts, sampling),
                    stopping_criteria=self._criteria(drafts, width, self.stops(sampling)),
                    streamer=streamer,
                )
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"out of GPU memory at {len(drafts)} rows: lower --tokens-per-batch"
            ) from error
        for draft, new in zip(drafts, out[:, width:].tolist(), strict=True):
            ends = [place for place, token in enumerate(new, start=1) if token in self.stop_ids]
            draft.said += new[: ends[0]] if ends else new

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

    def _settings(self, drafts: Sequence[Draft], sampling: Sampling) -> "GenerationConfig":
        from transformers import GenerationConfig

        settings: dict[str, Any] = {
            "max_new_tokens": min(draft.limit - len(draft.said) for draft in drafts),
            "eos_token_id": list(self.stop_ids) or None,
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

    def _criteria(
        self, drafts: Sequence[Draft], width: int, stop: Sequence[str]
    ) -> "StoppingCriteriaList":
        """Stop a row once its reply has a stop string in it.

        The ``stop_strings`` of transformers also match text that begins in the prompt: a reply to
        a prompt that ends in a newline would stop at its own first newline.
        """
        import torch
        from transformers import StoppingCriteriaList

        # A token that is shown has at least one byte, so no more than these can hold the string.
        window = max((len(string.encode()) for string in stop), default=0)

        def said(ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
            done = []
            for draft, row in zip(drafts, ids[:, -window - 1 :].tolist(), strict=True):
                new = min(window, ids.shape[1] - width + len(draft.said))
                text = self.text(row[-new - 1 : -new], row[-new:])
                done.append(cut(text, stop) is not None)
            return torch.tensor(done, device=ids.device)

        return StoppingCriteriaList([said] if stop else [])


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


@contextmanager
def _seeded(
    sampling: Sampling, rows: Sequence[Sequence[int]], device: "torch.device"
) -> Iterator[None]:
    """Draw from a seed of the batch's own, and leave the global generators as they were."""
    import torch

    if sampling.temperature == 0:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(digest(str(sampling.seed), json.dumps(rows)), 16))
        yield
