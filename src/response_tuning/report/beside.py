"""Numbers of a run beside those that papers print."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from response_tuning.report.published import NotCompared, Published
from response_tuning.report.tables import Result, number


class Beside(NamedTuple):
    """A line of ``published.csv``: a number of this run beside a published one."""

    variant: str
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    published: float
    difference: float
    """This run's value minus the published one."""
    inside: bool
    """Whether the published number lies in this run's interval."""
    published_sd: float | None
    source: str


def beside(results: Sequence[Result], rows: Mapping[str, Sequence[Published]]) -> list[Beside]:
    """Return the numbers of a run that have a published one; ``rows`` has those of each variant."""
    found = {(r.variant, r.benchmark, r.metric): r for r in results}
    return [
        Beside(
            variant, row.benchmark, row.metric, result.value, result.low, result.high, row.value,
            difference=result.value - row.value,
            inside=result.low <= row.value <= result.high,
            published_sd=row.sd,
            source=row.source,
        )
        for variant, published in rows.items()
        for row in published
        if (result := found.get((variant, row.benchmark, row.metric)))
        and (row.prompts is None or row.prompts == result.n)
    ]  # fmt: skip


def other_prompts(
    results: Sequence[Result], rows: Mapping[str, Sequence[Published]]
) -> Iterator[str]:
    """Yield a sentence for each benchmark with another number of prompts than its table's."""
    sizes = {(r.benchmark, r.metric): r.n for r in results}
    wanted = {
        (row.benchmark, row.metric): row.prompts for published in rows.values() for row in published
    }
    for (benchmark, metric), prompts in wanted.items():
        own = sizes.get((benchmark, metric))
        if prompts is not None and own is not None and own != prompts:
            yield f"{benchmark}, {metric}: {own:,} prompts here, and {prompts:,} in the table"


def not_measured(
    results: Sequence[Result], rows: Mapping[str, Sequence[Published]]
) -> Iterator[str]:
    """Yield a sentence for each published metric that variants of ``rows`` have no result by."""
    measured = {(r.variant, r.benchmark, r.metric) for r in results}
    anywhere = {key[1:] for key in measured}
    lacking: dict[tuple[str, str], list[str]] = {}
    for variant, published in rows.items():
        for row in published:
            if (variant, row.benchmark, row.metric) not in measured:
                lacking.setdefault((row.benchmark, row.metric), []).append(variant)
    for (benchmark, metric), names in lacking.items():
        of = f" for {', '.join(names)}" if (benchmark, metric) in anywhere else ""
        yield f"{metric} ({benchmark}) is not measured here{of}"


def not_compared(found: Mapping[str, Sequence[NotCompared]]) -> Iterator[str]:
    """Yield a sentence for each part of a table that is listed alone, with its numbers.

    ``found`` has those of each variant. Shares are in percent.
    """
    together: dict[tuple[str, str, str], list[str]] = {}
    for variant, of_variant in found.items():
        for one in of_variant:
            together.setdefault(one[:3], []).extend(
                f"{row.metric} {number(row.value, row.unit != 'points')} ({variant})"
                for row in one.rows
            )
    for (table, part, why), numbers in together.items():
        yield f"Not compared with table {table}, {part}: {why}. It has {', '.join(numbers)}."
