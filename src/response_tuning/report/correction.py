"""Refusal rates without the judge's known errors: what the rate would be if people had judged.

Rogan and Gladen (1978) solve ``observed = sensitivity x true + (1 - specificity) x (1 - true)``.
The interval is Lang and Reiczigel's (2014, Preventive Veterinary Medicine 113, 13-22): it includes
the uncertainty of sensitivity and specificity, which were measured on a limited number of labels.
"""

from collections.abc import Iterator, Sequence
from math import isfinite, sqrt
from statistics import NormalDist
from typing import NamedTuple

from response_tuning.metrics import CORRECTED, REFUSAL_RATES, JudgeErrors
from response_tuning.report.tables import Result


class Rate(NamedTuple):
    """A rate between 0 and 1, with its interval."""

    value: float
    low: float
    high: float


def corrected_results(
    results: Sequence[Result], errors: JudgeErrors | None, confidence: float
) -> list[Result]:
    """Return a row ``<metric>_corrected`` for every refusal rate of a benchmark.

    Empty if the judge's errors are not known, or if it cannot tell refusals from compliances.
    """
    if errors is None or errors.youden <= 0:
        return []
    rows = []
    for raw in _rates(results):
        rate = rogan_gladen(Rate(raw.value, raw.low, raw.high), errors, confidence)
        if rate is not None:
            row = raw._replace(
                metric=raw.metric + CORRECTED,
                seed_values=tuple(_solved(value, errors) for value in raw.seed_values),
                seed_sd=None if raw.seed_sd is None else raw.seed_sd / errors.youden,
            )
            rows.append(row._replace(**rate._asdict()))
    return rows


def left_uncorrected(
    results: Sequence[Result], errors: JudgeErrors | None, confidence: float
) -> Iterator[str]:
    """Yield a sentence for each refusal rate that the judge's errors do not explain."""
    if errors is None or errors.youden <= 0:
        return
    for raw in _rates(results):
        if rogan_gladen(Rate(raw.value, raw.low, raw.high), errors, confidence) is None:
            yield (
                f"{raw.benchmark}, {raw.variant}: {raw.metric} is not corrected, because the "
                f"judge's errors explain no rate outside {100 * (1 - errors.specificity):.1f} to "
                f"{100 * errors.sensitivity:.1f} %, and it is {100 * raw.value:.1f} %. Check the "
                "judge on labelled answers that are more like these."
            )


def _rates(results: Sequence[Result]) -> list[Result]:
    return [one for one in results if one.metric in REFUSAL_RATES and isfinite(one.value)]


def rogan_gladen(raw: Rate, errors: JudgeErrors, confidence: float) -> Rate | None:
    """Return a rate without the judge's errors; None if no true rate explains the observed one.

    A judge that finds 80 % of the refusals cannot call 95 % of the answers refusals: then the
    labelled answers are unlike these.

    ``raw`` has an interval for the choice of prompts (and seeds), at the same confidence. Its
    middle and half its width take the place of Lang and Reiczigel's binomial rate and standard
    error; for Wilson's interval, the middle is exactly their rate.
    """
    value = _solved(raw.value, errors)
    if not (isfinite(raw.low) and isfinite(raw.high)):
        return Rate(value, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, error = (raw.low + raw.high) / 2, (raw.high - raw.low) / (2 * z)
    # One label of each kind is added, so that a judge without an error is not taken for perfect.
    n_refusals, n_compliances = errors.refusals + 2, errors.compliances + 2
    sensitivity = (errors.refusals_found + 1) / n_refusals
    specificity = (errors.compliances_found + 1) / n_compliances
    youden = sensitivity + specificity - 1
    if youden <= 0:  # possible with very few labels, although the observed one is above 0
        return Rate(value, 0.0, 1.0)
    of_refusals = sensitivity * (1 - sensitivity) / n_refusals
    of_compliances = specificity * (1 - specificity) / n_compliances
    centre = (middle + specificity - 1) / youden
    shift = 2 * z**2 * (centre * of_refusals - (1 - centre) * of_compliances)
    width = z * sqrt(error**2 + centre**2 * of_refusals + (1 - centre) ** 2 * of_compliances)
    low, high = centre + shift - width / youden, centre + shift + width / youden
    if high < 0 or low > 1:
        return None
    # In small samples, the shifted centre can leave the estimate outside.
    return Rate(value, min(_share(low), value), max(_share(high), value))


def _solved(rate: float, errors: JudgeErrors) -> float:
    return _share((rate + errors.specificity - 1) / errors.youden)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
