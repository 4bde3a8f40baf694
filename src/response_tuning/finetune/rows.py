"""Rows: examples as token ids, with the spans of tokens that carry loss."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from response_tuning.artifacts import Example
from response_tuning.finetune.objectives import IGNORED

KEPT, TRUNCATED = "kept", "truncated"


class Span(NamedTuple):
    """Consecutive tokens that carry loss: the first, the one after the last, their weight."""

    start: int
    end: int
    weight: float = 1.0


def labelled(ids: list[int], spans: Iterable[Span]) -> list[int]:
    """Return (T,) labels: the id itself where a token carries loss, else -100. Not shifted."""
    labels = [IGNORED] * len(ids)
    for start, end, _ in spans:
        labels[start:end] = ids[start:end]
    return labels


def weighted(count: int, spans: Sequence[Span]) -> list[float] | None:
    """Return (T,) weights of ``count`` tokens, 0 outside of spans; None if all spans weigh 1.

    None keeps an unweighted step on the path without weights, so it costs and computes the same.
    """
    if all(span.weight == 1 for span in spans):
        return None
    weights = [0.0] * count
    for start, end, weight in spans:
        weights[start:end] = [weight] * (end - start)
    return weights


def are_in_order(spans: list[Span], count: int) -> bool:
    """Whether spans are inside ``count`` tokens, not empty, in order, and merged where they can.

    The first token is outside: nothing predicts it.
    """
    inside = all(1 <= span.start < span.end <= count and span.weight > 0 for span in spans)
    return inside and all(
        before.end < after.start or (before.end == after.start and before.weight != after.weight)
        for before, after in pairwise(spans)
    )


class EncodedRow(NamedTuple):
    """One example as the model will see it, or the reason why it will not."""

    example: Example
    status: str
    """``kept``, ``truncated`` (cut to the window, so it has no stop token) or a drop reason."""
    input_ids: list[int]
    """(T,); empty if dropped."""
    spans: list[Span]
    """Tokens that carry loss, in order; spans never overlap, and touch only if weights differ."""
    remarks: tuple[str, ...] = ()
    """What a person should know about a row that is trained on; see ``supervised``."""
    group: int | None = None
    """A number that the row shares with its partners; None if it has none."""
    hidden: tuple[range, ...] = ()
    """Tokens that no other token attends to, in order. None of them carries loss."""

    @property
    def labels(self) -> list[int]:
        """The ids again where they carry loss, else -100."""
        return labelled(self.input_ids, self.spans)

    @property
    def weights(self) -> list[float] | None:
        """Weights of the tokens in the loss, (T,); None if each labelled token weighs 1."""
        return weighted(len(self.input_ids), self.spans)

    @property
    def trained(self) -> bool:
        """Whether the row is trained on."""
        return self.status in (KEPT, TRUNCATED)

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return sum(span.end - span.start for span in self.spans)

    @property
    def seen(self) -> "SeenTokens":
        """The tokens that the model computes: nobody would read what it computes of hidden ones."""
        if not self.hidden:
            return SeenTokens(self.input_ids, self.spans, range(len(self.input_ids)))
        hidden = {place for places in self.hidden for place in places}
        positions = [place for place in range(len(self.input_ids)) if place not in hidden]
        now_at = {position: place for place, position in enumerate(positions)}
        return SeenTokens(
            [self.input_ids[position] for position in positions],
            [Span(now_at[start], now_at[end - 1] + 1, weight) for start, end, weight in self.spans],
            positions,
        )


class SeenTokens(NamedTuple):
    """A row without its hidden tokens, which leave a gap in the positions of the others."""

    input_ids: list[int]
    """(T,)."""
    spans: list[Span]
    """Tokens that carry loss, by their place in ``input_ids``."""
    positions: Sequence[int]
    """Their positions in the row, (T,)."""


def in_whole_groups(rows: Iterable[EncodedRow]) -> Iterator[EncodedRow]:
    """Yield ``rows`` in order; where one of several partners is dropped, drop the others too.

    Partners follow one another, so only one group is in memory.
    """
    # Without a group the key is None for all rows in a row, which pass through one at a time.
    for group, members in groupby(rows, key=lambda row: row.group):
        if group is None:
            yield from members
            continue
        partners = list(members)
        fault = next((row.status for row in partners if not row.trained), None)
        for row in partners:
            if fault and row.trained:
                yield EncodedRow(row.example, f"partner dropped: {fault}", [], [], group=group)
            else:
                yield row
