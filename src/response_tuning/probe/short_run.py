"""A short response tuning of a copy of the base, and what its losses tell about a whole one.

This is no run of ``finetune/``: it keeps nothing, and takes a hundredth of a run's steps. Its loss
is that of response tuning: of a response and its end after the assistant's opening alone.
"""

import copy
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.likelihoods import Pair, Unscored
from response_tuning.models.likelihood import EncodedPair, encode_pair, logits_per_batch
from response_tuning.models.local import LocalModel, quiet

if TYPE_CHECKING:
    import torch

MEASURED_AT = (1 / 8, 1 / 4, 1 / 2, 1)
"""After which shares of the responses the held-out loss is measured, besides before the first."""
BATCH = 16
LEARNING_RATES = (4e-4, 4e-5)
"""The miniature's search found the first, with AdamW, constant and without warm-up. Where the first
steps raise the loss, as on Gemma 3 270M, the second is taken."""
REACHED = 0.95
"""The share of the whole fall of the loss after which more responses are called needless."""


class ShortRun(NamedTuple):
    """A short run at one learning rate."""

    losses: Mapping[int, float]
    """Held-out loss by the number of responses that were tuned on; 0 is the base."""
    rate: float = LEARNING_RATES[0]

    @property
    def fell(self) -> bool:
        """Whether the first steps lowered the held-out loss."""
        before, after = [*self.losses.values()][:2]
        return after < before


class DataLaw(NamedTuple):
    """L(D) = B / (D_l + D^beta) + E, after 2402.02314 with alpha = 1: there are five points."""

    b: float
    learned: float
    beta: float
    e: float

    def loss(self, responses: float) -> float:
        """Return the loss per token after so many responses."""
        loss: float = self.b / (self.learned + responses**self.beta) + self.e
        return loss

    def enough(self, most: int) -> int:
        """Return after how many responses ``REACHED`` of the fall up to ``most`` has happened."""
        goal = self.loss(0) - REACHED * (self.loss(0) - self.loss(most))
        return next((n for n in range(most) if self.loss(n) <= goal), most)


def short_run(
    local: LocalModel, tuned_on: Sequence[str], held_out: Sequence[str]
) -> ShortRun | None:
    """Tune a copy of the base for one epoch and measure the held-out loss on the way.

    It is at the first of ``LEARNING_RATES`` at which the loss falls, or else at the last. None if
    fewer than ``BATCH`` responses can be tuned on, or none is held out. On a CPU, equal input gives
    equal losses: nothing is drawn.
    """
    rows, others = _encoded(local, tuned_on), _encoded(local, held_out)
    if len(rows) < BATCH or not others:
        return None
    *higher, lowest = LEARNING_RATES
    for rate in higher:
        losses = _tuned(local, rows, others, rate)
        run = ShortRun(dict(islice(losses, 2)), rate)
        if run.fell:
            return ShortRun({**run.losses, **dict(losses)}, rate)
        losses.close()  # it holds a copy of the model
    return ShortRun(dict(_tuned(local, rows, others, lowest)), lowest)


def _tuned(
    local: LocalModel, rows: Sequence[EncodedPair], others: Sequence[EncodedPair], rate: float
) -> Generator[tuple[int, float], None, None]:
    """Yield the number of responses tuned on so far, and the held-out loss, at each mark."""
    import torch

    model = copy.deepcopy(local.model).float().requires_grad_(True)
    model.eval()  # no dropout: a run of a few steps is about the data, not about noise
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    steps = range(0, len(rows) - len(rows) % BATCH, BATCH)
    marks = {max(1, round(len(steps) * share)) for share in MEASURED_AT}
    positions = logits_per_batch(local)
    yield 0, _held_out(model, others, positions)
    for number, start in enumerate(steps, start=1):
        for loss, share in _losses(model, rows[start : start + BATCH], positions):
            (loss * share).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if number in marks:
            yield number * BATCH, _held_out(model, others, positions)


def learnability(run: ShortRun) -> float:
    """Return the share of the loss that the first steps removed."""
    before, after = [*run.losses.values()][:2]
    return (before - after) / before


def fit_data_law(run: ShortRun) -> DataLaw | None:
    """Fit the data law to the losses of a short run; None if they do not fall, or no fit does."""
    import numpy as np
    from scipy.optimize import OptimizeWarning, curve_fit

    counts = np.array([*run.losses], dtype=float)
    losses = np.array([*run.losses.values()])
    if len(counts) < 4 or not np.isfinite(losses).all() or not run.fell:
        return None

    def law(d: np.ndarray, b: float, learned: float, beta: float, e: float) -> np.ndarray:
        curve: np.ndarray = b / (learned + d**beta) + e
        return curve

    import warnings

    lowest = float(losses.min())
    start = (max(losses[0] - lowest, 1e-3) * 10, 10.0, 1.0, 0.8 * lowest)
    bounds = ([0, 1e-3, 0.1, 0], [1e6, 1e6, 3, max(lowest, 1e-6)])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # only the curve is used
            found, _ = curve_fit(law, counts, losses, p0=start, bounds=bounds, maxfev=20_000)
    except RuntimeError:
        return None
    return DataLaw(*map(float, found))


def _encoded(local: LocalModel, responses: Sequence[str]) -> list[EncodedPair]:
    every = (encode_pair(local, Pair((), response)) for response in responses)
    return [pair for pair in every if not isinstance(pair, Unscored)]


def _held_out(model: "torch.nn.Module", rows: Sequence[EncodedPair], positions: int) -> float:
    import torch

    sums, tokens = [], 0
    with torch.no_grad():
        for part in (rows[at : at + BATCH] for at in range(0, len(rows), BATCH)):
            mean = math.fsum(float(loss) * share for loss, share in _losses(model, part, positions))
            sums.append(mean * _tokens(part))
            tokens += _tokens(part)
    return math.fsum(sums) / tokens


def _losses(
    model: "torch.nn.Module", rows: Sequence[EncodedPair], positions: int
) -> "Iterator[tuple[torch.Tensor, float]]":
    """Yield the mean loss of a part of the rows after the other, and its share of their tokens.

    A part has logits at ``positions`` positions at most, or is one row. With a vocabulary of
    262,144, sixteen rows of 300 tokens have 5 GB of logits, and twice as much while they are
    differentiated.
    """
    left = [*rows]
    while left:
        count = len(left)
        while count > 1 and count * max(map(_length, left[:count])) > positions:
            count -= 1
        part, left = left[:count], left[count:]
        yield _mean_loss(model, part), _tokens(part) / _tokens(rows)


def _length(pair: EncodedPair) -> int:
    return len(pair.prefix) + len(pair.reply)


def _tokens(rows: Sequence[EncodedPair]) -> int:
    return sum(len(pair.reply) for pair in rows)


def _mean_loss(model: "torch.nn.Module", rows: Sequence[EncodedPair]) -> "torch.Tensor":
    """Return the mean loss over all tokens of the replies, their ends included."""
    import torch

    whole = [pair.prefix + pair.reply for pair in rows]
    width = max(map(len, whole))
    device = next(model.parameters()).device
    # Padded on the right, where causal attention cannot see it. ids and labels: (B, width).
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in whole], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in whole], device=device)
    labels = torch.tensor(
        [
            [-100] * len(pair.prefix) + pair.reply + [-100] * (width - len(row))
            for pair, row in zip(rows, whole, strict=True)
        ],
        device=device,
    )
    with quiet():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten()
    )
