import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from response_tuning import EngineConfig, Message, Request, Sampling, open_engine
from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune import base, finetune
from response_tuning.finetune.merge import merge_adapter
from response_tuning.generate import generate

QUESTIONS = ["What is a kettle?", "Say three words.", "", "🙂\n\n", "one " * 20]
LIMIT = 24


@pytest.fixture(scope="session")
def merged(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One adapter, and the same run merged."""
    data, out = tmp_path_factory.mktemp("merge_data"), tmp_path_factory.mktemp("run")
    examples = [Example(row=i, response=f"The kettle boils {i} times.") for i in range(16)]
    write_jsonl(data / "examples.jsonl", examples)
    audit = {"rows": 16, "rows_kept": 16, "examples": 16, "dropped": {}}
    write_json(data / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
    config = FinetuneConfig(
        base_model=str(tiny_base),
        method="lora",
        lora_r=8,
        learning_rate=1e-2,
        max_steps=30,
        examples_per_step=8,
        window=64,
        device="cpu",
    )
    finetune(config, data, out / "adapter", Console())
    finetune(config.model_copy(update={"merge": True}), data, out / "whole", Console())
    shutil.copytree(data, out / "data")
    return out / "adapter", out / "whole"


def test_the_merged_model_computes_what_the_adapter_does(
    merged: tuple[Path, Path], tiny_base: Path
) -> None:
    adapter, whole = merged
    ids = torch.arange(2, 40)[None]
    untuned: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    untouched = untuned(input_ids=ids).logits.detach()
    tuned = PeftModel.from_pretrained(untuned, str(adapter))(input_ids=ids).logits.detach()
    one: Any = AutoModelForCausalLM.from_pretrained(whole)
    together = one(input_ids=ids).logits.detach()
    torch.testing.assert_close(together, tuned, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, untouched, atol=1e-2)


def test_a_merged_model_keeps_nothing_of_the_base_that_suppresses_its_stop_token(
    merged: tuple[Path, Path], tiny_base: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    declared = json.loads((base / "generation_config.json").read_text())
    suppressing = declared | {"suppress_tokens": [declared["eos_token_id"]], "min_length": 40}
    (base / "generation_config.json").write_text(json.dumps(suppressing))
    adapter, whole = merged
    settings = json.loads((adapter / "manifest.json").read_text())["settings"]
    config = FinetuneConfig.model_validate(
        settings | {"base_model": str(base), "max_steps": 1, "merge": True}
    )
    finetune(config, adapter.parent / "data", tmp_path / "out", Console())
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert saved == json.loads((whole / "generation_config.json").read_text())
    assert not {"suppress_tokens", "min_length"} & saved.keys()


def test_a_merged_folder_says_into_what_and_keeps_the_adapter(
    merged: tuple[Path, Path], tiny_base: Path
) -> None:
    adapter, whole = merged
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["merged_into"] == {
        "base": manifest["base"],
        "dtype": "float32",
        "trained_against": "the same weights",
        "weights": "its own weights",
    }
    assert not (whole / "adapter_config.json").exists()
    assert "library_name: transformers" in (whole / "README.md").read_text()
    card = (whole / "README.md").read_text()
    assert "merged into the base in\nfloat32 (its own weights)" in card
    assert "library_name: peft" in (adapter / "README.md").read_text()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (whole / "adapter" / name).exists()
    assert (whole / "adapter" / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_a_finished_adapter_is_merged_by_the_same_command_with_merge(
    merged: tuple[Path, Path], tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, whole = merged
    again = tmp_path / "again"
    shutil.copytree(adapter, again)
    manifest = json.loads((again / "manifest.json").read_text())
    config = FinetuneConfig.model_validate(manifest["settings"] | {"merge": True})
    data = adapter.parent.parent / next(p.name for p in adapter.parent.parent.glob("merge_data*"))
    for _ in range(2):  # the second finds nothing left to do
        finetune(config, data, again, Console())
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("already finished") == 2
    assert said.count(f"with the adapter merged into a copy of {tiny_base}; the adapter alone") == 1


@pytest.fixture
def on_4_bits(merged: tuple[Path, Path], tmp_path: Path) -> Path:
    """An adapter whose manifest says that QLoRA trained it: here, no GPU can."""
    out = Path(shutil.copytree(merged[0], tmp_path / "out"))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["settings"] |= {"method": "qlora", "precision": "bfloat16"}
    write_json(out / "manifest.json", manifest)
    return out


def test_an_adapter_on_4_bit_weights_is_merged_into_those_where_asked(
    on_4_bits: Path, merged: tuple[Path, Path], tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra 'qlora'")
    merge_adapter(on_4_bits, Console(width=1000), "nf4")
    config = FinetuneConfig.model_validate({"base_model": str(tiny_base), "method": "qlora"})
    quantized: Any = AutoModelForCausalLM.from_pretrained(
        tiny_base, quantization_config=base._quantization(config), dtype=torch.bfloat16
    )
    ids = torch.arange(2, 40)[None]
    # In training: a CPU kernel for inference takes no layer of 32 columns.
    adapted: Any = PeftModel.from_pretrained(quantized, str(merged[0])).train()
    trained = adapted(input_ids=ids).logits.detach()
    whole: Any = AutoModelForCausalLM.from_pretrained(on_4_bits)
    other: Any = AutoModelForCausalLM.from_pretrained(merged[1])
    near, far = (
        float((model(input_ids=ids).logits.detach() - trained).abs().mean())
        for model in (whole, other)
    )
    assert near < far / 2
    said = "(its 4-bit NF4 weights, dequantized, in bfloat16; it was trained against 4-bit NF4)"
    assert said in capsys.readouterr().out
    with pytest.raises(ConfigError, match="merged into its 4-bit NF4 weights, dequantized already"):
        merge_adapter(on_4_bits, Console(), "base")


def test_an_adapter_on_4_bit_weights_is_merged_into_the_base_by_default_and_says_so(
    on_4_bits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_adapter(on_4_bits, Console(width=1000), "base")
    assert "(its own weights, in bfloat16; it was trained against 4-bit NF4)" in (
        capsys.readouterr().out
    )
    merge_adapter(on_4_bits, Console(), "base")  # nothing is left to do
    with pytest.raises(ConfigError, match="merged into its own weights already; choose another"):
        merge_adapter(on_4_bits, Console(), "nf4")


def test_a_merge_into_4_bit_weights_without_the_extra_changes_nothing(
    on_4_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    before = {path.name: path.read_bytes() for path in on_4_bits.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[qlora\]'"):
        merge_adapter(on_4_bits, Console(), "nf4")
    after = {path.name: path.read_bytes() for path in on_4_bits.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize("place", ["copy2", "move_into", "unlink", "model_card"])
def test_a_merge_that_a_kill_cuts_in_two_is_gone_on_with_by_the_same_command(
    merged: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    adapter, whole = merged
    out = Path(shutil.copytree(adapter, tmp_path / "out"))
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    config = FinetuneConfig.model_validate(settings)
    unlink = Path.unlink

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def killed_at_the_second(path: Path, **how: bool) -> None:
        if path.name == "adapter_model.safetensors":
            killed()
        unlink(path, **how)

    with monkeypatch.context() as patch:
        names = {"copy2": "shutil.copy2", "unlink": "pathlib.Path.unlink"}
        name = names.get(place, f"response_tuning.finetune.merge.{place}")
        patch.setattr(name, killed_at_the_second if place == "unlink" else killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(
                config.model_copy(update={"merge": True}),
                adapter.parent / "data",
                out,
                Console(),
            )
    # Also without --merge: what is begun is ended.
    finetune(config, adapter.parent / "data", out, Console())
    names_of = [sorted(path.name for path in folder.iterdir()) for folder in (out, whole)]
    assert names_of[0] == names_of[1]
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (out, whole)]
    assert manifests[0]["files"] == manifests[1]["files"]
    assert manifests[0]["merged_into"] == manifests[1]["merged_into"]


@contextmanager
def served(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    server = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _wait_until_it_answers(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_it_answers(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has died"
        try:
            with urllib.request.urlopen(url.replace("/v1", "/health"), timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server never answered")


def test_a_merged_folder_answers_under_transformers_serve_as_it_does_here(
    merged: tuple[Path, Path], tmp_path: Path
) -> None:
    _, whole = merged
    requests = [
        Request(item_id=str(i), prompt=(Message(role="user", content=question),))
        for i, question in enumerate(QUESTIONS)
    ]
    sampling = Sampling(max_new_tokens=LIMIT)
    here = open_engine("hf", EngineConfig(model=str(whole)))
    mine = list(generate(here, requests, tmp_path / "here.jsonl", sampling))
    with served(whole) as url:
        there = open_engine("openai", EngineConfig(model=str(whole), base_url=url, concurrency=1))
        theirs = list(generate(there, requests, tmp_path / "there.jsonl", sampling))
    assert [c.error for c in mine + theirs] == [None] * 2 * len(QUESTIONS)
    assert [c.response for c in mine] == [c.response for c in theirs]
    tokenizer = AutoTokenizer.from_pretrained(whole)
    assert any(c.finish_reason == "stop" for c in mine)
    assert all(len(tokenizer(c.response or "").input_ids) <= LIMIT + 1 for c in mine)
