"""Which chat template does a base take for a conversation? A ranking before any tuning.

Response tuning changes what a model says after the assistant's opening, and shows it no
instruction. It brings out what the base does under a template already, so the template decides
whether it works. Two means over the same responses measure that, in nats per token:

- *given*, log p(y | x): whether the base answers under this template;
- *alone*, log p(y | the assistant's opening): whether the opening alone, which is all that response
  tuning conditions on, begins an answer.

Only differences from the best template on the same base are used: what a response's token costs
depends on the base and on the data, and so does any threshold on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from response_tuning.artifacts import Message, Score
from response_tuning.likelihoods import Likelihood, Pair
from response_tuning.probe.ranking import ProbeVerdict, Scorer

GIVEN, ALONE = "log_p_per_token", "log_p_per_token_alone"
GIVEN_LIMIT = 0.6
"""Nats per token below the best template by *given*."""
ALONE_LIMIT = 0.5
"""Nats per token below the best template by *alone*. Both limits are fitted to 30 templates on the
miniature that was shipped until 2026-11-28, and ``OUTCOMES`` is what 28 of them reached on the
present one, which the limits had not seen; see docs/benchmarks/response-ranking.md.
``benchmarks/template_rule.py`` repeats that, on any base."""
REFERENCES = ("instruction", "roles", "tulu")
"""Plain templates that a single template is compared with."""
REFERENCE_ITEMS = 200

TemplateKind = Literal["conversation", "no-answer", "no-opening", "neither"]
"""Both gaps are within their limits; *given* is beyond; *alone* is beyond; both are."""
KIND_VERDICTS: Mapping[TemplateKind, ProbeVerdict] = {
    "conversation": "strong",
    "no-opening": "weak",
    "no-answer": "weak",
    "neither": "none",
}
"""The best verdict that a template allows, the best kind first."""


class Outcome(NamedTuple):
    """What response tuning reached under templates of one kind: shares of right, ended answers."""

    templates: int
    low: float
    median: float
    high: float


MEASURED = "on the miniature (three seeds, 376 questions, 2026-11-29)"
OUTCOMES: Mapping[TemplateKind, Outcome] = {
    "conversation": Outcome(13, 0.62, 0.91, 0.97),
    "no-opening": Outcome(3, 0.08, 0.68, 0.75),
    "no-answer": Outcome(6, 0.10, 0.33, 0.53),
    "neither": Outcome(6, 0.00, 0.07, 0.44),
}
"""Strict score of response tuning at 4e-4 for one epoch: ``benchmarks/template_rule.py``."""
KIND_SENTENCES: Mapping[TemplateKind, str] = {
    "conversation": "The base takes this template for a conversation",
    "no-opening": "To the base, the assistant's opening alone does not begin an answer, so answers "
    "may not end",
    "no-answer": "The base does not answer under this template as it does under the best one, so "
    "answers may ignore the instruction",
    "neither": "The base does not take this template for a conversation",
}


class TemplateFit(NamedTuple):
    """What a base gives the responses under one template: means over items, nats per token."""

    template: str
    given: float
    alone: float


class RatedTemplate(NamedTuple):
    """A template beside the best ones on the same base."""

    fit: TemplateFit
    given_gap: float
    """Nats per token below the best template by *given*, at least 0."""
    alone_gap: float
    best_given: str
    best_alone: str

    @property
    def kind(self) -> TemplateKind:
        """Which of the two gaps is beyond its limit."""
        answers, opens = self.given_gap <= GIVEN_LIMIT, self.alone_gap <= ALONE_LIMIT
        if answers:
            return "conversation" if opens else "no-opening"
        return "no-answer" if opens else "neither"


def rate_templates(fits: Sequence[TemplateFit]) -> list[RatedTemplate]:
    """Rate templates by their gaps to the best of them, the most promising one first.

    The kind decides, then *given*; equal templates keep their order.

    Args:
        fits: The templates, all measured on the same items.
    """
    if not fits:
        return []
    given = max(fits, key=lambda fit: fit.given)
    alone = max(fits, key=lambda fit: fit.alone)
    kinds = [*KIND_VERDICTS]
    rated = [
        RatedTemplate(
            fit, given.given - fit.given, alone.alone - fit.alone, given.template, alone.template
        )
        for fit in fits
    ]
    return sorted(rated, key=lambda one: (kinds.index(one.kind), one.given_gap))


def limited(verdict: ProbeVerdict, kind: TemplateKind) -> ProbeVerdict:
    """Return the verdict, or a worse one if the template allows no better."""
    order: list[ProbeVerdict] = ["none", "weak", "strong"]
    return min(verdict, KIND_VERDICTS[kind], key=order.index)


def expectation(kind: TemplateKind) -> str:
    """Return what response tuning is expected to do under a template of this kind, and why."""
    outcome = OUTCOMES[kind]
    return (
        f"{KIND_SENTENCES[kind]}. Under {outcome.templates} templates of this kind, response "
        f"tuning reached {100 * outcome.low:.0f} to {100 * outcome.high:.0f} % {MEASURED}, median "
        f"{100 * outcome.median:.0f} %."
    )


def describe_gaps(rated: RatedTemplate) -> str:
    """Return both gaps in words, with their limits."""
    given = _describe_gap(rated.given_gap, rated.fit.template, rated.best_given)
    alone = _describe_gap(rated.alone_gap, rated.fit.template, rated.best_alone)
    return (
        f"Per token of a response, '{rated.fit.template}' gives {given} given the instruction "
        f"(limit {GIVEN_LIMIT}), and {alone} after the assistant's opening alone (limit "
        f"{ALONE_LIMIT})."
    )


def _describe_gap(gap: float, template: str, best: str) -> str:
    return (
        "as much as any template measured"
        if template == best
        else f"{gap:.2f} nats less than '{best}'"
    )


def recommend(rated: Sequence[RatedTemplate], verdict: ProbeVerdict) -> str:
    """Return one sentence that names the best template.

    Args:
        rated: All templates, the best first.
        verdict: The verdict on the base under the best one.
    """
    best = rated[0]
    of_all = f"Of {len(rated)} templates, '{best.fit.template}' suits this base best"
    if verdict == "strong":
        return f"{of_all}: tune with it, and compare the base with a stop string."
    why = (
        "it does not match these responses to their instructions well"
        if verdict != KIND_VERDICTS[best.kind]
        else "even this one is not a conversation to it"
    )
    return (
        f"{of_all}, but {why} (verdict '{verdict}'): do not expect response tuning to make it "
        "follow instructions."
    )


def fit_scores(
    prompts: Mapping[str, tuple[Message, ...]], responses: Mapping[str, str], scorer: Scorer
) -> Iterator[Score]:
    """Yield *given* and *alone* of each item's own response; an item that has no score is left out.

    Args:
        prompts: The prompt of each item, by the item's name.
        responses: Each item's own response.
        scorer: Scores pairs with the model, under one template.
    """
    names = [*prompts]
    given = scorer([Pair(prompts[name], responses[name]) for name in names])
    alone = scorer([Pair((), responses[name]) for name in names])
    for name, with_prompt, without in zip(names, given, alone, strict=True):
        if isinstance(with_prompt, Likelihood) and isinstance(without, Likelihood):
            for metric, likelihood in ((GIVEN, with_prompt), (ALONE, without)):
                yield Score(item_id=name, metric=metric, value=likelihood.per_token)


def fits_of(scores: Mapping[str, Sequence[Score]]) -> tuple[list[TemplateFit], dict[str, str]]:
    """Return the fit of each template over the items that all of them score, and the excluded ones.

    A template that scores fewer than half as many items as another is excluded: the others would
    lose the items that it lacks.

    Args:
        scores: Template -> its scores, *given* and *alone* among them.

    Returns:
        The fits, in the order of ``scores``, and template -> reason of those without one.
    """
    given, alone = (_by_item(scores, metric) for metric in (GIVEN, ALONE))
    most = max(map(len, given.values()), default=0)
    enough = {name: values for name, values in given.items() if 0 < most <= 2 * len(values)}
    excluded = {
        name: f"it can score {len(given[name]):,} responses, where another template scores {most:,}"
        for name in scores
        if name not in enough
    }
    items = shared_items({name: scores[name] for name in enough})
    fits = [
        TemplateFit(
            name,
            sum(values[item] for item in items) / len(items),
            sum(alone[name][item] for item in items) / len(items),
        )
        for name, values in enough.items()
        if items
    ]
    return fits, excluded


def shared_items(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """Return the names of the items that every template scores, sorted."""
    sets = [set(values) for values in _by_item(scores, GIVEN).values()]
    return sorted(set.intersection(*sets)) if sets else []


def _by_item(scores: Mapping[str, Sequence[Score]], metric: str) -> dict[str, dict[str, float]]:
    return {
        name: {s.item_id: s.value for s in lines if s.metric == metric and s.value is not None}
        for name, lines in scores.items()
    }
