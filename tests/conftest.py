import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from response_tuning.artifacts import Audit, Dropped, Example, read_jsonl
from response_tuning.cli.main import main
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.miniature.build import BuildConfig, build_base
from response_tuning.templates import Chat, install
from response_tuning.terminal import quiet_libraries
from response_tuning.validation import build

pytest_plugins = ["fixtures.language_models"]

Prepared = tuple[Audit, list[Example], list[Dropped]]
TINY_TOKENIZER = Path(__file__).parent / "assets" / "tiny_tokenizer"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files from what is found"
    )
    parser.addoption(
        "--every-crash",
        action="store_true",
        help="tests/test_crashes.py: fail at every file operation, not at a sample of them",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without_gpu = pytest.mark.skip(reason="no CUDA device here")
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(without_gpu)


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    torch.set_num_threads(1)
    quiet_libraries()
    yield


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def rtune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """The command line, in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public files that some checks need and that nobody may commit."""
    root = os.environ.get("RESPONSE_TUNING_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("RESPONSE_TUNING_DATA does not name a folder of public data")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def tiny_lm(public_data: Path) -> Path:
    """A real pretrained model of 260,032 parameters."""
    return public_data / "tiny_lm_stories260k" / "hf"


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY_TOKENIZER)


@pytest.fixture
def chat(tokenizer: Any) -> Chat:
    install(tokenizer, "tulu")
    return Chat(tokenizer)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with the tests' own tokenizer, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("tiny_base")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=384,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY_TOKENIZER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def miniature_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of the miniature's world that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("miniature_base")
    pretrain = {
        "hidden_size": 48,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 96,
        "vocabulary": 512,
        "context": 64,
        "rows_per_step": 4,
        "tokens": 30_000,
        "other_learning_rate": 0.02,
    }
    config = build(BuildConfig, {"pretrain": pretrain}, "tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("response_tuning.miniature.build.TOKENIZER_DOCUMENTS", 500)
        patch.setattr("response_tuning.miniature.build.ENCODED_AT_ONCE", 500)
        build_base(config, folder, lambda done, total: None)
    return folder


@pytest.fixture
def prepare_source(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepare a source into ``out``; keywords are settings."""

    def run(source: Path | str, **settings: object) -> Prepared:
        out = tmp_path / "out"
        audit = prepare(DataConfig.model_validate({"source": str(source), **settings}), out)
        examples = list(read_jsonl(out / "examples.jsonl", Example))
        return audit, examples, list(read_jsonl(out / "dropped.jsonl", Dropped))

    return run


@pytest.fixture
def prepare_rows(
    tmp_path: Path, prepare_source: Callable[..., Prepared]
) -> Callable[..., Prepared]:
    """Prepare rows that are written to a JSONL file first."""

    def run(rows: list[Any], **settings: object) -> Prepared:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return prepare_source(path, **settings)

    return run


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
        self.says: Callable[[str], str] = "reply to {}".format
        """What is answered to a prompt that nothing is planned for."""
        self.status = 200
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0
        self.judges: Callable[[dict[str, Any]], Behaviour | None] = lambda body: None
        """What to do about a request that has such a body, whatever its prompt."""
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
            act = self.judges(body) or self._planned(prompt)
        try:
            self.gate(number)
        finally:
            with self._lock:
                self._at_once -= 1
        act(handler)

    def _planned(self, prompt: str) -> Behaviour:
        planned = self.plan.get(prompt)
        return planned.pop(0) if planned else reply(self.says(prompt), status=self.status)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    running = Server()
    yield running
    running.close()
