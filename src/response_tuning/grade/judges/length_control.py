"""The length-controlled win rate: what it would be if both sides' answers were equally long.

Judges like long answers. AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, section 3) therefore
explains the preference for a model over a reference by a generalised linear model of three terms,

    P(preferred) = logistic(identity + length x tanh(d / sd(d)) + difficulty x gamma),

d being how much longer the model's answer is than the reference's, and gamma how hard the
instruction is. The rate is the mean of the predictions without the length term.

Swapping the two sides turns the rate into 1 - rate, and where no length differs it is the mean
preference: the latter because the identity is not penalised. The other two coefficients have a
standard normal prior, which keeps them finite if length alone decides who wins; it replaces
the penalty that the published fit chooses by cross-validation.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PRIOR_PRECISION = np.array([0.0, 1.0, 1.0])
"""Precision of the prior of each coefficient, in the order of ``Fit``."""
GRADIENT_TOLERANCE = 1e-9
"""Largest slope of the mean loss at which a fit has converged."""


class Comparisons(NamedTuple):
    """The data of n items; all arrays have shape (n,)."""

    preference: Floats
    """Preference for the model over the reference, 0..1."""
    difference: Floats
    """Length of the model's answer minus length of the reference's, in characters."""
    difficulty: Floats
    """Difficulty of the instruction; zeros if it is not known."""

    def at(self, rows: npt.NDArray[np.int64]) -> "Comparisons":
        """Return the items at ``rows``, which may repeat."""
        return Comparisons(self.preference[rows], self.difference[rows], self.difficulty[rows])


class LengthModel(NamedTuple):
    """The coefficients, and the win rate without the length term."""

    identity: float
    length: float
    difficulty: float
    rate: float


def fit(data: Comparisons, start: LengthModel | None = None) -> LengthModel:
    """Fit the model by maximum penalised likelihood, from ``start`` or from zero.

    A preference p counts as p wins and 1 - p losses. Where all preferences are 1, or all are 0,
    the likelihood has no maximum; the rate then is 1 or 0 to within the tolerance.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    n = len(data.preference)
    features = np.column_stack([np.ones(n), _standardised(data.difference), data.difficulty])
    precision = PRIOR_PRECISION / n

    def loss(w: Floats) -> tuple[float, Floats]:
        z = features @ w
        mean = np.mean(np.logaddexp(0, z) - data.preference * z)
        slope = features.T @ (expit(z) - data.preference) / n + precision * w
        return float(mean + precision @ w**2 / 2), slope

    def curvature(w: Floats) -> Floats:
        p = expit(features @ w)
        hessian: Floats = (features.T * (p * (1 - p))) @ features / n + np.diag(precision)
        return hessian

    # Three coefficients and a convex loss: the exact Hessian is cheap, and few steps suffice.
    w = np.array(start[:3]) if start else np.zeros(3)
    options = {"gtol": GRADIENT_TOLERANCE}
    w = minimize(loss, w, jac=True, hess=curvature, method="trust-exact", options=options).x
    rate = float(expit(w[0] + w[2] * data.difficulty).mean())
    return LengthModel(float(w[0]), float(w[1]), float(w[2]), rate)


def interval(
    data: Comparisons, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the rate, with a new fit for each draw of items.

    If all preferences are equal, both ends are equal too.
    """
    rng = np.random.default_rng(seed)
    whole, n = fit(data), len(data.preference)
    rates = [fit(data.at(rng.integers(n, size=n)), whole).rate for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, (tail, 1 - tail))
    return float(low), float(high)


def _standardised(difference: Floats) -> Floats:
    """Return tanh(d / sd(d)); zeros if all differences are equal: length explains nothing."""
    if np.ptp(difference) == 0:
        return np.zeros_like(difference)
    term: Floats = np.tanh(difference / difference.std(ddof=1))
    return term
