"""What measures by comparison share: the drawn others of an item, and words in common."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from response_tuning.artifacts import Message
from response_tuning.errors import DataError

COPIED_RUN = 5
"""Consecutive words that a text has in common with another only if it copies them."""


def draws(texts: Mapping[str, str], count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Return for each item the items that it is compared with.

    Their texts differ from the item's own; there are ``count`` of them, or all if there are fewer.
    A draw depends on the seed, the item's name and the set of texts.

    Args:
        texts: The text of every item, by the item's name.
        count: How many others, at least one.
        seed: Seed of the draws.

    Raises:
        DataError: all texts are equal.
    """
    # Items are drawn, not texts: if a frequent text were drawn as rarely as a rare one, a model
    # that prefers frequent texts would rank them above chance.
    items = sorted(texts, key=lambda item: (texts[item], item))  # equal texts are one block
    block: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        block.setdefault(texts[item], []).append(place)
    if len(block) < 2:
        raise DataError("ranking needs at least two different texts; all of these are equal")
    drawn = {}
    for item, text in texts.items():
        own = block[text]
        # Sample from all places but the block's, then shift those behind it.
        others = range(len(items) - len(own))
        sample = random.Random(f"{seed} {item}").sample(others, min(count, len(others)))
        drawn[item] = tuple(items[n if n < own[0] else n + len(own)] for n in sample)
    return drawn


def shared_words(
    prompts: Mapping[str, tuple[Message, ...]], responses: Mapping[str, str]
) -> Callable[[str, str], float]:
    """Return a function: the share of the second item's response that is in the first's prompt.

    The share counts distinct words, each weighted by its rarity among the responses:
    log(responses / responses that contain it).
    """
    in_prompt = {item: set(words(text_of(prompt))) for item, prompt in prompts.items()}
    in_response = {item: set(words(response)) for item, response in responses.items()}
    frequency = Counter(word for found in in_response.values() for word in found)
    rarity = {word: math.log(len(in_response) / count) for word, count in frequency.items()}

    def share(item: str, other: str) -> float:
        # Sorted, so that the order of a set cannot change the last digit of a sum.
        whole = sum(rarity[word] for word in sorted(in_response[other]))
        shared = sum(rarity[word] for word in sorted(in_response[other] & in_prompt[item]))
        return shared / whole if whole else 0.0

    return share


def copied_share(text: str, source: str) -> float:
    """Return the share of a text's words in runs that it copies from ``source``.

    A run is ``COPIED_RUN`` consecutive words, or all words of a shorter source. Case and
    punctuation do not matter. A text that repeats the source for ever has a share near 1.
    """
    of_text, of_source = words(text), words(source)
    run = min(COPIED_RUN, len(of_source))
    if not run or not of_text:
        return 0.0
    known = set(_runs(of_source, run))
    copied = [False] * len(of_text)
    for place, found in enumerate(_runs(of_text, run)):
        if found in known:
            copied[place : place + run] = [True] * run
    return sum(copied) / len(of_text)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def text_of(prompt: Sequence[Message]) -> str:
    """Return the messages of a prompt as one text."""
    return " ".join(message.content for message in prompt)


def _runs(of_text: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(of_text[at : at + size]) for at in range(len(of_text) - size + 1)]
