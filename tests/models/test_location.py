import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from response_tuning import artifacts, miniature
from response_tuning.errors import ModelError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.models import location
from response_tuning.models.location import ModelFolder, identity, locate


@pytest.fixture
def adapter(llama: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    folder = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    return folder


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def opened(model: Path) -> str:
    return open_engine("hf", EngineConfig(model=str(model), device="cpu")).model


def test_a_model_is_known_without_being_loaded_as_it_is_known_when_it_is(
    llama: Path, adapter: Path
) -> None:
    assert identity(str(llama)) == opened(llama)
    assert identity(str(adapter)) == opened(adapter)
    assert identity(str(adapter)).endswith(f"+{identity(str(llama))}")


def test_asking_what_a_model_is_loads_no_framework(llama: Path) -> None:
    code = (
        "import sys; from response_tuning.models.location import identity; "
        f"print(identity({str(llama)!r}), {{'torch', 'transformers', 'peft'}} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{identity(str(llama))} set()"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_other_content_is_another_model(file: str, llama: Path, copy: Path) -> None:
    assert identity(str(copy)) == identity(str(llama))
    with (copy / file).open("ab") as out:
        out.write(b" ")
    assert identity(str(copy)) != identity(str(llama))


@pytest.mark.parametrize("file", ["README.md", "manifest.json", ".git/HEAD"])
def test_what_decides_no_answer_is_no_part_of_the_identity(
    file: str, llama: Path, copy: Path
) -> None:
    (copy / file).parent.mkdir(exist_ok=True)
    (copy / file).write_text("{}")
    assert identity(str(copy)) == identity(str(llama))


def test_an_unchanged_file_is_read_once_a_process(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def spy(file: Path) -> str:
        read.append(file.name)
        return artifacts.file_digest(file)

    monkeypatch.setattr(location, "file_digest", spy)
    before = identity(str(copy))
    assert identity(str(copy)) == before
    assert len(read) == len(set(read)) > 3
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert identity(str(copy)) != before
    assert read.count("model.safetensors") == 2
    assert len(read) == len(set(read)) + 1


def test_a_folder_is_known_by_the_digest_that_earlier_versions_recorded(copy: Path) -> None:
    model = ModelFolder("copy", copy)
    recorded = f"sha256:{artifacts.file_digest(copy)}"
    assert model.is_known_as(recorded)
    assert model.is_known_as(model.identity)
    (copy / "README.md").write_text("Another file.")
    assert not model.is_known_as(recorded)
    assert model.is_known_as(model.identity)


def test_a_model_in_the_hubs_cache_needs_no_network(hub_model: Path) -> None:
    assert locate("someone/tiny") == ModelFolder("someone/tiny", hub_model, hub_model.name)
    assert locate("someone/tiny", weights=False) == locate("someone/tiny")
    assert identity("someone/tiny") == f"someone/tiny@{hub_model.name}"


def test_the_base_of_an_adapter_is_taken_at_the_commit_that_the_adapter_names(
    hub_model: Path, adapter: Path
) -> None:
    later = hub_model.with_name("f" * 40)
    shutil.copytree(hub_model, later)
    (hub_model.parents[1] / "refs" / "main").write_text(later.name)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    for revision, commit in ((hub_model.name, hub_model.name), (None, later.name)):
        changed = settings | {"base_model_name_or_path": "someone/tiny", "revision": revision}
        (adapter / "adapter_config.json").write_text(json.dumps(changed))
        assert identity(str(adapter)).endswith(f"+someone/tiny@{commit}")


@pytest.mark.parametrize("name", ["nowhere/at-all", "nowhere"])
def test_a_model_that_the_hub_cannot_give_is_one_line_with_the_next_step(name: str) -> None:
    with pytest.raises(ModelError) as error:
        locate(name)
    message = str(error.value)
    assert message.startswith(f"{name}: no such folder, and the hub cannot give it: ")
    assert message.endswith("log in with 'hf auth login' and accept the model's licence")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "~/none", "no/where/at/all"])
def test_a_folder_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ModelError) as error:
        locate(name)
    assert str(error.value) == f"{name}: no such folder"


@pytest.mark.parametrize("name", ["miniture", "Miniature", "miniatur"])
def test_a_misspelt_miniature_gets_a_suggestion_and_the_hub_is_not_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "_snapshot", None)
    with pytest.raises(ModelError) as error:
        locate(name)
    assert str(error.value) == f"{name}: no such folder; did you mean 'miniature'?"


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "someone/miniture"])
def test_a_hub_id_is_a_possible_name(name: str) -> None:
    location.check_name(name)


def test_a_file_in_place_of_a_folder_is_one_line() -> None:
    with pytest.raises(ModelError) as error:
        locate(__file__)
    assert str(error.value).startswith(f"{__file__}: a file; give the folder that holds the model")


def test_the_miniature_is_a_name_for_the_shipped_base(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniature, "BASE", llama)
    assert identity("miniature") == identity(str(llama)) == opened(Path("miniature"))


def test_a_model_that_is_not_there_or_not_whole_has_no_identity(
    llama: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        identity(str(tmp_path / "nowhere"))
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/gone/x"}))
    with pytest.raises(ModelError, match=r"adapter_config\.json: its base model: /gone/x"):
        identity(str(adapter))
    with pytest.raises(ModelError, match="not a model folder: it has no config"):
        identity(str(tmp_path))


def test_an_adapter_that_names_no_base_says_what_to_set(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="names no base model; set base_model_name_or_path"):
        identity(str(adapter))
