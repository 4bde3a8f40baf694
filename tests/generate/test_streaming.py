import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from response_tuning.artifacts import Message, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import EngineError
from response_tuning.generate.streaming import Streamed, StreamingServer

QUESTION = (Message(role="user", content="Hi."),)
SHORT = Sampling(max_new_tokens=9)
KEY = "sk-secret-0123456789"


def piece(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "served",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}],
    }  # fmt: skip


USAGE = {
    **piece(),
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


def sse(*chunks: dict[str, Any], done: bool = True) -> Callable[[BaseHTTPRequestHandler], None]:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            handler.wfile.flush()
        if done:
            handler.wfile.write(b"data: [DONE]\n\n")
        handler.close_connection = True

    return act


Streaming = Callable[..., tuple[Streamed, list[str]]]


@pytest.fixture
def streamed(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streaming]:
    """Ask the server once, and keep the pieces that were written."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def ask(
        *behaviours: Any,
        sampling: Sampling = SHORT,
        stop_after: int | None = None,
        asked: StreamingServer | None = None,
    ) -> tuple[Streamed, list[str]]:
        server.plan["Hi."] = list(behaviours)
        pieces: list[str] = []
        config = EngineConfig(model="served", base_url=server.url, max_retries=0)
        answer = (asked or StreamingServer(config)).stream(
            QUESTION, sampling, pieces.append, lambda: len(pieces) == stop_after
        )
        return answer, pieces

    yield ask


def test_text_is_written_as_it_arrives(streamed: Streaming, server: Any) -> None:
    answer, pieces = streamed(
        sse(piece(""), piece("It "), piece("is."), piece(None, "stop"), USAGE)
    )
    assert pieces == ["It ", "is."]
    assert answer == Streamed("It is.", "stop", "", 3, 7, "served", (), whole=True)
    (body,) = server.bodies
    assert body["stream"] is True
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.0, 0)
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("word", "finish", "detail"),
    [
        ("length", "length", ""), ("max_tokens", "length", ""), ("eos_token", "stop", ""),
        ("content_filter", "filtered", ""), ("odd", "other", "finish_reason 'odd'"),
    ],
)  # fmt: skip
def test_a_server_s_word_for_the_end_is_read(
    streamed: Streaming, word: str, finish: str, detail: str
) -> None:
    answer, _ = streamed(sse(piece("It."), piece(None, word)))
    assert (answer.finish_reason, answer.detail) == (finish, detail)


def test_without_a_word_for_the_end_the_count_of_tokens_tells(streamed: Streaming) -> None:
    short = sse(piece("It."), USAGE)
    assert streamed(short)[0].finish_reason == "stop"
    assert streamed(short, sampling=Sampling(max_new_tokens=3))[0].finish_reason == "length"


def test_an_answer_that_breaks_off_does_not_pass_for_a_whole_one(streamed: Streaming) -> None:
    answer, _ = streamed(sse(piece("It is"), done=False))
    assert (answer.text, answer.finish_reason) == ("It is", "other")
    assert "may be cut short" in answer.detail


def test_log_probabilities_are_read_where_they_are_sent(streamed: Streaming) -> None:
    top = [
        {"token": "It", "logprob": -0.1, "bytes": None},
        {"token": "So", "logprob": -2.5, "bytes": None},
    ]
    one = {"token": "It", "logprob": -0.1, "bytes": None, "top_logprobs": top}
    answer, _ = streamed(sse(piece("It", logprobs={"content": [one]}), piece(None, "stop")))
    (reading,) = answer.readings
    assert (reading.text, reading.logprob) == ("It", -0.1)
    assert reading.alternatives == (("It", -0.1), ("So", -2.5))


@pytest.mark.parametrize("content", [[{"token": "It"}], [None], ["x"]])
def test_log_probabilities_of_another_dialect_are_passed_over(
    streamed: Streaming, content: Any
) -> None:
    answer, _ = streamed(sse(piece("It", logprobs={"content": content}), piece(None, "stop")))
    assert (answer.text, answer.readings) == ("It", ())


def test_a_field_that_the_server_rejects_is_left_out_from_then_on(
    streamed: Streaming, server: Any
) -> None:
    def judge(body: dict[str, Any]) -> Any:
        for name in ("logprobs", "stream_options", "seed"):
            if name in body:
                return server.reply(f"unknown field: {name}", status=400)
        return None

    server.judges = judge
    config = EngineConfig(model="served", base_url=server.url, max_retries=0)
    asked = StreamingServer(config)
    ends = sse(piece("It."), piece(None, "stop"))
    assert streamed(ends, asked=asked)[0].text == "It."
    before = len(server.bodies)
    assert before == 4
    assert streamed(ends, asked=asked)[0].text == "It."
    assert len(server.bodies) == before + 1
    assert "top_logprobs" not in server.bodies[-1]


def test_a_stop_string_ends_the_answer_of_a_server_that_ignores_it(streamed: Streaming) -> None:
    chunks = sse(piece("It is. "), piece("Stop here"), piece(" and more"), piece(None, "length"))
    answer, pieces = streamed(chunks, sampling=Sampling(stop=("Stop",)))
    assert (answer.text, answer.finish_reason) == ("It is. ", "stop")
    assert "".join(pieces) == "It is. "


def test_an_answer_that_nobody_wants_any_more_ends(streamed: Streaming) -> None:
    chunks = [piece(f"{i} ") for i in range(500)]
    answer, pieces = streamed(sse(*chunks), stop_after=3)
    assert (answer.text, answer.whole) == ("0 1 2 ", False)
    assert pieces == ["0 ", "1 ", "2 "]


def test_a_key_that_the_server_repeats_is_masked_even_in_pieces(streamed: Streaming) -> None:
    parts = ("My key is ", KEY[:5], KEY[5:12], KEY[12:], ", and ", KEY[:4])
    answer, pieces = streamed(sse(*map(piece, parts), piece(None, "stop")))
    assert answer.text == "".join(pieces) == f"My key is [key], and {KEY[:4]}"


def test_thoughts_are_not_shown_and_that_is_said(streamed: Streaming) -> None:
    thinking = piece()
    thinking["choices"][0]["delta"] = {"reasoning_content": "Hm."}
    answer, pieces = streamed(sse(thinking, piece("It."), piece(None, "stop")))
    assert (answer.text, pieces) == ("It.", ["It."])
    assert answer.detail == "it thought first, which is not shown"


def test_errors_of_the_server_are_one_line_without_the_key(
    streamed: Streaming, server: Any
) -> None:
    with pytest.raises(EngineError) as found:
        streamed(server.reply(f"bad key {KEY}\nand more", status=401))
    assert "AuthenticationError" in str(found.value)
    assert KEY not in str(found.value)
    assert "\n" not in str(found.value)
    with pytest.raises(EngineError, match="InternalServerError"):
        streamed(server.reply("broken", status=500))
    with pytest.raises(EngineError):
        streamed(server.cut_connection)


def test_nothing_is_sent_to_where_a_server_redirects(streamed: Streaming, server: Any) -> None:
    to = server.raw("", 302, Location="http://example.org/v1")
    with pytest.raises(EngineError, match=r"redirects to example\.org; nothing was sent there"):
        streamed(to)


def test_a_server_that_sends_nothing_has_not_answered(streamed: Streaming) -> None:
    with pytest.raises(EngineError, match="the server sent no answer"):
        streamed(sse())
    with pytest.raises(EngineError):
        streamed(sse({"error": {"message": "out of memory"}}))


def test_a_server_that_never_ends_is_ended(
    streamed: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.generate.streaming.MAX_CHARACTERS", 100)
    answer, _ = streamed(sse(*[piece("0123456789") for _ in range(1000)]))
    assert 100 < len(answer.text) < 200


def test_a_key_is_required_for_a_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_KEY", raising=False)
    config = EngineConfig(model="m", base_url="https://example.org/v1", api_key_env="OTHER_KEY")
    with pytest.raises(
        EngineError, match=r"OTHER_KEY is not set; set it to the key for example\.org"
    ):
        StreamingServer(config)
