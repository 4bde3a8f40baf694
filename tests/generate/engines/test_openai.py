import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Message, Request, Sampling
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate import Engine, EngineConfig, generate, open_engine
from response_tuning.journals import Journal

Ask = Callable[..., Request]
KEY = "sk-very-secret-0123456789"
SHORT = Sampling(max_new_tokens=16)


@pytest.fixture
def config(server: Any) -> EngineConfig:
    return EngineConfig(model="judge", base_url=server.url, concurrency=4, timeout_s=20)


@pytest.fixture
def engine(config: EngineConfig) -> Engine:
    return open_engine("openai", config)


def by_id(given: Any) -> dict[str, Completion]:
    return {completion.item_id: completion for completion in given}


def only(engine: Engine, request: Request, sampling: Sampling = SHORT) -> Completion:
    (given,) = engine.complete([request], sampling)
    return given


def test_a_request_carries_the_conversation_and_the_sampling(
    server: Any, engine: Engine, ask: Ask
) -> None:
    prompt = (Message(role="system", content="be brief"), *ask("a", "hi", "ho", "hum").prompt)
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("#", "\n\n"))
    given = only(engine, Request(item_id="a", prompt=prompt), sampling)
    assert server.bodies == [
        {
            "model": "judge",
            "messages": [message.model_dump() for message in prompt],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["#", "\n\n"],
        }
    ]
    assert (given.response, given.finish_reason) == ("reply to hum", "stop")


