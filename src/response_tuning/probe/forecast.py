"""A study of bases that were probed and then tuned, and what it says about another base.

The score of a tuned base is regressed on predictors of the untouched one: a binomial model with a
logit link, for shares (Papke & Wooldridge 1996). What counts is the error on a base that the fit
has not seen; under its templates, a base is one cluster.
"""

import csv
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.errors import DataError
from response_tuning.probe.predictors import BASELINES, PREDICTORS

Array = npt.NDArray[np.float64]
Outcome = str
"""``rt`` or ``it``."""
OUTCOMES: tuple[Outcome, ...] = ("rt", "it")
STUDY = Path(__file__).with_name("study.csv")
"""The study that the package ships; docs/how-to/predict.md says how it was made."""
ADOPTED = Path(__file__).with_name("study.json")
"""Benchmark -> the predictors that passed the bar, and their errors; none if nothing passed."""
BAR = 0.5
"""A model of predictors passes if its error is at most this share of the best baseline's."""
OWN_SCORE = "stop_strict"
"""What the base reaches by itself: with a newline as stop string, as few bases stop without."""
LEVEL = 0.9
RESAMPLES = 2000


class Row(NamedTuple):
    """One base under one template, before and after tuning."""

    benchmark: str
    base: str
    template: str
    measured: Mapping[str, float]
    """Predictors, baselines and the base's own scores."""
    reached: Mapping[Outcome, float]
    """Strict score, the mean over seeds; an outcome that was not measured is absent."""


class Rank(NamedTuple):
    """How well one predictor orders the outcomes."""

    spearman: float
    low: float
    high: float
    partial: float
    """The rank correlation that is left once ``OWN_SCORE`` is partialled out."""
    error: float
    """Mean absolute error on a base that was left out."""


class Interval(NamedTuple):
    """A predicted score."""

    value: float
    low: float
    high: float


def read_study(path: Path = STUDY) -> list[Row]:
    """Return the rows of a study.

    Raises:
        DataError: the file is no study, or has a field that is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = [*csv.DictReader(file)]
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            words = {key: line.pop(key) for key in ("benchmark", "base", "template")}
            values = {key: float(text) for key, text in line.items() if text}
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: no line of a study: {error}") from error
        reached = {name: values.pop(name) for name in OUTCOMES if name in values}
        rows.append(Row(**words, measured=values, reached=reached))
    return rows


def predicted(rows: Sequence[Row], names: Sequence[str], outcome: Outcome, new: Row) -> float:
    """Return the outcome that a fit on ``rows`` expects of ``new``; without names, their mean."""
    return float(_fitted(rows, names, outcome)(np.array([[new.measured[n] for n in names]]))[0])


def interval(rows: Sequence[Row], names: Sequence[str], outcome: Outcome, new: Row) -> Interval:
    """Return the prediction for ``new`` with an interval of ``LEVEL``, by the jackknife+.

    Each base in turn is left out: its errors are added to what the fit without it expects of
    ``new`` (Barber et al. 2021, Annals of Statistics 49, section 2), with bases as clusters. The
    interval is clipped to [0, 1].
    """
    ends: tuple[list[float], list[float]] = ([], [])
    for base, held in _by_base(rows).items():
        others = [row for row in rows if row.base != base]
        centre = predicted(others, names, outcome, new)
        errors = [abs(predicted(others, names, outcome, r) - r.reached[outcome]) for r in held]
        ends[0].extend(centre - error for error in errors)
        ends[1].extend(centre + error for error in errors)
    low = float(np.quantile(ends[0], 1 - LEVEL, method="lower"))
    high = float(np.quantile(ends[1], LEVEL, method="higher"))
    value = predicted(rows, names, outcome, new)
    return Interval(value, max(0.0, min(low, value)), min(1.0, max(high, value)))


def left_out_error(rows: Sequence[Row], names: Sequence[str], outcome: Outcome) -> float:
    """Return the mean absolute error on bases that the fit has not seen."""
    errors = []
    for base, held in _by_base(rows).items():
        others = [row for row in rows if row.base != base]
        fitted = _fitted(others, names, outcome)
        inputs = np.array([[row.measured[name] for name in names] for row in held])
        reached = np.array([row.reached[outcome] for row in held])
        errors.extend(abs(fitted(inputs) - reached).tolist())
    return fmean(errors)


def nested_error(
    rows: Sequence[Row], candidates: Sequence[Sequence[str]], outcome: Outcome
) -> float:
    """Return the error on unseen bases if the candidate is chosen without the unseen base, too."""
    errors = []
    for base, held in _by_base(rows).items():
        others = [row for row in rows if row.base != base]
        best = min(candidates, key=lambda names: left_out_error(others, names, outcome))
        errors += [
            abs(predicted(others, best, outcome, row) - row.reached[outcome]) for row in held
        ]
    return fmean(errors)


def complete(rows: Sequence[Row], outcome: Outcome) -> list[Row]:
    """Return the rows that have the outcome."""
    return [row for row in rows if outcome in row.reached]


def usable(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Return those of the names that every row has as a finite number."""
    return [n for n in names if all(math.isfinite(row.measured.get(n, math.nan)) for row in rows)]


