"""All predictors of one base under one template, before any tuning; see ``probe/predictors.py``."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import Field

from response_tuning.artifacts import Completion, Message, Sampling, cut
from response_tuning.configs import Config, GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.limits import Seed
from response_tuning.rules_config import RulesConfig

if TYPE_CHECKING:
    from response_tuning.configs import EngineConfig
    from response_tuning.grade import Item
    from response_tuning.grade.benchmark import Benchmark
    from response_tuning.models.local import LocalModel
    from response_tuning.probe.ranking import Scorer
    from response_tuning.workflows.probe import Pairs

RIGHT: Final = "correct"
STRICT: Final = "strict"
"""Metrics that a benchmark must score by rule: a right first line, and a right, ended answer."""
STOP = "\n"
"""What ends an answer for the share of the gain that is only learning to stop."""


class PredictConfig(Config):
    """How much is measured. The defaults are those of the study that the package ships."""

    items: int = Field(default=40, ge=2)
    """Instructions with responses whose likelihoods are measured."""
    draws: int = Field(default=3, ge=1)
    """Other responses that each is compared with."""
    questions: int = Field(default=65, ge=1)
    """Questions of the benchmark that the base answers, evenly spread."""
    sampled: int = Field(default=26, ge=1)
    """Questions that it answers several times, at temperature 1, evenly spread."""
    samples: int = Field(default=8, ge=1)
    """Answers to each of them: k of the latent ability."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest answer."""
    demonstrations: int = Field(default=3, ge=1)
    """Responses in front of a question for the in-context gain."""
    tuned_on: int = Field(default=160, ge=0)
    """Responses of the short training run; 0 leaves it out."""
    responses: int = Field(default=1000, ge=1)
    """For how many responses the prediction is."""
    seed: Seed = 0


class Probed(NamedTuple):
    """What was measured on one base under one template."""

    values: dict[str, float]
    """Predictors, their second readings, baselines and the base's own scores."""
    enough: int | None
    """Responses that bring most of the fall of the loss; None if that is not known."""
    rate: float | None = None
    """Learning rate of the short run; None if there was none."""


class Questions(NamedTuple):
    """A benchmark that a prediction is about."""

    benchmark: str
    grade: GradeConfig
    """Where its questions are, such as ``paths``."""


def graded_by_rule(questions: Questions, limit: int | None = None) -> "Benchmark":
    """Open a benchmark on which a prediction can be made, with ``limit`` of its questions.

    Raises:
        ConfigError: it is unknown, or scores no ``correct`` and ``strict`` by rule.
    """
    from response_tuning.grade import open_benchmark, open_lm_eval
    from response_tuning.grade.benchmark import Benchmark

    benchmark, grade = questions
    config = grade.model_copy(update={"limit": limit})
    rule = None if open_lm_eval(benchmark) else open_benchmark(benchmark, config)
    metrics = getattr(rule, "metrics", ())
    if not (isinstance(rule, Benchmark) and {RIGHT, STRICT} <= {*metrics}):
        raise ConfigError(
            f"{benchmark}: a prediction needs right and ended answers that rules score; name a "
            "benchmark of the miniature, such as miniature-unseen, or 'prompts' with expected words"
        )
    return rule


def measure(
    local: "LocalModel",
    model: "EngineConfig",
    pairs: "Pairs",
    questions: Questions,
    config: PredictConfig,
) -> Probed:
    """Compute every predictor of a loaded base; one that cannot be computed is NaN.

    Args:
        local: The base under the template that it would be tuned with.
        model: Its settings.
        pairs: Instructions with responses: ``config.items`` of them are scored, the others are for
            the short run.
        questions: A benchmark that ``graded_by_rule`` opens.
        config: How much is measured.

    Raises:
        ConfigError: see ``graded_by_rule``.
        DataError: fewer than two responses can be scored.
    """
    from response_tuning.models.likelihood import log_likelihoods

    names = sorted(pairs.prompts)
    random.Random(f"predict {config.seed}").shuffle(names)
    scored, rest = names[: config.items], names[config.items :]
    scorer = partial(log_likelihoods, local, tokens_per_batch=model.tokens_per_batch)
    prompts = {name: pairs.prompts[name] for name in scored}
    responses = {name: pairs.responses[name] for name in scored}
    values = _from_pairs(local, model, prompts, responses, scorer, config)
    shown = [pairs.responses[name] for name in (rest or scored)]
    asked = _Asked(questions, config, model.tokens_per_batch)
    values |= _from_answers(local, asked, shown, config)
    parameters = sum(weight.numel() for weight in local.model.parameters())
    values["log_parameters"] = math.log(parameters)
    tuned_on = [pairs.responses[name] for name in rest[: config.tuned_on]]
    loss, enough, rate = _from_short_run(local, tuned_on, [*responses.values()], config)
    return Probed(values | loss, enough, rate)


