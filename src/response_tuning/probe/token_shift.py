"""How far tuning moved a base model: compare both, token by token, on the same replies.

After Lin et al. 2023 (URIAL, 2312.01552, section 2): a token of the tuned model's reply is
*unshifted* if it is also the base's first choice in the same context, *marginal* if it is among the
base's first three, and *shifted* otherwise.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Record, Score
from response_tuning.errors import ModelError
from response_tuning.likelihoods import Pair, Unscored
from response_tuning.models.likelihood import EncodedPair, encode_pair, logits_of
from response_tuning.models.local import LocalModel

if TYPE_CHECKING:
    import torch


MARGINAL_RANK = 3
"""The last rank under the base that is not shifted."""
TOKENS_LISTED = 20
"""How many of the most shifted tokens are listed."""


class Reply(NamedTuple):
    """A reply whose tokens are compared."""

    item_id: str
    pair: Pair
    ended: bool = True
    """Whether it stopped by itself: a reply that was cut at a limit has no end to compare."""


class Shift(Record):
    """One reply, position by position, with its end if it has one."""

    item_id: str
    ended: bool
    end_length: int
    """How many of the positions are the end (the stop token or the closing string); 0 if the reply
    was cut."""
    tokens: tuple[str, ...]
    """The text of the token at each position."""
    kl: tuple[float, ...]
    """KL(tuned || base) of the next token, in nats."""
    rank: tuple[int, ...]
    """Rank of the token under the base, from 1."""
    agree: tuple[bool, ...]
    """Whether both models have the same first choice."""
    own: tuple[bool, ...]
    """Whether the token is the tuned model's first choice, as in its own greedy reply."""
    stop_tuned: tuple[float, ...]
    """Probability that the tuned model ends the reply here."""
    stop_base: tuple[float, ...]
    """Probability that the base ends the reply here."""

    @property
    def words(self) -> int:
        """Positions of the response, without its end."""
        return len(self.tokens) - self.end_length


class LeftOut(Record):
    """A reply that cannot be compared."""

    item_id: str
    reason: str


def token_shift(
    tuned: LocalModel, base: LocalModel, replies: Sequence[Reply], tokens_per_batch: int
) -> Iterator[Shift | LeftOut]:
    """Compare two models on the same replies: yield those left out, then the longest first.

    Both get the prompt that the tuned model's template renders. Replies are tokenized again, so a
    token may differ from the one that was generated; ``Shift.own`` shows how often.

    Raises:
        ModelError: the two have different tokenizers.
        TemplateError: the template does not say what ends a reply.
        EngineError: a batch does not fit into the GPU's memory.
    """
    if tuned.chat.tokenizer.get_vocab() != base.chat.tokenizer.get_vocab():
        raise ModelError(
            f"{tuned.identity} and {base.identity} have different tokenizers, so their tokens "
            "cannot be compared; name the base that was tuned"
        )
    comparable: list[tuple[Reply, EncodedPair]] = []
    for reply in replies:
        encoded = _encode(tuned, base, reply)
        if isinstance(encoded, Unscored):
            yield LeftOut(item_id=reply.item_id, reason=encoded.reason)
        else:
            comparable.append((reply, encoded))
    pairs = [pair for _, pair in comparable]
    # Two generators side by side: the logits of one batch of each model are in memory, not all.
    # Equal pairs and an equal budget give the same batches, so both yield the same order.
    both = zip(
        logits_of(tuned, pairs, tokens_per_batch),
        logits_of(base, pairs, tokens_per_batch),
        strict=True,
    )
    for (index, of_tuned), (_, of_base) in both:
        yield _compare(tuned, *comparable[index], of_tuned, of_base)


def _encode(tuned: LocalModel, base: LocalModel, reply: Reply) -> EncodedPair | Unscored:
    pair = encode_pair(tuned, reply.pair)
    if isinstance(pair, Unscored):
        return pair
    if not reply.ended:
        pair = EncodedPair(pair.prefix, pair.reply[: -len(tuned.chat.closing)])
    if not pair.reply:
        return Unscored("an empty reply that was cut")
    if base.context is not None and len(pair.prefix) + len(pair.reply) > base.context:
        return Unscored(f"longer than the base's context of {base.context} tokens")
    return pair


