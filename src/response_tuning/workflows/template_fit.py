"""Templates on one loaded model: which of them the base takes for a conversation."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Message, Score
from response_tuning.errors import ModelError, TemplateError
from response_tuning.probe.template_fit import (
    REFERENCE_ITEMS,
    REFERENCES,
    RatedTemplate,
    fit_scores,
    fits_of,
    rate_templates,
    shared_items,
)

if TYPE_CHECKING:
    from response_tuning.configs import EngineConfig
    from response_tuning.models.local import LocalModel


class MeasuredTemplates(NamedTuple):
    """Templates on one model, measured on the same items."""

    rated: list[RatedTemplate]
    """The best first."""
    items: list[str]
    unusable: dict[str, str]
    """Template -> why it was not measured."""


def measured(
    scores: Mapping[str, Sequence[Score]], unusable: Mapping[str, str]
) -> MeasuredTemplates:
    """Rate templates by their scores, over the items that all of them score.

    Args:
        scores: Template -> the scores of the items under it; see ``probe.template_fit``.
        unusable: Template -> why it has no scores.
    """
    fits, excluded = fits_of(scores)
    items = shared_items({fit.template: scores[fit.template] for fit in fits})
    return MeasuredTemplates(rate_templates(fits), items, {**unusable, **excluded})


def under_template(local: "LocalModel", model: "EngineConfig", template: str) -> "LocalModel | str":
    """Return a loaded model under another template, or why it cannot be tuned with it."""
    from response_tuning.models.inference import with_template

    try:
        return with_template(local, str(model.model), template, model.revision)
    except (ModelError, TemplateError) as error:
        return str(error)


def beside_references(
    local: "LocalModel",
    model: "EngineConfig",
    prompts: Mapping[str, tuple[Message, ...]],
    responses: Mapping[str, str],
    scores: Sequence[Score],
    seed: int,
) -> MeasuredTemplates:
    """Compare a model's template with plain ones, on a sample of the items.

    Args:
        local: The loaded model.
        model: Its settings.
        prompts: The prompt of each item, by the item's name.
        responses: Each item's own response.
        scores: The scores of the items under the model's template.
        seed: Seed of the sample.
    """
    from response_tuning.models.likelihood import log_likelihoods
    from response_tuning.templates import NATIVE

    names = sorted(prompts)
    chosen = set(random.Random(seed).sample(names, min(REFERENCE_ITEMS, len(names))))
    sample = {name: prompt for name, prompt in prompts.items() if name in chosen}
    own = model.template or NATIVE
    by_template = {own: [score for score in scores if score.item_id in chosen]}
    unusable = {}
    for template in REFERENCES:
        if template == own:
            continue
        under = under_template(local, model, template)
        if isinstance(under, str):
            unusable[template] = under
        else:
            scorer = partial(log_likelihoods, under, tokens_per_batch=model.tokens_per_batch)
            by_template[template] = [*fit_scores(sample, responses, scorer)]
    return measured(by_template, unusable)


def not_measured(unusable: Mapping[str, str]) -> list[str]:
    """Return one sentence for each template that was not measured."""
    return [f"Template '{name}' was not measured: {reason}." for name, reason in unusable.items()]


def records(templates: MeasuredTemplates) -> dict[str, Any]:
    """Return what ``probe.json`` has on templates, the best first."""
    return {
        "items": len(templates.items),
        "rated": [
            {
                "template": one.fit.template,
                "kind": one.kind,
                "log_p_per_token": one.fit.given,
                "log_p_per_token_alone": one.fit.alone,
                "given_gap": one.given_gap,
                "alone_gap": one.alone_gap,
            }
            for one in templates.rated
        ],
        "unusable": templates.unusable,
    }
