"""Votes between the answers of several variants, as the scores that ratings give."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from response_tuning.artifacts import Score, write_jsonl
from response_tuning.grade.raters.scores import HUMAN_RATING, HumanLabel, scores_of


class RatedVote(NamedTuple):
    """Which of some answers to one prompt a person found best."""

    rater: str
    item_id: str
    variants: tuple[str, ...]
    choice: str
    """The variant with the best answer; ``tie``: none is better; ``both bad``: none will do."""


def write_votes(votes: Sequence[RatedVote], reference: str, out: Path) -> list[Path]:
    """Write the scores of votes in the layout of a run, and return the files.

    Scores go to ``<out>/<variant>/seed-0/grade/human-rating.jsonl``, as ``export_ratings`` writes
    them. A vote says how each variant compares with ``reference`` only if it was among the answers
    and one of the two is the best, or there is a tie. ``both bad`` is a tie; its share is a metric
    of its own, ``both_bad``, of every variant.
    """
    items = [*dict.fromkeys(vote.item_id for vote in votes)]
    variants = [*dict.fromkeys(name for vote in votes for name in vote.variants)]
    outcomes = [label for vote in votes for label in _outcomes(vote, reference)]
    files = []
    for variant in variants:
        scores = [*scores_of(variant, items, (), outcomes), *_bad(variant, votes)]
        files.append(out / variant / "seed-0" / "grade" / f"{HUMAN_RATING}.jsonl")
        write_jsonl(files[-1], scores)
    return files


def _outcomes(vote: RatedVote, reference: str) -> list[HumanLabel]:
    if reference not in vote.variants:
        return []
    others = [name for name in vote.variants if name != reference]
    if vote.choice in ("tie", "both bad"):
        return [_label(vote, other, reference, "tie") for other in others]
    if vote.choice == reference:
        return [_label(vote, other, reference, "lose") for other in others]
    # Of the other answers it is only known that they are not the best.
    return [_label(vote, vote.choice, reference, "win")]


def _bad(variant: str, votes: Sequence[RatedVote]) -> Iterator[Score]:
    """Yield, for each item, the share of votes that found no answer acceptable."""
    by_item: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        if variant in vote.variants:
            by_item[vote.item_id].append(vote.choice == "both bad")
    for item, given in by_item.items():
        why = f"{len(given)} vote{'s' if len(given) > 1 else ''}"
        yield Score(item_id=item, metric="both_bad", value=fmean(given), explanation=why)


def _label(vote: RatedVote, variant: str, beside: str, label: str) -> HumanLabel:
    return HumanLabel(vote.rater, vote.item_id, variant, beside, label)
