"""The engine ``hf``: a transformers model in this process, asked in batches."""

from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.generate.engine import ENGINES, EngineConfig, Usage, answered, failed
from response_tuning.generate.likelihood import log_likelihoods
from response_tuning.generate.loading import load
from response_tuning.generate.local import Draft, LocalModel, PromptTooLongError
from response_tuning.pairs import Likelihood, Pair, Unscored

Ask = tuple[Request, Draft]


class HfEngine:
    """Answers in left-padded batches of about equal length, the longest prompts first.

    In float32, greedy answers do not depend on the batching. Sampled ones do (``generate`` of
    transformers draws for a whole batch): they repeat if the same requests are asked together.
    """

    def __init__(self, local: LocalModel, tokens_per_batch: int) -> None:
        self.model = local.identity
        self.template = local.chat.digest
        self._local = local
        self._tokens_per_batch = tokens_per_batch

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield completions batch by batch; a prompt that cannot be asked is an error record.

        Raises:
            EngineError: a batch does not fit into the GPU's memory.
        """
        asks: list[Ask] = []
        for request in requests:
            try:
                asks.append((request, self._local.draft(request.prompt, sampling)))
            except (TemplateError, PromptTooLongError) as error:
                yield failed(self, request, sampling, str(error))
        for batch in _batches(asks, self._tokens_per_batch):
            yield from self._answer(batch, sampling)

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[Likelihood | Unscored]:
        """Return how probable the model finds given replies, in the order of the pairs.

        Raises:
            TemplateError: the template does not say what ends a reply.
            EngineError: a batch does not fit into the GPU's memory.
        """
        return log_likelihoods(self._local, pairs, self._tokens_per_batch)

    def _answer(self, batch: list[Ask], sampling: Sampling) -> Iterator[Completion]:
        while batch:
            self._local.extend([draft for _, draft in batch], sampling)
            unfinished = []
            for request, draft in batch:
                ending = self._local.ending(draft, sampling)
                if ending is None:
                    unfinished.append((request, draft))
                else:
                    usage = Usage(len(draft.said), len(draft.prompt))
                    yield answered(self, request, sampling, *ending, usage)
            batch = unfinished


def _batches(asks: Sequence[Ask], tokens: int) -> Iterator[list[Ask]]:
    """Split into batches of at most ``tokens``, padding and replies included, or of one."""
    left = sorted(asks, key=lambda ask: len(ask[1].prompt), reverse=True)
    while left:
        longest = left[0][1]
        rows = max(1, tokens // (len(longest.prompt) + longest.limit))
        yield left[:rows]
        left = left[rows:]


@ENGINES.register("hf")
def connect(config: EngineConfig) -> HfEngine:
    """Load the model that ``config`` names.

    Raises:
        ConfigError: no model is named, or there is no such template.
        ModelError: the model cannot be found, or is not complete.
        TemplateError: the model has no chat template and none is named.
    """
    if config.model is None:
        raise ConfigError("engine 'hf': give it a model folder or a hub id (--model)")
    local = load(config.model, config.template, config.revision, config.device)
    return HfEngine(local, config.tokens_per_batch)