def _from_pairs(
    local: "LocalModel",
    model: "EngineConfig",
    prompts: Mapping[str, tuple[Message, ...]],
    responses: Mapping[str, str],
    scorer: "Scorer",
    config: PredictConfig,
) -> dict[str, float]:
    from response_tuning.likelihoods import Pair
    from response_tuning.pairing import draws
    from response_tuning.probe.positions import from_positions, h_score
    from response_tuning.probe.predictors import crossed, discrimination, from_likelihoods

    drawn = draws(responses, config.draws, config.seed)
    own = [Pair(prompts[name], responses[name]) for name in prompts]
    return {
        **from_likelihoods(prompts, responses, crossed(prompts, responses, drawn, scorer)),
        **discrimination(prompts, responses, drawn, scorer),
        **from_positions(local, own, model.tokens_per_batch),
        "h_score": h_score(local, own),
    }


def _from_answers(
    local: "LocalModel", asked: "_Asked", responses: Sequence[str], config: PredictConfig
) -> dict[str, float]:
    from response_tuning.generate.rules import Rules

    plain = asked.answers(local)
    lengths = [len(local.chat.encode_reply(text)) for text in responses]
    # The adapter's published span fits answers as long as LIMA's; this one, those of the data.
    adapter = RulesConfig(span=max(1, round(2 * median(lengths))), uniform={})
    ruled = asked.answers(replace(local, adjust=Rules(adapter, local)))
    demonstrations = [
        Message(role="assistant", content=text) for text in responses[: config.demonstrations]
    ]
    base_strict = asked.share(plain, STRICT)
    return {
        "willingness": asked.share(plain, RIGHT),
        "latent_ability": asked.latent_ability(local),
        "in_context_gain": asked.share(asked.answers(local, demonstrations), STRICT) - base_strict,
        "rule_gain": asked.share(ruled, STRICT) - base_strict,
        "base_strict": base_strict,
        "stop_strict": asked.share(map(_stopped, plain), STRICT),
    }


class _Asked:
    """The questions of a benchmark, and how their answers score."""

    def __init__(self, questions: Questions, config: PredictConfig, tokens_per_batch: int) -> None:
        self._config = config
        self._tokens_per_batch = tokens_per_batch
        self._rule = graded_by_rule(questions, config.questions)
        self._all = self._rule.items()
        self._few = graded_by_rule(questions, config.sampled).items()
        self._items = {item.item_id: item for item in (*self._all, *self._few)}

    def answers(self, local: "LocalModel", before: Sequence[Message] = ()) -> "list[Completion]":
        """Return greedy answers, with messages before each question."""
        asked = [item.model_copy(update={"prompt": (*before, *item.prompt)}) for item in self._all]
        return self._complete(local, asked, Sampling(max_new_tokens=self._config.max_new_tokens))

    def latent_ability(self, local: "LocalModel") -> float:
        """Return pass@k by the first line: k is the number of samples, so it is unbiased."""
        solved: dict[str, bool] = dict.fromkeys((item.item_id for item in self._few), False)
        for number in range(self._config.samples):
            sampling = Sampling(
                max_new_tokens=self._config.max_new_tokens,
                temperature=1.0,
                seed=self._config.seed + number,
            )
            for completion in self._complete(local, self._few, sampling):
                solved[completion.item_id] |= self._value(completion, RIGHT) > 0
        return fmean(solved.values())

    def share(self, completions: Iterable[Completion], metric: str) -> float:
        """Return the mean of a metric; a question without an answer has 0."""
        return fmean(self._value(completion, metric) for completion in completions)

    def _value(self, completion: Completion, metric: str) -> float:
        if completion.response is None:
            return 0.0
        item = self._items[completion.item_id]
        scores = {one.metric: one.value for one in self._rule.score(item, completion)}
        return scores.get(metric, 0.0)

    def _complete(
        self, local: "LocalModel", items: "Sequence[Item]", sampling: Sampling
    ) -> list[Completion]:
        from response_tuning.generate.engines.hf import HfEngine

        return [*HfEngine(local, self._tokens_per_batch).complete(items, sampling)]


def _stopped(completion: Completion) -> Completion:
    """Return an answer as if ``STOP`` had ended it."""
    kept = cut(completion.response or "", (STOP,))
    if kept is None:
        return completion
    return completion.model_copy(update={"response": kept, "finish_reason": "stop"})


def _from_short_run(
    local: "LocalModel", tuned_on: Sequence[str], held_out: Sequence[str], config: PredictConfig
) -> tuple[dict[str, float], int | None, float | None]:
    from response_tuning.probe.short_run import fit_data_law, learnability, short_run

    run = short_run(local, tuned_on, held_out)
    law = fit_data_law(run) if run else None
    values = {
        "learnability": learnability(run) if run else math.nan,
        "data_law": law.loss(config.responses) if law else math.nan,
    }
    enough = law.enough(config.responses) if law else None
    return values, enough, run.rate if run else None
