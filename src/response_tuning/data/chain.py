"""Which steps the candidates of a source pass, and in which order.

Steps that change a text come before steps that compare texts, and expensive steps run late, on the
fewest candidates. Near-duplicates come last, so that no response is dropped as similar to one that
a later step drops as well.
"""

from collections.abc import Iterator
from typing import NamedTuple

from response_tuning.configs import DataConfig
from response_tuning.data import preferences, sources
from response_tuning.data.columns import Columns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.sources import Source
from response_tuning.data.steps import cleaning, curation, decontamination
from response_tuning.data.steps.curation import Candidate, Step
from response_tuning.data.steps.decontamination import Prompts
from response_tuning.data.steps.duplicates import parts_of
from response_tuning.judging import JudgingConfig
from response_tuning.rows import Row


class Steps(NamedTuple):
    """The steps that look at one candidate alone."""

    texts: list[Step]
    """For sources whose rows are text files."""
    before: list[Step]
    """Before duplicates are dropped."""
    after: list[Step]


def steps(config: DataConfig, prompts: Prompts) -> Steps:
    """Return the steps of ``config``; tokenizers are loaded and prompts are indexed here."""
    of_answers = preferences.for_both if config.preferences else list
    before = cleaning.steps(config.curation) + curation.restatements_step(config.curation)
    after: list[Step] = []
    if prompts:
        threshold, remove = config.decontamination.threshold, config.decontamination.remove
        after.append(decontamination.decontaminate(prompts, threshold, remove=remove))
    after += of_answers(curation.steps(config.curation))
    is_stripped = config.curation.front_matter == "strip"
    return Steps(
        [cleaning.front_matter_step()] if is_stripped else [], [*of_answers(before)], after
    )


def passed(candidates: Iterator[Candidate], chosen: list[Step]) -> Iterator[Candidate]:
    """Return the candidates after all of these steps: rows stream through them."""
    for step in chosen:
        candidates = step(candidates)
    return candidates


def candidates(
    source: Source,
    used: Columns,
    rows: Iterator[Row],
    first: int,
    before: int,
    judging: JudgingConfig | None = None,
) -> Iterator[Candidate]:
    """Yield every turn of every row in order; drop turns that no step could read.

    Args:
        source: What the rows belong to.
        used: Its columns.
        rows: Consecutive rows of the source.
        first: 0-based position in the source of the first one.
        before: Number of rows of the sources before this one.
        judging: How a row with a grade becomes a judge's prompts.
    """
    for number, row in enumerate(rows, start=first):
        try:
            turns = sources.turns(source, number, row, used, judging)
        except UnusableRow as reason:
            yield Candidate(before + number, 0, row.where, Turn(""), str(reason))
            continue
        for place, turn in enumerate(turns):
            # The first reason counts: what the source marks, then what no step could read.
            candidate = Candidate(before + number, place, row.where, turn)
            if place and source.first_turn_only:
                candidate.drop("after the first turn, which alone the paper uses")
            elif turn.unfit:
                candidate.drop(turn.unfit)
            elif not turn.response or turn.response.isspace():
                candidate.drop("empty response")
            elif not _is_text(turn):
                candidate.drop("half a surrogate pair, which is not text")
            else:
                for flag in filter(None, (turn.rendered, turn.left_out)):
                    candidate.flag(flag)
            yield candidate


def _is_text(turn: Turn) -> bool:
    try:
        "".join(parts_of(turn)).encode()
    except UnicodeEncodeError:
        return False
    return True
