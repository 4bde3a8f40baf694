"""The plots of a report: the same input gives the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import cycle, zip_longest
from math import isfinite
from typing import TYPE_CHECKING, Any

from response_tuning.metrics import ACCURACY, REFUSAL_RATES, Display
from response_tuning.report.comparison import dose_series
from response_tuning.report.joined import Variant
from response_tuning.report.tables import NO_DISPLAYS, Result, metrics_by_benchmark, shares
from response_tuning.report.variance import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = ("#3f7fbf", "#d9822b", "#4c9a5a", "#8e5ea8", "#b8465a", "#6b7280")
_DOT: dict[str, Any] = {"s": 14, "color": "#6b7280", "alpha": 0.6, "linewidths": 0, "zorder": 3}
"""A seed: small and grey, beside the mean and its interval."""
DPI = 200
"""Of a PNG: a figure as wide as a page is sharp in print."""
_NO_DATES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}
AXIS = ("strict", "correct")
"""What the axis shows: strict scores over right first lines."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "response-tuning",  # ids inside the file do not change from run to run
    "svg.fonttype": "none",  # words, not outlines: small, and can be searched
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
}


class Drawing:
    """A figure, which can be saved in several formats."""

    def __init__(self, figure: "Figure") -> None:
        self._figure = figure
        self._files: dict[str, bytes] = {}

    @property
    def svg(self) -> str:
        """The figure as SVG."""
        return self.saved("svg").decode()

    def saved(self, form: str) -> bytes:
        """Return the file of the figure in a format: ``svg``, ``pdf`` or ``png``.

        Each is drawn once, although the page holds it too: drawing takes most of a report's time.
        """
        if form not in self._files:
            if form != "svg":
                self.saved("svg")  # whose layout the others keep
            self._files[form] = self._drawn(form)
            self._figure.set_layout_engine(None)  # a layout takes longer than a drawing
        return self._files[form]

    def _drawn(self, form: str) -> bytes:
        from matplotlib import rc_context

        out = BytesIO()
        with rc_context(STYLE):
            self._figure.savefig(out, format=form, dpi=DPI, metadata=_NO_DATES[form])
        return out.getvalue()


def at_a_glance(
    results: Sequence[Result],
    variants: Sequence[Variant],
    displays: Mapping[str, Display] = NO_DISPLAYS,
    metrics: Sequence[str] = (),
) -> Drawing:
    """Draw every variant, one panel for each benchmark.

    A panel shows those of ``metrics`` that its benchmark has; by default, accuracy where it has
    one, or else its first metric. A single metric is named in the title of the panel.
    """
    # A panel for every metric would be unreadable; the first one is the headline.
    panels = {
        name: [one for one in metrics or ACCURACY if one in known] or ([] if metrics else known[:1])
        for name, known in metrics_by_benchmark(results).items()
    }
    panels = {name: shown for name, shown in panels.items() if shown}
    titled = {
        name for name, shown in panels.items() if len(shown) == 1 and shown[0] not in ACCURACY
    }
    names = [v.name for v in variants if any(r.variant == v.name for r in results)]
    order = [*(metrics or ACCURACY)]  # a metric has one colour in all panels

    def draw(axes: "Axes", benchmark: str) -> None:
        step = min(0.24, 0.6 / len(panels[benchmark]))
        # The second metric of a panel is drawn below the first, hollow, so that both can be seen.
        for place, metric in enumerate(panels[benchmark]):
            points = _points(results, benchmark, metric)
            shown = [(y + step * place, points[n]) for y, n in enumerate(names) if n in points]
            axes.scatter(*_seeds([(result, y + 0.1) for y, result in shown]), **_DOT)
            axes.errorbar(
                [result.value for _, result in shown],
                [y for y, _ in shown],
                xerr=_bars([result for _, result in shown]),
                fmt="o",
                markersize=5,
                markerfacecolor="white" if place else None,
                color=COLOURS[order.index(metric) % len(COLOURS) if metric in order else 0],
                label=None if benchmark in titled else metric,
            )
        scales = displays.get(benchmark, Display()).scales
        if {(benchmark, metric) for metric in panels[benchmark]} <= shares(results, displays):
            axes.set_xlim(-0.03, 1.03)
            axes.xaxis.set_major_formatter("{x:.0%}")
        elif {*panels[benchmark]} <= {*scales}:
            lowest, highest = scales[panels[benchmark][0]]
            margin = (highest - lowest) / 40
            axes.set_xlim(lowest - margin, highest + margin)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")

    titles = {
        name: f"{name}: {shown[0].replace('_', ' ')}" if name in titled else name
        for name, shown in panels.items()
    }
    return _drawn(titles, draw, height=0.9 + 0.36 * len(names), share_y=True)


