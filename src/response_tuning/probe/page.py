"""The probe report as a web page: the verdict, the numbers behind it, one plot and examples."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.pages import environment, picture
from response_tuning.probe.ranking import ProbeVerdict
from response_tuning.probe.template_fit import RatedTemplate, describe_gaps, expectation, limited

EXAMPLES_SHOWN = 5
"""Examples at each end of the distribution."""
EXAMPLE_CHARACTERS = 300
HISTOGRAM_BINS = 40
METRIC_LABELS = {
    "ranked_total": "share of other responses that are less probable, by log p(y | x)",
    "ranked_per_token": "the same, by the mean over tokens",
    "ranked_pmi": "the same, by log p(y | x) - log p(y)",
    "ranked_words": "the same, by words in common with x, without a model",
    "pmi": "log p(y | x) - log p(y), in nats",
    "log_p_per_token": "log p(y | x) per token, in nats",
    "log_p_per_token_alone": "log p(y) per token, in nats",
    "stop_at_end": "probability of stopping where the response ends",
    "stop_early": "probability of stopping at an earlier token",
    "tied": "share of comparisons that tie and count for neither side",
}
"""Metric -> its label, in the order of the page."""
_RANKED = (
    "{name} prefers an instruction's own response over another one in {share} of comparisons "
    "({level} % CI from {low}). Counting words in common, without a model, gets {words}; chance is "
    "50 %. "
)
RANKING_SENTENCES = {
    "strong": _RANKED
    + "The CI's lower end is at most 5 points below the words, and an instruction makes its "
    "response more probable: the base knows which response is whose.",
    "weak": _RANKED
    + "The CI's lower end is above chance, but more than 5 points below the words, or an "
    "instruction makes its response no more probable (mean {pmi} nats): do not expect response "
    "tuning to make this model follow instructions.",
    "none": _RANKED
    + "The CI includes chance: response tuning will teach this model to write responses, not to "
    "follow instructions.",
}
"""Verdict on the ranking -> its sentences; ``ranking.verdict`` has the thresholds."""
VERDICT_WORDS = {"strong": "Strong.", "weak": "Weak.", "none": "No sign."}
FIND_ANOTHER = "Run 'rtune probe' with --templates all to find the best template for this base."


class ReferenceRanking(NamedTuple):
    """The rankings of another model, measured by us or published."""

    model: str
    data: str
    total: str
    per_token: str
    pmi: str
    words: str


REFERENCE_RANKINGS = (
    ReferenceRanking("random weights, 0.3 M", "Alpaca", "48.7 %", "49.9 %", "48.5 %", "91.2 %"),
    ReferenceRanking("stories260k, 0.3 M", "Alpaca", "49.5 %", "50.6 %", "58.6 %", "91.2 %"),
    ReferenceRanking("miniature, 2.2 M", "Alpaca", "49.5 %", "57.2 %", "71.9 %", "90.1 %"),
    ReferenceRanking("random weights, 2.2 M", "miniature", "50.2 %", "49.4 %", "50.3 %", "99.7 %"),
    ReferenceRanking("stories260k, 0.3 M", "miniature", "54.2 %", "57.4 %", "84.0 %", "99.7 %"),
    ReferenceRanking("miniature, 2.2 M", "miniature", "99.8 %", "99.8 %", "99.8 %", "99.7 %"),
    ReferenceRanking("OLMo-7B (Hewitt et al. 2024)", "Alpaca", "", "74.5 %", "", ""),
    ReferenceRanking("the same, instruction-tuned", "Alpaca", "", "74.3 %", "", ""),
    ReferenceRanking("Llama-2-7B (Hewitt et al. 2024)", "Alpaca", "", "80.4 %", "", ""),
    ReferenceRanking("the same, instruction-tuned", "Alpaca", "", "77.4 %", "", ""),
)


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    value: float
    low: float
    high: float
    n: int


class ProbedModel(NamedTuple):
    """The numbers of one model."""

    name: str
    metrics: Mapping[str, Interval]


class ProbeExample(NamedTuple):
    """One instruction with its response."""

    pmi: float
    instruction: str
    response: str


class ProbeReport(NamedTuple):
    """The findings of a probe."""

    ranking: ProbeVerdict
    """The verdict on the first model's ranking."""
    template: str
    """The first model's template."""
    templates: Sequence[RatedTemplate]
    """That template and plain ones, on the first model; the best first."""
    models: Sequence[ProbedModel]
    """The probed model first, then the models that are compared with it."""
    examples: Sequence[ProbeExample]
    """Result of the first model."""
    differences: Sequence[str]
    notes: Sequence[str]
    """What was measured, and what was left out."""
    confidence: float

    @property
    def rated(self) -> RatedTemplate | None:
        """The first model's template; None if it could not be compared."""
        return next((one for one in self.templates if one.fit.template == self.template), None)

    @property
    def verdict(self) -> ProbeVerdict:
        """The verdict on the first model under its template."""
        return limited(self.ranking, self.rated.kind) if self.rated else self.ranking


