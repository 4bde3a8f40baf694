import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning import miniature
from response_tuning.errors import ModelError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.generate.loading import identity

SaveModel = Callable[..., Path]


@pytest.fixture
def adapter(llama: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    folder = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    return folder


def opened(model: Path, **settings: Any) -> str:
    config = EngineConfig.model_validate({"model": str(model), "device": "cpu", **settings})
    return open_engine("hf", config).model


def test_a_model_is_known_without_being_loaded_as_it_is_known_when_it_is(
    llama: Path, adapter: Path
) -> None:
    assert identity(str(llama)) == opened(llama)
    assert identity(str(adapter)) == opened(adapter)
    assert identity(str(adapter)).endswith(f"+{identity(str(llama))}")


def test_asking_what_a_model_is_loads_no_framework(llama: Path) -> None:
    code = (
        "import sys; from response_tuning.generate.loading import identity; "
        f"print(identity({str(llama)!r}), {{'torch', 'transformers', 'peft'}} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{identity(str(llama))} set()"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_other_content_is_another_model(file: str, llama: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(llama, copy)
    assert identity(str(copy)) == identity(str(llama))
    with (copy / file).open("ab") as out:
        out.write(b" ")
    assert identity(str(copy)) != identity(str(llama))


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
    with pytest.raises(ModelError, match="so it is no model folder"):
        identity(str(tmp_path))
