"""How far tuning moved a base model: both of them, token by token, on the same replies.

After Lin et al. 2023 (URIAL, 2312.01552, section 2): a token of the tuned model's reply is
*unshifted* where it is also the base's first choice in the same context, *marginal* where it is
among the base's first three, and *shifted* beyond.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Record, Score
from response_tuning.errors import ModelError
from response_tuning.likelihoods import Pair, Unscored
from response_tuning.models.likelihood import Row, encoded, logits_of
from response_tuning.models.local import LocalModel

if TYPE_CHECKING:
    import torch


MARGINAL = 3
"""The last rank under the base that is not shifted."""
SHOWN = 20


class Reply(NamedTuple):
    """A reply whose tokens are compared."""

    item_id: str
    pair: Pair
    ended: bool = True
    """Whether it stopped by itself: one that was cut at a limit has no end to look at."""


class Shift(Record):
    """One reply, position by position, its end included if it has one."""

    item_id: str
    ended: bool
    end_length: int
    """How many of the positions are the end: those of the stop token or of the closing string; none
    if the reply was cut."""
    tokens: tuple[str, ...]
    """What stands at each position."""
    kl: tuple[float, ...]
    """KL(tuned || base) of the next token, in nats."""
    rank: tuple[int, ...]
    """Rank of the token under the base, from 1."""
    agree: tuple[bool, ...]
    """Whether both models have the same first choice."""
    own: tuple[bool, ...]
    """Whether the token is the tuned model's first choice, as in a greedy reply of its own."""
    stop_tuned: tuple[float, ...]
    """Probability that the tuned model gives to ending the reply here."""
    stop_base: tuple[float, ...]
    """The same of the base."""

    @property
    def words(self) -> int:
        """How many positions are the response's own."""
        return len(self.tokens) - self.end_length


class LeftOut(Record):
    """A reply that cannot be compared."""

    item_id: str
    reason: str


def token_shift(
    tuned: LocalModel, base: LocalModel, replies: Sequence[Reply], tokens_per_batch: int
) -> Iterator[Shift | LeftOut]:
    """Compare two models on the same replies: first those left out, then the longest first.

    Both are given the prompt that the tuned model's template renders. A reply is tokenised anew, so
    that a token may be another one than was generated; ``Shift.own`` shows how often.

    Raises:
        ModelError: the two have different tokenizers.
        TemplateError: the template does not say what ends a reply.
        EngineError: a batch does not fit into the GPU's memory.
    """
    if tuned.chat.tokenizer.get_vocab() != base.chat.tokenizer.get_vocab():
        raise ModelError(
            f"{tuned.identity} and {base.identity} have different tokenizers, so that their tokens "
            "cannot be compared; name the base that was tuned"
        )
    fit: list[tuple[Reply, Row]] = []
    for reply in replies:
        row = _row(tuned, base, reply)
        if isinstance(row, Unscored):
            yield LeftOut(item_id=reply.item_id, reason=row.reason)
        else:
            fit.append((reply, row))
    rows = [row for _, row in fit]
    both = zip(
        logits_of(tuned, rows, tokens_per_batch),
        logits_of(base, rows, tokens_per_batch),
        strict=True,
    )
    for (place, of_tuned), (_, of_base) in both:  # in the same order, for the rows are the same
        yield _compared(tuned, *fit[place], of_tuned, of_base)


def _row(tuned: LocalModel, base: LocalModel, reply: Reply) -> Row | Unscored:
    row = encoded(tuned, reply.pair)
    if isinstance(row, Unscored):
        return row
    if not reply.ended:
        row = Row(row.prefix, row.said[: -len(tuned.chat.closing)])
    if not row.said:
        return Unscored("an empty reply that was cut")
    if base.context is not None and len(row.prefix) + len(row.said) > base.context:
        return Unscored(f"longer than the base's context of {base.context} tokens")
    return row


