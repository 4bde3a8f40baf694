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
from pydantic import ValidationError

from response_tuning.artifacts import Completion, Message, Question, Request, Sampling
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate import Engine, EngineConfig, generate, open_engine
from response_tuning.journals import Journal
from response_tuning.validation import build

Ask = Callable[..., Request]
KEY = "sk-very-secret-0123456789"
SHORT = Sampling(max_new_tokens=16)


@pytest.fixture
def config(server: Any) -> EngineConfig:
    return EngineConfig(model="judge", base_url=server.url, concurrency=4, timeout_s=20)


@pytest.fixture
def engine(config: EngineConfig) -> Engine:
    return open_engine("openai", config)


ONE = '{"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}'


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
    release, second = threading.Event(), threading.Event()

    def hang(number: int) -> None:
        if number == 2:
            second.set()
        release.wait(20)

    server.gate = hang
    impatient = config.model_copy(update={"timeout_s": 0.3, "max_retries": 1})
    given = only(open_engine("openai", impatient), ask("a", "hi"))
    assert second.wait(20)  # a busy machine's server may read it after the client has given up
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
            '{"choices": [{"finish_reason": "abort", "message": {"content": "a"}}]}',
            "unusable reply: the server aborted: finish_reason 'abort'",
        ),
        (
            '{"choices": [{"finish_reason": "stop", "message": {"content": "\\ud800"}}]}',
            "unusable reply: body: Invalid JSON",
        ),
        (f'{{"choices": [{ONE}, {ONE}]}}', "unusable reply: 2 choices, but one was requested"),
        (
            f'{{"choices": [{ONE}], "choices": [{ONE}]}}',
            "the key 'choices' occurs twice",
        ),
        (
            '{"choices": [{"message": {"content": "a", "content": "b"}}]}',
            "unusable reply: the key 'content' occurs twice",
        ),
        (
            '{"choices": [{"message": {"role": "user", "content": "a"}}]}',
            "unusable reply: a message with role 'user', not the",
        ),
        (
            f'{{"error": {{"message": "overloaded"}}, "choices": [{ONE}]}}',
            "unusable reply: the server reports an error: overloaded",
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


def test_a_part_of_a_reply_is_a_record_that_says_so(server: Any, engine: Engine, ask: Ask) -> None:
    server.plan["hi"] = [server.raw(f'{{"choices": [{ONE}]}}', 206)]
    found = only(engine, ask("a", "hi"))
    assert (found.response, found.error) == (None, "unusable reply: HTTP 206")


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
        ({"model": "m", "base_url": "127.0.0.1:8000"}, r"--base-url must be an http\(s\) address"),
        (
            {"model": "m", "base_url": "http://127.0.0.1/v1", "template": "urial"},
            "the server renders the prompt, so template 'urial' has no effect",
        ),
    ],
)
def test_unusable_settings_are_named(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_engine("openai", EngineConfig.model_validate(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "http://me:pa55w0rd@127.0.0.1/v1"},
        {"base_url": "http://pa55w0rd@127.0.0.1/v1"},
        {"base_url": "me:pa55w0rd@127.0.0.1/v1"},
        {"base_url": "http://127.0.0.1/v1?key=pa55w0rd"},
        {"base_url": "http://127.0.0.1/v1#pa55w0rd"},
        {"base_url": "http://[::1/v1?pa55w0rd"},
        {"base_url": "http://127.0.0.1/sk-pa55w0rd123/v1"},
        {"base_url": "http://127.0.0.1:1/v1;key=pa55w0rd"},
        {"base_url": "http://127.0.0.1:1/v1/key=pa55w0rd"},
        {"base_url": "http://127.0.0.1:1/v1%3Fkey%3Dpa55w0rd"},
        {"base_url": "http://127.0.0.1:1/v1%2523pa55w0rd"},
        {"base_url": "http://me%3Apa55w0rd%40127.0.0.1/v1"},
        {"api_key_env": "pa55w0rd0123456789abcdef01234567"},
        {"api_key_env": "Zm9vYmFyYmF6cXV4Zm9vpa55w0rd"},
        {"api_key_env": "sk-pa55w0rd"},
        {"api_key_env": "gsk_pa55w0rd12345678"},
        {"api_key_env": "pa55w0rd with words"},
        {"api_key": "pa55w0rd"},
        {"Authorization": "Bearer pa55w0rd"},
        {"default_headers": {"x-api-key": "pa55w0rd"}},
        {"concurrency": "Bearer pa55w0rd"},
    ],
)
def test_a_setting_that_holds_a_key_is_refused_without_showing_it(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(EngineConfig, {"model": "m", **settings}, "here")
    assert "pa55w0rd" not in str(caught.value)
    with pytest.raises(ValidationError) as raised:
        EngineConfig.model_validate(settings)
    assert "pa55w0rd" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://ann:pa55w0rd/v1", "ftp://pa55w0rd/v1", "pa55w0rd"])
def test_an_address_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="--base-url must be an http") as caught:
        open_engine("openai", EngineConfig(model="m", base_url=url))
    assert "pa55w0rd" not in str(caught.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "JUDGE_KEY_0123456789abcdef", "MYCOMPANYSKEY"])
