import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.generate import open_engine
from response_tuning.models import inference
from response_tuning.models.local import LocalModel
from response_tuning.serve.server.local_server import local_app
from tests.fixtures.asgi import served

KEY = "key-of-this-process"
QUESTIONS = ["What is 2 plus 2?", "Which colour is a ruby?", "Hello!"]
SYSTEM = Message(role="system", content="Answer in one sentence.")
TEMPLATES = ["tulu", "zero-shot"]  # one ends its turns in a token, the other in strings


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def local(template: str) -> LocalModel:
    return inference.load("miniature", template, device="cpu")


@pytest.fixture(scope="module")
def client(local: LocalModel) -> Iterator[OpenAI]:
    with (
        served(local_app(local, "mini", KEY)) as url,
        OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client


def conversations() -> list[list[Message]]:
    alone = [[Message(role="user", content=text)] for text in QUESTIONS]
    return [*alone, *([SYSTEM, *turns] for turns in alone)]


def engine_answers(template: str, sampling: Sampling) -> list[tuple[str | None, str | None]]:
    config = EngineConfig(model="miniature", template=template, device="cpu")
    asked = [
        Request(item_id=str(n), prompt=tuple(turns)) for n, turns in enumerate(conversations())
    ]
    done = {each.item_id: each for each in open_engine("hf", config).complete(asked, sampling)}
    return [(done[one.item_id].response, done[one.item_id].finish_reason) for one in asked]


def ask(client: OpenAI, turns: list[Message], **fields: Any) -> Any:
    messages: Any = [turn.model_dump() for turn in turns]
    return client.chat.completions.create(model="mini", messages=messages, **fields)


def streamed(client: OpenAI, turns: list[Message], **fields: Any) -> tuple[str, str, Any]:
    text, reason, usage = "", "", None
    for chunk in ask(client, turns, stream=True, **fields):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason, usage


def test_answers_and_streams_are_those_of_our_engine(client: OpenAI, template: str) -> None:
    expected = engine_answers(template, Sampling(max_new_tokens=24, stop=(" of",)))
    assert {reason for _, reason in expected} == {"stop", "length"}
    for turns, ours in zip(conversations(), expected, strict=True):
        choice = ask(client, turns, max_tokens=24, stop=" of").choices[0]
        assert (choice.message.content, choice.finish_reason) == ours
        assert streamed(client, turns, max_tokens=24, stop=[" of"])[:2] == ours


def test_sampled_answers_with_a_seed_are_those_of_our_engine(client: OpenAI, template: str) -> None:
    how = {"temperature": 0.9, "top_p": 0.95, "seed": 4}
    expected = engine_answers(template, Sampling(max_new_tokens=8, **how))  # type: ignore[arg-type]
    got = [ask(client, turns, max_tokens=8, **how).choices[0] for turns in conversations()]
    assert [(one.message.content, one.finish_reason) for one in got] == expected


def test_tokens_are_counted_in_replies_and_streams_alike(client: OpenAI, local: LocalModel) -> None:
    turns = conversations()[0]
    usage = ask(client, turns, max_tokens=5).usage
    prompt = len(local.chat.encode(local.chat.prompt(turns)))
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        *(prompt, 5),
        prompt + 5,
    )
    options = {"include_usage": True}
    assert streamed(client, turns, max_tokens=5, stream_options=options)[2] == usage
    assert streamed(client, turns, max_tokens=5)[2] is None


def test_clients_at_once_get_their_own_answers(client: OpenAI) -> None:
    alone = [ask(client, turns, max_tokens=8).choices[0] for turns in conversations()]
    with ThreadPoolExecutor(6) as pool:
        got = pool.map(lambda turns: ask(client, turns, max_tokens=8), conversations())
    assert [one.choices[0] for one in got] == alone


def test_a_client_that_leaves_a_stream_ends_the_answer(
    client: OpenAI, local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, ended = [Message(role="user", content="Tell me a story.")], threading.Event()
    extend = LocalModel.extend

    def watched(self: LocalModel, drafts: Any, *rest: Any) -> None:
        extend(self, drafts, *rest)
        lengths.append(len(drafts[0].generated))
        ended.set()

    lengths: list[int] = []
    monkeypatch.setattr(LocalModel, "extend", watched)
    stream = ask(client, long, stream=True, max_tokens=200, seed=1, temperature=1.5)
    next(iter(stream))
    stream.close()
    assert ended.wait(60)
    assert lengths[0] < 200


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([Message(role="user", content="a b " * 400)], "no room for a reply"),
        ([Message(role="assistant", content="x"), SYSTEM], ""),
    ],
)
def test_a_prompt_that_the_model_cannot_take_is_a_400(
    client: OpenAI, template: str, turns: list[Message], said: str
) -> None:
    if template == "zero-shot" and not said:
        turns = [SYSTEM]
    with pytest.raises(BadRequestError) as refused:
        ask(client, turns)
    assert said in str(refused.value)


def test_an_unsupported_field_is_named(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="grammar: not supported"):
        ask(client, conversations()[0], extra_body={"grammar": "x"})


def test_a_stream_ends_as_openais_do_and_needs_the_key(client: OpenAI) -> None:
    body = {"model": "mini", "stream": True, "max_tokens": 2}
    data = json.dumps(body | {"messages": [{"role": "user", "content": "Hi"}]}).encode()
    url = f"{client.base_url}chat/completions"
    with urllib.request.urlopen(
        urllib.request.Request(url, data, {"Authorization": f"Bearer {KEY}"})
    ) as got:
        assert got.headers["Content-Type"].startswith("text/event-stream")
        assert got.read().endswith(b"data: [DONE]\n\n")
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(urllib.request.Request(url, data))
    refused.value.close()
