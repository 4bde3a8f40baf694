"""How busy several unequal servers are kept: the client's own choices, in virtual time.

A server computes so many answers at once, each for so many seconds, so the sum of what all of them
can give is arithmetic. The clock jumps from event to event: neither this machine nor the network
has a part in the result. The choices are those of ``generate.replicas``; requests fail, a server is
killed at a fifth of the answers, and every answer is counted.

    python benchmarks/server_balance.py [--requests 20000]
"""

import argparse
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from response_tuning.generate.replicas import FAULT, LOST, Replica, Replicas, Trouble

FAULTS, SLOW, SECONDS = 0.3, 3, 2.0
SPREAD = 0.5
"""Answers take between half and one and a half of a server's mean seconds."""
DIES = 0.2
"""Share of the answers at which the server ``killed`` ends."""


class Kind(NamedTuple):
    """How a server behaves."""

    slots: int = 16
    seconds: float = SECONDS
    faults: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second that it can give."""
        return self.slots * (1 - self.faults) / self.seconds


SLOW_KIND, FAULTY = Kind(seconds=SLOW * SECONDS), Kind(faults=FAULTS)
EQUAL = {"sound": Kind(), "slow": SLOW_KIND, "faulty": FAULTY, "killed": Kind()}
UNEQUAL = {
    "large": Kind(64),
    "slow": SLOW_KIND,
    "faulty": FAULTY,
    "killed": Kind(),
    "small": Kind(4),
}


class Fewest(Replicas):
    """As it was before: the fewest in flight."""

    def _load(self, replica: Replica) -> float:
        return replica.in_flight


@dataclass
class Asked:
    """A request at a server."""

    number: int
    server: Replica
    failed: list[str]
    since: float
    alive: bool = True


@dataclass
class Server:
    """The requests of one server: those that it computes, and those that wait."""

    kind: Kind
    computing: list[Asked] = field(default_factory=list)
    waiting: deque[Asked] = field(default_factory=deque)
    is_dead: bool = False


class World:
    """A client with ``concurrency`` requests in flight, and the servers."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        concurrency: int,
        count: int,
        pool: Callable[..., Replicas] = Replicas,
    ) -> None:
        self.now = 0.0
        self.servers = {url: Server(kind) for url, kind in kinds.items()}
        self.computed: Counter[int] = Counter()
        """Request -> answers that a server computed and the client got."""
        self.ends: dict[str, list[float]] = {url: [] for url in kinds}
        """When each server's computations ended, those that failed too."""
        self.died = float("nan")
        self._pool = pool([*kinds], lambda: self.now)
        self._left = iter(range(count))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order, self._draw = itertools.count(), random.Random(0)
        for _ in range(concurrency):
            self._next()
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
            if self.computed.total() == round(count * DIES) and "killed" in self.servers:
                self._kill("killed")

    def busy(self, url: str, begin: float, end: float) -> float:
        """Return the share of a server's slots that computed between two times."""
        kind = self.servers[url].kind
        inside = sum(begin < one <= end for one in self.ends[url])
        return inside * kind.seconds / (kind.slots * (end - begin))

    def _next(self) -> None:
        if (number := next(self._left, None)) is not None:
            self._send(number, [])

    def _send(self, number: int, failed: list[str]) -> None:
        # A client's thread waits while all servers rest; here, one of them is always ready.
        server = self._pool.take(failed)
        assert server is not None
        asked = Asked(number, server, failed, self.now)
        here = self.servers[server.url]
        if here.is_dead:
            self._at(0.001, lambda: self._fail(asked, LOST))
        else:
            here.waiting.append(asked)
            self._compute(here)

    def _compute(self, here: Server) -> None:
        while here.waiting and len(here.computing) < here.kind.slots:
            asked = here.waiting.popleft()
            here.computing.append(asked)
            seconds = here.kind.seconds * self._draw.uniform(1 - SPREAD, 1 + SPREAD)
            self._at(seconds, lambda asked=asked: self._end(here, asked))  # type: ignore[misc]

    def _end(self, here: Server, asked: Asked) -> None:
        if not asked.alive:
            return
        here.computing.remove(asked)
        self.ends[asked.server.url].append(self.now)
        self._compute(here)
        if self._draw.random() < here.kind.faults:
            self._fail(asked, FAULT)
        else:
            self.computed[asked.number] += 1
            self._pool.give_back(asked.server, None, self.now - asked.since)
            self._next()

    def _fail(self, asked: Asked, strikes: int) -> None:
        self._pool.give_back(asked.server, Trouble(strikes))
        self._send(asked.number, [*asked.failed, asked.server.url])

    def _kill(self, url: str) -> None:
        here = self.servers[url]
        if not here.is_dead:
            here.is_dead, self.died = True, self.now
            for asked in (*here.computing, *here.waiting):
                asked.alive = False
                self._at(0.001, lambda asked=asked: self._fail(asked, LOST))  # type: ignore[misc]

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), act))


def measured(world: World) -> dict[str, float]:
    """Return what share of the sum all servers gave before and after the kill, and each of them.

    The first and the last tenth of the time are left out: nothing is known yet, nothing is left.
    """
    kinds = {url: server.kind for url, server in world.servers.items()}
    alive = {url: kind for url, kind in kinds.items() if url != "killed"}
    end, died = 0.9 * world.now, world.died
    begin = 0.5 * died

    def share(of: Mapping[str, Kind], begin: float, end: float) -> float:
        gave = sum(world.busy(url, begin, end) * kind.rate for url, kind in of.items())
        return gave / sum(kind.rate for kind in of.values())

    each = {url: world.busy(url, died, end) for url in alive}
    return {"before": share(kinds, begin, died), "after": share(alive, died, end)} | each


def main() -> None:
    """Print a line for each set of servers, each concurrency and both ways to choose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    for name, kinds in (("equal", EQUAL), ("unequal", UNEQUAL)):
        slots = sum(kind.slots for kind in kinds.values())
        for times in (1.0, 1.25, 1.5, 2.0):
            for pool in (Fewest, Replicas):
                concurrency = round(slots * times)
                world = World(kinds, concurrency, count, pool)
                shares = " ".join(f"{key} {value:.1%}" for key, value in measured(world).items())
                lost = count - len(world.computed)
                twice = world.computed.total() - len(world.computed)
                how = "fewest in flight" if pool is Fewest else "least to do"
                print(
                    f"{name}, {concurrency} in flight ({times:g} x slots), {how}: {shares}", end=""
                )
                print(f"; lost {lost}, twice {twice}")


if __name__ == "__main__":
    main()
