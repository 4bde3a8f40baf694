"""Measures of any answer, whatever its prompt: rules that need no judge.

Words are what white space separates.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion

GRAM = 4
LOOP = 8
"""Words that a text repeats only if it loops: a model that cannot end, or a refrain."""


def measures(completions: Sequence[Completion]) -> Iterator[list[tuple[str, float]]]:
    """Yield, for each of the answers to a benchmark, the (metric, value) that it has.

    ``tokens_mean`` only if the engine counted tokens, ``confidence`` if it was asked for. The mean
    of ``distinct`` is the number of distinct answers divided by the number of answers: an answer
    that k items share counts 1/k.
    """
    texts = [" ".join((completion.response or "").split()) for completion in completions]
    copies = Counter(texts)
    for text, completion in zip(texts, completions, strict=True):
        found = [
            ("stopped", float(completion.finish_reason == "stop")),
            ("hit_limit", float(completion.finish_reason == "length")),
            ("empty", float(not text)),
            ("distinct", 1 / copies[text]),
            ("looped", float(repeated_share(text, LOOP) > 0)),
            ("repeated_4gram_share", repeated_share(text)),
            ("words_mean", float(len(text.split()))),
        ]
        if completion.tokens is not None:
            found.append(("tokens_mean", float(completion.tokens)))
        if completion.confidence is not None:
            found.append(("confidence", completion.confidence))
        yield found


def repeated_share(text: str, size: int = GRAM) -> float:
    """Return the share of a text's word n-grams that repeat an earlier one; 0 without n-grams."""
    words = text.split()
    grams = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
