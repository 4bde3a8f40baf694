"""How far a judge agrees with people: the questions about a labelled row, and the figures.

A judge gets exactly the questions that benchmarks ask.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from response_tuning.artifacts import Completion, Message, Record, Request, Sampling, digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.agreement.labelled_sets import (
    PAIR_WORDS,
    REFUSAL_WORDS,
    LabelledRow,
    LabelledSet,
)
from response_tuning.grade.agreement.statistics import LabelAgreement, compare_labels
from response_tuning.grade.benchmark import Item, JudgedBenchmark
from response_tuning.grade.judges.pairwise import Pairwise
from response_tuning.grade.judges.refusal_classifier import classify
from response_tuning.grade.judges.refusals import (
    Judgement,
    RefusalBenchmark,
    RefusalPrompts,
    RefusalsByJudge,
)
from response_tuning.thoughts import without_thoughts

AGREEMENT_CONFIDENCE = 0.95
KAPPA_RESAMPLES = 10_000
KAPPA_SEED = 0
UNREAD_LABEL = "unread"
"""In place of a verdict that could not be read."""
ROUNDING = 1e-9
LABEL_OF_METRIC = {
    "refusal": "refusal",
    "compliance": "compliance",
    "win": "1",
    "lose": "2",
    "tie": "tie",
}
"""Metric that is 1 for such a verdict -> the verdict."""

Counts = Counter[tuple[str, str, str | None]]
"""(part, label, verdict) -> number of rows. The rows themselves are not kept in memory."""


class Figures(LabelAgreement):
    """Agreement with people, with confidence intervals over rows."""

    agreement_interval: tuple[float, float]
    """Wilson's 95 % interval. Rows are treated as independent, here and below."""
    kappa_interval: tuple[float, float] | None
    """Percentiles of a bootstrap over rows. None without kappa, and if all resamples have the same
    kappa, as when every row agrees: the bootstrap then says nothing about the uncertainty."""


class SetCheck(Record):
    """The figures on one labelled set."""

    figures: Figures
    parts: dict[str, Figures]
    """Model, or part of the set -> figures on its rows."""
    apart: dict[str, dict[str, int]]
    """Label that no judge gives -> verdict, or ``unread`` -> rows, which are in no figure."""
    origin: tuple[dict[str, Any], ...]


def questions(labelled: LabelledSet, row: LabelledRow, number: int = 0) -> Sequence[Request]:
    """Return the questions to a judge about a row; empty if its benchmark needs no judge."""
    item, answer = _as_benchmark(row, f"{labelled.name}-{number}")
    return _benchmark(labelled, row, item).questions(item, answer)


def judged(labelled: LabelledSet, row: LabelledRow, replies: Sequence[Completion]) -> Judgement:
    """Return the label that the benchmark's scores give a row, from the replies about it."""
    item, answer = _as_benchmark(row)
    scores = list(_benchmark(labelled, row, item).judged(item, answer, replies))
    labels = [
        LABEL_OF_METRIC[score.metric]
        for score in scores
        if score.value == 1 and score.metric in LABEL_OF_METRIC
    ]
    why = [score.explanation for score in scores if score.explanation]
    return Judgement(labelled.words[labels[0]] if labels else None, why[0] if why else "")


def by_rule(labelled: LabelledSet, row: LabelledRow) -> Judgement:
    """Return the offline classifier's label of a row with one completion."""
    classification = classify(row.prompt, without_thoughts(row.completions[0]).text)
    return Judgement(labelled.words[classification.label], classification.reason)


def prompt_digests() -> dict[str, str]:
    """Return a digest of the questions about a row of each kind; it changes with the prompt."""
    row = LabelledRow("", "prompt", ("one completion", "another"), "")
    kinds = {"refusal": REFUSAL_WORDS, "pairwise": PAIR_WORDS}
    requests_of = {
        kind: questions(LabelledSet(kind, 1, lambda: iter([row]), (), words), row)
        for kind, words in kinds.items()
    }
    return {
        kind: digest(*(turn.content for request in requests for turn in request.prompt))
        for kind, requests in requests_of.items()
    }


