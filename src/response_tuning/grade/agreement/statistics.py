"""How far raters agree with each other, or a judge with the truth, beyond what chance gives."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Literal

from response_tuning.artifacts import Record

NO_LABEL = ""
"""For Cohen's kappa: the label of a judge's unreadable reply."""


class Agreement(Record):
    """Agreement among raters on the items that at least two of them labelled.

    A statistic that does not apply is None. If all labels are the same, every statistic that
    corrects for chance is None too, since chance would agree as well.
    """

    items: int
    """Items with at least two labels."""
    raters: int
    """Raters with at least one label."""
    percent: float | None
    """Share, 0 to 1, of an item's pairs of raters who agree, averaged over the items."""
    cohen_kappa: float | None
    """With exactly two raters, on the items that both labelled."""
    fleiss_kappa: float | None
    """If all items have equally many labels; they may come from different raters."""
    alpha_nominal: float | None
    """Krippendorff's alpha: any number of raters, any label may be missing."""
    alpha_ordinal: float | None
    """The same, with labels that disagree the more the further they are apart."""


class LabelAgreement(Record):
    """Agreement of a judge with people's labels."""

    n: int
    agreement: float
    """Share of equal labels; a reply that could not be read counts as disagreement."""
    kappa: float | None
    """Cohen's kappa, in which an unreadable reply is a label that people never give. None if people
    and judge gave only one label."""
    parse_failures: int
    """Replies that could not be read."""
    confusion: dict[str, dict[str, int]]
    """People's label -> the judge's label -> number of readable replies."""


def agreement(
    ratings: Sequence[Sequence[str | None]], labels: Sequence[str], *, ordered: bool = True
) -> Agreement:
    """Compare raters: ``ratings`` has a row for each item, a column for each rater.

    None means no label. ``labels`` are all possible labels, in their order if they have one.

    Raises:
        ValueError: a label is not in ``labels``, or rows have unequal lengths.
    """
    _check((label for row in ratings for label in row if label is not None), labels)
    columns = [*zip(*ratings, strict=True)]
    raters = sum(any(label is not None for label in column) for column in columns)
    given = [[label for label in row if label is not None] for row in ratings]
    given = [row for row in given if len(row) > 1]  # one label alone cannot agree or disagree
    varied = len({label for row in given for label in row}) > 1
    return Agreement(
        items=len(given),
        raters=raters,
        percent=fmean(map(_agreeing, given)) if given else None,
        cohen_kappa=_cohen(*zip(*given, strict=True)) if varied and raters == 2 else None,
        fleiss_kappa=_fleiss(given, labels) if varied and len({*map(len, given)}) == 1 else None,
        alpha_nominal=_alpha(given, labels, "nominal") if varied else None,
        alpha_ordinal=_alpha(given, labels, "ordinal") if varied and ordered else None,
    )


def compare_labels(
    truth: Sequence[str], judged: Sequence[str | None], labels: Sequence[str]
) -> LabelAgreement:
    """Compare a judge's labels, item by item, with people's; None is an unreadable reply.

    Raises:
        ValueError: there is nothing to compare, the two have unequal lengths, or a label is none
            of ``labels``.
    """
    pairs = [*zip(truth, judged, strict=True)]
    if not pairs:
        raise ValueError("there are no labels to compare")
    _check((label for pair in pairs for label in pair if label is not None), labels)
    counts = Counter(pairs)
    # With a single label throughout, chance agreement is 1 and kappa is 0 / 0.
    varied = len({label for pair in pairs for label in pair}) > 1
    return LabelAgreement(
        n=len(pairs),
        agreement=sum(one == other for one, other in pairs) / len(pairs),
        kappa=_cohen(truth, [NO_LABEL if one is None else one for one in judged])
        if varied
        else None,
        parse_failures=sum(one is None for one in judged),
        confusion={one: {other: counts[one, other] for other in labels} for one in labels},
    )


def _check(given: Iterable[str], labels: Sequence[str]) -> None:
    other = sorted({*given} - {*labels})
    if other:
        raise ValueError(f"'{other[0]}' is none of the labels {', '.join(labels)}")


def _agreeing(labels: Sequence[str]) -> float:
    """Return the share of the pairs of an item's labels that are equal."""
    return fmean(one == other for one, other in combinations(labels, 2))


def _cohen(one: Sequence[str], other: Sequence[str]) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(one, other))


def _counts(given: Sequence[Sequence[str]], labels: Sequence[str]) -> list[list[int]]:
    """Return how often each item (row) was given each label (column)."""
    return [[row.count(label) for label in labels] for row in given]


def _fleiss(given: Sequence[Sequence[str]], labels: Sequence[str]) -> float:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(_counts(given, labels)))


def _alpha(
    given: Sequence[Sequence[str]], labels: Sequence[str], level: Literal["nominal", "ordinal"]
) -> float:
    from krippendorff import alpha

    counts = _counts(given, labels)
    return float(alpha(value_counts=counts, level_of_measurement=level))
