"""Intervals and the tests that agree with them: each test is the interval, inverted.

Where a metric has ends, such as 0 and 1, intervals are score intervals, which stay sensible near
these ends and never claim certainty: Wilson's for a mean, and Tango's for a difference of paired
zeros and ones (Tango 1998, Statistics in Medicine 17, 891-908; at a difference of 0, its test is
McNemar's). Both take a number of prompts. With clusters or several seeds, that is the number of
independent prompts that would give the estimated variance, as in surveys of clusters (Korn and
Graubard 1998, Survey Methodology 24, 193-201), and Student's t takes the place of the normal.
Elsewhere, intervals are Student's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Protocol

POWER = 0.8
"""Of the smallest difference that a run could have shown."""


class Evidence(Protocol):
    """What the scores say about a value."""

    @property
    def value(self) -> float:
        """The estimate."""
        ...

    @property
    def method(self) -> str:
        """Name of the interval, for the tables."""
        ...

    @property
    def df(self) -> float:
        """Degrees of freedom of Student's t; infinite for the normal distribution."""
        ...

    def p_value(self, truth: float) -> float:
        """Return the two-sided p-value of the hypothesis that the value is ``truth``."""
        ...

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the values whose p-value is at least 1 - ``confidence``."""
        ...


@dataclass(frozen=True)
class Student:
    """A value with a standard error."""

    value: float
    error: float
    df: float
    method: str = "t"

    def p_value(self, truth: float) -> float:
        """Return the two-sided p-value of Student's test."""
        return _two_sided(abs(self.value - truth) / self.error, self.df)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the value plus and minus so many standard errors."""
        half = quantile(confidence, self.df) * self.error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Share:
    """A mean of ``n`` prompts between two ends: Wilson's interval."""

    value: float
    n: float
    df: float = inf
    ends: tuple[float, float] = (0.0, 1.0)
    method: str = "wilson"

    def p_value(self, truth: float) -> float:
        """Return the two-sided p-value of the score test."""
        mean, null = self._share(self.value), self._share(truth)
        error = sqrt(max(null * (1 - null), 0) / self.n)
        return _two_sided(abs(mean - null) / error, self.df) if error else float(mean == null)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return Wilson's interval (1927, Journal of the American Statistical Association 22)."""
        mean, q = self._share(self.value), quantile(confidence, self.df)
        centre = (mean + q * q / (2 * self.n)) / (1 + q * q / self.n)
        half = q * sqrt(mean * (1 - mean) / self.n + (q / (2 * self.n)) ** 2) / (1 + q * q / self.n)
        lowest, highest = self.ends
        low, high = (max(0.0, centre - half), min(1.0, centre + half))
        # At an end, rounding would leave 1e-17.
        low, high = (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)
        return lowest + low * (highest - lowest), lowest + high * (highest - lowest)

    def _share(self, value: float) -> float:
        lowest, highest = self.ends
        return (value - lowest) / (highest - lowest)


@dataclass(frozen=True)
class PairedShares:
    """Shares of ``n`` prompts that a variant gained and lost: Tango's score interval."""

    gained: float
    lost: float
    n: float
    df: float = inf
    largest: float = 1.0
    """The largest possible difference."""
    method: str = "tango"

    @property
    def value(self) -> float:
        """The difference."""
        return (self.gained - self.lost) * self.largest

    def p_value(self, truth: float) -> float:
        """Return the two-sided p-value of the score test; McNemar's for a ``truth`` of 0."""
        return _two_sided(self._statistic(truth / self.largest), self.df)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the differences that the score test does not reject."""
        q, value = quantile(confidence, self.df), self.gained - self.lost

        def excess(truth: float) -> float:
            return self._statistic(truth) - q

        low = -1.0 if excess(-1.0) <= 0 else _root(excess, -1.0, value)
        high = 1.0 if excess(1.0) <= 0 else _root(excess, value, 1.0)
        return low * self.largest, high * self.largest

    def _statistic(self, truth: float) -> float:
        """Return |difference - truth| in standard errors, estimated under ``truth``."""
        distance = abs(self.gained - self.lost - truth)
        # The root of Tango's quadratic is the probability of a loss, estimated under ``truth``.
        b = (2 - self.gained + self.lost) * truth - self.gained - self.lost
        c = -self.lost * truth * (1 - truth)
        losing = (sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
        error = sqrt(max(2 * losing + truth * (1 - truth), 0.0) / self.n)
        if distance < 1e-12:
            return 0.0
        return distance / error if error > 0 else inf


@dataclass(frozen=True)
class Constant:
    """A value without ends that all ``clusters`` share, so that nothing tells how it spreads."""

    value: float
    clusters: int
    df: float = inf
    method: str = "sign"

    def p_value(self, truth: float) -> float:
        """Return the two-sided p-value of the sign test."""
        return 1.0 if self.value == truth else min(1.0, 2.0 ** (1 - self.clusters))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the value itself, or everything where the sign test cannot reject anything."""
        if self.p_value(inf) < 1 - confidence:
            return self.value, self.value
        return -inf, inf


def quantile(confidence: float, df: float) -> float:
    """Return the two-sided quantile of Student's t."""
    return _quantile((1 + confidence) / 2, df)


def p_equivalence(evidence: Evidence, margin: float) -> float:
    """Return the p-value of a value at or beyond the margin, on the scale of two-sided tests.

    It is twice the larger of two one-sided p-values (TOST): it is below 5 % exactly where the 95 %
    interval lies inside the margin, so that one interval decides both questions.
    """
    if abs(evidence.value) >= margin:
        return 1.0
    return max(evidence.p_value(-margin), evidence.p_value(margin))


def detectable(evidence: Evidence, interval: tuple[float, float], confidence: float) -> float:
    """Return the smallest difference that a run like this one shows with a power of 80 %.

    It is (q + q') standard errors, with the quantiles of the test and of the power; the standard
    error is read off the ``interval``, so that a run without any difference has one as well.
    """
    q = quantile(confidence, evidence.df)
    return (interval[1] - interval[0]) / 2 * (1 + _quantile(POWER, evidence.df) / q)


def _two_sided(statistic: float, df: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(df, -statistic))


def _quantile(probability: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where the statistic crosses its quantile; it is 0 at one of the two ends."""
    from scipy.optimize import brentq

    return float(brentq(excess, low, high, xtol=1e-10))
