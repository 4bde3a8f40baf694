"""How far a judge agrees with people: what it is asked about a labelled row, and the figures.

A judge is asked in the very way in which benchmarks ask it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from response_tuning.artifacts import Completion, Message, Record, Request, Sampling, digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.agreement.labelled_sets import PAIRS, REFUSALS, Labelled, LabelledSet
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

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
NOT_READ = "unread"
"""Stands for the verdict, where none could be read."""
TINY = 1e-9
SAID = {
    "refusal": "refusal",
    "compliance": "compliance",
    "win": "1",
    "lose": "2",
    "tie": "tie",
}
"""Metric of a benchmark, 1 for the answer that is judged so -> what the judge said."""

Counts = Counter[tuple[str, str, str | None]]
"""(part, label, verdict) -> rows: all that is kept of them."""


class Figures(LabelAgreement):
    """Agreement with people, and how far other rows like these might have moved it."""

    agreement_interval: tuple[float, float]
    """Wilson's, at 95 %. Rows are taken as independent, here and below."""
    kappa_interval: tuple[float, float] | None
    """Percentiles of a bootstrap of the rows; None without kappa, and where all resamples have the
    same, as when every row agrees, for then they do not tell how sure it is."""


class SetCheck(Record):
    """What was found on one labelled set."""

    figures: Figures
    parts: dict[str, Figures]
    """Model, or part of the set -> the same of its rows."""
    apart: dict[str, dict[str, int]]
    """Label that no judge gives -> verdict, or ``unread`` -> rows; they are in no figure."""
    origin: tuple[dict[str, Any], ...]


def questions(labelled: LabelledSet, row: Labelled, number: int = 0) -> Sequence[Request]:
    """Return what a judge is asked about a row; nothing where its benchmark asks nothing."""
    item, answer = _asked(row, f"{labelled.name}-{number}")
    return _benchmark(labelled, row, item).questions(item, answer)


def judged(labelled: LabelledSet, row: Labelled, replies: Sequence[Completion]) -> Judgement:
    """Return the label that the replies about a row amount to, by the benchmark's scores."""
    item, answer = _asked(row)
    scores = list(_benchmark(labelled, row, item).judged(item, answer, replies))
    said = [SAID[score.metric] for score in scores if score.value == 1 and score.metric in SAID]
    why = [score.explanation for score in scores if score.explanation]
    return Judgement(labelled.words[said[0]] if said else None, why[0] if why else "")


def by_rule(labelled: LabelledSet, row: Labelled) -> Judgement:
    """Return what the offline classifier says about a row with one completion."""
    found = classify(row.prompt, without_thoughts(row.completions[0]).text)
    return Judgement(labelled.words[found.label], found.reason)


def prompt_digests() -> dict[str, str]:
    """Return a digest of what is asked about a row of each kind, which changes with the prompt."""
    row = Labelled("", "prompt", ("one completion", "another"), "")
    kinds = {"refusal": REFUSALS, "pairwise": PAIRS}
    asked = {
        kind: questions(LabelledSet(kind, 1, lambda: iter([row]), (), words), row)
        for kind, words in kinds.items()
    }
    return {
        kind: digest(*(turn.content for request in requests for turn in request.prompt))
        for kind, requests in asked.items()
    }


def check_set(labelled: LabelledSet, counts: Counts) -> SetCheck:
    """Compare what was said about the rows of a set with their labels.

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
    apart: dict[str, Counter[str]] = {}
    for (_, label, said), n in counts.items():
        if label not in labels:
            apart.setdefault(label, Counter())[said or NOT_READ] += n
    return SetCheck(
        figures=whole,
        parts={part: found for part, found in figures.items() if found is not None},
        apart={label: dict(sorted(said.items())) for label, said in sorted(apart.items())},
        origin=tuple(labelled.origin),
    )


def _compared(counts: Counts, labels: Sequence[str]) -> Figures | None:
    pairs: Counter[tuple[str, str | None]] = Counter()
    for (_, label, said), n in counts.items():
        if label in labels:
            pairs[label, said] += n
    if not pairs:
        return None
    truth = [label for label, _ in pairs.elements()]
    found = compare_labels(truth, [said for _, said in pairs.elements()], labels)
    return Figures(
        **found.model_dump(),
        agreement_interval=_wilson(sum(pairs[label, label] for label in labels), found.n),
        kappa_interval=None if found.kappa is None else _kappa_interval(pairs, labels),
    )


def _wilson(successes: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _kappa_interval(
    pairs: Mapping[tuple[str, str | None], int], labels: Sequence[str]
) -> tuple[float, float] | None:
    """Resample rows, of which the table (label, verdict) is all that kappa needs."""
    import numpy as np

    said = (*labels, None)
    table = np.array([[pairs.get((label, one), 0) for one in said] for label in labels], float)
    n = table.sum()
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(int(n), table.ravel() / n, size=RESAMPLES).reshape(-1, *table.shape) / n
    observed = np.trace(draws, axis1=1, axis2=2)
    chance = (draws.sum(axis=2) * draws.sum(axis=1)[:, : len(labels)]).sum(axis=1)
    there = chance < 1 - TINY  # a resample of one label throughout has no kappa
    kappa = (observed[there] - chance[there]) / (1 - chance[there])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kappa, (tail, 1 - tail))
    return (float(low), float(high)) if high - low > TINY else None


def _asked(row: Labelled, item_id: str = "") -> tuple[Item, Completion]:
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


def _benchmark(labelled: LabelledSet, row: Labelled, item: Item) -> JudgedBenchmark:
    """Return the benchmark that asks for verdicts like the labels of a set."""
    if labelled.pairwise:
        return Pairwise([item], {item.item_id: without_thoughts(row.completions[1]).text})
    benchmark = RefusalBenchmark(lambda _: RefusalPrompts([item], {}))
    return RefusalsByJudge(GradeConfig(), benchmark)