def ranks(rows: Sequence[Row], outcome: Outcome, seed: int = 0) -> dict[str, Rank]:
    """Return how each predictor and baseline that all rows have orders the outcomes.

    ``OWN_SCORE`` stands beside them.
    """
    names = usable(rows, [*PREDICTORS, *BASELINES, OWN_SCORE])
    return {name: _rank(rows, name, outcome, seed) for name in names}


def _rank(rows: Sequence[Row], name: str, outcome: Outcome, seed: int) -> Rank:
    found = _spearman(rows, name, outcome)
    low, high = _bootstrapped(rows, lambda drawn: _spearman(drawn, name, outcome), seed)
    partial = _partial(rows, name, outcome)
    return Rank(found, low, high, partial, left_out_error(rows, [name], outcome))


def _spearman(rows: Sequence[Row], name: str, outcome: Outcome) -> float:
    """Return the rank correlation; NaN if one of the two is constant."""
    from scipy.stats import spearmanr

    one = [row.measured[name] for row in rows]
    other = [row.reached[outcome] for row in rows]
    if len({*one}) < 2 or len({*other}) < 2:
        return math.nan
    return float(spearmanr(one, other).statistic)


def _bootstrapped(
    rows: Sequence[Row], of: Callable[[Sequence[Row]], float], seed: int
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a number over draws of whole bases."""
    draw = np.random.default_rng(seed)
    by_base = [*_by_base(rows).values()]
    values = []
    for _ in range(RESAMPLES):
        chosen = draw.integers(len(by_base), size=len(by_base))
        values.append(of([row for place in chosen for row in by_base[place]]))
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)


def _partial(rows: Sequence[Row], name: str, outcome: Outcome) -> float:
    """Return the partial rank correlation, given ``OWN_SCORE``."""
    from scipy.stats import pearsonr, rankdata

    given = rankdata([row.measured.get(OWN_SCORE, 0.0) for row in rows])
    design = np.column_stack([np.ones(len(rows)), given])

    def residual(values: Sequence[float]) -> Array:
        ranked = rankdata(values)
        left: Array = ranked - design @ np.linalg.lstsq(design, ranked, rcond=None)[0]
        return left

    one = residual([row.measured[name] for row in rows])
    other = residual([row.reached[outcome] for row in rows])
    if np.allclose(one, 0) or np.allclose(other, 0):
        return math.nan
    return float(pearsonr(one, other).statistic)


def _by_base(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.base, []).append(row)
    return found


def _fitted(
    rows: Sequence[Row], names: Sequence[str], outcome: Outcome
) -> Callable[[Array], Array]:
    """Fit the outcome to predictors; the function takes (rows, predictors) and returns (rows,)."""
    inputs = np.array([[row.measured[name] for name in names] for row in rows])
    reached = np.array([row.reached[outcome] for row in rows])
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    varying = [place for place, spread in enumerate(scale) if spread > 1e-12]
    if not varying:
        return lambda new: np.full(len(new), reached.mean())

    def standard(values: Array) -> Array:
        scaled: Array = (values[:, varying] - centre[varying]) / scale[varying]
        return np.column_stack([np.ones(len(values)), scaled])

    parameters = _coefficients(standard(inputs), reached)

    def expected(new: Array) -> Array:
        share: Array = 1 / (1 + np.exp(-np.clip(standard(new) @ parameters, -30, 30)))
        return share

    return expected


def _coefficients(design: Array, reached: Array) -> Array:
    import statsmodels.api as sm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shares near 0 and 1 separate perfectly; only fits count
        model = sm.GLM(reached, design, family=sm.families.Binomial())
        # A trace of ridge keeps coefficients finite where a predictor separates perfectly.
        found: Any = model.fit_regularized(alpha=1e-4, L1_wt=0.0)
    parameters: Array = np.asarray(found.params)
    return parameters
