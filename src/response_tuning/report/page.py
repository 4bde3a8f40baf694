"""The report for eyes: one HTML page that needs nothing else, and the same tables in Markdown."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from response_tuning.configs import ReportConfig
from response_tuning.report.comparison import Findings
from response_tuning.report.scores import ACCURACY, Benchmark, Variant
from response_tuning.report.statistics import per_prompt
from response_tuning.report.tables import change, number, p_value, shares

if TYPE_CHECKING:
    import jinja2

PAGE_BYTES = 3_000_000
"""A page must open quickly and fit in an e-mail."""


class Contents(NamedTuple):
    """What a report says, before it has a form."""

    title: str
    variants: Sequence[Variant]
    config: ReportConfig
    notes: Sequence[str]
    benchmarks: Sequence[Benchmark]
    findings: Findings
    missing: Sequence[str]
    """Sentences on scores that are not there."""


class Plot(NamedTuple):
    """An SVG, its heading, and the sentence that stands for it where it cannot be seen."""

    title: str
    svg: str
    says: str

    @property
    def address(self) -> str:
        """The picture as a data URI, so that no id in it can clash with another's."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg.encode()).decode()}"


class Family(NamedTuple):
    """The accuracy of all variants on one group of a benchmark."""

    name: str
    n: int
    means: dict[tuple[str, str], float]
    """(Variant, metric) -> mean over prompts."""


def markdown(contents: Contents) -> str:
    """Return the tables as Markdown."""
    return _environment().get_template("report.md.jinja").render(_names(contents))


def html(
    contents: Contents, plots: Sequence[Plot], browser: Callable[[int], tuple[str, list[str]]]
) -> str:
    """Return the page; ``browser`` gives the JSON of as many prompts as so many bytes hold."""
    template = _environment().get_template("report.html.jinja")
    script = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")
    families = {b.name: _families(b) for b in contents.benchmarks}

    def render(data: str, left_out: Sequence[str]) -> str:
        return template.render(
            _names(contents),
            plots=plots,
            families={name: found for name, found in families.items() if len(found) > 1},
            accuracy=ACCURACY,
            script=script,
            data=data,
            data_left_out=left_out,
        )

    sentences = 1000 * len(contents.benchmarks)
    return render(*browser(PAGE_BYTES - len(render("", []).encode()) - sentences))


def _families(benchmark: Benchmark) -> list[Family]:
    """Return the groups of a benchmark that has any metric of ``ACCURACY``."""
    metrics = [metric for metric in ACCURACY if metric in benchmark.values]
    units = {(v, m): per_prompt(benchmark.of(m, v)) for v in benchmark.variants for m in metrics}
    groups = np.array(benchmark.groups)
    found = []
    for name in sorted({*benchmark.groups}):
        inside = groups == name
        picked = {cell: values[inside & np.isfinite(values)] for cell, values in units.items()}
        means = {cell: float(values.mean()) for cell, values in picked.items() if values.size}
        if means:
            found.append(Family(name, int(inside.sum()), means))
    return found


def _names(contents: Contents) -> dict[str, Any]:
    """Return what both templates use."""
    results, comparisons, trends, unjoined = contents.findings
    columns = {benchmark.name: benchmark.headline for benchmark in contents.benchmarks}
    return {
        **contents._asdict(),
        "columns": columns,
        "shares": shares(results),
        "result": {(r.variant, r.benchmark, r.metric): r for r in results},
        "comparison": {(c.baseline, c.variant, c.benchmark, c.metric): c for c in comparisons},
        "shown": [r for r in results if r.metric in columns[r.benchmark]],
        "compared": [c for c in comparisons if c.metric in columns[c.benchmark]],
        "trends": trends,
        "left_out": [*contents.missing, *unjoined],
    }


def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "change": change, "p": p_value, "cell": _cell}
    return environment


def _cell(text: str) -> str:
    """Return text that stays inside its cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