def _compare(
    local: LocalModel, reply: Reply, pair: EncodedPair, tuned: "torch.Tensor", base: "torch.Tensor"
) -> Shift:
    """Compare the logits (len(reply), V) of both models on one reply."""
    import torch

    shared = min(tuned.shape[1], base.shape[1])  # one vocabulary may be padded to a round number
    p, q = (torch.log_softmax(each[:, :shared].cpu(), dim=-1) for each in (tuned, base))
    tokens = torch.tensor(pair.reply)[:, None]
    first = p.argmax(dim=-1)
    stop = local.chat.closing[0]
    return Shift(
        item_id=reply.item_id,
        ended=reply.ended,
        end_length=len(local.chat.closing) if reply.ended else 0,
        tokens=tuple(local.chat.decode([token]) for token in pair.reply),
        # Rounding can leave a KL of equal distributions just below 0.
        kl=_rounded((p.exp() * (p - q)).sum(dim=-1).clamp(min=0)),
        rank=tuple((1 + (q > q.gather(1, tokens)).sum(dim=-1)).tolist()),
        agree=tuple((first == q.argmax(dim=-1)).tolist()),
        own=tuple((first == tokens[:, 0]).tolist()),
        stop_tuned=_rounded(p[:, stop].exp()),
        stop_base=_rounded(q[:, stop].exp()),
    )


def _rounded(numbers: "torch.Tensor") -> tuple[float, ...]:
    """Return the numbers with the five digits that float32 keeps after sums."""
    return tuple(float(f"{number:.5g}") for number in numbers.tolist())


def scores(shift: Shift) -> Iterator[Score]:
    """Yield the metrics of one reply; metrics of tokens are weighted by the number of tokens.

    The response's tokens have ``kl`` in nats and the shares ``agree``, ``own``, ``unshifted``,
    ``marginal`` and ``shifted``. The end has its own metrics, because a base knows least there:
    ``kl_at_end`` and, for each model, ``stop_at_end``, the probability of ending where the reply
    ends, ``stop_early``, the mean probability of ending at an earlier token, and ``stops``, their
    sum over the reply: how often the model would have stopped, to compare with ``ended``.
    """

    def score(metric: str, value: float, weight: float = 1) -> Score:
        return Score(item_id=shift.item_id, metric=metric, value=value, weight=weight)

    # Weighted by tokens, a mean is over all tokens of all replies, as in the paper; weighted by
    # replies, short replies would count for more.
    words = shift.words
    if words:
        ranks = shift.rank[:words]
        for metric, values in {
            "kl": shift.kl[:words],
            "agree": shift.agree[:words],
            "own": shift.own[:words],
            "unshifted": [rank == 1 for rank in ranks],
            "marginal": [1 < rank <= MARGINAL_RANK for rank in ranks],
            "shifted": [rank > MARGINAL_RANK for rank in ranks],
            "stop_early_tuned": shift.stop_tuned[:words],
            "stop_early_base": shift.stop_base[:words],
        }.items():
            yield score(metric, sum(values) / words, words)
    yield score("ended", shift.ended)
    if shift.ended:
        yield score("kl_at_end", sum(shift.kl[words:]))
    # Up to the first position of the end: at most one stop can happen in a reply.
    for name, stops in {"tuned": shift.stop_tuned, "base": shift.stop_base}.items():
        yield score(f"stops_{name}", sum(stops[: words + 1]))
        if shift.ended:
            yield score(f"stop_at_end_{name}", stops[words])


class ByPosition:
    """Counts of where in a response tokens are shifted, and of which tokens."""

    def __init__(self) -> None:
        self._positions: dict[int, Counter[str]] = {}
        """Position ranges that double: the bit length of the 0-based position -> sums."""
        self._shifted: Counter[str] = Counter()
        self._occurrences: Counter[str] = Counter()

    def add(self, shift: Shift) -> None:
        """Count the tokens of one reply, without its end."""
        for position in range(shift.words):
            token, kl, rank = shift.tokens[position], shift.kl[position], shift.rank[position]
            sums = self._positions.setdefault(position.bit_length(), Counter())
            sums["n"] += 1
            sums["kl"] += kl  # type: ignore[assignment]  # counters hold floats too
            sums["unshifted"] += rank == 1
            sums["shifted"] += rank > MARGINAL_RANK
            self._occurrences[token] += 1
            self._shifted[token] += rank > MARGINAL_RANK

    def positions(self) -> list[dict[str, Any]]:
        """Return the means of positions 1, 2, 3 to 4, 5 to 8 and so on, over all replies."""
        return [
            {"from": (1 << bits >> 1) + 1, "to": 1 << bits, "n": sums["n"]}
            | {name: sums[name] / sums["n"] for name in ("kl", "unshifted", "shifted")}
            for bits, sums in sorted(self._positions.items())
        ]

    def most_shifted(self) -> list[dict[str, Any]]:
        """Return the tokens that are shifted most often, with their number of occurrences."""
        return [
            {"token": token, "shifted": count, "n": self._occurrences[token]}
            for token, count in self._shifted.most_common(TOKENS_LISTED)
            if count
        ]
