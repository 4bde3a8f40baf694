"""A probe for eyes: a verdict, the figures behind it, and one plot, on a page of its own."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.pages import environment, picture

SHOWN = 5
"""Instructions at either end that are shown."""
SHOWN_CHARACTERS = 300
BINS = 40
MEANINGS = {
    "ranked_total": "share of other responses that are less probable, by log p(y | x)",
    "ranked_per_token": "the same, by the mean of its tokens",
    "ranked_pmi": "the same, by log p(y | x) - log p(y)",
    "ranked_words": "the same, by words in common with x, without any model",
    "pmi": "log p(y | x) - log p(y), in nats",
    "log_p_per_token": "log p(y | x) of a token, in nats",
    "log_p_per_token_alone": "log p(y) of a token, in nats",
    "stop_at_end": "probability of stopping where the response ends",
    "stop_early": "probability of stopping at a token before",
    "tied": "share of comparisons that tie, and count for neither side",
}
"""Metric -> what it is, in the order of the page."""
FINDING = (
    "An instruction's own response gains more from it than {share} of the other responses do, "
    "{low} at least. Counting words in common, without any model, gets {words}, and chance 50 %. "
)
SENTENCES = {
    "strong": "{name} ties responses to their instructions. "
    + FINDING
    + "It is not more than 5 points below the words, and an instruction makes its response more "
    "probable: there is something for response tuning to bring out.",
    "weak": "{name} ties responses to their instructions a little. "
    + FINDING
    + "It is above chance, but more than 5 points below the words, or an instruction makes its "
    "response no more probable ({pmi} nats): do not count on response tuning to make it follow "
    "instructions.",
    "none": "{name} shows no sign of tying responses to their instructions. "
    + FINDING
    + "Response tuning will teach it to write responses, not to follow instructions.",
}
"""Verdict -> what it says; the thresholds are those of ``grade.ranking``."""


class Reference(NamedTuple):
    """What a model gives that we measured, or that was published."""

    model: str
    data: str
    total: str
    per_token: str
    pmi: str
    words: str


REFERENCES = (
    Reference("random weights, 0.3 M", "Alpaca", "48.7 %", "49.9 %", "48.5 %", "91.2 %"),
    Reference("stories260k, 0.3 M", "Alpaca", "49.5 %", "50.6 %", "58.6 %", "91.2 %"),
    Reference("miniature, 2.2 M", "Alpaca", "49.5 %", "57.2 %", "71.9 %", "90.1 %"),
    Reference("random weights, 2.2 M", "miniature", "50.2 %", "49.4 %", "50.3 %", "99.7 %"),
    Reference("stories260k, 0.3 M", "miniature", "54.2 %", "57.4 %", "84.0 %", "99.7 %"),
    Reference("miniature, 2.2 M", "miniature", "99.8 %", "99.8 %", "99.8 %", "99.7 %"),
    Reference("OLMo-7B (Hewitt et al. 2024)", "Alpaca", "", "74.5 %", "", ""),
    Reference("Llama-2-7B (Hewitt et al. 2024)", "Alpaca", "", "80.4 %", "", ""),
)


class Figure(NamedTuple):
    """A mean and its interval."""

    value: float
    low: float
    high: float
    n: int


class Model(NamedTuple):
    """What one model gave."""

    name: str
    figures: Mapping[str, Figure]


class Told(NamedTuple):
    """One instruction, for eyes."""

    pmi: float
    instruction: str
    response: str


class Contents(NamedTuple):
    """What a page says."""

    verdict: str
    """``none``, ``weak`` or ``strong``; of the first model."""
    models: Sequence[Model]
    """The probed one first, then those that are compared with it."""
    told: Sequence[Told]
    """Of the first model."""
    differences: Sequence[str]
    notes: Sequence[str]
    """On what was asked, and on what was left out."""
    confidence: float


def sentence(contents: Contents) -> str:
    """Return the verdict on the first model in words."""
    model = contents.models[0]
    found = model.figures["ranked_pmi"]
    return SENTENCES[contents.verdict].format(
        name=model.name,
        share=shown("ranked_pmi", found.value),
        low=shown("ranked_pmi", found.low),
        pmi=shown("pmi", model.figures["pmi"].value),
        words=shown("ranked_words", model.figures["ranked_words"].value),
    )


def write_page(contents: Contents, path: Path) -> None:
    """Write one self-contained page; every text of the data or of a name is escaped."""
    template = environment(Path(__file__).parent).get_template("page.html.jinja")
    ordered = sorted(contents.told, key=lambda told: told.pmi)
    values = [told.pmi for told in ordered]
    page = template.render(
        contents._asdict()
        | {
            "verdict": sentence(contents),
            "level": f"{100 * contents.confidence:g}",
            "rows": _rows(contents.models),
            "plot": picture(_histogram(values)),
            "plot_says": _says(values),
            "references": REFERENCES,
            "examples": [
                _part("Where the instruction helps the response most", ordered[::-1][:SHOWN]),
                _part("Where it helps least, or is in the way", ordered[:SHOWN]),
            ],
        }
    )
    with written_aside(path) as out:
        out.write(page)


def shown(metric: str, value: float) -> str:
    """Return a number as people read it: shares in percent, small probabilities by powers."""
    if metric.startswith(("ranked", "tied")):
        return f"{value:.1%}"
    return f"{value:.1e}" if metric.startswith("stop") and value < 1e-3 else f"{value:.3g}"


def _rows(models: Sequence[Model]) -> list[dict[str, Any]]:
    return [
        {"meaning": meaning, "cells": [_cell(metric, model) for model in models]}
        for metric, meaning in MEANINGS.items()
        if any(metric in model.figures for model in models)
    ]


def _cell(metric: str, model: Model) -> dict[str, str]:
    found = model.figures.get(metric)
    if found is None:
        return {"value": "", "interval": ""}
    low, high = shown(metric, found.low), shown(metric, found.high)
    return {"value": shown(metric, found.value), "interval": f"[{low}, {high}]"}


def _part(title: str, told: Sequence[Told]) -> dict[str, Any]:
    cut = [
        {"pmi": f"{pmi:.1f}", "instruction": _cut(instruction), "response": _cut(response)}
        for pmi, instruction, response in told
    ]
    return {"title": title, "shown": cut}


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _says(values: Sequence[float]) -> str:
    above = sum(value > 0 for value in values) / len(values)
    return (
        f"{above:.0%} of {len(values):,} instructions make their response more probable than it is "
        f"without any; by {values[len(values) // 2]:.1f} nats in the median. The line is at 0."
    )


def _histogram(values: Sequence[float]) -> str:
    """Draw how many instructions have which pmi: the same input gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    style: dict[Any, Any] = {
        "svg.hashsalt": "response-tuning",
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = Canvas(figsize=(7, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.hist(values, bins=BINS, color="#3f7fbf")
        axes.axvline(0, color="#1c1f23", linewidth=1)
        axes.set_xlabel("log p(y | x) - log p(y), nats")
        axes.set_ylabel("instructions")
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