def test_the_name_of_a_variable_is_no_key(name: str) -> None:
    assert EngineConfig(api_key_env=name).api_key_env == name


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


def refuse(server: Any, *fields: str, status: int = 400) -> None:
    """Have the server refuse every request that has one of the fields, as reasoning models do."""

    def judge(body: dict[str, Any]) -> Any:
        for field in fields:
            if field in body:
                error = {"message": f"Unsupported parameter: '{field}'", "param": field}
                return server.raw(json.dumps({"error": error}), status)
        return None

    server.judges = judge


@pytest.mark.parametrize("status", [400, 422])
def test_a_field_that_a_server_does_not_know_is_left_out_once_and_for_all(
    server: Any, config: EngineConfig, ask: Ask, status: int
) -> None:
    refuse(server, "max_tokens", "temperature", "seed", "top_p", "stop", status=status)
    engine = open_engine("openai", config.model_copy(update={"concurrency": 1}))
    sampling = SHORT.model_copy(update={"stop": ("#",)})
    given = list(engine.complete([ask(f"{n}", f"q{n}") for n in range(5)], sampling))
    assert [one.response for one in given] == [f"reply to q{n}" for n in range(5)]
    assert {*server.bodies[-1]} == {"messages", "model", "max_completion_tokens"}
    assert server.asked["q0"] == 6 and server.asked.total() == 10
    assert all("server's own temperature" in one.detail for one in given)


def test_a_temperature_that_was_chosen_is_not_dropped(
    server: Any, engine: Engine, ask: Ask
) -> None:
    refuse(server, "temperature")
    given = only(engine, ask("a", "hi"), SHORT.model_copy(update={"temperature": 0.7}))
    assert "Unsupported parameter: 'temperature'" in str(given.error)
    assert server.asked["hi"] == 1


def test_a_field_is_left_out_no_longer_than_its_error_lasts(
    server: Any, engine: Engine, ask: Ask
) -> None:
    refuse(server, "messages", "seed")
    given = only(engine, ask("a", "hi"))
    assert "Unsupported parameter: 'messages'" in str(given.error)
    server.judges = lambda body: None
    only(engine, ask("b", "ho"))
    assert "seed" in server.bodies[-1]


FORM = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def question(ask: Ask, name: str) -> Question:
    return Question(item_id=name, prompt=ask(name, name).prompt, form=FORM)


