import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from response_tuning import seals
from response_tuning.artifacts import file_digest, write_json
from response_tuning.errors import ModelError
from response_tuning.models import integrity
from response_tuning.models.inference import load
from response_tuning.models.location import ModelFolder, identity


@pytest.fixture
def base(llama: Path, tmp_path: Path) -> Path:
    """A copy of a model that a test may spoil."""
    return Path(shutil.copytree(llama, tmp_path / "base"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """What a finished run on ``base`` leaves."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    finish(folder, base=identity(str(base)))
    return folder


def finish(folder: Path, **more: Any) -> None:
    files = seals.sums(folder, sorted(path.name for path in folder.iterdir() if path.is_file()))
    write_json(folder / "manifest.json", {"status": "finished", "files": files} | more)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(str(folder), device="cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_that_is_as_it_was_left_is_loaded(adapter: Path, base: Path) -> None:
    tuned = load(str(adapter), device="cpu")
    finish(base)
    plain = load(str(base), device="cpu")
    assert tuned.identity != plain.identity
    assert "+" in tuned.identity, "an adapter has a base"


def test_a_finished_run_whose_weights_were_changed_is_refused(base: Path) -> None:
    finish(base)
    flip(base / "model.safetensors")
    assert refusal(base) == (
        f"{base}: model.safetensors changed after the run finished; put the file back, or delete "
        f"{base / 'manifest.json'} to use the model as it is"
    )
    (base / "manifest.json").unlink()
    load(str(base), device="cpu")


def test_a_finished_adapter_whose_weights_were_changed_is_refused(adapter: Path) -> None:
    flip(adapter / "adapter_model.safetensors")
    assert "adapter_model.safetensors changed after the run finished" in refusal(adapter)


def test_weights_in_other_files_than_the_runs_are_refused(base: Path) -> None:
    finish(base)
    (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    write_json(base / "model.safetensors.index.json", index)
    assert "model.safetensors changed after the run finished" in refusal(base)


@pytest.mark.parametrize("status", ["running", "merging"])
def test_digests_of_a_run_that_is_at_work_are_not_those_of_its_weights(
    base: Path, status: str
) -> None:
    finish(base, status=status)
    flip(base / "model.safetensors")
    integrity.check_weights(base)
    finish(base)
    flip(base / "model.safetensors")
    with pytest.raises(ModelError, match="changed after the run finished"):
        integrity.check_weights(base)


def test_an_adapter_over_a_base_that_it_was_not_tuned_on_is_refused(
    adapter: Path, base: Path
) -> None:
    before = identity(str(base))
    flip(base / "model.safetensors")
    message = refusal(adapter)
    assert message.startswith(f"{adapter}: its base model {base} changed after tuning ")
    assert f"(it was {before}, now {identity(str(base))})" in message
    (adapter / "manifest.json").unlink()
    load(str(adapter), device="cpu")


def test_an_adapter_that_an_earlier_version_tuned_knows_its_base_by_all_of_its_files(
    adapter: Path, base: Path
) -> None:
    finish(adapter, base=f"sha256:{file_digest(base)}")
    load(str(adapter), device="cpu")
    (base / "README.md").write_text("Another file.")
    assert "changed after tuning" in refusal(adapter)


def test_an_adapter_whose_base_was_moved_and_not_changed_is_loaded(
    adapter: Path, base: Path
) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(base.rename(base.with_name("elsewhere")))
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    names = [name for name, _ in load(str(adapter), device="cpu").model.named_parameters()]
    assert any("lora_A" in name for name in names)


def test_a_local_copy_of_the_hub_model_that_an_adapter_was_tuned_on_is_not_compared(
    adapter: Path, base: Path
) -> None:
    finish(adapter, base="org/base@1234")
    integrity.check_base(adapter, ModelFolder("base", base))
    finish(adapter, base="sha256:1234")
    with pytest.raises(ModelError, match="changed after tuning"):
        integrity.check_base(adapter, ModelFolder("base", base))


@pytest.mark.parametrize(
    "content", [{}, {"files": []}, {"status": "finished", "files": {"model.safetensors": 1}}]
)
def test_a_manifest_of_something_else_is_passed_over(base: Path, content: dict[str, Any]) -> None:
    write_json(base / "manifest.json", content)
    integrity.check_weights(base)
    integrity.check_base(base, ModelFolder("base", base))


def test_a_manifest_that_cannot_be_read_is_warned_of(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (base / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        integrity.check_weights(base)
    assert caplog.text.count("the model is not verified") == 1


def test_no_file_is_read_twice_to_verify_it(
    adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "model.safetensors").touch()  # as if nobody had read it before
    read: list[str] = []
    hash_of = hashlib.file_digest

    def spy(content: Any, kind: str) -> Any:
        read.append(str(content.name))
        return hash_of(content, kind)

    monkeypatch.setattr(hashlib, "file_digest", spy)
    load(str(adapter), device="cpu")
    weights = [name for name in read if name.endswith(".safetensors")]
    assert len(weights) == len(set(weights)) == 2
