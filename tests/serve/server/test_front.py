import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import pytest

from response_tuning.errors import ConfigError
from response_tuning.serve.server.front import ServedModel, front_app, outgoing, read_key
from tests.fixtures.asgi import served
from tests.fixtures.chat_server import Listener, reply

INNER, KEY = "key-of-the-processes", "key-of-the-clients-0123"
ASK = {"model": "rt", "messages": [{"role": "user", "content": "hi"}]}


class Recorded(Listener):
    """A model's process that records what it gets, and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.act = reply("hello")
        self.start(self._handle)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.got.append((handler.path, body, dict(handler.headers)))
        self.act(handler)


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Message


def call(url: str, body: Any = None, **headers: str) -> Answer:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(url, data, fields)
    try:
        with urllib.request.urlopen(request) as got:
            return Answer(got.status, json.load(got), got.headers)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return Answer(error.code, json.loads(text) if text[:1] == "{" else text, error.headers)


@pytest.fixture
def processes() -> Iterator[tuple[Recorded, Recorded]]:
    both = Recorded(), Recorded()
    yield both
    for one in both:
        one.close()


def models(processes: tuple[Recorded, Recorded]) -> list[ServedModel]:
    urls = [process.url.removesuffix("/v1") for process in processes]
    return [
        ServedModel(
            "rt", "llama.cpp", urls[0], "gguf@1", ("\nuser\n",), {"temperature": 0}, created=7
        ),
        ServedModel("org/it", "transformers", urls[1], "local@2"),
    ]


@pytest.fixture
def front(processes: tuple[Recorded, Recorded]) -> Iterator[str]:
    with served(front_app(models(processes), INNER, lambda name: True)) as url:
        yield url


def test_the_list_has_the_models_that_are_served_and_no_others(front: str) -> None:
    listed = call(f"{front}/v1/models").body
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["rt", "org/it"]
    assert listed["data"][0] == {
        **{"id": "rt", "object": "model", "created": 7, "owned_by": "response-tuning"},
        **{"served_by": "llama.cpp", "identity": "gguf@1"},
    }
    assert call(f"{front}/v1/models/org/it").body["id"] == "org/it"


def test_a_request_goes_to_the_process_of_its_model_with_that_processs_key(
    front: str, processes: tuple[Recorded, Recorded]
) -> None:
    sent = call(f"{front}/v1/chat/completions", ASK | {"model": "org/it"}, Authorization="Bearer x")
    assert (sent.status, sent.body["choices"][0]["message"]["content"]) == (200, "hello")
    assert processes[0].got == []
    path, body, headers = processes[1].got[0]
    assert (path, body) == ("/v1/chat/completions", ASK | {"model": "org/it"})
    assert headers["Authorization"] == f"Bearer {INNER}"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"temperature": 0, "stop": ["\nuser\n"]}),
        ({"stop": "END", "temperature": 0.7}, {"temperature": 0.7, "stop": ["END", "\nuser\n"]}),
        ({"stop": ["\nuser\n", "a"]}, {"temperature": 0, "stop": ["\nuser\n", "a"]}),
        ({"temperature": None, "stop": None}, {"temperature": 0, "stop": ["\nuser\n"]}),
    ],
)
def test_the_templates_stop_strings_and_missing_sampling_are_added(
    given: dict[str, Any], sent: dict[str, Any]
) -> None:
    model = ServedModel("rt", "x", "http://x", "", ("\nuser\n",), {"temperature": 0})
    assert outgoing(given, model, chat=True) == {"model": "rt"} | sent


def test_a_prompt_without_messages_ends_where_the_client_says() -> None:
    model = ServedModel("rt", "x", "http://x", "", ("\nuser\n",))
    assert "stop" not in outgoing({"prompt": "a"}, model, chat=False)


def test_an_unknown_model_is_a_404_that_names_those_that_are_served(front: str) -> None:
    missing = call(f"{front}/v1/chat/completions", ASK | {"model": "gpt-4"})
    assert (missing.status, missing.body["error"]["code"]) == (404, "model_not_found")
    assert missing.body["error"]["message"] == (
        "model 'gpt-4' is not served; there are: rt, org/it"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        ([1], "not a JSON object"),
        (ASK | {"stop": 5}, "stop: not a string or a list"),
        (ASK | {"stop": [5]}, "stop: not a string or a list"),
    ],
)
def test_a_body_that_is_no_request_is_a_400(front: str, body: Any, said: str) -> None:
    refused = call(f"{front}/v1/chat/completions", body)
    assert refused.status == 400 and said in refused.body["error"]["message"]


def test_a_form_of_another_sites_page_is_refused(
    front: str, processes: tuple[Recorded, Recorded]
) -> None:
    form = call(f"{front}/v1/chat/completions", ASK, Content_Type="text/plain")
    assert form.status == 415
    assert call(f"{front}/v1/models", Host="evil.example").status == 400
    assert processes[0].got == []


def test_another_address_of_this_machine_is_one_of_its_names(
    processes: tuple[Recorded, Recorded],
) -> None:
    for address, header in (("::1", "[::1]:8000"), ("127.0.0.2", "127.0.0.2:8000")):
        app = front_app(models(processes), INNER, lambda name: True, None, address)
        with served(app) as url:
            assert call(f"{url}/v1/models", Host=header).status == 200
            assert call(f"{url}/v1/models", Host="evil.example").status == 400


def test_what_the_process_refuses_reaches_the_client_as_it_is(
    front: str, processes: tuple[Recorded, Recorded]
) -> None:
    processes[0].act = reply("the prompt is too long", status=400)
    refused = call(f"{front}/v1/chat/completions", ASK)
    assert (refused.status, refused.body["error"]) == (400, {"message": "the prompt is too long"})


def test_a_model_whose_process_has_ended_is_a_503_and_the_others_answer(
    processes: tuple[Recorded, Recorded],
) -> None:
    with served(front_app(models(processes), INNER, lambda name: name != "rt")) as url:
        gone = call(f"{url}/v1/chat/completions", ASK)
        assert gone.status == 503 and "model 'rt' has ended" in gone.body["error"]["message"]
        assert call(f"{url}/v1/chat/completions", ASK | {"model": "org/it"}).status == 200
        health = call(f"{url}/health")
        assert (health.status, health.body) == (503, {"models": {"rt": "ended", "org/it": "ok"}})


def test_a_process_that_cuts_the_connection_is_a_502(
    front: str, processes: tuple[Recorded, Recorded]
) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    processes[0].act = hang_up
    lost = call(f"{front}/v1/chat/completions", ASK)
    assert lost.status == 502 and "'rt' does not answer" in lost.body["error"]["message"]


def test_a_stream_arrives_piece_by_piece(front: str, processes: tuple[Recorded, Recorded]) -> None:
    import threading

    seen = threading.Event()

    def stream(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"data: one\n\n")
        handler.wfile.flush()
        assert seen.wait(30)  # the client has read the first piece before there is a second
        handler.wfile.write(b"data: two\n\n")
        handler.close_connection = True

    processes[0].act = stream
    data = json.dumps(ASK | {"stream": True}).encode()
    request = urllib.request.Request(
        f"{front}/v1/chat/completions", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as got:
        assert got.headers["Content-Type"] == "text/event-stream"
        assert got.readline() == b"data: one\n"
        seen.set()
        assert got.read() == b"\ndata: two\n\n"


def test_a_client_that_leaves_ends_its_request(
    front: str, processes: tuple[Recorded, Recorded]
) -> None:
    import socket
    import threading

    asked, closed = threading.Event(), threading.Event()

    def wait_for_the_end(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        handler.connection.settimeout(30)
        if handler.connection.recv(1) == b"":
            closed.set()
        handler.close_connection = True

    processes[0].act = wait_for_the_end
    data = json.dumps(ASK).encode()
    host, port = front.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
            + data
        )
        assert asked.wait(30)
    assert closed.wait(30)


def test_with_a_key_every_request_needs_it_and_no_answer_repeats_it(
    processes: tuple[Recorded, Recorded],
) -> None:
    with served(front_app(models(processes), INNER, lambda name: True, KEY)) as url:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            for path in ("/v1/models", "/v1/models/rt", "/v1/chat/completions"):
                refused = call(url + path, ASK if "chat" in path else None, **headers)
                assert (refused.status, refused.body["error"]["code"]) == (401, "invalid_api_key")
                assert KEY not in str(refused)
        allowed = {"Authorization": f"Bearer {KEY}", "Host": "models.example"}
        assert call(f"{url}/v1/models", **allowed).status == 200
        assert call(f"{url}/v1/chat/completions", ASK, **allowed).status == 200
    assert KEY not in str(processes[0].got)


@pytest.mark.parametrize(
    "text", ["", "short", "two words in one line of a file", "ö" * 20, "a\n" * 20]
)
def test_a_file_without_a_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match=r"keys\.txt: not one line of at least 16") as error:
        read_key(text, "keys.txt")
    assert len(text) < 3 or text not in str(error.value)


def test_a_key_is_read_without_the_line_break() -> None:
    assert read_key(f"{KEY}\n", "keys.txt") == KEY
