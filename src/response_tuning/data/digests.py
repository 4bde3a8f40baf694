"""A set of digests that fits in memory: some 13 bytes each at a million, where ``set`` takes 82."""

_BUCKETS = 1 << 16
_REST = 6
"""Bytes of a digest that its bucket does not already say."""


class DigestSet:
    """Remembers digests of 8 bytes.

    The first two bytes choose a bucket, in which the other six stand end to end: a bucket of a
    million digests holds about fifteen, and is searched in C.
    """

    def __init__(self) -> None:
        self._buckets = [b""] * _BUCKETS

    def add(self, digest: bytes) -> bool:
        """Add ``digest``, and say whether it is new.

        Raises:
            ValueError: it has not 8 bytes.
        """
        number, rest = digest[0] << 8 | digest[1], digest[2:]
        if len(rest) != _REST:
            raise ValueError(f"a digest has 8 bytes, this one has {len(digest)}")
        there = self._buckets[number]
        place = there.find(rest)
        while place >= 0:
            if place % _REST == 0:
                return False
            place = there.find(rest, place + 1)  # it straddles two others
        self._buckets[number] = there + rest
        return True
