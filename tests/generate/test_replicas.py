import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Message, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate import generate, open_engine
from response_tuning.generate.engine import key
from response_tuning.generate.replicas import FAULT, LOST, STRIKES, Replica, Replicas, Trouble
from tests.fixtures.chat_server import Behaviour, Server, cut_connection, raw, reply

SHORT = Sampling(max_new_tokens=16)
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
def pool(clock: Clock) -> Replicas:
    return Replicas(["a", "b", "c"], clock)


def taken(pool: Replicas) -> Replica:
    replica = pool.take()
    assert replica is not None
    return replica


def by_url(pool: Replicas, url: str) -> Replica:
    return next(replica for replica in pool.all if replica.url == url)


def fail(pool: Replicas, url: str, trouble: Trouble, times: int = 1) -> None:
    for _ in range(times):
        replica = by_url(pool, url)
        replica.in_flight += 1
        pool.give_back(replica, trouble)


def test_a_request_goes_where_the_fewest_are_in_flight(pool: Replicas) -> None:
    first = [taken(pool) for _ in range(6)]
    assert sorted(replica.url for replica in first) == ["a", "a", "b", "b", "c", "c"]
    pool.give_back(by_url(pool, "b"), None)
    assert taken(pool).url == "b"


def test_a_slow_server_has_no_more_in_flight_than_the_others(pool: Replicas) -> None:
    for _ in range(9):
        taken(pool)
    for _ in range(20):  # "a" never answers; the others do, and are refilled
        for url in ("b", "c"):
            pool.give_back(by_url(pool, url), None)
            assert taken(pool).url == url
    assert by_url(pool, "a").in_flight == 3


def test_what_a_server_has_to_do_is_its_requests_times_the_seconds_of_its_answers(
    pool: Replicas,
) -> None:
    for url, seconds in (("a", 1.0), ("b", 1.0), ("c", 3.0)):
        replica = by_url(pool, url)
        replica.in_flight += 1
        pool.give_back(replica, None, seconds)
    for _ in range(14):
        taken(pool)
    assert [replica.in_flight for replica in pool.all] == [6, 6, 2]


def test_the_seconds_of_a_server_follow_its_latest_answers_and_no_error(pool: Replicas) -> None:
    replica = by_url(pool, "a")
    replica.in_flight += 103
    for seconds in [2.0] * 2 + [4.0] * 100:
        pool.give_back(replica, None, seconds)
    assert replica.seconds == pytest.approx(4.0, abs=0.02)
    pool.give_back(replica, FAILED)
    pool.give_back(taken(pool), None)  # an error of the request's own
    assert replica.seconds == pytest.approx(4.0, abs=0.02)


def test_a_server_without_an_answer_yet_is_taken_for_the_fastest(pool: Replicas) -> None:
    for url, seconds in (("a", 2.0), ("b", 4.0)):
        replica = by_url(pool, url)
        replica.in_flight += 1
        pool.give_back(replica, None, seconds)
    for _ in range(10):
        taken(pool)
    assert [replica.in_flight for replica in pool.all] == [4, 2, 4]


def test_a_request_that_failed_goes_to_another_server_if_one_is_ready(
    pool: Replicas, clock: Clock
) -> None:
    for _ in range(4):
        by_url(pool, "c").in_flight += 1
    first = pool.take(["a", "b"])
    assert first is by_url(pool, "c")
    fail(pool, "c", Trouble(FAULT, 30.0))  # it rests
    second = pool.take(["a", "b"])
    assert second is by_url(pool, "a")


