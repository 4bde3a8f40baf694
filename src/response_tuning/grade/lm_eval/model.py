"""A local model behind lm-eval's interface: log-likelihoods, and answers up to a stop string.

Importing this module needs the extra ``lm-eval``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from response_tuning.errors import EngineError, ModelError
from response_tuning.models.likelihood import logits_per_batch
from response_tuning.models.local import LocalModel

Tokenized = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), ids of the context, ids of the continuation)"""


class HarnessModel(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's Hugging Face model around ours, within a memory budget.

    Log-probabilities are float32 for all weights: in bfloat16, close choices would tie.
    """

    def __init__(self, local: LocalModel, tokens_per_batch: int) -> None:
        tokenizer = local.chat.tokenizer
        if tokenizer.eos_token_id is None:
            raise ModelError("lm-eval needs an end-of-sequence token, and the tokenizer has none")
        super().__init__(
            pretrained=local.model,
            tokenizer=tokenizer,
            backend="causal",
            max_length=local.context,
            softmax_dtype="float32",
        )
        # lm-eval ends a batch at strings. Of a row that stops before the others, transformers cuts
        # what follows only if the model itself says where it stops.
        local.model.generation_config.eos_token_id = list(local.stop_ids)
        self.local = local
        self.cut = 0
        """Number of requests whose beginning was cut, because the context is too short."""
        self.on_progress: Callable[[int, int], None] = lambda done, total: None
        """Called with (done, total) of the requests of a call."""
        self._tokens_per_batch = tokens_per_batch
        self._logits_per_batch = logits_per_batch(local)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the answer to each request.

        Raises:
            ModelError: the context is not longer than an answer may be.
            EngineError: a batch does not fit into the GPU's memory.
        """
        room = self.max_length - self.max_gen_toks
        if room < 1:
            raise ModelError(
                f"an answer may have {self.max_gen_toks} tokens, and the model's context has only "
                f"{self.max_length}: leave out the tasks whose answers are generated"
            )
        # lm-eval cuts a prompt from the left; the budget needs the longest that remains.
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        longest = min(max(lengths), room) + self.max_gen_toks
        self.cut += sum(length > room for length in lengths)
        with self._batches(len(requests), self._tokens_per_batch // longest):
            answers: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return answers

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokenized], **_: object
    ) -> list[tuple[float, bool]]:
        window = self.max_length + 1  # the last token is scored and never read
        if max(len(continuation) for *_, continuation in requests) > self.max_length:
            raise ModelError(f"a choice is longer than the model's context of {self.max_length}")
        lengths = [len(context) + len(continuation) for _, context, continuation in requests]
        longest = min(max(lengths), window)
        self.cut += sum(length > window for length in lengths)
        budget = min(self._tokens_per_batch, self._logits_per_batch)
        with self._batches(len(requests), budget // longest):
            scored: list[tuple[float, bool]] = super()._loglikelihood_tokens(
                requests, disable_tqdm=True
            )
        return scored

    @contextmanager
    def _batches(self, requests: int, rows: int) -> Iterator[None]:
        """Run ``rows`` requests at a time, and report each that is done."""
        self.batch_size_per_gpu = max(1, rows)
        self.set_cache_hook(_Count(requests, self.on_progress))
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"out of GPU memory at {self.batch_size} rows: lower --tokens-per-batch"
            ) from error


class _Count:
    """Counts results in place of lm-eval's cache, which gets each result at once."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def add_partial(self, kind: str, request: object, result: object) -> None:
        """Count one result."""
        self._done += 1
        self._on_progress(self._done, self._total)
