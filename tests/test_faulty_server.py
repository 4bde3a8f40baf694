"""Thousands of prompts against a server of which a third of the replies are faulty.

Nothing is lost, nothing is another prompt's answer, and nothing is paid twice: the server gives a
whole answer to the same prompt again only if that was in flight when the client was killed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Message, Request, Sampling
from response_tuning.generate import EngineConfig, generate, open_engine

SHORT = Sampling(max_new_tokens=16)
FILTERED = ("filter", "null", "tool call", "filter error")


def answer(prompt: str) -> str:
    return f"answer to {sha256(prompt.encode()).hexdigest()[:12]}"


def reply(prompt: str, finish: str | None = "stop", **message: object) -> bytes:
    content = {"content": answer(prompt), **message}
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    choice = {"index": 0, "message": content, "finish_reason": finish}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()


def http(data: bytes, status: int = 200, head: str = "", length: int | None = None) -> bytes:
    n = len(data) if length is None else length
    return f"HTTP/1.1 {status} X\r\nContent-Length: {n}\r\n{head}\r\n".encode() + data


def faults(other: str) -> dict[str, Callable[[str], tuple[bytes, bool]]]:
    """Fault -> the bytes sent in reply to a prompt, and whether these are a whole answer to it."""
    elsewhere = f"Location: {other}\r\n"
    error = b'{"error": {"message": "no"}}'
    filter_error = b'{"error": {"message": "policy", "code": "content_filter"}}'
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n"
    return {
        "redirect 302": lambda p: (http(b"", 302, elsewhere), False),
        "redirect 307": lambda p: (http(b"", 307, elsewhere), False),
        "redirect 308": lambda p: (http(b"", 308, elsewhere), False),
        "doubled": lambda p: (http(reply(p)) + http(reply("a stranger's")), True),
        "tripled": lambda p: (http(reply(p)) + 2 * http(reply("a stranger's")), True),
        "two bodies": lambda p: (http(reply(p) + reply("a stranger's")), False),
        "429": lambda p: (http(error, 429, "Retry-After: 0\r\n"), False),
        "500": lambda p: (http(error, 500), False),
        "503": lambda p: (http(b"", 503), False),
        "401": lambda p: (http(error, 401), False),
        "400": lambda p: (http(error, 400), False),
        "html": lambda p: (http(b"<html>Sign in</html>"), False),
        "empty": lambda p: (http(b""), False),
        "no reply": lambda p: (b"", False),
        "no choices": lambda p: (http(b'{"choices": []}'), False),
        "error 200": lambda p: (http(error), False),
        "torn": lambda p: (http(reply(p)[:-9]), False),
        "short": lambda p: (http(reply(p), length=9999), False),
        "chunks": lambda p: (chunked + b'{"choices": [{"i', False),
        "surrogate": lambda p: (http(reply(p).replace(b"answer", b"\\ud800")), False),
        "utf-8": lambda p: (http(reply(p).replace(b"answer", b"\xff")), False),
        "no finish": lambda p: (http(reply(p, finish=None)), True),
        "parts": lambda p: (http(reply(p, content=[{"type": "text", "text": answer(p)}])), True),
        "usage": lambda p: (http(reply(p).replace(b"7}", b'"many"}')), True),
        "filter": lambda p: (http(reply(p, finish="content_filter")), True),
        "null": lambda p: (http(reply(p, content=None)), True),
        "tool call": lambda p: (http(reply(p, "tool_calls", content=None, tool_calls=[{}])), True),
        "filter error": lambda p: (http(filter_error, 400), True),
    }


class Faulty:
    """Answers, but for a share of the requests that is drawn for each from a seed."""

    def __init__(self, rate: float) -> None:
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        """Prompt -> whole answers, and outcomes that are no failures, that went out."""
        self.faults: Counter[str] = Counter()
        self.elsewhere = 0
        """Requests to the other host."""
        self.gate: Callable[[int], None] = lambda number: None
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = asked["messages"][-1]["content"]
                with server._lock:
                    server.asked[prompt] += 1
                    number, times = server.asked.total(), server.asked[prompt]
                server.gate(number)
                draw = random.Random(f"{prompt} {times}")
                fault = draw.choice([*known]) if draw.random() < rate else ""
                data, paid = known[fault](prompt) if fault else (http(reply(prompt)), True)
                try:
                    self.wfile.write(data)
                    self.wfile.flush()
                except OSError:
                    paid = False
                with server._lock:
                    server.paid[prompt] += paid
                    server.faults[fault] += 1
                self.close_connection = fault in ("no reply", "short", "chunks")

            def log_message(self, *_: object) -> None:
                pass

        class Other(Handler):
            def do_POST(self) -> None:
                server.elsewhere += 1
                self.wfile.write(http(reply("a stranger's")))

            do_GET = do_POST

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass

        self._servers = [Quiet(("127.0.0.1", 0), kind) for kind in (Handler, Other)]
        self.url, other = (f"http://127.0.0.1:{one.server_port}/v1" for one in self._servers)
        known = faults(other)
        self.known = {*known}
        self._threads = [
            threading.Thread(target=one.serve_forever, args=(0.01,)) for one in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for one, thread in zip(self._servers, self._threads, strict=True):
            one.shutdown()
            one.server_close()
            thread.join()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    running = Faulty(rate=0.3)
    yield running
    running.close()


def asked(count: int) -> list[Request]:
    return [
        Request(item_id=f"{n}", prompt=(Message(role="user", content=f"question {n}"),))
        for n in range(count)
    ]


def check(faulty: Faulty, requests: list[Request], given: list[Completion]) -> None:
    lost = [one for one in given if one.error is not None]
    foreign = [
        one
        for one in given
        if one.response not in ("", answer(one.prompt[0].content))
        or (one.response == "" and one.finish_reason != "filtered")
    ]
    twice = {prompt: times for prompt, times in faulty.paid.items() if times > 1}
    assert (len(given), len(lost), len(foreign), twice, faulty.elsewhere) == (
        *(len(requests), 0, 0, {}, 0),
    )
    assert [one.item_id for one in given] == [one.item_id for one in requests]


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.exhaustive)])
def test_nothing_is_lost_or_foreign_or_paid_twice(
    faulty: Faulty, tmp_path: Path, count: int
) -> None:
    config = EngineConfig(
        model="m", base_url=faulty.url, concurrency=8, timeout_s=30, max_retries=4
    )
    requests = asked(count)
    given: list[Completion] = []
    for _ in range(12):  # what is left is asked by the same command again
        engine = open_engine("openai", config)
        given = list(generate(engine, requests, tmp_path / "journal.jsonl", SHORT))
        if all(one.error is None for one in given):
            break
    check(faulty, requests, given)
    assert {*faulty.faults} >= ({*faulty.known} if count > 1000 else {"doubled", "redirect 307"})
    kept_back = Counter(one.finish_reason == "filtered" for one in given)
    assert kept_back[True] == sum(faulty.faults[fault] for fault in FILTERED)


RUN = """
import sys
from pathlib import Path
from response_tuning.artifacts import Message, Request, Sampling, write_jsonl
from response_tuning.generate import EngineConfig, generate, open_engine

url, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
config = EngineConfig(model="m", base_url=url, concurrency=8, timeout_s=30, max_retries=4)
asked = [
    Request(item_id=f"{n}", prompt=(Message(role="user", content=f"question {n}"),))
    for n in range(count)
]
engine = open_engine("openai", config)
given = list(generate(engine, asked, folder / "journal.jsonl", Sampling(max_new_tokens=16)))
write_jsonl(folder / "out.jsonl", given)
sys.exit(sum(one.error is not None for one in given) > 0)
"""


def test_a_client_that_is_killed_again_and_again_pays_twice_only_for_what_was_in_flight(
    faulty: Faulty, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RUN, faulty.url, str(tmp_path), "200"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    running = None
    for stop in (40, 90, 150, 10**9, 10**9, 10**9, 10**9, 10**9):
        reached = threading.Event()

        def gate(number: int, stop: int = stop, reached: threading.Event = reached) -> None:
            if number >= stop:
                reached.set()

        faulty.gate = gate
        running = subprocess.Popen(command, env=environment)
        if stop < 10**9:
            assert reached.wait(60)
            running.send_signal(signal.SIGKILL)
            kills += 1
        if running.wait(120) == 0:
            break
    assert running is not None and running.returncode == 0
    given = [
        Completion.model_validate_json(line)
        for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    again = sum(times - 1 for times in faulty.paid.values() if times > 1)
    assert kills == 3 and again <= 8 * kills
    faulty.paid.clear()
    check(faulty, asked(200), given)