def dose_response(results: Sequence[Result], variants: Sequence[Variant]) -> Drawing | None:
    """Draw refusal rates over the number of refusals in the data; None without a series."""
    series = dose_series(variants)
    drawn = {variant.name for members in series.values() for variant in members}
    of_series = [result for result in results if result.variant in drawn]
    panels = _panels(of_series, REFUSAL_RATES)
    if not panels:
        return None
    # A panel whose intervals all overlap shows nothing; without any other, it shows that.
    panels = {
        name: metrics
        for name, metrics in panels.items()
        if not all(_overlap(of_series, name, metric) for metric in metrics)
    } or panels
    doses = sorted({v.dose or 0 for members in series.values() for v in members})

    def draw(axes: "Axes", benchmark: str) -> None:
        for colour, (name, members) in zip(cycle(COLOURS), series.items(), strict=False):
            for place, metric in enumerate(panels[benchmark]):
                points = _points(results, benchmark, metric)
                shown = [(v.dose or 0, points[v.name]) for v in members if v.name in points]
                axes.scatter(*reversed(_seeds([(result, dose) for dose, result in shown])), **_DOT)
                axes.errorbar(
                    [dose for dose, _ in shown],
                    [result.value for _, result in shown],
                    yerr=_bars([result for _, result in shown]),
                    fmt="s--" if place else "o-",
                    markersize=5,
                    markerfacecolor="white" if place else None,
                    color=colour,
                    capsize=2,
                    label=f"{name}: {metric}",
                )
        # Linear near 0 and logarithmic above, as doses are chosen.
        axes.set_xscale("symlog", linthresh=next((dose for dose in doses if dose), 1))
        axes.set_xticks(doses, [str(dose) for dose in doses])
        axes.minorticks_off()
        axes.set_xlabel("refusals among the examples")
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter("{x:.0%}")

    return _drawn({name: name for name in panels}, draw, height=3.2, share_y=False)


def axis(results: Sequence[Result], points: Mapping[str, Sequence[str]]) -> Drawing | None:
    """Draw what tuned models reach over what the base does by itself; None without ``points``.

    ``points`` maps a name to the untuned variant, whose ``correct`` is the x, and to tuned ones,
    whose ``strict`` is the y; those at one place in every point are one series. A benchmark that
    fewer than two points have with both metrics has no panel.
    """
    strict, correct = AXIS

    def both(benchmark: str) -> int:
        over = _points(results, benchmark, correct)
        reached = _points(results, benchmark, strict)
        return sum(arms[0] in over and arms[1] in reached for arms in points.values())

    panels = [name for name in _panels(results, AXIS) if both(name) > 1]
    if not panels:
        return None

    def draw(axes: "Axes", benchmark: str) -> None:
        over = _points(results, benchmark, correct)
        reached = _points(results, benchmark, strict)
        for number, (name, (untuned, *tuned)) in enumerate(points.items()):
            for place, variant in enumerate(tuned):
                if untuned not in over or variant not in reached:
                    continue
                x, y = over[untuned].value, reached[variant]
                axes.scatter([x] * len(y.seed_values), y.seed_values, **_DOT)
                axes.errorbar(
                    [x],
                    [y.value],
                    yerr=_bars([y]),
                    fmt="os^Dv"[place % 5],
                    markersize=6,
                    color=COLOURS[place % len(COLOURS)],
                    label=_series_name(points, place + 1),
                )
                if not place:
                    # Names of neighbours stand above and below in turn.
                    place_of_name = (4, 5 if number % 2 else -11)
                    axes.annotate(
                        name, (x, y.value), place_of_name, textcoords="offset points", size=8
                    )
        axes.axline((0, 0), slope=1, color="#6b7280", linewidth=1, linestyle=":")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("right first lines of the untuned base")
        axes.set_ylabel("strict")

    return _drawn({name: name for name in panels}, draw, height=3.4, share_y=False)


