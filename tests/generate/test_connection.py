"""What comes over the wire, byte by byte, from a server that sends exactly what it is told."""

import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.generate import EngineConfig, generate, open_engine

Ask = Callable[..., Request]
Act = Callable[[socket.socket, str], None]
SHORT = Sampling(max_new_tokens=16)


def body(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice]}).encode()


def http(
    content: bytes, head: str = "", status: str = "200 OK", length: int | None = None
) -> bytes:
    n = len(content) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {n}\r\n{head}\r\n".encode() + content


def send(data: bytes) -> Act:
    return lambda connection, prompt: connection.sendall(data)


class Wire:
    """Accepts connections and keeps them open, so that a client may send on one again."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.asked: Counter[str] = Counter()
        self.heads: list[str] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                while head := self._head(lines):
                    length = next(
                        int(line.partition(":")[2])
                        for line in head.lower().split("\r\n")
                        if line.startswith("content-length:")
                    )
                    asked = json.loads(lines.read(length))
                    prompt = asked["messages"][-1]["content"]
                    self.asked[prompt] += 1
                    self.heads.append(head)
                    self._act(connection, prompt)
            except OSError:
                pass

    @staticmethod
    def _head(lines: Any) -> str:
        head = b""
        while (line := lines.readline()) not in (b"", b"\r\n"):
            head += line
        return head.decode()


@pytest.fixture
def wire() -> Iterator[Callable[[Act], Wire]]:
    opened: list[Wire] = []

    def start(act: Act) -> Wire:
        opened.append(Wire(act))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def said(url: str, requests: list[Request], **settings: object) -> list[Completion]:
    config = {"model": "m", "base_url": url, "concurrency": 2, "timeout_s": 20, "max_retries": 0}
    engine = open_engine("openai", EngineConfig.model_validate(config | settings))
    found = {one.item_id: one for one in engine.complete(requests, SHORT)}
    return [found[request.item_id] for request in requests]


def test_what_follows_a_reply_is_not_the_reply_to_the_next_request(
    wire: Callable[[Act], Wire], ask: Ask
) -> None:
    def twice(connection: socket.socket, prompt: str) -> None:
        connection.sendall(http(body(f"to {prompt}")) + http(body("a stranger's")))

    server = wire(twice)
    given = said(server.url, [ask(f"{n}", f"q{n}") for n in range(20)])
    assert [one.response for one in given] == [f"to q{n}" for n in range(20)]
    assert server.connections == 20
    assert all("connection: close" in head.lower() for head in server.heads)


def test_a_reply_that_comes_late_is_not_the_reply_to_the_next_request(
    wire: Callable[[Act], Wire], ask: Ask
) -> None:
    def late(connection: socket.socket, prompt: str) -> None:
        connection.sendall(http(body(f"to {prompt}")))
        time.sleep(0.01)
        connection.sendall(http(body("a stranger's")))

    given = said(wire(late).url, [ask(f"{n}", f"q{n}") for n in range(20)])
    assert [one.response for one in given] == [f"to q{n}" for n in range(20)]


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P", "300 C"])
def test_no_redirect_is_followed_and_the_host_it_names_is_said(
    wire: Callable[[Act], Wire], ask: Ask, status: str
) -> None:
    other = wire(send(http(body("a stranger's"))))
    place = f"Location: http://127.0.0.1:{other.port}/v1/secret-path?token=abc\r\n"
    server = wire(send(http(b"", place, status)))
    given = said(server.url, [ask(f"{n}", f"q{n}") for n in range(10)], max_retries=2)
    assert other.connections == 0
    assert given[0].response is None
    first = str(given[0].error)
    assert f"HTTP {status[:3]}: the server redirects to 127.0.0.1:{other.port}; nothing" in first
    assert "secret" not in first and "\n" not in first
    assert server.asked.total() < 6, "a server that redirects is not asked again and again"


@pytest.mark.parametrize("place", ["Location: /v2\r\n", "Location: http://[\r\n", ""])
def test_a_redirect_to_nowhere_is_an_error_as_well(
    wire: Callable[[Act], Wire], ask: Ask, place: str
) -> None:
    (given,) = said(wire(send(http(b"", place, "307 T"))).url, [ask("a", "hi")])
    assert "HTTP 307: the server redirects to another path" in str(given.error)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (http(body("hi"), length=4000), "APIConnectionError"),
        (http(body("hi"), length=20), "unusable reply: body"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + b'{"choices": [{"',
            "API",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "APIConnectionError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "APIConnection"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + body("hi")[:-5], "unusable reply: body"),
        (http(body("one") + body("two")), "unusable reply: body"),
        (b"not HTTP at all\r\n\r\n", "APIConnectionError"),
        (http(b"x" * 40, "Content-Encoding: gzip\r\n"), "APIConnectionError"),
        (
            http(body("hi"), "Content-Encoding: br\r\n"),
            "encoding 'br', which was not",
        ),
    ],
)
def test_a_reply_that_is_not_whole_is_an_error(
    wire: Callable[[Act], Wire], ask: Ask, data: bytes, error: str
) -> None:
    def act(connection: socket.socket, prompt: str) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    (given,) = said(wire(act).url, [ask("a", "hi")])
    assert given.response is None and error in str(given.error)


def test_a_packed_reply_is_unpacked(wire: Callable[[Act], Wire], ask: Ask) -> None:
    server = wire(send(http(gzip.compress(body("hello")), "Content-Encoding: gzip\r\n")))
    (given,) = said(server.url, [ask("a", "hi")])
    assert given.response == "hello"
    assert "accept-encoding: identity" in server.heads[0].lower()


@pytest.mark.parametrize("packed", [True, False])
def test_a_reply_without_end_is_not_read_to_it(
    wire: Callable[[Act], Wire], ask: Ask, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr("response_tuning.generate.connection.MAX_REPLY_BYTES", 2**20)
    content = body("x" * 2**21)
    data = http(gzip.compress(content), "Content-Encoding: gzip\r\n") if packed else http(content)
    (given,) = said(wire(send(data)).url, [ask("a", "hi")], max_retries=3)
    assert "a reply of more than 1 MiB" in str(given.error)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_reply_that_drips_ends_at_the_time_out(
    wire: Callable[[Act], Wire], ask: Ask, part: str
) -> None:
    stopped = threading.Event()

    def drip(connection: socket.socket, prompt: str) -> None:
        if part == "body":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while not stopped.wait(0.02):  # far more often than the time-out
                connection.sendall(b"x")
        finally:
            stopped.set()

    (given,) = said(wire(drip).url, [ask("a", "hi")], timeout_s=0.4)
    assert "APITimeoutError" in str(given.error)
    assert "no whole reply within 0.4 s" in str(given.error)
    assert stopped.wait(20), "the connection is closed, so that the server can stop"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_sees_no_prompt_in_clear(
    wire: Callable[[Act], Wire], ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    proxy = wire(send(http(body("a stranger's"))))
    monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    server = wire(send(http(body("mine"))))
    (given,) = said(server.url, [ask("a", "hi")])
    assert given.response == "mine" and proxy.connections == 0


def test_an_https_server_is_reached_through_the_environment_s_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from response_tuning.generate.connection import proxy_for

    for other in ("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "inside.test")
    assert proxy_for("https://api.test/v1") == "http://proxy.test:3128"
    assert proxy_for("https://inside.test/v1") is None
    assert proxy_for("http://api.test/v1") is None


def test_what_was_paid_for_is_kept_when_a_connection_is_not(
    wire: Callable[[Act], Wire], ask: Ask, tmp_path: Path
) -> None:
    """A connection that is cut after the whole reply has given a reply."""

    def cut(connection: socket.socket, prompt: str) -> None:
        connection.sendall(http(body(f"to {prompt}")))
        connection.close()

    server = wire(cut)
    config = EngineConfig(model="m", base_url=server.url, concurrency=4, timeout_s=20)
    requests = [ask(f"{n}", f"q{n}") for n in range(20)]
    engine = open_engine("openai", config)
    given = list(generate(engine, requests, tmp_path / "journal.jsonl", SHORT))
    assert [one.response for one in given] == [f"to q{n}" for n in range(20)]
    assert {*server.asked.values()} == {1}
