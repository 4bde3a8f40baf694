"""How fast a model generates on this machine, and how long its answers are, from a few batches."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from response_tuning.artifacts import Sampling
from response_tuning.models.local import Draft, LocalModel

STEPS = 6
"""Tokens of each batch whose time is taken."""
GROWTH = 4
"""How much larger each batch is than the one before."""
SECONDS = 2.0
"""A batch that takes longer is the last one."""
ROWS = 16
"""Answers whose ends are looked for."""


class Speed(NamedTuple):
    """Seconds of generating, by a line through the times of the two largest batches."""

    prompt_token: float
    """A token of a prompt."""
    step: float
    """A step of decoding, whatever the number of rows."""
    row: float
    """Each row of a step."""


def clock(device: str) -> Callable[[], float]:
    """Return the clock, in seconds, of work on a ``device`` such as ``cpu``.

    With one thread of a CPU, it is processor time, which other work on the machine hardly changes;
    otherwise it is wall-clock time.
    """
    import torch

    on_one = torch.get_num_threads() == 1 and device == "cpu"
    return time.process_time if on_one else time.perf_counter


def measure(local: LocalModel, drafts: Sequence[Draft], sampling: Sampling) -> Speed:
    """Generate a few tokens after ever more of the prompts of ``drafts``."""
    _timed(local, drafts[:1], sampling)  # the first call also imports and compiles
    times: list[tuple[int, float]] = []
    rows, first, step = 1, 0.0, 0.0
    while (not times or times[-1][0] < len(drafts)) and first + STEPS * step < SECONDS:
        rows = min(GROWTH * rows, len(drafts))
        first, step = _timed(local, drafts[:rows], sampling)
        times.append((rows, step))
    (fewer, slower), (rows, step) = times[-2:] if len(times) > 1 else [(0, 0.0), *times]
    each = max(step - slower, 0.0) / (rows - fewer)
    width = max(len(draft.prompt) for draft in drafts[:rows])
    return Speed(max(first - step, 0.0) / (rows * width), max(step - each * rows, 0.0), each)


def mean_length(local: LocalModel, drafts: Sequence[Draft], sampling: Sampling) -> float:
    """Return about how many tokens an answer has, the limit included.

    The first answers are generated for a few seconds. Each token is assumed to be as likely to be
    the last one as those were.
    """
    began = time.perf_counter()
    batch = [replace(draft, generated=[]) for draft in drafts[:ROWS]]
    local.extend(
        batch,
        sampling,
        continue_batch=lambda rows, width: time.perf_counter() - began < SECONDS,
    )
    ended = sum(
        len(draft.generated) < draft.limit and local.ending(draft, sampling) is not None
        for draft in batch
    )
    share = ended / sum(len(draft.generated) for draft in batch)
    limit = sum(draft.limit for draft in batch) / len(batch)
    return (1 - (1 - share) ** limit) / share if share else limit


def _timed(local: LocalModel, drafts: Sequence[Draft], sampling: Sampling) -> tuple[float, float]:
    """Return the seconds to the first token, and of a later one."""
    now = clock(local.model.device.type)
    times = [now()]

    def more(rows: int, width: int) -> bool:
        times.append(now())
        return len(times) <= STEPS

    batch = [replace(draft, generated=[]) for draft in drafts]
    # The context is full after fewer tokens where a prompt nearly fills it.
    local.extend(batch, sampling, continue_batch=more)
    if len(times) == 1:  # all have ended at the first token
        times.append(now())
    first, *later = (after - before for before, after in pairwise(times))
    return first, median(later) if later else first
