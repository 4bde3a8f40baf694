"""The ratings of a study as scores of a graded run, and how far raters agree."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from response_tuning.artifacts import Record, Score, read_jsonl, write_json, write_jsonl
from response_tuning.errors import DataError
from response_tuning.grade.agreement.statistics import Agreement, agreement
from response_tuning.grade.judges.levels import LEVELS, level_metrics
from response_tuning.grade.raters.study import ITEMS_FILE, Session, StudyItem, raters, read_study

HUMAN_RATING = "human-rating"
"""A name of its own, so that ratings by people never mix with the verdicts of a judge."""
PAIR_OUTCOMES = ("lose", "tie", "win")


class Summary(Record):
    """Who rated how much of a study, and how far they agree."""

    tasks: int
    """Of each rater."""
    rated: dict[str, int]
    """Rater -> tasks that they rated."""
    levels: Agreement
    """Agreement on single answers; an answer counts once for each answer shown beside it."""
    more_helpful: Agreement | None
    """Agreement on pairs of answers; None if the study shows single answers."""


class HumanLabel(NamedTuple):
    """One label by one rater."""

    rater: str
    item_id: str
    variant: str
    """The variant whose answer was labelled."""
    beside: str
    """The variant whose answer was shown beside it; empty for a single answer."""
    label: str


def export_ratings(folder: Path, out: Path) -> Summary:
    """Write the scores of a study in the layout of a run, and a summary.

    Scores go to ``<out>/<variant>/seed-0/grade/human-rating.jsonl``, where a value is the mean
    over the ratings of an answer: a share, with several raters. All variants have the metrics of
    the three levels; all but the reference have ``win``, ``tie``, ``lose`` and ``win_rate``, which
    counts a tie as half, against it. What nobody rated has no score. The summary is returned, and
    left in ``<out>/human-rating.json``.

    Raises:
        DataError: there is no study in ``folder``, it is damaged, or nothing has been rated.
    """
    study = read_study(folder)
    sessions = [Session(folder, rater) for rater in raters(folder)]
    if not any(session.verdicts for session in sessions):
        raise DataError(f"{folder}: nothing has been rated yet")
    levels = [label for session in sessions for label in _levels(session)]
    outcomes = [label for session in sessions for label in _outcomes(session, study.reference)]
    items = [item.item_id for item in read_jsonl(folder / ITEMS_FILE, StudyItem)]
    # Seed 0: a study has one answer of each variant to a prompt, whatever seed it came from.
    for variant in study.answers:
        scores = scores_of(variant, items, levels, outcomes)
        write_jsonl(out / variant / "seed-0" / "grade" / f"{HUMAN_RATING}.jsonl", scores)
    summary = Summary(
        tasks=len(sessions[0].tasks),
        rated={session.rater: len(session.verdicts) for session in sessions},
        levels=_agreement(levels, [*reversed(LEVELS)]),
        more_helpful=_agreement(outcomes, PAIR_OUTCOMES) if outcomes else None,
    )
    write_json(out / f"{HUMAN_RATING}.json", summary.model_dump())
    return summary


def _levels(session: Session) -> Iterator[HumanLabel]:
    """Yield the level of each answer."""
    for at, verdict in session.verdicts.items():
        task = session.tasks[at]
        others = [*reversed(task.variants)] if len(task.variants) > 1 else [""]
        for variant, beside, level in zip(task.variants, others, verdict.levels, strict=True):
            yield HumanLabel(session.rater, task.item.item_id, variant, beside, level)


def _outcomes(session: Session, reference: str) -> Iterator[HumanLabel]:
    """Yield the outcome for the variant that is compared with the reference."""
    for at, verdict in session.verdicts.items():
        if verdict.more_helpful is None:
            continue
        task = session.tasks[at]
        (variant,) = (name for name in task.variants if name != reference)
        sides = dict(zip(task.variants, ("left", "right"), strict=True))
        outcome = "win" if verdict.more_helpful == sides[variant] else "lose"
        outcome = "tie" if verdict.more_helpful == "tie" else outcome
        yield HumanLabel(session.rater, task.item.item_id, variant, reference, outcome)


def scores_of(
    variant: str,
    items: Sequence[str],
    levels: Sequence[HumanLabel],
    outcomes: Sequence[HumanLabel],
) -> Iterator[Score]:
    """Yield the scores of a variant, from what it was labelled on each item.

    Args:
        variant: Its name.
        items: Ids, in the order of the scores.
        levels: How acceptable answers are.
        outcomes: How they compare with the reference's.
    """
    level_of, outcome_of = _by_item(levels, variant), _by_item(outcomes, variant)
    for item in items:
        given, came_out = level_of.get(item, []), outcome_of.get(item, [])
        metrics = level_metrics(given) if given else {}
        metrics |= _outcome_metrics(came_out) if came_out else {}
        for metric, value in metrics.items():
            count = len(given) or len(came_out)
            ratings = f"{count} rating{'s' if count > 1 else ''}"
            yield Score(item_id=item, metric=metric, value=value, explanation=ratings)


def _outcome_metrics(given: Sequence[str]) -> dict[str, float]:
    shares = {outcome: fmean(one == outcome for one in given) for outcome in PAIR_OUTCOMES}
    return shares | {"win_rate": shares["win"] + shares["tie"] / 2}


def _by_item(labels: Sequence[HumanLabel], variant: str) -> dict[str, list[str]]:
    """Return item -> the labels of a variant's answer."""
    by_item: dict[str, list[str]] = defaultdict(list)
    for one in labels:
        if one.variant == variant:
            by_item[one.item_id].append(one.label)
    return by_item


def _agreement(given: Sequence[HumanLabel], labels: Sequence[str]) -> Agreement:
    """Compare raters, whose labels are in the order of ``labels``."""
    names = sorted({one.rater for one in given})
    table: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for one in given:
        table[one.item_id, one.variant, one.beside][one.rater] = one.label
    rows = [[by_rater.get(name) for name in names] for by_rater in table.values()]
    return agreement(rows, labels)
