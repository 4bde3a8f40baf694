"""The engine ``openai-batch`` against a server that keeps files and batches as OpenAI's does."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Message, Question, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate import generate, open_engine
from response_tuning.generate.engines import openai_batch
from tests.fixtures.asgi import served

SHORT = Sampling(max_new_tokens=16)
KEY = "sk-a-key-of-the-user"


class Batches:
    """Files and batches; ``wait`` says how often a batch is asked for before it has ended."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.wait = 1
        self.says: Callable[[str], dict[str, Any]] = lambda prompt: answer(f"reply to {prompt}")
        """The line of an output for a prompt, without its id."""
        self.status = "completed"
        self.paid: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.fail: dict[str, int] = {}
        """Path -> HTTP status."""

    def app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/v1/files", self._upload, methods=["POST"]),
                Route("/v1/files/{id}/content", self._content),
                Route("/v1/batches", self._make, methods=["POST"]),
                Route("/v1/batches", self._list),
                Route("/v1/batches/{id}", self._retrieve),
            ]
        )

    async def _upload(self, request: Any) -> Any:
        body = await request.body()
        self.keys.add(request.headers.get("authorization"))
        assert b'name="purpose"\r\n\r\nbatch' in body
        (content,) = re.findall(rb"\r\n\r\n(\{.*\}\n)\r\n--", body, re.DOTALL)
        return self._json(request, self._kept(content))

    def _kept(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        about = {"id": name, "object": "file", "bytes": len(content), "created_at": 1}
        return {**about, "filename": "x", "purpose": "batch", "status": "processed"}

    async def _content(self, request: Any) -> Any:
        from starlette.responses import Response

        return Response(self.files[request.path_params["id"]])

    async def _make(self, request: Any) -> Any:
        asked = json.loads(await request.body())
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        if "/v1/batches" in self.fail:
            return self._json(request, {})
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            **{"id": name, "object": "batch", "status": "in_progress", "created_at": 1},
            **{key: asked[key] for key in ("input_file_id", "endpoint", "completion_window")},
            "metadata": asked["metadata"],
        }
        return self._json(request, self.batches[name])

    async def _list(self, request: Any) -> Any:
        return self._json(
            request, {"object": "list", "data": [*self.batches.values()], "has_more": False}
        )

    async def _retrieve(self, request: Any) -> Any:
        batch = self.batches[request.path_params["id"]]
        if batch["status"] == "in_progress":
            self.wait -= 1
            if self.wait < 0:
                self._end(batch)
        return self._json(request, batch)

    def _end(self, batch: dict[str, Any]) -> None:
        done: list[str] = []
        failed: list[str] = []
        for line in self.files[batch["input_file_id"]].splitlines():
            asked = json.loads(line)
            prompt = asked["body"]["messages"][-1]["content"]
            said = self.says(prompt)
            if not said:
                continue  # such as in a batch that expired
            line_ = {"id": "x", "custom_id": asked["custom_id"], **said}
            fine = said["response"]["status_code"] == 200
            self.paid[prompt] += fine
            (done if fine else failed).append(json.dumps(line_))
        batch["status"] = self.status
        for key, lines in (("output_file_id", done), ("error_file_id", failed)):
            if lines:  # in another order than the requests
                content = "\n".join(reversed(lines)) + "\n"
                batch[key] = self._kept(content.encode())["id"]

    def _json(self, request: Any, content: Any) -> Any:
        from starlette.responses import JSONResponse

        status = self.fail.get(request.url.path, 200)
        error = {"error": {"message": f"no quota for {KEY}"}}
        return JSONResponse(content if status == 200 else error, status_code=status)

    def requests(self) -> list[dict[str, Any]]:
        inputs = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line) for file in inputs for line in file.splitlines()]


def answer(text: str, status: int = 200, **body: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    content = {"model": "judge", "choices": [choice], "usage": usage, **body}
    return {"response": {"status_code": status, "body": content}, "error": None}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai_batch, "POLL_S", 0.0)
    batches = Batches()
    with served(batches.app()) as url:
        batches.url = f"{url}/v1"
        yield batches


def asked(*names: str) -> list[Request]:
    return [Request(item_id=name, prompt=(Message(role="user", content=name),)) for name in names]


def answers(server: Batches, journal: Path, *names: str, **how: Any) -> list[Completion]:
    config = EngineConfig(model="judge", base_url=server.url, max_retries=0)
    return [*generate(open_engine("openai-batch", config), asked(*names), journal, SHORT, **how)]


def test_all_requests_are_one_batch_and_come_back_in_their_order(
    server: Batches, tmp_path: Path
) -> None:
    server.wait = 3
    done = answers(server, tmp_path / "j.jsonl", "a", "b", "c")
    assert [one.response for one in done] == ["reply to a", "reply to b", "reply to c"]
    assert [(one.tokens, one.prompt_tokens) for one in done] == [(3, 5)] * 3
    assert len(server.batches) == 1 and server.keys == {f"Bearer {KEY}"}
    assert server.requests()[0]["body"] == {
        **{"model": "judge", "messages": [{"role": "user", "content": "a"}], "max_tokens": 16},
        **{"temperature": 0.0, "top_p": 1.0, "seed": 0},
    }


