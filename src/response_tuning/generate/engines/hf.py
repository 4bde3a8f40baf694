"""The engine ``hf``: a transformers model in this process, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import TemplateError
from response_tuning.generate.digits import DigitEngine
from response_tuning.generate.engine import ENGINES, Engine, Usage, answered, failed
from response_tuning.generate.rules import Rules
from response_tuning.likelihoods import Likelihood, Pair
from response_tuning.models.inference import load
from response_tuning.models.likelihood import log_likelihoods
from response_tuning.models.local import Draft, LocalModel, PromptError

Pending = tuple[Request, Draft]

ROOM = 64
"""New tokens that a batch reserves for each row, or the row's length if that is more."""
STRAGGLERS = 4
"""A batch ends when at most one in so many rows is left and others wait."""


class HfEngine:
    """Answers in left-padded batches of about equal length, the shortest first.

    A batch has as many rows as fit *now*, because most replies are far shorter than their limit.
    Rows leave it as they end. When few are left, or those left no longer fit, they wait, and
    continue later in a batch of rows of about their length.

    In float32, neither greedy nor sampled answers depend on the batching: the random number of a
    token depends only on the seed, the prompt and the token's position.
    """

    def __init__(
        self, local: LocalModel, tokens_per_batch: int, *, confidence: bool = False
    ) -> None:
        rules = f"+rules:{local.adjust.digest}" if isinstance(local.adjust, Rules) else ""
        # Another identity, so that answers without a confidence are asked for again.
        self.model = f"{local.identity}{rules}{'+confidence' if confidence else ''}"
        self._confidence = confidence
        self.template = local.chat.digest
        self._local = local
        self._tokens_per_batch = tokens_per_batch

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield completions batch by batch; a prompt the model cannot take is an error record.

        Raises:
            EngineError: a batch does not fit into the GPU's memory.
        """
        # All prompts are encoded first: batches are made by length, over all of them.
        pending: list[Pending] = []
        for request in requests:
            try:
                pending.append((request, self._local.draft(request.prompt, sampling)))
            except (TemplateError, PromptError) as error:
                yield failed(self, request, sampling, str(error))
        while pending:
            batch, pending = next_batch(pending, self._tokens_per_batch)
            self._extend([draft for _, draft in batch], sampling, others_wait=bool(pending))
            done: list[tuple[Completion, bool]] = []
            for request, draft in batch:
                ending = self._local.ending(draft, sampling)
                if ending is None:
                    pending.append((request, draft))
                else:
                    usage = Usage(len(draft.generated), len(draft.prompt))
                    ended = bool({*draft.generated[-1:]} & {*self._local.stop_ids})
                    done.append((answered(self, request, sampling, *ending, usage), ended))
            yield from self._with_confidence(done) if self._confidence else (one for one, _ in done)

    def _extend(self, drafts: list[Draft], sampling: Sampling, *, others_wait: bool) -> None:
        few = len(drafts) // STRAGGLERS if others_wait else 0

        def continue_batch(rows: int, width: int) -> bool:
            # A single row always continues: it could not be split further.
            return rows > few and (rows == 1 or rows * width <= self._tokens_per_batch)

        self._local.extend(drafts, sampling, continue_batch=continue_batch)

    def _with_confidence(self, done: Sequence[tuple[Completion, bool]]) -> Iterator[Completion]:
        """Yield completions with the model's mean log-likelihood of each.

        Without the rules and the temperature that may have changed it: how sure the model is by
        itself. Whether the model ended the answer itself decides if the end counts as a token. An
        answer without a token, or one that cannot be scored, has no confidence.
        """
        pairs = [Pair(one.prompt, one.response or "") for one, _ in done]
        found = log_likelihoods(self._local, pairs, self._tokens_per_batch)
        for (one, ended), likelihood in zip(done, found, strict=True):
            sure = None
            if isinstance(likelihood, Likelihood) and likelihood.tokens + ended:
                total = likelihood.total + (likelihood.ending if ended else 0.0)
                sure = total / (likelihood.tokens + ended)
            yield one.model_copy(update={"confidence": sure})


def next_batch(pending: list[Pending], tokens: int) -> tuple[list[Pending], list[Pending]]:
    """Return a batch of at most ``tokens``, padding and room included, or of one; and the rest."""
    left = sorted(pending, key=lambda one: _length(one[1]))
    rows = 1
    while rows < len(left) and (rows + 1) * _with_room(left[rows][1]) <= tokens:
        rows += 1
    return left[:rows], left[rows:]


def _length(draft: Draft) -> int:
    return len(draft.prompt) + len(draft.generated)


def _with_room(draft: Draft) -> int:
    length = _length(draft)
    return length + min(draft.limit - len(draft.generated), max(ROOM, length))


@ENGINES.register("hf")
def connect(config: EngineConfig) -> Engine:
    """Load the model that ``config`` names.

    Raises:
        ConfigError: no model is named, or there is no such template.
        ModelError: the model cannot be found, or is not complete.
        TemplateError: the model has no chat template, and the settings name no template.
    """
    assert config.model is not None  # see check_settings
    local = load(config.model, config.template, config.revision, config.device, config.precision)
    if config.precision != "auto":
        local = replace(local, identity=f"{local.identity}+{config.precision}")
    if config.rules is not None:
        local = replace(local, adjust=Rules(config.rules, local))
    if config.digits:
        return DigitEngine(local, config.tokens_per_batch)
    return HfEngine(local, config.tokens_per_batch, confidence=config.confidence)