def _compared(
    local: LocalModel, reply: Reply, row: Row, tuned: "torch.Tensor", base: "torch.Tensor"
) -> Shift:
    import torch

    shared = min(tuned.shape[1], base.shape[1])  # one may be padded to a round number
    p, q = (torch.log_softmax(each[:, :shared].cpu(), dim=-1) for each in (tuned, base))
    said = torch.tensor(row.said)[:, None]
    first = p.argmax(dim=-1)
    stop = local.chat.closing[0]
    return Shift(
        item_id=reply.item_id,
        ended=reply.ended,
        end_length=len(local.chat.closing) if reply.ended else 0,
        tokens=tuple(local.chat.decode([token]) for token in row.said),
        kl=_rounded((p.exp() * (p - q)).sum(dim=-1).clamp(min=0)),
        rank=tuple((1 + (q > q.gather(1, said)).sum(dim=-1)).tolist()),
        agree=tuple((first == q.argmax(dim=-1)).tolist()),
        own=tuple((first == said[:, 0]).tolist()),
        stop_tuned=_rounded(p[:, stop].exp()),
        stop_base=_rounded(q[:, stop].exp()),
    )


def _rounded(numbers: "torch.Tensor") -> tuple[float, ...]:
    """Return the numbers as far as float32 is sure of them."""
    return tuple(float(f"{number:.5g}") for number in numbers.tolist())


def scores(shift: Shift) -> Iterator[Score]:
    """Yield the metrics of one reply; those of tokens are weighted by their number.

    Of the response's own tokens: ``kl`` in nats, and the shares ``agree``, ``own``, ``unshifted``,
    ``marginal`` and ``shifted``. The end is apart, as it is where a base knows least: ``kl_at_end``
    and, of either model, ``stop_at_end``, the probability of ending where the reply ends,
    ``stop_early``, that at a token before, and ``stops``, their sum over the reply: how often the
    model would have stopped, to be held against ``ended``.
    """

    def score(metric: str, value: float, weight: float = 1) -> Score:
        return Score(item_id=shift.item_id, metric=metric, value=value, weight=weight)

    words = shift.words
    if words:
        ranks = shift.rank[:words]
        for metric, found in {
            "kl": shift.kl[:words],
            "agree": shift.agree[:words],
            "own": shift.own[:words],
            "unshifted": [rank == 1 for rank in ranks],
            "marginal": [1 < rank <= MARGINAL for rank in ranks],
            "shifted": [rank > MARGINAL for rank in ranks],
            "stop_early_tuned": shift.stop_tuned[:words],
            "stop_early_base": shift.stop_base[:words],
        }.items():
            yield score(metric, sum(found) / words, words)
    yield score("ended", shift.ended)
    if shift.ended:
        yield score("kl_at_end", sum(shift.kl[words:]))
    for name, stops in {"tuned": shift.stop_tuned, "base": shift.stop_base}.items():
        yield score(f"stops_{name}", sum(stops[: words + 1]))
        if shift.ended:
            yield score(f"stop_at_end_{name}", stops[words])


class ByPosition:
    """Where in a response tokens are shifted, and which: counts, as replies go by."""

    def __init__(self) -> None:
        self._positions: dict[int, Counter[str]] = {}
        self._shifted: Counter[str] = Counter()
        self._there: Counter[str] = Counter()

    def add(self, shift: Shift) -> None:
        """Count the tokens of one reply, without its end."""
        for place in range(shift.words):
            token, kl, rank = shift.tokens[place], shift.kl[place], shift.rank[place]
            found = self._positions.setdefault(place.bit_length(), Counter())
            found["n"] += 1
            found["kl"] += kl  # type: ignore[assignment]  # counters count in fractions too
            found["unshifted"] += rank == 1
            found["shifted"] += rank > MARGINAL
            self._there[token] += 1
            self._shifted[token] += rank > MARGINAL

    def positions(self) -> list[dict[str, Any]]:
        """Return the means of positions 1, 2, 3 to 4, 5 to 8 and so on, over all replies."""
        return [
            {"from": (1 << bits >> 1) + 1, "to": 1 << bits, "n": found["n"]}
            | {name: found[name] / found["n"] for name in ("kl", "unshifted", "shifted")}
            for bits, found in sorted(self._positions.items())
        ]

    def most_shifted(self) -> list[dict[str, Any]]:
        """Return the tokens that are shifted most often, and how often they are there."""
        return [
            {"token": token, "shifted": count, "n": self._there[token]}
            for token, count in self._shifted.most_common(SHOWN)
            if count
        ]
