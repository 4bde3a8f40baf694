import math
from typing import Any

import pytest

from response_tuning.artifacts import Message, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError
from response_tuning.generate.streaming import Streamed, StreamedToken
from response_tuning.serve.playground.records import STOPPED, Answer, Ask, Reply
from response_tuning.workflows.server_pane import ServerPane


class Listening:
    def __init__(self) -> None:
        self.starts: list[Any] = []
        self.pieces: list[str] = []

    def started(self, start: Any) -> None:
        self.starts.append(start)

    def text(self, piece: str) -> None:
        self.pieces.append(piece)

    def is_stopped(self) -> bool:
        return False


def asking(**fields: Any) -> Ask:
    return Ask(pane="a", messages=(Message(role="user", content="Hi."),), **fields)


@pytest.fixture
def pane(server: Any) -> ServerPane:
    return ServerPane("a", EngineConfig(model="served", base_url=server.url))


def answering(pane: ServerPane, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Reply:
    token = StreamedToken("It", math.log(0.75), (("So", math.log(0.8)), ("It", math.log(0.75))))
    said = Streamed("It.", "stop", "", 3, 7, "served", (token,), whole=True)._replace(**fields)

    def stream(messages: Any, sampling: Any, write: Any, is_stopped: Any) -> Streamed:
        write(said.text)
        return said

    monkeypatch.setattr(pane._server, "stream", stream)
    return pane.answer(asking(), Listening())


def test_a_server_s_answer_is_an_answer(pane: ServerPane, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = answering(pane, monkeypatch)
    assert (reply.text, reply.finish_reason, reply.tokens) == ("It.", "stop", 3)
    assert reply.answered_by == "served"
    (token,) = reply.readings
    assert (token.text, token.rank, token.id) == ("It", 2, None)
    assert token.probability == pytest.approx(0.75)
    assert [other.text for other in token.alternatives] == ["So", "It"]


def test_an_answer_that_was_stopped_says_so(
    pane: ServerPane, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = answering(pane, monkeypatch, whole=False)
    assert (reply.finish_reason, reply.detail) == ("other", STOPPED)


def test_the_pane_says_which_server_answers(pane: ServerPane, server: Any) -> None:
    listening = Listening()
    server.status = 200
    about = pane.about()
    assert about["model"] == f"served@{server.url}"
    assert about["key_variable"] == "OPENAI_API_KEY"
    with pytest.raises(ConfigError, match="cannot be told how its reply begins"):
        pane.answer(asking(begin_text="Yes"), listening)
    with pytest.raises(ConfigError, match="by its own template"):
        pane.answer(asking(template="tulu"), listening)
    assert listening.starts == []
    assert server.bodies == []


def test_tokens_without_log_probabilities_cannot_be_read(pane: ServerPane) -> None:
    answer = Answer(
        id="x", pane="a", model="m", template="server", template_name="server", adapter="none",
        prompt=asking().messages, sampling=Sampling(), response="It.", finish_reason="stop",
        seconds=1.0, at="now",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="gave no log-probabilities"):
        pane.read(answer)


def test_a_model_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigError, match="name the model and the server"):
        ServerPane("a", EngineConfig(model="served"))
