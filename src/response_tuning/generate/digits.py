"""A judge that answers in numbers: the most probable digit, and the mean digit beside it."""

from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.generate.engine import answered, failed
from response_tuning.judging import DIGITS
from response_tuning.likelihoods import Unscored
from response_tuning.models.labels import expected, label_probabilities
from response_tuning.models.local import LocalModel

AT_ONCE = 256
"""Prompts between two yields: what a crash can cost."""


class DigitEngine:
    """Answers each prompt with a digit from 0 to 9, from one forward pass.

    ``expected_digit`` of a completion is the mean digit under the probabilities of the ten at the
    first position, renormalised (Ye and Ng, arXiv 2409.00935). Sampling has no effect on either.
    """

    def __init__(self, local: LocalModel, tokens_per_batch: int) -> None:
        self.model = f"{local.identity}+digits"
        self.template = local.chat.digest
        self._local = local
        self._tokens_per_batch = tokens_per_batch

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield a digit for each request; a prompt the model cannot take is an error record.

        Raises:
            ModelError: the tokenizer does not write each digit as one token.
            EngineError: a batch does not fit into the GPU's memory.
        """
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            prompts = [request.prompt for request in some]
            found = label_probabilities(self._local, prompts, self._tokens_per_batch)
            for request, shares in zip(some, found, strict=True):
                if isinstance(shares, Unscored):
                    yield failed(self, request, sampling, shares.reason)
                    continue
                digit = max(range(len(DIGITS)), key=shares.__getitem__)
                reply = answered(self, request, sampling, DIGITS[digit], "stop")
                yield reply.model_copy(update={"expected_digit": expected(shares)})
