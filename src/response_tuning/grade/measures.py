"""Measures of any answer, whatever its prompt."""

from collections.abc import Iterator

from response_tuning.artifacts import Completion

GRAM = 4


def measures(completion: Completion) -> Iterator[tuple[str, float]]:
    """Yield (metric, value) of an answer; the length only if the engine counted tokens."""
    text = completion.response or ""
    yield "stopped", float(completion.finish_reason == "stop")
    yield "hit_limit", float(completion.finish_reason == "length")
    yield "empty", float(not text.strip())
    yield "repeated_4gram_share", repeated_share(text)
    if completion.tokens is not None:
        yield "tokens_mean", float(completion.tokens)


def repeated_share(text: str) -> float:
    """Return the share of a text's word 4-grams that repeat an earlier one; 0 without 4-grams."""
    words = text.split()
    grams = [tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