def test_a_server_that_is_gone_rests_longer_each_time_and_one_request_tries_it(
    pool: Replicas, clock: Clock
) -> None:
    fail(pool, "a", GONE, -(-STRIKES // LOST))
    assert {taken(pool).url for _ in range(6)} == {"b", "c"}
    for rest in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0):
        assert by_url(pool, "a").resume_at == clock.now + rest
        clock.now += rest
        assert taken(pool).url == "a"
        assert taken(pool).url != "a"  # until the first has an answer
        pool.give_back(by_url(pool, "a"), GONE)
    clock.now += 8
    pool.give_back(taken(pool), None)
    assert [taken(pool).url for _ in range(2)] == ["a", "a"]


def test_those_in_flight_when_a_server_goes_are_one_failure(pool: Replicas, clock: Clock) -> None:
    fail(pool, "a", GONE, 60)
    assert by_url(pool, "a").resume_at == clock.now + 0.5


def test_a_server_that_fails_now_and_then_does_not_rest(pool: Replicas) -> None:
    for _ in range(50):
        fail(pool, "a", FAILED, STRIKES - 1)
        replica = by_url(pool, "a")
        replica.in_flight += 1
        pool.give_back(replica, None)
    assert taken(pool).url == "a"


def test_a_server_rests_as_long_as_it_asks_and_at_most_two_minutes(
    pool: Replicas, clock: Clock
) -> None:
    fail(pool, "a", Trouble(STRIKES, 30.0))
    fail(pool, "b", Trouble(FAULT, 9999.0))
    assert by_url(pool, "a").resume_at == clock.now + 30
    assert by_url(pool, "b").resume_at == clock.now + 120


def test_a_refused_server_gets_nothing_and_is_named_once(
    pool: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    fail(pool, "a", Trouble(refused="it answers as 'x\x1b'"), 3)
    assert {taken(pool).url for _ in range(6)} == {"b", "c"}
    assert caplog.messages == ["a gets no more requests: it answers as 'x\\x1b'"]
    fail(pool, "b", Trouble(refused="HTTP 401"))
    fail(pool, "c", Trouble(refused="HTTP 404"))
    assert pool.take() is None
    assert pool.why_none() == "a: it answers as 'x\x1b'; b: HTTP 401; c: HTTP 404"


def test_a_thread_waits_until_a_server_is_ready() -> None:
    pool = Replicas(["a"])
    fail(pool, "a", Trouble(FAULT, 0.05))
    assert taken(pool).url == "a"  # after its rest
    found: list[Replica | None] = []
    thread = threading.Thread(target=lambda: found.append(pool.take()))
    thread.start()
    pool.give_back(pool.all[0], None)
    thread.join(30)
    assert found == pool.all


def test_an_address_that_is_given_twice_is_one_server() -> None:
    assert not Replicas(["a", "a"]).several


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    opened = [Server() for _ in range(4)]
    yield opened
    for server in opened:
        server.close()


def asked(count: int) -> list[Request]:
    return [
        Request(item_id=str(n), prompt=(Message(role="user", content=f"q{n}"),))
        for n in range(count)
    ]


def config(servers: list[Server], **settings: object) -> EngineConfig:
    first, *others = [server.url for server in servers]
    given = {"model": "judge", "base_url": first, "replicas": others, "concurrency": 8}
    return EngineConfig.model_validate(given | settings)


def answers(servers: list[Server], journal: Path, count: int, **how: object) -> list[Completion]:
    engine = open_engine("openai", config(servers, **how))
    return [*generate(engine, asked(count), journal, SHORT)]


def every_third(act: Behaviour) -> "Faults":
    return Faults(act)


class Faults:
    """Makes every third request of a server fail, and counts the answers that were given."""

    def __init__(self, act: Behaviour) -> None:
        self.count = 0
        self.act = act

    def __call__(self, body: object) -> Behaviour | None:
        self.count += 1
        return self.act if self.count % 3 == 0 else None


def named(name: str) -> Behaviour:
    message = {"message": {"content": "from another model"}, "finish_reason": "stop"}
    return raw(json.dumps({"model": name, "choices": [message]}))


def test_hundreds_of_requests_lose_nothing_and_pay_nothing_twice(
    servers: list[Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, faulty, dying, other = servers
    paid: Counter[str] = Counter()

    def says(prompt: str) -> str:
        paid[prompt] += 1
        return f"reply to {prompt}"

    for server in (sound, faulty, dying):
        server.says = says
    faulty.judges = every_third(reply("overloaded", status=503))
    dying.judges = lambda body: cut_connection if dying.asked.total() > 20 else None
    other.judges = lambda body: named("llama-7b")
    done = answers(servers, tmp_path / "j.jsonl", 200)
    assert [one.error for one in done] == [None] * 200
    assert [one.response for one in done] == [f"reply to q{n}" for n in range(200)]
    assert paid == Counter(f"q{n}" for n in range(200))
    refused = [one for one in caplog.messages if "gets no more requests" in one]
    assert refused == [
        f"{other.url} gets no more requests: it answers as 'llama-7b', not as 'judge'"
    ]
    assert other.asked.total() <= 8  # what was in flight when its name was seen
    assert dying.asked.total() <= 20 + 3 * 8  # it rests
    assert sound.asked.total() > 30 and faulty.asked.total() > 30


def test_more_servers_change_no_key_so_that_nothing_is_asked_again(
    servers: list[Server], tmp_path: Path
) -> None:
    answers(servers[:1], tmp_path / "j.jsonl", 5)
    answers(servers, tmp_path / "j.jsonl", 6)
    assert sum(server.asked.total() for server in servers) == 6
    one, all_ = (open_engine("openai", config(each)) for each in (servers[:1], servers))
    assert key(one, asked(1)[0], SHORT) == key(all_, asked(1)[0], SHORT)


def test_a_request_that_fails_everywhere_is_an_error_after_its_retries(
    servers: list[Server], tmp_path: Path
) -> None:
    for server in servers:
        server.plan = {"q1": [reply("broken", status=500)] * 9}
    done = answers(servers, tmp_path / "j.jsonl", 3, max_retries=3)
    assert [one.error is None for one in done] == [True, False, True]
    assert "broken" in str(done[1].error)
    assert sum(server.asked["q1"] for server in servers) == 4


def test_a_server_that_does_not_know_the_key_or_the_model_is_left_out(
    servers: list[Server], tmp_path: Path
) -> None:
    servers[0].status = 401
    servers[1].status = 404
    done = answers(servers, tmp_path / "j.jsonl", 40)
    assert all(one.error is None for one in done)
    assert servers[0].asked.total() <= 8 and servers[1].asked.total() <= 8


def test_without_a_server_that_is_right_the_rest_is_not_sent(
    servers: list[Server], tmp_path: Path
) -> None:
    for server in servers[:2]:
        server.judges = lambda body: named("llama-7b")
    done = answers(servers[:2], tmp_path / "j.jsonl", 60)
    assert all(
        "no server is left" in str(one.error) or "not sent" in str(one.error) for one in done
    )
    assert sum(server.asked.total() for server in servers) <= 16


def test_a_request_of_the_prompts_own_fault_is_not_repeated(
    servers: list[Server], tmp_path: Path
) -> None:
    for server in servers:
        server.plan = {"q0": [reply("too long", status=400)] * 9}
    done = answers(servers, tmp_path / "j.jsonl", 2)
    assert "too long" in str(done[0].error) and done[1].error is None
    assert sum(server.asked["q0"] for server in servers) == 1


def test_a_replica_elsewhere_needs_a_key_and_the_same_scheme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    for replica, error, said in (
        ("http://models.example/v1", EngineError, "set it to the key for models.example"),
        ("ftp://127.0.0.1/v1", ConfigError, "must be an http"),
        ("https://127.0.0.1/v1", ConfigError, "all servers are reached by http, or all by https"),
    ):
        with pytest.raises(error, match=said):
            open_engine("openai", EngineConfig.model_validate(given | {"replicas": [replica]}))
