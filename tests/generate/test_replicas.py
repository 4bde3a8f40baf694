import threading

import pytest

from response_tuning.generate.replicas import FAULT, LOST, STRIKES, Replica, Replicas, Trouble

GONE, FAILED = Trouble(LOST), Trouble(FAULT)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers(clock: Clock) -> Replicas:
    return Replicas(["a", "b", "c"], clock)


def taken(servers: Replicas) -> Replica:
    replica = servers.take()
    assert replica is not None
    return replica


def by_url(servers: Replicas, url: str) -> Replica:
    return next(replica for replica in servers.all if replica.url == url)


def fail(servers: Replicas, url: str, trouble: Trouble, times: int = 1) -> None:
    for _ in range(times):
        replica = by_url(servers, url)
        replica.in_flight += 1
        servers.give_back(replica, trouble)


def test_a_request_goes_where_the_fewest_are_in_flight(servers: Replicas) -> None:
    first = [taken(servers) for _ in range(6)]
    assert sorted(replica.url for replica in first) == ["a", "a", "b", "b", "c", "c"]
    servers.give_back(by_url(servers, "b"), None)
    assert taken(servers).url == "b"


def test_a_slow_server_has_no_more_in_flight_than_the_others(servers: Replicas) -> None:
    for _ in range(9):
        taken(servers)
    for _ in range(20):  # "a" never answers; the others do, and are refilled
        for url in ("b", "c"):
            servers.give_back(by_url(servers, url), None)
            assert taken(servers).url == url
    assert by_url(servers, "a").in_flight == 3


def test_a_server_that_is_gone_rests_longer_each_time_and_one_request_tries_it(
    servers: Replicas, clock: Clock
) -> None:
    fail(servers, "a", GONE, -(-STRIKES // LOST))
    assert {taken(servers).url for _ in range(6)} == {"b", "c"}
    for rest in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0):
        assert by_url(servers, "a").resume_at == clock.now + rest
        clock.now += rest
        assert taken(servers).url == "a"
        assert taken(servers).url != "a"  # until the first has an answer
        servers.give_back(by_url(servers, "a"), GONE)
    clock.now += 8
    servers.give_back(taken(servers), None)
    assert [taken(servers).url for _ in range(2)] == ["a", "a"]


def test_those_in_flight_when_a_server_goes_are_one_failure(
    servers: Replicas, clock: Clock
) -> None:
    fail(servers, "a", GONE, 60)
    assert by_url(servers, "a").resume_at == clock.now + 0.5


def test_a_server_that_fails_now_and_then_does_not_rest(servers: Replicas) -> None:
    for _ in range(50):
        fail(servers, "a", FAILED, STRIKES - 1)
        replica = by_url(servers, "a")
        replica.in_flight += 1
        servers.give_back(replica, None)
    assert taken(servers).url == "a"


def test_a_server_rests_as_long_as_it_asks_and_at_most_two_minutes(
    servers: Replicas, clock: Clock
) -> None:
    fail(servers, "a", Trouble(STRIKES, 30.0))
    fail(servers, "b", Trouble(FAULT, 9999.0))
    assert by_url(servers, "a").resume_at == clock.now + 30
    assert by_url(servers, "b").resume_at == clock.now + 120


def test_a_refused_server_gets_nothing_and_is_named_once(
    servers: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    fail(servers, "a", Trouble(refused="it answers as 'x\x1b'"), 3)
    assert {taken(servers).url for _ in range(6)} == {"b", "c"}
    assert caplog.messages == ["a gets no more requests: it answers as 'x\\x1b'"]
    fail(servers, "b", Trouble(refused="HTTP 401"))
    fail(servers, "c", Trouble(refused="HTTP 404"))
    assert servers.take() is None
    assert servers.why_none() == "a: it answers as 'x\x1b'; b: HTTP 401; c: HTTP 404"


def test_a_thread_waits_until_a_server_is_ready() -> None:
    servers = Replicas(["a"])
    fail(servers, "a", Trouble(FAULT, 0.05))
    assert taken(servers).url == "a"  # after its rest
    found: list[Replica | None] = []
    thread = threading.Thread(target=lambda: found.append(servers.take()))
    thread.start()
    servers.give_back(servers.all[0], None)
    thread.join(30)
    assert found == servers.all


def test_an_address_that_is_given_twice_is_one_server() -> None:
    assert not Replicas(["a", "a"]).several
