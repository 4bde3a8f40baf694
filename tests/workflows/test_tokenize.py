import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest

from response_tuning.artifacts import read_json
from response_tuning.finetune import store
from response_tuning.finetune.rows import EncodedRow

Run = Callable[..., Any]
FILES = ("ids.bin", "rows.bin", "counts.json", "audit.json", "complete")
ROWS = [
    {"prompt": f"What is {i}?", "response": f"It is {i}, of course. " * (1 + i % 5)}
    for i in range(20)
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESPONSE_TUNING_CACHE", str(tmp_path / "cache"))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0]]))


@pytest.fixture
def tokenize(rtune: Run, tiny_base: Path) -> Run:
    """Make tokens of the rows with the base of the tests."""

    def run(*flags: object, source: str = "rows.jsonl", out: str = "tokens") -> Any:
        words = ("data", "tokenize", source, "--base-model", tiny_base, "--out", out)
        return rtune(*words, "--window", 96, *flags)

    return run


def content(folder: str) -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in FILES}


def test_tokens_are_made_counted_and_trained_on_at_an_address(
    rtune: Run, tokenize: Run, tiny_base: Path
) -> None:
    storage = fsspec.filesystem("memory")
    try:
        done = tokenize(out="memory://pot/tokens")
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert "        1  duplicate" in lines
        counts = json.loads(storage.cat_file("/pot/tokens/counts.json"))
        assert f"20 examples: {counts['kept']} kept, {counts['truncated']} truncated" in done.out
        assert f"{counts['supervised_tokens']:,} of {counts['tokens']:,} tokens" in done.out
        assert lines[-2] == "uploaded to memory://pot/tokens"
        assert lines[-1].endswith("--tokens memory://pot/tokens")
        assert tokenize().code == 0
        assert content("tokens") == {
            name: storage.cat_file(f"/pot/tokens/{name}") for name in FILES
        }
        tuning = ("finetune", "--base-model", tiny_base, "--data", "rows.jsonl", "--window", 96)
        one_step = ("--method", "full", "--max-steps", 1)
        assert rtune(*tuning, *one_step, "--out", "own").code == 0
        done = rtune(*tuning, *one_step, "--tokens", "memory://pot/tokens", "--out", "far")
        assert done.code == 0, done.err
        assert "tokens made ahead: memory://pot/tokens" in done.out
        weights = Path("own", "model.safetensors").read_bytes()
        assert Path("far", "model.safetensors").read_bytes() == weights
        own, far = (read_json(Path(run, "manifest.json"))["audit"] for run in ("own", "far"))
        assert own == far
        assert {name: own[name] for name in counts if name != "schema"} == {
            name: count for name, count in counts.items() if name != "schema"
        }
    finally:
        storage.rm("/pot", recursive=True)


def test_the_same_command_again_makes_nothing_and_another_is_refused(
    tokenize: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tokenize().code == 0
    before = content("tokens")
    assert sorted(path.name for path in Path("tokens").iterdir()) == sorted(
        [*FILES, ".rtune.json"]
    ), "the examples themselves are gone"
    monkeypatch.setattr("response_tuning.workflows.tokenize.run_data", None)
    again = tokenize()
    assert again.code == 0, again.err
    assert "tokens: already tokenized" in again.out
    Path("other.jsonl").write_text('{"response": "Something else."}\n')
    for refused, message in (
        (tokenize("--objective", "instruction-tuning"), "holds other tokens: they were made with"),
        (tokenize(source="other.jsonl"), "holds the tokens of other data"),
        (tokenize("--max-examples", 5), "holds the tokens of other data"),
    ):
        assert refused.code == 2
        assert message in refused.err
        assert "choose another --out" in refused.err
        assert refused.err.count("\n") == 1
    assert content("tokens") == before


def test_other_tokens_at_an_address_are_not_replaced(
    tokenize: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = fsspec.filesystem("memory")
    try:
        assert tokenize(out="memory://pot/tokens").code == 0
        seal = storage.cat_file("/pot/tokens/complete")
        refused = tokenize("--objective", "instruction-tuning", out="memory://pot/tokens")
        assert refused.code == 2
        assert "memory://pot/tokens: holds other tokens" in refused.err
        Path("other.jsonl").write_text('{"response": "Something else."}\n')
        for cache in ("cache", "cache-of-another-machine"):
            monkeypatch.setenv("RESPONSE_TUNING_CACHE", cache)
            refused = tokenize(source="other.jsonl", out="memory://pot/tokens")
            assert refused.code == 2
            assert "holds the tokens of other data" in refused.err
        assert storage.cat_file("/pot/tokens/complete") == seal
    finally:
        storage.rm("/pot", recursive=True)


def test_damaged_tokens_are_made_again(tokenize: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert tokenize().code == 0
    before = content("tokens")
    Path("tokens", "ids.bin").write_bytes(before["ids.bin"][:-1])
    assert tokenize().code == 0
    assert content("tokens") == before
    assert "the tokens are made again" in caplog.text


def test_an_interrupted_command_leaves_nothing_that_is_read_and_goes_on(
    rtune: Run, tokenize: Run, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tokenize(out="whole").code == 0
    real = store.fill

    def stop(folder: Path, rows: Any) -> NoReturn:
        def some() -> Any:
            for number, row in enumerate(rows):
                assert isinstance(row, EncodedRow)
                if number == 10:
                    raise KeyboardInterrupt
                yield row

        real(folder, some())
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(store, "fill", stop)
        assert tokenize().code != 0
    assert not Path("tokens", "complete").exists()
    tuning = ("finetune", "--base-model", tiny_base, "--data", "rows.jsonl", "--window", 96)
    refused = rtune(*tuning, "--tokens", "tokens", "--out", "tuned")
    assert refused.code == 2
    assert "tokens: there are no tokens, or they are not whole yet" in refused.err
    assert not Path("tuned").exists()
    assert tokenize().code == 0
    assert content("tokens") == content("whole")


def test_what_cannot_be_tokenized_is_one_line_and_nothing_is_written(
    rtune: Run, tokenize: Run, tiny_base: Path
) -> None:
    for refused, message in (
        (rtune("data", "tokenize", "rows.jsonl", "--out", "tokens"), "needs --base-model"),
        (tokenize("--set", "finetune.epochs=2"), "no effect: it changes no token; remove it"),
        (tokenize("--processes", "-1"), "--processes -1: give 1 or more"),
        (tokenize("--objective", "nonsense"), "unknown objective 'nonsense'"),
        (tokenize(source="none.jsonl"), "none.jsonl"),
        (tokenize(out="nowhere://tokens"), "'nowhere' cannot be opened"),
    ):
        assert refused.code == 2, refused.err
        assert message in refused.err
        assert refused.err.count("\n") == 1
        assert not Path("tokens").exists()


def test_wrong_tokens_are_refused_before_the_data_are_prepared(
    rtune: Run, tokenize: Run, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tokenize().code == 0
    monkeypatch.setattr("response_tuning.workflows.finetune.run_data", None)
    tuning = ("finetune", "--base-model", tiny_base, "--data", "rows.jsonl")
    refused = rtune(*tuning, "--tokens", "tokens", "--out", "tuned")
    assert refused.code == 2
    assert "tokens: they were made with window 96, and this run has 256" in refused.err
    assert refused.err.count("\n") == 1
    assert not Path("tuned").exists()
