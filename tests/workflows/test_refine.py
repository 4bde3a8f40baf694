import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    read_json,
    read_jsonl,
)
from response_tuning.data.passages import Passage
from response_tuning.data.refinement.tally import Refinement
from response_tuning.journals import Journal
from tests.fixtures.chat_server import Listener

Run = Callable[..., Any]
RECORD = re.compile(r"<(?:response|passage)>\n(.*?)\n</(?:response|passage)>", re.DOTALL)
TIMEOUT_S = 1.0


def improved(text: str) -> str:
    return f"It is short.\nRefined response:\nBetter: {text}"


class Server(Listener):
    """A chat completions server that rewrites, misbehaves by lot, and counts what it is asked."""

    def __init__(self, share_of_faults: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        """Text to be rewritten -> how often it was asked for."""
        self.since: Counter[str] = Counter()
        """The same, for a test to clear when it likes."""
        self.faults: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.answer: Callable[[str, int], str] = lambda text, number: improved(text)
        """(text, how often it was asked for before) -> reply."""
        self._share = share_of_faults
        self._lock = threading.Lock()
        self._reached: dict[int, threading.Event] = {}
        self.start(self._handle)

    def reached(self, requests: int) -> threading.Event:
        """Return an event that is set once so many requests have come."""
        return self._reached.setdefault(requests, threading.Event())

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        began = time.monotonic()
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        found = RECORD.search(body["messages"][-1]["content"])
        assert found is not None
        text = found[1]
        with self._lock:
            number = self.asked[text]
            self.asked[text] += 1
            self.since[text] += 1
            kind = self._lot(text, number)
            if kind:
                self.faults[text] += 1
                self.kinds[kind] += 1
            for requests, event in self._reached.items():
                if self.asked.total() >= requests:
                    event.set()
        self._reply(handler, kind, self.answer(text, number))
        if not kind and time.monotonic() - began > TIMEOUT_S / 2:
            with self._lock:
                self.faults[text] += 1  # a busy machine: whoever asked may have given up

    def _lot(self, text: str, number: int) -> str:
        lots = random.Random(f"{text}:{number}")
        if lots.random() >= self._share:
            return ""
        return lots.choice(["429", "500", "slow", "cut", "broken"])

    def _reply(self, handler: BaseHTTPRequestHandler, kind: str, text: str) -> None:
        body = {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        }
        content = json.dumps(body).encode()
        if kind == "cut":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
            handler.close_connection = True
            return
        if kind == "slow":
            time.sleep(1.5 * TIMEOUT_S)
        handler.send_response({"429": 429, "500": 500}.get(kind, 200))
        if kind in ("429", "500"):
            handler.send_header("Retry-After", "0.01")
        if kind == "broken":
            content = content[: len(content) // 2]
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[Server] = []

    def start(**how: float) -> Server:
        running.append(Server(**how))
        return running[-1]

    yield start
    for server in running:
        server.close()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asking(server: Server) -> list[object]:
    return ["--engine", "openai", "--model", "refiner", "--base-url", server.url]


@pytest.mark.parametrize(
    ("count", "kills"),
    [(300, (105, 255)), pytest.param(2000, (700, 1700), marks=pytest.mark.exhaustive)],
)
def test_a_killed_refinement_on_a_server_full_of_faults_loses_and_repeats_nothing(
    serve: Callable[..., Server], tmp_path: Path, count: int, kills: tuple[int, int]
) -> None:
    server = serve(share_of_faults=0.3)
    concurrency = 32
    rows = [{"prompt": f"Question {n}?", "response": f"Record {n}."} for n in range(count)]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "refined"
    command = [
        *(sys.executable, "-m", "response_tuning", "data", "refine", source, "--out", out),
        *(*asking(server), "--concurrency", concurrency, "--timeout-s", TIMEOUT_S),
        *("--retries", 4, "--on", "error=retry"),
    ]
    words = [str(word) for word in command]
    answered: set[str] = set()
    for requests in kills:
        enough = server.reached(requests)
        with (tmp_path / "output").open("wb") as output:
            process = subprocess.Popen(words, stdout=output, stderr=output)
        while not enough.wait(0.05):
            assert process.poll() is None, (tmp_path / "output").read_text()
        process.kill()
        process.wait()
        assert not (out / "examples.jsonl").exists()
        assert not answered & server.since.keys()
        answered = in_journal(out)
        server.since.clear()
    assert count // 4 < len(answered) < count

    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not answered & server.since.keys()
    expected = [f"Record {n}." for n in range(count)]
    assert set(server.asked) == set(expected)
    assert len(server.kinds) == 5 and min(server.kinds.values()) > count // 40
    assert server.asked.total() <= count + server.faults.total() + len(kills) * concurrency
    told = list(read_jsonl(out / "refinements.jsonl", Refinement))
    assert [(one.row, one.original) for one in told] == list(enumerate(expected))
    assert {one.outcome for one in told} == {"refined"}
    examples = list(read_jsonl(out / "examples.jsonl", Example))
    assert [e.response for e in examples] == [f"Better: {text}" for text in expected]
    assert f"{count:,} responses: {count:,} refined, 0 kept unchanged, 0 dropped" in done.stdout


def in_journal(out: Path) -> set[str]:
    """The texts whose rewrite is in the journal; a last line may be torn."""
    kept = (c for c in Journal(out / "journal.jsonl", Completion) if c.error is None)
    found = (RECORD.search(completion.prompt[0].content) for completion in kept)
    return {match[1] for match in found if match}


ROWS: list[dict[str, Any]] = [
    {"prompt": "What is tea?", "response": "Leaves in hot water."},
    {"prompt": "Is it good?", "response": "It is."},
    {"prompt": "Nothing?", "response": " "},
    {"prompt": "How?", "response": "Boil water."},
]
TEXTS = ["Leaves in hot water.", "It is.", "Boil water."]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "refined"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_second_identical_run_asks_nothing_and_leaves_the_same_bytes(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    server = serve()
    command = ["data", "refine", source, "--out", out, *asking(server)]
    first = rtune(*command)
    assert (first.code, first.err) == (0, "")
    before = content(out)
    assert sorted(before) == [
        *(".rtune.json", "audit.json", "dropped.jsonl", "examples.jsonl", "journal.jsonl"),
        *("original/audit.json", "original/complete", "original/dropped.jsonl"),
        "original/examples.jsonl",
        *("page.html", "refinement.json", "refinements.jsonl"),
    ]
    second = rtune(*command)
    assert second.out == first.out
    assert content(out) == before
    assert server.asked == dict.fromkeys(TEXTS, 1)


def test_the_command_says_what_came_of_it_and_what_it_cost(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    prices = ("--price-in", "2.5", "--price-out", "10")
    result = rtune("data", "refine", source, "--out", out, *asking(serve()), *prices)
    assert "3 responses: 3 refined, 0 kept unchanged, 0 dropped\n" in result.out
    assert "3 replies: 300 tokens in, 30 out; $0.0010\n" in result.out
    assert "row 1  {+Better:+} It is.\n" in result.out
    assert f"wrote {out / 'page.html'}\n" in result.out
    assert "<ins>Better: </ins>It is." in (out / "page.html").read_text()


def test_rewrites_that_a_person_rejected_stay_originals(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    command = ["data", "refine", source, "--out", out, *asking(serve())]
    assert rtune(*command).code == 0
    first = next(read_jsonl(out / "refinements.jsonl", Refinement))
    decision = {"row": first.row, "turn": first.turn, "key": first.key, "accept": False}
    # Where a browser saves a page's file is often beside the page.
    saved = write_rows(out / "decisions.jsonl", [decision])
    result = rtune("data", "decide", out, saved)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("0 accepted, 1 rejected: their originals are used\n")
    assert next(read_jsonl(out / "examples.jsonl", Example)).response == first.original
    assert 'value="reject" checked' in (out / "page.html").read_text(encoding="utf-8")
    rtune(*command)
    assert next(read_jsonl(out / "examples.jsonl", Example)).response == first.original
    nowhere = rtune("data", "decide", out.parent / "nowhere", saved)
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1)


def test_what_is_refined_can_be_shown_and_tuned_on(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path, tiny_base: Path
) -> None:
    rtune("data", "refine", source, "--out", out, *asking(serve()))
    shown = rtune("show", out / "examples.jsonl", "--tokenizer", tiny_base, "--rows", 1)
    assert "loss    'Better: Leaves in hot water.</s>'" in shown.out
    assert "3 rows, 3 rows or turns accounted for" in shown.out


def test_a_reply_without_a_marker_is_asked_for_again_with_another_seed_and_temperature(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    server = serve()
    server.answer = lambda text, number: improved(text) if number == 2 else "Fine as it is."
    command = ["data", "refine", source, "--out", out, *asking(server), "--seed", 5]
    result = rtune(*command)
    assert "3 responses: 3 refined" in result.out
    samplings = {
        (c.sampling.seed, c.sampling.temperature)
        for c in Journal(out / "journal.jsonl", Completion)
    }
    assert samplings == {(5, 0.0), (6, 0.7), (7, 0.7)}
    rtune(*command)
    assert server.asked == dict.fromkeys(TEXTS, 3)


def test_policies_are_flags(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    server = serve()
    server.answer = lambda text, _: "What?" if text == "It is." else improved(text)
    command = ["data", "refine", source, "--out", out, *asking(server)]
    dropped = rtune(*command, "--on", "no-marker=drop", "--on", "empty=keep")
    assert "1  no-marker  drop\n" in dropped.out
    assert server.asked["It is."] == 1
    gone = list(read_jsonl(out / "dropped.jsonl", Dropped))
    assert [(one.row, one.reason) for one in gone] == [
        (1, "refinement: no-marker"),
        (2, "empty response"),
    ]
    retried = rtune(*command, "--retries", 1, "--after-retries", "drop")
    assert "1  no-marker  drop after retries\n" in retried.out
    assert server.asked["It is."] == 2


def test_a_response_without_a_reply_is_kept_told_and_asked_for_by_the_next_run(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    server = serve()
    broken = server._lot
    server._lot = lambda text, number: (  # type: ignore[method-assign]
        "broken" if text == "It is." and number < 3 else broken(text, number)
    )
    command = ["data", "refine", source, "--out", out, *asking(server)]
    first = rtune(*command)
    assert first.code == 1
    assert "1  error      keep after retries\n" in first.out
    assert "1 got no reply, the first because: unusable reply" in first.out
    assert "the same command asks them again\n" in first.out
    assert [e.response for e in read_jsonl(out / "examples.jsonl", Example)][1] == "It is."
    second = rtune(*command)
    assert second.code == 0
    assert [e.response for e in read_jsonl(out / "examples.jsonl", Example)][1] == "Better: It is."
    assert server.asked == {"Leaves in hot water.": 1, "It is.": 4, "Boil water.": 1}


def test_a_server_that_answers_nothing_is_one_line_and_leaves_no_examples(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path
) -> None:
    server = serve()
    server._lot = lambda *_: "broken"  # type: ignore[method-assign]
    result = rtune("data", "refine", source, "--out", out, *asking(server), "--retries", 0)
    assert result.code == 2
    assert result.err.startswith("rtune: none of the 3 responses got a reply, the first because:")
    assert result.err.count("\n") == 1
    assert not (out / "examples.jsonl").exists()


@pytest.mark.parametrize("name", ["examples.jsonl", "original", "refinements.jsonl", "."])
def test_what_is_read_is_not_written_over(
    serve: Callable[..., Server], rtune: Run, source: Path, out: Path, name: str
) -> None:
    server = serve()
    rtune("data", "refine", source, "--out", out, *asking(server))
    before, asked = content(out), server.asked.total()
    result = rtune("data", "refine", out / name, "--out", out, *asking(server))
    assert result.code == 2
    assert f"{out}: {out / name} is read from it" in result.err
    assert content(out) == before
    assert server.asked.total() == asked


def test_an_interrupted_refinement_goes_on_where_it_stopped(
    serve: Callable[..., Server], source: Path, out: Path
) -> None:
    server = serve()
    answered = server.answer
    hold = threading.Event()

    def answer(text: str, number: int) -> str:
        if text == "Boil water." and number == 0:
            hold.wait(60)
        return answered(text, number)

    server.answer = answer
    words = ["data", "refine", source, "--out", out, *asking(server), "--concurrency", 1]
    command = [sys.executable, "-m", "response_tuning", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    third = server.reached(3)
    while not third.wait(0.05):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)  # on a busy machine, ending takes long
    hold.set()
    assert process.returncode not in (0, 2)
    assert b"Traceback" not in said
    assert in_journal(out) == set(TEXTS[:2])
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert server.asked == {**dict.fromkeys(TEXTS[:2], 1), TEXTS[2]: 2}


ARTICLES = [
    " ".join(f"It was {word} in {place} when they came there again." for word in words)
    for place in ("town", "wood", "port")
    for words in (("hot", "cold"), ("wet", "dry"))
]


@pytest.fixture
def news(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "news.jsonl", [{"title": "x", "text": a} for a in ARTICLES])


SHORT = ("--min-words", 5, "--max-words", 20)


def test_passages_become_examples_without_an_instruction(rtune: Run, news: Path, out: Path) -> None:
    result = rtune("data", "extract", news, "--out", out, *SHORT)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("6 documents: 6 used, 6 passages\n")
    examples = list(read_jsonl(out / "examples.jsonl", Example))
    assert [e.response for e in examples] == ARTICLES
    assert {e.instruction for e in examples} == {None}
    audit = read_json(out / "audit.json")
    assert audit["extraction"]["source"]["name"] == str(news)
    assert audit["extraction"]["passages"] == audit["examples"] == 6
    before = content(out)
    assert rtune("data", "extract", news, "--out", out, *SHORT).out == result.out
    assert content(out) == before


def test_a_draw_of_passages_is_nested_and_of_a_seed(rtune: Run, news: Path, tmp_path: Path) -> None:
    def drawn(number: int, seed: int) -> set[str]:
        out = tmp_path / f"{number}-{seed}"
        command = ("data", "extract", news, "--out", out, *SHORT)
        assert rtune(*command, "--max-passages", number, "--seed", seed).code == 0
        return {e.response for e in read_jsonl(out / "examples.jsonl", Example)}

    assert len(drawn(2, 0)) == 2
    assert drawn(2, 0) < drawn(4, 0) < set(ARTICLES)
    assert drawn(3, 1) != drawn(3, 0)


def test_passages_are_rewritten_by_the_same_path_with_a_prompt_of_their_own(
    serve: Callable[..., Server], rtune: Run, news: Path, out: Path
) -> None:
    server = serve()
    server.answer = lambda text, _: "No." if text == ARTICLES[2] else improved(text)
    command = ["data", "extract", news, "--out", out, *SHORT, *asking(server), "--max-passages", 4]
    result = rtune(*command, "--on", "no-marker=drop")
    assert result.code == 0
    prompts = [c.prompt[0].content for c in Journal(out / "journal.jsonl", Completion)]
    assert all("<passage>" in prompt for prompt in prompts)
    originals = [e.response for e in read_jsonl(out / "original/examples.jsonl", Example)]
    assert len(originals) == 4
    refined = [f"Better: {text}" for text in originals if text != ARTICLES[2]]
    assert [e.response for e in read_jsonl(out / "examples.jsonl", Example)] == refined
    audit = read_json(out / "audit.json")
    assert audit["extraction"]["passages"] == 6
    assert audit["refinement"]["model"] == f"refiner@{server.url}"
    asked = server.asked.total()
    assert rtune(*command, "--on", "no-marker=drop").code == 0
    assert server.asked.total() == asked


def test_passages_are_not_written_over_either(rtune: Run, news: Path, out: Path) -> None:
    rtune("data", "extract", news, "--out", out, *SHORT)
    before = content(out)
    result = rtune("data", "extract", out / "passages.jsonl", "--out", out, *SHORT)
    assert result.code == 2
    assert f"{out}: {out / 'passages.jsonl'} is read from it" in result.err
    assert content(out) == before


@pytest.fixture
def assistant(tiny_base: Path, tmp_path: Path) -> Path:
    """The random model, with a chat template and room for a long prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from response_tuning.templates import install

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model.config.max_position_embeddings = 8192
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    install(tokenizer, "tulu")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "assistant")
    return tmp_path / "assistant"


@pytest.fixture
def served(assistant: Path) -> Iterator[str]:
    """The address of ``transformers serve``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [str(program), "serve", str(assistant), *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            assert process.poll() is None, "the server has died"
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.exhaustive  # by default: the servers above, and tests/finetune/test_merge.py
def test_a_served_model_is_asked_and_what_it_cannot_do_is_told(
    served: str, assistant: Path, rtune: Run, source: Path, out: Path
) -> None:
    result = rtune(
        *("data", "refine", source, "--out", out, "--engine", "openai", "--model", assistant),
        *("--base-url", served, "--max-new-tokens", 8, "--retries", 1, "--concurrency", 1),
        *("--price-in", 1, "--price-out", 1),
    )
    assert (result.code, result.err) == (0, "")
    summary = read_json(out / "refinement.json")
    assert summary["used"] == {"refined": 0, "original": 3, "nothing": 0}
    assert (summary["asked"], summary["replies"]) == (6, 6)
    assert summary["tokens"]["replies_not_counted"] == 0
    assert summary["tokens"]["prompt"] > 6 * 200
    assert 6 <= summary["tokens"]["reply"] <= 6 * 9
    told = list(read_jsonl(out / "refinements.jsonl", Refinement))
    assert {one.outcome for one in told} <= {"truncated", "no-marker", "empty"}
    assert [e.response for e in read_jsonl(out / "examples.jsonl", Example)] == TEXTS


def test_a_model_in_this_process_is_asked_too(
    assistant: Path, rtune: Run, source: Path, out: Path
) -> None:
    command = ("data", "refine", source, "--out", out, "--model", assistant)
    result = rtune(*command, "--max-new-tokens", 8, "--retries", 0, "--max-examples", 2)
    assert (result.code, result.err) == (0, "")
    assert "2 responses: 0 refined, 2 kept unchanged, 0 dropped" in result.out
    assert read_json(out / "refinement.json")["tokens"]["replies_not_counted"] == 0


def test_an_inspection_counts_tokens_and_makes_a_page(
    rtune: Run, source: Path, tiny_base: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    result = rtune("data", "inspect", source, "--tokenizer", tiny_base, "--html", page)
    assert (result.code, result.err) == (0, "")
    assert "Lengths in tokens" in result.out
    assert f"wrote {page}\n" in result.out
    assert "Lengths in tokens" in page.read_text()


def test_an_inspection_can_be_one_json_object(rtune: Run, source: Path) -> None:
    result = rtune("data", "inspect", source, "--json")
    found = json.loads(result.out)
    assert (found["rows"], found["turns"]) == (4, 3)
    assert list(found["lengths"]) == ["characters", "words"]


@pytest.mark.parametrize(
    ("name", "documents", "fewest"), [("wiki_demo.txt", 30, 700), ("c4_demo.jsonl", 300, 600)]
)
def test_a_passage_is_word_for_word_in_its_document(
    public_data: Path, rtune: Run, out: Path, name: str, documents: int, fewest: int
) -> None:
    source = public_data / "general_text" / name
    assert rtune("data", "extract", source, "--out", out).code == 0
    lines = source.read_text(encoding="utf-8").split("\n")
    found = list(read_jsonl(out / "passages.jsonl", Passage))
    assert len(found) >= fewest
    assert read_json(out / "extraction.json")["documents"] == documents
    for passage in found:
        line = lines[int(passage.where.rpartition(":")[2]) - 1]
        document = json.loads(line)["text"] if name.endswith(".jsonl") else line
        assert "".join(passage.text.split()) in "".join(document.split())
        assert 50 <= passage.words <= 250
        assert passage.text.rstrip("\"')]\u201d\u2019")[-1] in ".!?\u2026"