def check_set(labelled: LabelledSet, counts: Counts) -> SetCheck:
    """Compare the verdicts on the rows of a set with their labels.

    Raises:
        DataError: no row has a label that a judge gives.
    """
    labels = [*labelled.words.values()]
    whole = _compared(counts, labels)
    if whole is None:
        raise DataError(f"{labelled.name}: no row is labelled {' or '.join(labels)}")
    parts = sorted({part for part, _, _ in counts} - {""})
    figures = {
        part: _compared(Counter({key: n for key, n in counts.items() if key[0] == part}), labels)
        for part in parts
    }
    # Labels such as "partial refusal", which no judge can give, would only count as disagreement.
    apart: dict[str, Counter[str]] = {}
    for (_, label, verdict), n in counts.items():
        if label not in labels:
            apart.setdefault(label, Counter())[verdict or UNREAD_LABEL] += n
    return SetCheck(
        figures=whole,
        parts={part: one for part, one in figures.items() if one is not None},
        apart={label: dict(sorted(verdict.items())) for label, verdict in sorted(apart.items())},
        origin=tuple(labelled.origin),
    )


def _compared(counts: Counts, labels: Sequence[str]) -> Figures | None:
    pairs: Counter[tuple[str, str | None]] = Counter()
    for (_, label, verdict), n in counts.items():
        if label in labels:
            pairs[label, verdict] += n
    if not pairs:
        return None
    truth = [label for label, _ in pairs.elements()]
    agreement = compare_labels(truth, [verdict for _, verdict in pairs.elements()], labels)
    return Figures(
        **agreement.model_dump(),
        agreement_interval=_wilson(sum(pairs[label, label] for label in labels), agreement.n),
        kappa_interval=None if agreement.kappa is None else _kappa_interval(pairs, labels),
    )


def _wilson(successes: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(AGREEMENT_CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _kappa_interval(
    pairs: Mapping[tuple[str, str | None], int], labels: Sequence[str]
) -> tuple[float, float] | None:
    """Resample rows, of which the table (label, verdict) is all that kappa needs."""
    import numpy as np

    verdicts = (*labels, None)
    table = np.array([[pairs.get((label, one), 0) for one in verdicts] for label in labels], float)
    n = table.sum()
    rng = np.random.default_rng(KAPPA_SEED)
    draws = (
        rng.multinomial(int(n), table.ravel() / n, size=KAPPA_RESAMPLES).reshape(-1, *table.shape)
        / n
    )
    observed = np.trace(draws, axis1=1, axis2=2)
    chance = (draws.sum(axis=2) * draws.sum(axis=1)[:, : len(labels)]).sum(axis=1)
    defined = chance < 1 - ROUNDING  # a resample of one label throughout has no kappa
    kappa = (observed[defined] - chance[defined]) / (1 - chance[defined])
    tail = (1 - AGREEMENT_CONFIDENCE) / 2
    low, high = np.quantile(kappa, (tail, 1 - tail))
    return (float(low), float(high)) if high - low > ROUNDING else None


def _as_benchmark(row: LabelledRow, item_id: str = "") -> tuple[Item, Completion]:
    """Return a row as an item of a benchmark and its answer."""
    prompt = (Message(role="user", content=row.prompt),)
    answer = Completion(
        item_id=item_id,
        prompt=prompt,
        response=without_thoughts(row.completions[0]).text,
        finish_reason="stop",
        key="",
        model="",
        template="",
        sampling=Sampling(),
    )
    return Item(item_id=item_id, prompt=prompt, group=row.part), answer


def _benchmark(labelled: LabelledSet, row: LabelledRow, item: Item) -> JudgedBenchmark:
    """Return the benchmark that asks for verdicts like the labels of a set."""
    if labelled.pairwise:
        return Pairwise([item], {item.item_id: without_thoughts(row.completions[1]).text})
    benchmark = RefusalBenchmark(lambda _: RefusalPrompts([item], {}))
    return RefusalsByJudge(GradeConfig(), benchmark)