def test_a_judge_is_asked_for_a_form_and_without_one_where_the_server_has_none(
    server: Any, config: EngineConfig, ask: Ask
) -> None:
    engine = open_engine("openai", config.model_copy(update={"concurrency": 1}))
    only(engine, question(ask, "q"))
    asked = server.bodies[0]["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["strict"]
    assert asked["json_schema"]["schema"] == FORM
    only(engine, ask("a", "hi"))
    assert "response_format" not in server.bodies[1]
    refuse(server, "response_format")
    given = list(engine.complete([question(ask, f"q{n}") for n in range(4)], SHORT))
    assert [one.response for one in given] == [f"reply to q{n}" for n in range(4)]
    assert server.asked.total() == 2 + 5, "the form is refused once"


def test_a_form_changes_no_key_so_that_older_replies_are_still_replies(
    server: Any, engine: Engine, ask: Ask, tmp_path: Path
) -> None:
    list(generate(engine, [ask("q", "q")], tmp_path / "journal.jsonl", SHORT))
    list(generate(engine, [question(ask, "q")], tmp_path / "journal.jsonl", SHORT))
    assert server.asked["q"] == 1


FILTERS = [
    {"message": "policy", "code": "content_filter", "param": "prompt"},
    {"message": "policy", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
    {"message": "policy", "type": "content_policy_violation"},
    {"message": "flagged", "code": 403, "metadata": {"flagged_input": "x", "reasons": ["hate"]}},
]


@pytest.mark.parametrize("error", FILTERS)
@pytest.mark.parametrize("status", [400, 403])
def test_a_prompt_that_a_filter_refuses_has_an_outcome_and_is_not_asked_again(
    server: Any, engine: Engine, ask: Ask, tmp_path: Path, error: dict[str, Any], status: int
) -> None:
    server.plan["bad"] = [server.raw(json.dumps({"error": error}), status)] * 2
    asks = [ask("a", "bad"), ask("b", "good")]
    for _ in range(2):
        bad, good = generate(engine, asks, tmp_path / "journal.jsonl", SHORT)
        assert (bad.response, bad.finish_reason, bad.error) == ("", "filtered", None)
        assert bad.detail
        assert good.response == "reply to good"
    assert server.asked == {"bad": 1, "good": 1}
    list(generate(engine, asks, tmp_path / "journal.jsonl", SHORT, retry_filtered=True))
    assert server.asked == {"bad": 2, "good": 1}
    again, _ = generate(engine, asks, tmp_path / "journal.jsonl", SHORT, retry_filtered=True)
    assert again.response == "reply to bad", "what is asked again and answered is the answer"
    later, _ = generate(engine, asks, tmp_path / "journal.jsonl", SHORT, retry_filtered=True)
    assert later.response == "reply to bad" and server.asked["bad"] == 3


def test_what_a_filter_kept_back_stays_an_outcome_when_asking_again_fails(
    server: Any, engine: Engine, ask: Ask, tmp_path: Path
) -> None:
    server.plan["bad"] = [server.reply(None), server.reply("no", status=400)]
    journal = tmp_path / "journal.jsonl"
    list(generate(engine, [ask("a", "bad")], journal, SHORT))
    (given,) = generate(engine, [ask("a", "bad")], journal, SHORT, retry_filtered=True)
    assert given.error is not None
    (given,) = generate(engine, [ask("a", "bad")], journal, SHORT)
    assert (given.finish_reason, server.asked["bad"]) == ("filtered", 2)


def test_thoughts_are_kept_beside_what_was_said(server: Any, engine: Engine, ask: Ask) -> None:
    message = {"content": "Sure.", "reasoning_content": "I cannot."}
    choice = {"message": message, "finish_reason": "eos"}
    server.plan["hi"] = [server.raw(json.dumps({"choices": [choice]}))]
    given = only(engine, ask("a", "hi"))
    assert (given.response, given.finish_reason, given.reasoning) == ("Sure.", "stop", "I cannot.")


def test_a_stop_string_makes_no_answer_of_what_was_filtered(
    server: Any, engine: Engine, ask: Ask
) -> None:
    server.plan["hi"] = [server.reply("one # two", finish="content_filter")]
    given = only(engine, ask("a", "hi"), SHORT.model_copy(update={"stop": ("#",)}))
    assert (given.response, given.finish_reason) == ("one # two", "filtered")


def test_another_model_than_the_one_asked_for_is_named_once(
    server: Any, engine: Engine, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop"}
    for n, model in enumerate(
        ["other\x1b[31m", "judge", "judge-2026-01-01", "org/Judge", 7, "other\x1b[31m"]
    ):
        server.plan[f"q{n}"] = [server.raw(json.dumps({"model": model, "choices": [choice]}))]
    given = list(engine.complete([ask(f"{n}", f"q{n}") for n in range(6)], SHORT))
    assert all(one.response == "a" for one in given)
    said = [record.getMessage() for record in caplog.records]
    assert said == [r"requested model 'judge', but the server answers as 'other\x1b[31m'"]


def test_an_error_is_one_short_line_that_steers_no_terminal(
    server: Any, engine: Engine, ask: Ask
) -> None:
    server.plan["hi"] = [server.reply("no\n\x1b]0;title\x07\u2028 way " + "x" * 9000, status=400)]
    error = str(only(engine, ask("a", "hi")).error)
    assert len(error) <= 200 and error.isprintable()
    assert r"\x1b]0;title\x07" in error


def test_a_key_that_a_server_sends_back_as_an_answer_is_in_no_record(
    server: Any, config: EngineConfig, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    engine = open_engine("openai", config.model_copy(update={"api_key_env": "JUDGE_KEY"}))
    server.says = lambda prompt: f"your key is {KEY}, and {prompt}"
    journal = tmp_path / "journal.jsonl"
    (given,) = generate(engine, [ask("a", "hi")], journal, SHORT)
    assert given.response == "your key is [key], and hi"
    assert KEY not in journal.read_text(encoding="utf-8")


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(sign):04x}" for sign in text)


def test_a_key_that_a_server_escapes_is_in_no_record(
    server: Any, config: EngineConfig, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    engine = open_engine("openai", config.model_copy(update={"api_key_env": "JUDGE_KEY"}))
    spelt = escaped(KEY)
    message = f'{{"content": "it is {spelt}", "reasoning": "{spelt}?"}}'
    whole = f'{{"model": "{spelt}", "choices": [{{"message": {message}, "finish_reason": "%s"}}]}}'
    percent = "".join(f"%{ord(sign):02x}" for sign in KEY)
    server.plan["a"] = [server.raw(whole % "stop")]
    server.plan["b"] = [server.raw(whole % spelt)]
    server.plan["c"] = [server.raw(f'{{"error": {{"message": "{spelt} {percent}"}}}}', 400)]
    server.plan["d"] = [server.raw(f'{{"choices": "{spelt}", {spelt}')]
    journal = tmp_path / "journal.jsonl"
    given = by_id(generate(engine, [ask(name, name) for name in "abcd"], journal, SHORT))
    assert (given["a"].response, given["a"].reasoning) == ("it is [key]", "[key]?")
    assert given["b"].detail == "finish_reason '[key]'"
    assert "[key] [key]" in str(given["c"].error)
    assert given["d"].error is not None
    kept = journal.read_text(encoding="utf-8")
    assert not any(text in kept for text in (KEY, spelt[:24], percent[:12]))


def test_a_word_in_place_of_a_key_is_an_ordinary_word_in_answers(
    server: Any, config: EngineConfig, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "EMPTY")
    engine = open_engine("openai", config.model_copy(update={"api_key_env": "JUDGE_KEY"}))
    server.says = lambda prompt: "EMPTY"
    assert only(engine, ask("a", "hi")).response == "EMPTY"