def test_its_answers_are_those_of_the_engine_openai(server: Batches, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    answers(server, journal, "a")
    engine = open_engine("openai", EngineConfig(model="judge", base_url=server.url, max_retries=0))
    (same,) = generate(engine, asked("a"), journal, SHORT)  # the server has no chat completions
    assert same.response == "reply to a"


def test_a_killed_command_finds_its_batch_again_and_pays_nothing_twice(
    server: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(seconds: float) -> None:
        raise Killed

    server.wait = 5
    with monkeypatch.context() as patch:
        patch.setattr("response_tuning.generate.engines.openai_batch.time.sleep", kill)
        with pytest.raises(Killed):
            answers(server, tmp_path / "j.jsonl", "a", "b")
    done = answers(server, tmp_path / "j.jsonl", "a", "b", "c")
    assert [one.response for one in done] == ["reply to a", "reply to b", "reply to c"]
    assert server.paid == Counter("abc")
    assert [
        len(server.files[b["input_file_id"]].splitlines()) for b in server.batches.values()
    ] == [*(2, 1)]
    (tmp_path / "j.jsonl").unlink()  # lost with its answers: the server still has them
    assert [one.response for one in answers(server, tmp_path / "j.jsonl", "b")] == ["reply to b"]
    assert server.paid == Counter("abc")


def test_batches_of_others_are_left_alone(server: Batches, tmp_path: Path) -> None:
    answers(server, tmp_path / "j.jsonl", "a")
    for batch in server.batches.values():
        batch["metadata"] = {"rtune": "another engine's"}
    answers(server, tmp_path / "other.jsonl", "a")
    assert server.paid == Counter({"a": 2})


def test_what_has_no_answer_is_an_error_that_the_same_command_asks_again(
    server: Batches, tmp_path: Path
) -> None:
    server.status = "expired"
    refused = answer("", 400)
    refused["response"]["body"] = {"error": {"message": "too long"}}
    server.says = lambda prompt: {"a": answer("yes"), "b": refused}.get(prompt, {})
    done = answers(server, tmp_path / "j.jsonl", "a", "b", "c")
    assert done[0].response == "yes"
    assert "too long" in str(done[1].error)
    assert str(done[2].error) == "batch batch-0 is expired without an answer"
    server.status, server.says, server.wait = "completed", answer, 0
    done = answers(server, tmp_path / "j.jsonl", "a", "b", "c")
    assert [one.response for one in done] == ["yes", "b", "c"]
    assert server.paid == Counter("abc")


def test_filtered_and_unusable_replies_are_read_as_those_of_a_server(
    server: Batches, tmp_path: Path
) -> None:
    kept_back = {"message": {"content": None}, "finish_reason": "content_filter"}
    server.says = lambda prompt: answer("", choices=[kept_back] if prompt == "a" else [])
    filtered, unusable = answers(server, tmp_path / "j.jsonl", "a", "b")
    assert filtered.finish_reason == "filtered"
    assert "unusable reply" in str(unusable.error)


def test_a_form_is_sent_and_more_requests_than_a_batch_holds_make_several(
    server: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batch, "REQUESTS", 2)
    server.wait = 0
    done = answers(server, tmp_path / "j.jsonl", *"abcde")
    assert [one.response for one in done] == [f"reply to {name}" for name in "abcde"]
    assert len(server.batches) == 3
    form = Question(item_id="q", prompt=asked("q")[0].prompt, form={"type": "object"})
    engine = open_engine("openai-batch", EngineConfig(model="judge", base_url=server.url))
    [*engine.complete([form], SHORT)]
    schema = server.requests()[-1]["body"]["response_format"]["json_schema"]["schema"]
    assert schema == {"type": "object"}


def test_a_server_that_refuses_is_one_line_without_the_key_and_nothing_is_made_twice(
    server: Batches, tmp_path: Path
) -> None:
    server.fail["/v1/batches"] = 429
    with pytest.raises(EngineError, match="engine 'openai-batch': RateLimitError") as error:
        answers(server, tmp_path / "j.jsonl", "a")
    assert KEY not in str(error.value) and "\n" not in str(error.value)
    assert server.batches == {}


def test_settings_of_other_engines_are_refused(server: Batches) -> None:
    for setting in ({"concurrency": 4}, {"replicas": ["http://127.0.0.1:1/v1"]}):
        given = {"model": "judge", "base_url": server.url, **setting}
        with pytest.raises(ConfigError, match="has no use for"):
            open_engine("openai-batch", EngineConfig.model_validate(given))
