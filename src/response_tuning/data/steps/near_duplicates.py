"""Near-duplicates of earlier responses, by MinHash over their word triples.

This is the only step whose memory grows by more than a digest a row: for every response that it
keeps it holds a signature and index entries, together about 5 kB.
"""

import re
import unicodedata
import zlib
from typing import TYPE_CHECKING

from response_tuning.data.steps.curation import Candidate, Step, each

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PERMUTATIONS = 128
"""Values in a signature; they estimate a similarity with a standard deviation of 0.04."""
RECALL = 0.9
"""Lowest probability that a pair of exactly the threshold's similarity is compared."""
_WORD_PATTERN = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text without case and punctuation; without words, the text itself."""
    return _WORD_PATTERN.findall(unicodedata.normalize("NFKC", text).casefold()) or [text.strip()]


def triples(sequence: list[str]) -> set[str]:
    """Return every three consecutive words, joined; fewer words are one entry."""
    consecutive = zip(sequence, sequence[1:], sequence[2:], strict=False)
    return set(map(" ".join, consecutive)) or {" ".join(sequence)}


def without_near_duplicates(threshold: float) -> Step:
    """Drop a response whose similarity to an earlier one is ``threshold`` or more.

    The similarity is Jaccard's, of the sets of word triples, as estimated from the signatures.
    Later responses are not compared with dropped ones.
    """
    from datasketch import MinHash, MinHashLSH

    empty = MinHash(PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
    kept: list[tuple[NDArray[np.uint32], int]] = []

    def look(candidate: Candidate) -> None:
        signature = empty.copy()
        response = triples(words(candidate.answer.response))
        signature.update_batch([triple.encode() for triple in response])
        # The index returns candidates that share a band; their full signatures decide. The earliest
        # match is reported, so that the result does not depend on the order of the index.
        for place in sorted(index.query(signature)):
            values, row = kept[place]
            if (values == signature.hashvalues).mean() >= threshold:
                candidate.drop("near-duplicate", f"of row {row}")
                return
        index.insert(len(kept), signature, check_duplication=False)
        kept.append((signature.hashvalues, candidate.row))

    return each(look)


def bands(threshold: float) -> tuple[int, int]:
    """Return the number of bands of a signature and the number of values in each.

    Two responses are compared if they share a band, which at similarity s has the probability
    1 - (1 - s**values)**bands. Larger bands compare fewer pairs, so this takes the largest ones
    that reach ``RECALL`` at the threshold.
    """
    for values in range(PERMUTATIONS // 2, 1, -1):
        count = PERMUTATIONS // values
        if 1 - (1 - threshold**values) ** count >= RECALL:
            return count, values
    return PERMUTATIONS, 1
