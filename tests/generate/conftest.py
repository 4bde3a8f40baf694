import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Tell me a story about a little girl who plays outside in the park.",
    "Response tuning learns from answers alone; the instruction is never shown.",
    "What is the capital of France? Paris is the capital of France.",
    "<|user|>\n<|assistant|>\n",
]
END = "<|endoftext|>"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from response_tuning import templates

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END)  # type: ignore[no-untyped-call]
    templates.install(made, "tulu")
    return made


SaveModel = Callable[..., Path]


@pytest.fixture(scope="session")
def save_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """Save a tiny random model with wide weights, so that its text depends on its prompt."""

    def save(kind: str = "llama", context: int = 256, eos: Sequence[int] = (0,)) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

        common: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "initializer_range": 0.4,
            "eos_token_id": 0,
        }
        config = {
            "llama": LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                bos_token_id=None,
                **common,
            ),
            "gpt2": GPT2Config(
                n_embd=32, n_layer=2, n_head=4, n_positions=context, bos_token_id=None, **common
            ),
        }[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        model.generation_config.eos_token_id = list(eos)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def llama(save_model: SaveModel) -> Path:
    return save_model("llama")


@pytest.fixture(scope="session")
def gpt2(save_model: SaveModel) -> Path:
    return save_model("gpt2")


@pytest.fixture(scope="session")
def stories() -> Path:
    root = os.environ.get("RESPONSE_TUNING_DATA")
    if root is None:
        pytest.skip("RESPONSE_TUNING_DATA is not set")
    return Path(root) / "tiny_lm_stories260k" / "hf"


def _ask(item_id: str, *words: str) -> Request:
    roles = ("user", "assistant")
    turns = [Message(role=roles[i % 2], content=text) for i, text in enumerate(words)]  # type: ignore[arg-type]
    return Request(item_id=item_id, prompt=tuple(turns))


@pytest.fixture(scope="session")
def ask() -> Callable[..., Request]:
    return _ask


@pytest.fixture(scope="session")
def varied() -> list[Request]:
    """45 prompts of 1 to 45 words."""
    words = " ".join(SENTENCES[:4]).split()
    return [_ask(f"q{n}", " ".join(words[n % 7 :][:n])) for n in range(1, 46)]


Behaviour = Callable[[BaseHTTPRequestHandler], None]


def reply(
    text: str | None = "hello", finish: str = "stop", status: int = 200, **headers: str
) -> Behaviour:
    body = {"choices": [{"message": {"content": text}, "finish_reason": finish}]}
    return raw(
        json.dumps(body if status == 200 else {"error": {"message": text}}), status, **headers
    )


def raw(body: str, status: int = 200, **headers: str) -> Behaviour:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body.encode())))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return act


def cut_connection(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    handler.close_connection = True


class Server:
    """A chat completions server that misbehaves as told, prompt by prompt, and counts."""

    reply = staticmethod(reply)
    raw = staticmethod(raw)
    cut_connection = staticmethod(cut_connection)

    def __init__(self) -> None:
        self.plan: dict[str, list[Behaviour]] = {}
        """Prompt -> what to do at its first, second, ... request; then an answer is given."""
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0
        self.gate: Callable[[int], None] = lambda number: None
        """Called with the number of the request before it is answered."""
        self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._handle(self)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that was killed or has given up is no news."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.asked[prompt] += 1
            self.bodies.append(body)
            self.keys.add(handler.headers["Authorization"])
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            number = self.asked.total()
            planned = self.plan.get(prompt)
            act = planned.pop(0) if planned else reply(f"reply to {prompt}")
        try:
            self.gate(number)
        finally:
            with self._lock:
                self._at_once -= 1
        act(handler)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    running = Server()
    yield running
    running.close()