def risk_coverage(curves: Mapping[str, Mapping[str, Sequence[Array]]]) -> Drawing | None:
    """Draw the risk over the coverage; None without ``curves``.

    ``curves`` maps a benchmark to its variants, and each to the risks of each seed's model at the
    coverages 1/n ... 1.
    """
    if not curves:
        return None

    def draw(axes: "Axes", benchmark: str) -> None:
        for colour, (variant, seeds) in zip(
            cycle(COLOURS), curves[benchmark].items(), strict=False
        ):
            for number, risks in enumerate(seeds):
                coverages = [(place + 1) / len(risks) for place in range(len(risks))]
                name = variant if number == 0 else "_"  # one entry in the legend
                axes.plot(coverages, risks, color=colour, linewidth=1.2, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("answered, the surest first")
        axes.set_ylabel("wrong among these")

    return _drawn({name: name for name in curves}, draw, height=3.4, share_y=True)


def _series_name(points: Mapping[str, Sequence[str]], place: int) -> str:
    """Return the name of the first point's variant, which stands for its series."""
    return next(iter(points.values()))[place]


def _panels(results: Sequence[Result], wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return benchmark -> the ``wanted`` metrics that it has, without benchmarks that have none."""
    known = metrics_by_benchmark(results).items()
    chosen = {name: [metric for metric in wanted if metric in metrics] for name, metrics in known}
    return {name: metrics for name, metrics in chosen.items() if metrics}


def _overlap(results: Sequence[Result], benchmark: str, metric: str) -> bool:
    points = _points(results, benchmark, metric).values()
    return max(r.low for r in points) <= min(r.high for r in points)


def _points(results: Sequence[Result], benchmark: str, metric: str) -> dict[str, Result]:
    return {r.variant: r for r in results if (r.benchmark, r.metric) == (benchmark, metric)}


def _seeds(shown: Sequence[tuple[Result, float]]) -> tuple[list[float], list[float]]:
    """Return the value of each seed and its place, where there are several seeds."""
    dots = [(value, place) for r, place in shown if r.seeds > 1 for value in r.seed_values]
    return [value for value, _ in dots], [place for _, place in dots]


def _bars(results: Sequence[Result]) -> list[list[float]]:
    """Return the lengths of error bars: below, above."""
    below = [max(0.0, r.value - r.low) for r in results]
    above = [max(0.0, r.high - r.value) for r in results]
    # Without any limit, there is nothing to draw.
    return [[length if isfinite(length) else 0.0 for length in side] for side in (below, above)]


def _drawn(
    titles: Mapping[str, str],
    draw: "Callable[[Axes, str], None]",
    *,
    height: float,
    share_y: bool,
) -> Drawing:
    """Draw panels of ``height`` inches, three in a row, with one legend above all.

    ``titles`` maps the name of each panel, which ``draw`` gets, to its title.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # A figure without pyplot: no global state, and no display is needed.
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 3.2 * columns, 0.5 + rows * height), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=share_y, squeeze=False).flat
        entries: dict[str, Any] = {}
        for axes, panel in zip_longest(grid, titles):
            if panel is None:
                axes.set_axis_off()
                continue
            draw(axes, panel)
            axes.set_title(titles[panel], fontsize=10)
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        if entries:
            figure.legend(
                [*entries.values()],
                [*entries],
                loc="outside upper center",
                ncols=min(len(entries), 2 * columns),
            )
    return Drawing(figure)