def test_greedy_is_temperature_zero_and_no_stop_string_is_sent_unless_given(
    server: Any, engine: Engine, ask: Ask
) -> None:
    only(engine, ask("a", "hi"))
    assert server.bodies[0]["temperature"] == 0
    assert "stop" not in server.bodies[0]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"completion_tokens": 7, "prompt_tokens": 30}, (7, 30)),
        ({"completion_tokens": 7}, (7, None)),
        ({"prompt_tokens": 3}, (None, 3)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_tokens_are_counted_where_the_server_says_them(
    server: Any,
    engine: Engine,
    ask: Ask,
    usage: dict[str, int] | None,
    counted: tuple[int | None, int | None],
) -> None:
    choice = {"message": {"content": "ho"}, "finish_reason": "stop"}
    server.plan["hi"] = [server.raw(json.dumps({"choices": [choice], "usage": usage}))]
    given = only(engine, ask("a", "hi"))
    assert (given.response, given.tokens, given.prompt_tokens) == ("ho", *counted)
    assert only(engine, ask("b", "hum")).tokens is None


def test_a_reply_at_the_limit_is_marked(server: Any, engine: Engine, ask: Ask) -> None:
    server.plan["hi"] = [server.reply("and then", finish="length")]
    assert only(engine, ask("a", "hi")).finish_reason == "length"


def test_a_stop_string_that_the_server_ignores_is_cut_off_here(
    server: Any, engine: Engine, ask: Ask
) -> None:
    server.plan["hi"] = [server.reply("one # two", finish="length")]
    given = only(engine, ask("a", "hi"), SHORT.model_copy(update={"stop": ("#",)}))
    assert (given.response, given.finish_reason) == ("one ", "stop")


def test_saying_nothing_is_an_answer(server: Any, engine: Engine, ask: Ask) -> None:
    server.plan["hi"] = [server.reply("")]
    given = only(engine, ask("a", "hi"))
    assert (given.response, given.error) == ("", None)


def test_no_more_than_so_many_requests_are_in_flight(server: Any, engine: Engine, ask: Ask) -> None:
    reached = threading.Barrier(4, timeout=20)
    server.gate = lambda number: reached.wait() and None
    given = list(engine.complete([ask(f"{n}", f"q{n}") for n in range(16)], SHORT))
    assert [c.error for c in given] == [None] * 16
    assert server.most_at_once == 4


def test_answers_are_given_as_they_arrive(server: Any, engine: Engine, ask: Ask) -> None:
    slow = threading.Event()
    server.gate = lambda number: None if number > 1 else slow.wait(20) and None
    server.plan = {}
    given = engine.complete([ask(f"{n}", f"q{n}") for n in range(6)], SHORT)
    quick = [next(given).item_id for _ in range(5)]
    slow.set()
    assert sorted([*quick, next(given).item_id]) == [f"{n}" for n in range(6)]


@pytest.mark.parametrize("trouble", ["429", "500", "cut", "408"])
def test_trouble_that_passes_is_tried_again(
    server: Any, engine: Engine, ask: Ask, trouble: str
) -> None:
    act = {
        "429": server.reply("slow down", status=429, Retry_After="0.01"),
        "500": server.reply("oops", status=500),
        "408": server.reply("late", status=408),
        "cut": server.cut_connection,
    }[trouble]
    server.plan["hi"] = [act] * 5
    assert only(engine, ask("a", "hi")).response == "reply to hi"
    assert server.asked["hi"] == 6


def test_trouble_that_stays_is_a_record_beside_the_other_answers(
    server: Any, engine: Engine, ask: Ask
) -> None:
    server.plan = {
        "limited": [server.reply("slow down", status=429, Retry_After="0.01")] * 9,
        "broken": [server.reply("oops", status=500)] * 9,
        "refused": [server.reply("no such parameter", status=400)] * 9,
        "cut": [server.cut_connection] * 9,
    }
    words = ["limited", "fine", "broken", "good", "refused", "well", "cut", "nice"]
    given = by_id(engine.complete([ask(word, word) for word in words], SHORT))
    errors = {word: given[word].error for word in server.plan}
    assert "429" in str(errors["limited"]) and "500" in str(errors["broken"])
    assert "400" in str(errors["refused"]) and "no such parameter" in str(errors["refused"])
    assert "APIConnectionError" in str(errors["cut"])
    assert all(given[word].response is None for word in server.plan)
    assert [given[word].response for word in ("fine", "good")] == ["reply to fine", "reply to good"]
    assert server.asked["limited"] == server.asked["broken"] == server.asked["cut"] == 6
    assert server.asked["refused"] == 1


def test_a_reply_that_does_not_come_in_time_is_a_record(
    server: Any, config: EngineConfig, ask: Ask
) -> None:
    release = threading.Event()
    server.gate = lambda number: release.wait(20) and None
    impatient = config.model_copy(update={"timeout_s": 0.05, "max_retries": 1})
    given = only(open_engine("openai", impatient), ask("a", "hi"))
    release.set()
    assert given.error is not None and "APITimeoutError" in given.error
    assert server.asked["hi"] == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"choices": [{"mess', "unusable reply: body"),
        ("<html>busy</html>", "unusable reply: body"),
        ("", "unusable reply: body"),
        ("[]", "unusable reply: body"),
        ('"hello"', "unusable reply: body"),
        ('{"error": "overloaded"}', "unusable reply: choices: Field required"),
        ('{"choices": []}', "unusable reply: choices"),
        ('{"choices": [null]}', "unusable reply: choices.0"),
        ('{"choices": [{"finish_reason": "stop"}]}', "choices.0.message: Field required"),
        (
            '{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}',
            "choices.0.message.content: Input should be a valid string, not None",
        ),
        (
            '{"choices": [{"finish_reason": "content_filter", "message": {"content": "a"}}]}',
            "Input should be 'stop' or 'length', not 'content_filter'",
        ),
        ('{"choices": [{"finish_reason": null, "message": {"content": "a"}}]}', "not None"),
        (
            '{"choices": [{"finish_reason": "stop", "message": {"content": "\\ud800"}}]}',
            "unusable reply: body: Invalid JSON",
        ),
    ],
)
def test_a_reply_that_cannot_be_used_is_a_record_that_says_why(
    server: Any, engine: Engine, ask: Ask, tmp_path: Path, body: str, said: str
) -> None:
    server.plan["hi"] = [server.raw(body)]
    asks = [ask("a", "hi"), ask("b", "there")]
    bad, good = generate(engine, asks, tmp_path / "journal.jsonl", SHORT)
    assert bad.response is None
    assert bad.error is not None and said in bad.error
    assert len(bad.error) <= 200 and "\n" not in bad.error
    assert good.response == "reply to there"


def test_failed_items_are_asked_again_by_the_next_run_and_only_they(
    server: Any, engine: Engine, ask: Ask, tmp_path: Path
) -> None:
    server.plan["q3"] = [server.raw("{")]
    asks = [ask(f"{n}", f"q{n}") for n in range(6)]
    first = list(generate(engine, asks, tmp_path / "journal.jsonl", SHORT))
    second = list(generate(engine, asks, tmp_path / "journal.jsonl", SHORT))
    assert [c.error is None for c in first] == [True] * 3 + [False] + [True] * 2
    assert [c.response for c in second] == [f"reply to q{n}" for n in range(6)]
    assert server.asked == Counter({f"q{n}": 1 for n in range(6)}) + Counter({"q3": 1})


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_server_that_is_not_there_ends_every_item_with_an_error(
    closed_port: int, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    url = f"http://127.0.0.1:{closed_port}/v1"
    engine = open_engine("openai", EngineConfig(model="m", base_url=url, concurrency=4))
    given = list(engine.complete([ask(f"{n}", f"q{n}") for n in range(100)], SHORT))
    assert len({c.item_id for c in given}) == 100
    errors = Counter(str(c.error) for c in given)
    assert errors.pop("not sent: the server did not answer others") >= 90
    assert all("APIConnectionError" in error for error in errors)


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_is_not_tried_on_every_item(
    server: Any, engine: Engine, ask: Ask, status: int
) -> None:
    asks = [ask(f"{n}", f"q{n}") for n in range(100)]
    server.plan = {f"q{n}": [server.reply("no", status=status)] for n in range(100)}
    given = list(engine.complete(asks, SHORT))
    assert len(given) == 100 and all(c.error for c in given)
    assert server.asked.total() < 10


def test_single_refusals_between_answers_do_not_end_the_run(
    server: Any, engine: Engine, ask: Ask
) -> None:
    asks = [ask(f"{n}", f"q{n}") for n in range(40)]
    server.plan = {f"q{n}": [server.reply("no", status=404)] for n in range(0, 40, 4)}
    given = list(engine.complete(asks, SHORT))
    assert sum(c.error is None for c in given) == 30
    assert server.asked.total() == 40


def test_whoever_stops_listening_stops_the_asking(server: Any, engine: Engine, ask: Ask) -> None:
    given = engine.complete([ask(f"{n}", f"q{n}") for n in range(50)], SHORT)
    next(given)
    given.close()  # type: ignore[attr-defined]
    assert server.asked.total() <= 5


def test_a_bug_in_a_worker_is_heard_and_does_not_hang_the_run(
    engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = threading.Event()
    monkeypatch.setattr("threading.excepthook", lambda trouble: heard.set())
    monkeypatch.setattr(type(engine), "_client", lambda engine: 1 / 0)
    with pytest.raises(RuntimeError, match="see the traceback above"):
        list(engine.complete([ask("a", "hi")], SHORT))
    assert heard.wait(20)


def test_the_key_is_sent_and_kept_out_of_the_records(
    server: Any, config: EngineConfig, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    engine = open_engine("openai", config.model_copy(update={"api_key_env": "JUDGE_KEY"}))
    server.plan = {
        "q0": [server.reply(f"bad key: {KEY}", status=401)],
        "q1": [server.reply("x" * 130 + KEY, status=400)],
        "q2": [server.raw(KEY)],
    }
    journal = tmp_path / "journal.jsonl"
    given = list(generate(engine, [ask(f"{n}", f"q{n}") for n in range(4)], journal, SHORT))
    assert [c.error is None for c in given] == [False, False, False, True]
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY[:12] not in journal.read_text() + repr(given)


def test_a_local_server_needs_no_key(
    server: Any, config: EngineConfig, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert only(open_engine("openai", config), ask("a", "hi")).error is None
    assert server.keys == {"Bearer none"}


def test_another_server_needs_a_key_and_the_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    config = EngineConfig(model="m", base_url="https://api.test/v1", api_key_env="JUDGE_KEY")
    with pytest.raises(EngineError, match=r"variable JUDGE_KEY is not set.* api\.test"):
        open_engine("openai", config)


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "geheim\nschlüssel")
    config = EngineConfig(model="m", base_url="https://api.test/v1")
    with pytest.raises(EngineError, match="OPENAI_API_KEY does not hold a key") as caught:
        open_engine("openai", config)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "http://127.0.0.1:1/v1"}, "--model NAME"),
        ({"model": "m"}, "--base-url http"),
        ({"model": "m", "base_url": "127.0.0.1:8000"}, r"no http\(s\) address: 127"),
        ({"model": "m", "base_url": "http://me:pw@127.0.0.1/v1"}, "must not hold a key"),
        ({"model": "m", "base_url": "http://127.0.0.1/v1?key=pw"}, "must not hold a key"),
        (
            {"model": "m", "base_url": "http://127.0.0.1/v1", "template": "urial"},
            "the server renders the prompt, so template 'urial' has no effect",
        ),
    ],
)
def test_unusable_settings_are_named(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        open_engine("openai", EngineConfig.model_validate(settings))
    assert "pw" not in str(caught.value)


def test_the_model_and_the_address_are_the_identity(config: EngineConfig) -> None:
    others = [{"model": "other"}, {"base_url": "http://127.0.0.1:9/v1"}]
    engines = [open_engine("openai", config.model_copy(update=change)) for change in [{}, *others]]
    assert len({engine.model for engine in engines}) == 3
    slash = config.model_copy(update={"base_url": f"{config.base_url}/"})
    assert open_engine("openai", slash).model == engines[0].model
    assert {engine.template for engine in engines} == {"server"}


RUN = """
import json, sys
from pathlib import Path
from response_tuning.artifacts import Message, Request, Sampling, write_jsonl
from response_tuning.generate import EngineConfig, generate, open_engine

url, folder = sys.argv[1], Path(sys.argv[2])
engine = open_engine("openai", EngineConfig(model="judge", base_url=url, concurrency=4))
asks = [Request(item_id=str(n), prompt=(Message(role="user", content=f"q{n}"),)) for n in range(60)]
write_jsonl(folder / "final.jsonl", generate(engine, asks, folder / "journal.jsonl", Sampling()))
"""


def test_a_run_that_is_killed_and_restarted_repeats_only_what_was_in_flight(
    server: Any, tmp_path: Path
) -> None:
    stuck = threading.Semaphore(0)
    killed = threading.Event()

    def hang_after_25(number: int) -> None:
        if number > 25 and not killed.is_set():
            stuck.release()
            killed.wait(60)

    server.gate = hang_after_25
    environment = os.environ | {"no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", RUN, server.url, str(tmp_path)]
    first = subprocess.Popen(command, env=environment)
    try:
        for _ in range(4):
            assert stuck.acquire(timeout=60)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        killed.set()
    journal = tmp_path / "journal.jsonl"
    kept = {c.prompt[0].content for c in Journal(journal, Completion)}
    before = Counter(server.asked)
    assert len(kept) == 25 and before.total() == 29
    with journal.open("a") as torn:
        torn.write('{"item_id": "59", "prompt": [{"role"')

    subprocess.run(command, env=environment, check=True)

    assert set(server.asked) == {f"q{n}" for n in range(60)}
    assert all(server.asked[prompt] == 1 for prompt in kept)
    repeated = {prompt for prompt, times in server.asked.items() if times > 1}
    assert repeated == set(before) - kept and len(repeated) <= 4
    assert max(server.asked.values()) <= 2
    final = [json.loads(line) for line in (tmp_path / "final.jsonl").read_text().splitlines()]
    assert [c["response"] for c in final] == [f"reply to q{n}" for n in range(60)]
    assert [c["item_id"] for c in final] == [str(n) for n in range(60)]
