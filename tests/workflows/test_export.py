import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Message, write_json
from response_tuning.configs import DataConfig, FinetuneConfig
from response_tuning.errors import ConfigError, ModelError
from response_tuning.models import inference
from response_tuning.recipe import Recipe
from response_tuning.serve.export import converter, llama
from response_tuning.templates import TEMPLATES, Chat, install
from response_tuning.workflows.finetune import run_finetune

Rtune = Callable[..., Any]
WITH_SYSTEM = [
    Message(role="system", content="Answer in one word.\nAlways."),
    Message(role="user", content="Which 2 colours has the flag of 1984?"),
    Message(role="assistant", content="Red <b>and</b> white."),
    Message(role="user", content="  Why? "),
]


def tune(out: Path, base: str = "miniature", **settings: Any) -> Path:
    tuning = FinetuneConfig(
        base_model=base, max_steps=2, device="cpu", learning_rate=1e-3, template="tulu", **settings
    )
    recipe = Recipe(data=DataConfig(source="miniature", max_examples=8), finetune=tuning)
    run_finetune(recipe, out, Console(quiet=True))
    return out


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(tmp_path_factory.mktemp("runs") / "tuned", method="full")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(tmp_path_factory.mktemp("runs") / "adapter", method="lora")


@pytest.fixture(scope="module")
def needs_llama() -> None:
    try:
        llama.check_installed()
        converter.find(None)
    except ConfigError as error:
        pytest.skip(str(error))


def files_of(folder: Path) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return names - {".rtune.json"}


def test_safetensors_are_the_tuned_weights_without_anything_of_the_training(
    rtune: Rtune, tuned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert rtune("export", tuned, "--to", "safetensors", "--out", out).code == 0
    assert files_of(out) == {
        *("model.safetensors", "config.json", "generation_config.json", "chat_template.jinja"),
        *("tokenizer.json", "tokenizer_config.json", "README.md", "export.json"),
    }
    assert (out / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card and "on responses only" in card
    assert "| optimizer steps | 2 |" in card and "vllm serve tuned" in card
    for file in ("README.md", "export.json", "config.json"):
        assert str(tuned.parent) not in (out / file).read_text()


def test_an_adapter_is_merged_and_the_card_says_into_what(
    rtune: Rtune, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = rtune(
        *("export", adapter, "--to", "safetensors", "--out", out),
        *("--answers", 5, "--max-new-tokens", 6),
    )
    assert result.code == 0, result.err
    assert "of 5 greedy answers of the adapter, 5 are the merged model's too" in result.out
    assert "written in float32" in (out / "README.md").read_text()
    assert json.loads((out / "export.json").read_text())["answers"] == {"compared": 5, "equal": 5}
    question = [Message(role="user", content="What is 2 plus 2?")]
    ours, merged = inference.load(str(adapter)), inference.load(str(out))
    assert ours.chat.prompt(question) == merged.chat.prompt(question)
    assert ours.stop_ids == merged.stop_ids
    assert not any("adapter" in name for name in files_of(out))


def test_an_adapter_may_go_alone_and_a_whole_model_has_none(
    rtune: Rtune, adapter: Path, tuned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert rtune("export", adapter, "--to", "safetensors", "--adapter", "--out", out).code == 0
    assert "adapter_model.safetensors" in files_of(out)
    assert not any(name.startswith("model") for name in files_of(out))
    assert "library_name: peft" in (out / "README.md").read_text()
    refused = rtune("export", tuned, "--to", "safetensors", "--adapter", "--out", tmp_path / "o")
    assert refused.code == 2 and "there is no adapter" in refused.err
    assert not (tmp_path / "o").exists()


def test_an_adapter_on_the_hub_names_its_base_by_a_hub_id(
    rtune: Rtune, adapter: Path, tmp_path: Path
) -> None:
    flags = ("--to", "hub", "--adapter", "--license", "mit", "--out", tmp_path / "out")
    refused = rtune("export", adapter, *flags)
    assert refused.code == 2 and "give its hub id (--base OWNER/NAME)" in refused.err
    assert rtune("export", adapter, *flags, "--base", "org/base").code == 0
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "org/base"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: org/base" in card and "vllm serve org/base --enable-lora" in card


def test_a_dry_run_lists_each_file_and_writes_none(
    rtune: Rtune, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = rtune("export", tuned, "--to", "hub", "--license", "mit", "--dry-run")
    assert result.code == 0, result.err
    listed = [line.split(" ")[0] for line in result.out.splitlines()]
    assert rtune("export", tuned, "--to", "hub", "--license", "mit", "--out", "out").code == 0
    assert set(listed) == files_of(tmp_path / "out")
    assert len(listed) == len(set(listed))


def test_a_dry_run_lists_the_files_before_it_says_what_to_install(
    rtune: Rtune, tuned: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "convert_hf_to_gguf.py"
    result = rtune("export", tuned, "--to", "ollama", "--converter", missing, "--dry-run")
    assert result.code == 2 and str(missing) in result.err
    assert result.out.splitlines()[1:3] == ["Modelfile", "README.md"]


def test_a_dry_run_finds_that_the_base_of_an_adapter_is_gone(
    rtune: Rtune, adapter: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(adapter, moved)
    settings = json.loads((moved / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "gone/base.gguf"
    (moved / "adapter_config.json").write_text(json.dumps(settings))
    result = rtune("export", moved, "--to", "safetensors", "--out", tmp_path / "out", "--dry-run")
    assert result.code == 2
    assert "gone/base.gguf: no such file" in result.err


@pytest.fixture
def cell(tuned: Path, tmp_path: Path) -> Path:
    """A cell of a run that was reported on."""
    cell = tmp_path / "run" / "rt" / "seed-1"
    shutil.copytree(tuned, cell / "finetune")
    shutil.copytree(tuned.with_name("tuned.training") / "data", cell / "data")
    judge = {"engine": "openai", "model": "/models/judge-7b"}
    write_json(cell / "grade" / "manifest.json", {"alpaca-eval": {"judge": judge}})
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "results.csv").write_text(
        "variant,benchmark,metric,value,low,high,n,seeds\n"
        "it,alpaca-eval,win_rate,0.9,0.8,0.95,805,3\n"
        "rt,alpaca-eval,win_rate,0.5,0.45,0.55,805,3\n"
        "rt,core-gsm8k,exact_match_strict,0.25,0.2,0.3,1319,3\n"
    )
    return cell


def test_the_results_of_the_variant_go_with_it(rtune: Rtune, cell: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = rtune("export", cell, "--to", "hub", "--license", "mit", "--out", out)
    assert result.code == 0, result.err
    card = (out / "README.md").read_text()
    assert "| alpaca-eval | win_rate | 0.5 | 0.45 to 0.55 | 805 | 3 | openai judge-7b |" in card
    assert "0.9" not in card.partition("## Results")[2]
    metadata = card.split("---")[1]
    assert "model-index" in metadata and "judge openai judge-7b" in metadata
    # The hub has a place for GSM8K, and none for AlpacaEval.
    assert "gsm8k" not in metadata
    entry = (out / ".eval_results" / "core-gsm8k.yaml").read_text()
    assert "id: openai/gsm8k" in entry and "value: 25.0" in entry and "n 1319, seeds 3" in entry


def test_the_folder_of_a_run_has_several_models(rtune: Rtune, cell: Path, tmp_path: Path) -> None:
    run = cell.parents[1]
    write_json(run / "manifest.json", {"experiment": {}})
    refused = rtune("export", run, "--to", "safetensors", "--out", tmp_path / "out")
    assert refused.code == 2 and f"give one of its cells, such as {cell}" in refused.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "onnx"], "--to onnx: choose one of gguf, ollama, safetensors, hub"),
        (["--to", "gguf", "--type", "q4_k_m"], "llama-quantize makes smaller formats"),
        (["--to", "gguf", "--adapter"], "--adapter has no effect: a GGUF file holds the whole"),
        (["--to", "safetensors", "--repo", "a/b"], "--repo has no effect: only --to hub uploads"),
        (["--to", "safetensors", "--type", "f16"], "--type has no effect"),
        (["--to", "hub"], "the card of a hub repository names a licence"),
        (["--to", "hub", "--license", "mit", "--repo", "a b"], "--repo a b: "),
        (["--to", "hub", "--license", "mit", "--repo", "name"], "no owner; give OWNER/NAME"),
        (["--to", "gguf", "--converter", "gone.py"], "--converter gone.py: no such file"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    rtune: Rtune, tuned: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    refused = rtune("export", tuned, *flags, "--out", tmp_path / "out")
    assert refused.code == 2 and said in refused.err
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_is_not_written_over(rtune: Rtune, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert rtune("export", tuned, "--to", "safetensors", "--out", out).code == 0
    refused = rtune("export", tuned, "--to", "safetensors", "--out", out)
    assert refused.code == 2 and "holds files already" in refused.err


@pytest.mark.usefixtures("needs_llama")
def test_a_gguf_answers_as_the_tuned_model_and_ollama_gets_its_template(
    rtune: Rtune, tuned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = rtune("export", tuned, "--to", "ollama", "--out", out, "--answers", 8)
    assert result.code == 0, result.err
    assert files_of(out) == {"tuned-f16.gguf", "Modelfile", "README.md", "export.json"}
    record = json.loads((out / "export.json").read_text())["proof"]
    assert record["answers"] == 8 and record["equal"] + record["near_ties"] == 8
    assert "FROM ./tuned-f16.gguf\n" in (out / "Modelfile").read_text()


@pytest.mark.usefixtures("needs_llama")
def test_a_missing_tokenizer_model_is_caught_and_a_copied_one_is_exact(
    rtune: Rtune, tiny_lm: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_lm, tmp_path / "base", copy_function=shutil.copyfile))
    base.chmod(0o755)
    run = tune(tmp_path / "story", base=str(base), method="full", window=256)
    few = ("--answers", 8, "--max-new-tokens", 8)
    (base / "tokenizer.model").rename(tmp_path / "aside")
    refused = rtune("export", run, "--to", "gguf", "--out", tmp_path / "a", *few)
    assert refused.code == 2 and "SentencePiece without tokenizer.model" in refused.err
    assert not (tmp_path / "a").exists()
    (tmp_path / "aside").rename(base / "tokenizer.model")
    exported = rtune("export", run, "--to", "gguf", "--out", tmp_path / "a", *few)
    assert exported.code == 0, exported.err
    assert "tokenizer.model: copied from the base" in exported.out


@pytest.mark.usefixtures("needs_llama")
def test_the_proof_refuses_the_file_of_a_sentencepiece_model_without_its_own_file(
    rtune: Rtune, tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_lm.iterdir():
        if file.name != "tokenizer.model":
            shutil.copyfile(file, base / file.name)
    run = tune(tmp_path / "story", base=str(base), method="full", window=256)
    monkeypatch.setattr("response_tuning.serve.export.pieces.is_needed", lambda folder: False)
    refused = rtune("export", run, "--to", "gguf", "--out", tmp_path / "a", "--answers", 8)
    assert refused.code == 2
    assert "into other tokens" in refused.err and "without its tokenizer.model" in refused.err
    assert not (tmp_path / "a").exists()


def with_template(source: Path, template: str, out: Path) -> Path:
    """Copy a GGUF file with another chat template, as llama.cpp's own script does."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

    new = MetadataDetails(GGUFValueType.STRING, template)
    copy_with_new_metadata(
        GGUFReader(source), GGUFWriter(out, "llama"), {Keys.Tokenizer.CHAT_TEMPLATE: new}, []
    )
    return out


@pytest.mark.usefixtures("needs_llama")
def test_every_template_renders_a_system_message_in_llama_cpp_as_in_transformers(
    tuned: Path, tmp_path: Path
) -> None:
    """One model is converted; its copies get the templates that the converter would read."""
    from gguf import SpecialVocab
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tuned, tmp_path / "model"))
    converted = tmp_path / "converted.gguf"
    converter.convert(folder, converted, "f16", converter.find(None))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("tulu", "neutral-tags", "zero-shot", "roles"):
        assert name in TEMPLATES.names()
        tokenizer.chat_template = None
        install(tokenizer, name)
        tokenizer.save_pretrained(folder)
        template = SpecialVocab(folder).chat_template
        assert isinstance(template, str) and template == tokenizer.chat_template
        file = with_template(converted, template, tmp_path / f"{name}.gguf")
        with llama.running(file, 256, 1) as server:
            assert server.properties()["chat_template"] == template
            chat = Chat(AutoTokenizer.from_pretrained(folder))
            for turns in (WITH_SYSTEM, WITH_SYSTEM[:2], WITH_SYSTEM[1:]):
                assert server.prompt(turns) == chat.prompt(turns)
                assert server.encode(server.prompt(turns)) == chat.encode(chat.prompt(turns))


@pytest.mark.usefixtures("needs_llama")
def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF and not more")
    with (
        pytest.raises(ModelError, match=r"x.gguf: llama.cpp cannot load it: "),
        llama.running(tmp_path / "x.gguf", 64, 1),
    ):
        pass
