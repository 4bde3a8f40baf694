"""Several servers of one model: which gets the next request, and which rests after failures."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from response_tuning.terminal import printable

_LOG = logging.getLogger(__name__)
STRIKES = 8
"""Strikes in a row after which a server rests. A server that fails three requests in ten reaches
them once in 15,000 replies, and one that is gone at its third failure."""
LOST, FAULT = 3, 1
"""Strikes of a connection that failed, and of an error reply such as HTTP 500."""
_FIRST_REST_S, _LONGEST_REST_S = 0.5, 8.0
_LONGEST_ASKED_S = 120.0
_SHARE = 0.05
"""Share of the newest answer in the mean seconds of a server's answers: about the last twenty."""


class Trouble(NamedTuple):
    """Why a request has to go to another server."""

    strikes: int = 0
    rest_s: float | None = None
    """How long the server asks to be left alone."""
    refused: str = ""
    """Why this server gets no further request, such as another model's name."""


@dataclass
class Replica:
    """One server, and how it fares."""

    url: str
    in_flight: int = 0
    seconds: float = 0.0
    """Exponentially weighted mean of what its answers took; 0 before the first one."""
    strikes: int = 0
    """Since its last answer."""
    rests: int = 0
    """In a row, without an answer between them."""
    resume_at: float = 0.0
    refused: str = ""


class Replicas:
    """Gives each request to the server with the least to do; threads may share it.

    What a server has to do is the requests in flight times the mean seconds of its answers (peak
    EWMA, as Finagle and Linkerd balance). By requests alone, a small server would hold as many as a
    large one, which would wait; by seconds alone, a slow server would get nothing.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = [Replica(url) for url in dict.fromkeys(urls)]
        self._clock = clock
        self._changed = threading.Condition()

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self.all) > 1

    def take(self, failed: Collection[str] = ()) -> Replica | None:
        """Return the server for a request, as soon as one is ready; None if all are refused.

        One of the addresses ``failed``, where the request failed before, gets it only if no other
        server is ready.
        """
        with self._changed:
            while True:
                usable = [replica for replica in self.all if not replica.refused]
                if not usable:
                    return None
                now = self._clock()
                # After a rest, one request finds out whether the server is back.
                ready = [
                    replica
                    for replica in usable
                    if replica.resume_at <= now and not (replica.rests and replica.in_flight)
                ]
                if ready:
                    chosen = min(ready, key=lambda one: (one.url in failed, self._load(one)))
                    chosen.in_flight += 1
                    return chosen
                later = [replica.resume_at - now for replica in usable if replica.resume_at > now]
                self._changed.wait(min(later, default=None))

    def _load(self, replica: Replica) -> float:
        """Return what ``replica`` would have to do with one request more."""
        known = [one.seconds for one in self.all if one.seconds]
        return (replica.in_flight + 1) * (replica.seconds or min(known, default=1.0))

    def give_back(
        self, replica: Replica, trouble: Trouble | None, seconds: float | None = None
    ) -> None:
        """Take note of how a request to ``replica`` ended; ``trouble`` is None if it answered.

        ``seconds`` is what an answer took, and None for an error, which may come at once.
        """
        with self._changed:
            replica.in_flight -= 1
            if seconds is not None:
                replica.seconds += (seconds - replica.seconds) * (_SHARE if replica.seconds else 1)
            if trouble is None:
                replica.strikes = replica.rests = 0
                replica.resume_at = 0.0
            elif trouble.refused:
                self._refuse(replica, trouble.refused)
            elif replica.resume_at <= self._clock():  # others were in flight when its rest began
                self._strike(replica, trouble)
            self._changed.notify_all()

    def _refuse(self, replica: Replica, why: str) -> None:
        if not replica.refused:  # once, and not for each request that was in flight
            _LOG.warning("%s gets no more requests: %s", replica.url, printable(why))
        replica.refused = why

    def _strike(self, replica: Replica, trouble: Trouble) -> None:
        replica.strikes += trouble.strikes
        rest = None if trouble.rest_s is None else min(trouble.rest_s, _LONGEST_ASKED_S)
        if rest is None and (replica.strikes >= STRIKES or replica.rests):
            rest = min(_LONGEST_REST_S, _FIRST_REST_S * 2**replica.rests)
        if rest is not None:
            replica.rests += 1
            replica.resume_at = self._clock() + rest

    def why_none(self) -> str:
        """Return why each server is refused."""
        return "; ".join(f"{replica.url}: {replica.refused}" for replica in self.all)
