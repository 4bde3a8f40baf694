"""Responses that say nearly what an earlier one says, by MinHash over their word triples.

This is the one step whose memory grows by more than a digest a row: it holds the signature of every
response that it keeps, and an index over them, together some 5 kB.
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
"""Values in a signature; they estimate a similarity to 0.04, which is one standard deviation."""
RECALL = 0.9
"""Least probability with which a pair of exactly the similarity that is asked for is compared."""
_WORDS = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation; one that has none is its own."""
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold()) or [text.strip()]


def triples(of: list[str]) -> set[str]:
    """Return every three words in a row; of fewer words, all of them."""
    return set(map(" ".join, zip(of, of[1:], of[2:], strict=False))) or {" ".join(of)}


def without_near_duplicates(threshold: float) -> Step:
    """Drop a response whose similarity to an earlier one is ``threshold`` or more.

    The similarity is the share of triples that two responses have in common (Jaccard's), as their
    signatures estimate it. What is dropped is not compared with what follows.
    """
    from datasketch import MinHash, MinHashLSH

    empty = MinHash(PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
    kept: list[tuple[NDArray[np.uint32], int]] = []

    def look(candidate: Candidate) -> None:
        signature = empty.copy()
        said = triples(words(candidate.said.response))
        signature.update_batch([triple.encode() for triple in said])
        for place in sorted(index.query(signature)):
            values, row = kept[place]
            if (values == signature.hashvalues).mean() >= threshold:
                candidate.drop("near-duplicate", f"of row {row}")
                return
        index.insert(len(kept), signature, check_duplication=False)
        kept.append((signature.hashvalues, candidate.row))

    return each(look)


def bands(threshold: float) -> tuple[int, int]:
    """Return into how many bands, of how many values, a signature is cut.

    Two responses are compared if they share a band, which at similarity s has the probability
    1 - (1 - s**values)**bands. More values a band compare fewer pairs.
    """
    for values in range(PERMUTATIONS // 2, 1, -1):
        count = PERMUTATIONS // values
        if 1 - (1 - threshold**values) ** count >= RECALL:
            return count, values
    return PERMUTATIONS, 1
