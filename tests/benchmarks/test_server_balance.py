import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT: dict[str, Any] = runpy.run_path(
    str(Path(__file__).parents[2] / "benchmarks/server_balance.py")
)
COUNT = 3000


@pytest.mark.parametrize("servers", ["EQUAL", "UNEQUAL"])
def test_unequal_servers_are_kept_busy_and_no_request_is_lost_or_computed_twice(
    servers: str,
) -> None:
    kinds = SCRIPT[servers]
    slots = sum(kind.slots for kind in kinds.values())
    world = SCRIPT["World"](kinds, round(1.5 * slots), COUNT)
    assert world.computed == dict.fromkeys(range(COUNT), 1)
    shares = SCRIPT["measured"](world)
    assert shares.pop("before") > 0.8  # the first answers teach what a server is
    assert all(share > 0.9 for share in shares.values()), shares


def test_by_requests_alone_a_large_server_would_wait_for_small_ones() -> None:
    kinds = SCRIPT["UNEQUAL"]
    slots = sum(kind.slots for kind in kinds.values())
    worlds = (
        SCRIPT["World"](kinds, round(1.5 * slots), COUNT, pool)
        for pool in (SCRIPT["Fewest"], SCRIPT["Replicas"])
    )
    before, now = (SCRIPT["measured"](world)["large"] for world in worlds)
    assert before < 0.8 < 0.9 < now