def sentence(report: ProbeReport) -> str:
    """Return the verdict on the first model under its template in words, its word first."""
    return f"{VERDICT_WORDS[report.verdict]} {_reasons(report)}"


def _reasons(report: ProbeReport) -> str:
    parts = [_ranking_sentence(report)]
    if report.rated:
        parts.append(describe_gaps(report.rated))
        # What was measured is about bases that know the subject.
        if report.ranking == "strong":
            parts.append(expectation(report.rated.kind))
        if report.rated.kind != "conversation":
            parts.append(FIND_ANOTHER)
    return " ".join(parts)


def _ranking_sentence(report: ProbeReport) -> str:
    model = report.models[0]
    ranked = model.metrics["ranked_pmi"]
    return RANKING_SENTENCES[report.ranking].format(
        name=model.name,
        level=f"{100 * report.confidence:g}",
        share=formatted("ranked_pmi", ranked.value),
        low=formatted("ranked_pmi", ranked.low),
        pmi=formatted("pmi", model.metrics["pmi"].value),
        words=formatted("ranked_words", model.metrics["ranked_words"].value),
    )


def write_page(report: ProbeReport, path: Path) -> None:
    """Write one self-contained page; every text from the data or a model's name is escaped."""
    template = environment(Path(__file__).parent).get_template("page.html.jinja")
    # The page's own names replace the report's: ``verdict`` is a sentence, ``examples`` are tables.
    by_pmi = sorted(report.examples, key=lambda example: example.pmi)
    values = [example.pmi for example in by_pmi]
    page = template.render(
        report._asdict()
        | {
            "kind": report.verdict,
            "word": VERDICT_WORDS[report.verdict],
            "verdict": _reasons(report),
            "level": f"{100 * report.confidence:g}",
            "rows": _rows(report.models),
            "templates": template_rows(report.templates),
            "plot": picture(_histogram(values)),
            "caption": _caption(values),
            "references": REFERENCE_RANKINGS,
            "examples": [
                _section("Largest gain from the instruction", by_pmi[::-1][:EXAMPLES_SHOWN]),
                _section("Smallest gain, or a loss", by_pmi[:EXAMPLES_SHOWN]),
            ],
        }
    )
    with written_aside(path) as out:
        out.write(page)


def template_rows(templates: Sequence[RatedTemplate]) -> list[dict[str, str]]:
    """Return the cells of a table of templates."""
    return [
        {
            "template": one.fit.template,
            "given": f"{one.fit.given:.2f}",
            "alone": f"{one.fit.alone:.2f}",
            "given_gap": f"{one.given_gap:.2f}",
            "alone_gap": f"{one.alone_gap:.2f}",
        }
        for one in templates
    ]


def formatted(metric: str, value: float) -> str:
    """Return a number for people: shares in percent, small probabilities as powers of ten."""
    if metric.startswith(("ranked", "tied")):
        return f"{100 * value:.1f} %"
    return f"{value:.1e}" if metric.startswith("stop") and value < 1e-3 else f"{value:.3g}"


def _rows(models: Sequence[ProbedModel]) -> list[dict[str, Any]]:
    return [
        {"label": label, "cells": [_cell(metric, model) for model in models]}
        for metric, label in METRIC_LABELS.items()
        if any(metric in model.metrics for model in models)
    ]


def _cell(metric: str, model: ProbedModel) -> dict[str, str]:
    interval = model.metrics.get(metric)
    if interval is None:
        return {"value": "", "interval": ""}
    low, high = formatted(metric, interval.low), formatted(metric, interval.high)
    return {"value": formatted(metric, interval.value), "interval": f"[{low}, {high}]"}


def _section(title: str, examples: Sequence[ProbeExample]) -> dict[str, Any]:
    rows = [
        {
            "pmi": f"{pmi:.1f}",
            "instruction": _shortened(instruction),
            "response": _shortened(response),
        }
        for pmi, instruction, response in examples
    ]
    return {"title": title, "rows": rows}


def _shortened(text: str) -> str:
    limit = EXAMPLE_CHARACTERS
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _caption(values: Sequence[float]) -> str:
    """Describe the histogram of the sorted ``values``, also for those who cannot see it."""
    above = sum(value > 0 for value in values) / len(values)
    return (
        f"{100 * above:.0f} % of {len(values):,} instructions make their response more probable; "
        f"the median gain is {values[len(values) // 2]:.1f} nats. The line marks 0."
    )


def _histogram(values: Sequence[float]) -> str:
    """Return an SVG of the distribution of pmi: the same input gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    style: dict[Any, Any] = {
        "svg.hashsalt": "response-tuning",  # else ids are random
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = Canvas(figsize=(7, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.hist(values, bins=HISTOGRAM_BINS, color="#3f7fbf")
        axes.axvline(0, color="#1c1f23", linewidth=1)
        axes.set_xlabel("log p(y | x) - log p(y), nats")
        axes.set_ylabel("instructions")
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
