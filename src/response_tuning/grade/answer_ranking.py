"""Answer ranking: is an answer likelier under its own prompt than under other prompts?

A scoring model gives log p(y | x) of an answer y under its own prompt x and under other prompts of
the same benchmark. ``answer_ranked`` is the share of other prompts under which it is less probable;
a tie is half. It needs no judge, and it measures relevance at most: a fluent wrong answer to the
right question ranks as high as a right one.

An answer that says nothing of its own has rank 0.5 and no gain, whatever the model says: an empty
one, and an *echo*, of which more than ``ECHO`` are words in runs copied from its prompt. A model
would rank an echo perfectly. No item is left out for it, so arms stay comparable prompt by prompt.

*words* ranks the same draws by shared words, without any model: the control.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from response_tuning.artifacts import Score
from response_tuning.pairing import copied_share, words

TIE_NATS = 1e-4
"""Above the rounding of float32."""
ECHO = 0.5
"""Share of copied words above which an answer is an echo."""
CHANCE = 0.5
METRICS = ("answer_ranked", "answer_gain", "answer_ranked_words", "echo")


class AnswerFit(NamedTuple):
    """How probable an answer is under prompts, and how many words it shares with them."""

    own: float
    """log p(y | x) under its own prompt, in nats."""
    others: Sequence[float]
    """The same under each other prompt."""
    tokens: int
    """Tokens of the answer."""


class SharedWords(NamedTuple):
    """Shares of the answer's words that are in prompts; see ``pairing.shared_words``."""

    own: float
    others: Sequence[float]


def says_nothing(answer: str, prompt: str) -> str:
    """Return why an answer says nothing of its own, ``empty`` or ``echo``; empty if it does."""
    if not words(answer):
        return "empty" if not answer.strip() else ""
    return "echo" if copied_share(answer, prompt) > ECHO else ""


def answer_scores(
    item_id: str, fit: AnswerFit | None, shared: SharedWords, nothing: str
) -> Iterator[Score]:
    """Yield the scores of one answer.

    Args:
        item_id: The item.
        fit: What the scoring model says; None if the answer says nothing of its own.
        shared: The words in common, for the control.
        nothing: What ``says_nothing`` returned.
    """
    ranked, gain, by_words = CHANCE, 0.0, CHANCE
    if fit is not None:
        ranked = _ranked([fit.own - other for other in fit.others], TIE_NATS)
        mean = sum(fit.others) / len(fit.others)
        gain = (fit.own - mean) / fit.tokens
        by_words = _ranked([shared.own - other for other in shared.others], 0.0)
    yield Score(item_id=item_id, metric="answer_ranked", value=ranked, explanation=nothing)
    yield Score(item_id=item_id, metric="answer_gain", value=gain)
    yield Score(item_id=item_id, metric="answer_ranked_words", value=by_words)
    yield Score(item_id=item_id, metric="echo", value=float(nothing == "echo"))


def _ranked(margins: Sequence[float], tie: float) -> float:
    """Return the share of margins above ``tie``; one within it is half."""
    wins = sum(margin > tie for margin in margins)
    return (wins + sum(abs(margin) <= tie for margin in margins) / 2) / len(margins)
