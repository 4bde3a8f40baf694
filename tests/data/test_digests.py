import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from response_tuning.data.digests import DigestSet

# Few buckets and two values of a byte: digests repeat, and straddle others in their bucket.
ALIKE = st.lists(st.sampled_from([0, 1]), min_size=6, max_size=6)
DIGESTS = st.tuples(st.integers(0, 1), ALIKE).map(lambda d: bytes([0, d[0], *d[1]]))


@given(st.lists(st.one_of(DIGESTS, st.binary(min_size=8, max_size=8)), max_size=80))
def test_a_digest_is_new_once_as_in_a_plain_set(digests: list[bytes]) -> None:
    seen, plain = DigestSet(), set[bytes]()
    for digest in digests:
        assert seen.add(digest) == (digest not in plain)
        plain.add(digest)


def test_a_digest_that_lies_across_two_others_is_new() -> None:
    seen = DigestSet()
    assert seen.add(b"..aaabbb")
    assert seen.add(b"..cccddd")
    assert seen.add(b"..bbbccc")
    assert not seen.add(b"..bbbccc")


@pytest.mark.parametrize("digest", [b"1234567", b"123456789"])
def test_a_digest_of_another_length_is_refused(digest: bytes) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        DigestSet().add(digest)


def test_many_digests_take_less_than_24_bytes_each() -> None:
    lots, count = random.Random(0), 300_000
    tracemalloc.start()
    try:
        seen = DigestSet()
        assert sum(seen.add(lots.randbytes(8)) for _ in range(count)) == count
        assert tracemalloc.get_traced_memory()[1] < 24 * count
    finally:
        tracemalloc.stop()
