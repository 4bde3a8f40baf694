"""Which metrics of a benchmark the tables show, and in which order."""

from collections.abc import Iterable

from response_tuning.metrics import ACCURACY, CORRECTED, FILTERED, MEASURES, REFUSAL_RATES, Display


def headline(metrics: Iterable[str], display: Display) -> tuple[str, ...]:
    """Return those of a benchmark's metrics that tables show.

    A benchmark that declares none, such as one of an older version, shows the metrics with a common
    meaning; without these, all its own.
    """
    names = sorted(metrics)
    own = [name for name in names if name not in (*MEASURES, FILTERED)]
    # How an answer ends is worth a column only where answers can be right.
    common = (*ACCURACY, *(["stopped"] if {*ACCURACY} & {*names} else []), *REFUSAL_RATES)
    declared = [
        name
        for rate in display.headline or common
        for name in (rate, rate + CORRECTED)
        if name in names
    ]
    # A share of withheld answers changes what every other number means, so it is never left out.
    filtered = [FILTERED] if own and FILTERED in names else []
    return (*(declared or own or names), *filtered)


def ordered(metrics: Iterable[str], display: Display) -> tuple[str, ...]:
    """Sort a benchmark's metrics: the headline, its other metrics, measures of any answer."""
    names = {*metrics}
    first = headline(names, display)
    rest = sorted(names - {*first}, key=lambda name: (name in MEASURES, name))
    return (*first, *rest)
