"""Playgrounds that are served to a test, and a browser that looks at them."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from response_tuning.serve.playground.app import playground_app
from response_tuning.serve.playground.local import LocalPane, Models
from response_tuning.serve.playground.session import Pane, Playground
from response_tuning.serve.playground.votes import Vote


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


class Site(NamedTuple):
    """A playground that is served to this test."""

    playground: Playground
    port: int
    votes: list[Vote]
    """All of them, as they were passed on after the last."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
        """Send a request as the page does, but for ``headers``; None leaves one out."""
        sent = {"Origin": self.address, "Content-Type": "application/json"} | headers
        whole = {name: value for name, value in sent.items() if value is not None}
        text = body if isinstance(body, str) else json.dumps(body) if body is not None else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, text, whole)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, named, reply.read().decode())

    def ask(self, pane: str, *words: str, **fields: Any) -> Reply:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(words)]
        sampling = {"max_new_tokens": 12} | fields.pop("sampling", {})
        asked = {"pane": pane, "messages": messages, "sampling": sampling} | fields
        return self.request("POST", "/ask", asked)

    def answer(self, pane: str, *words: str, **fields: Any) -> dict[str, Any]:
        last = self.ask(pane, *words, **fields).events()[-1]
        assert last["type"] == "end", last
        return dict(last["answer"])


Serve = Callable[..., Site]
Opening = Sequence[tuple[str, Path | str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a playground of panes, or of (name, model) pairs."""
    import uvicorn

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        *panes: Pane | tuple[str, Path | str],
        template: str | None = None,
        presets: Any = None,
        folder: Path = tmp_path / "playground",
    ) -> Site:
        models, votes = Models(), list[Vote]()
        opened: list[Pane] = [
            LocalPane(one[0], str(one[1]), template, models) if isinstance(one, tuple) else one
            for one in panes
        ]

        def voted(every: Sequence[Vote]) -> None:
            votes[:] = every

        playground = Playground(
            opened,
            folder,
            open_pane=lambda form: LocalPane(form.name, form.model, template, models),
            presets=presets or {},
            voted=voted,
        )
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            playground_app(playground), log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        return Site(playground, listener.getsockname()[1], votes)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with wide weights on the random Llama."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(llama)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(base, settings)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.5)
    tuned.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    return folder


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page of a desk's browser; an error of a script fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []
