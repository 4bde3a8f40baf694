import json
import re
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", PAGE, flags=re.DOTALL)
PAIRS = {
    theirs[0]: (yaml.safe_load(theirs[1]), yaml.safe_load(ours[1]))
    for theirs, ours in zip(BLOCKS[::2], BLOCKS[1::2], strict=True)
}
SAME = {
    "lora_r": ("lora_r", "lora_rank"),
    "lora_alpha": ("lora_alpha",),
    "lora_dropout": ("lora_dropout",),
    "window": ("max_length", "cutoff_len", "sequence_len"),
    "learning_rate": ("learning_rate",),
    "scheduler": ("lr_scheduler_type", "lr_scheduler"),
    "warmup_steps": ("warmup_steps",),
    "epochs": ("num_train_epochs", "num_epochs"),
    "eval_fraction": ("val_size", "val_set_size"),
}
"""A setting here, and its names elsewhere."""
BATCH = ("per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps")


def test_the_page_converts_three_tools() -> None:
    assert set(PAIRS) == {"trl", "llama_factory", "axolotl"}


@pytest.mark.parametrize("tool", PAIRS)
def test_a_converted_recipe_has_the_numbers_of_the_configuration_beside_it(tool: str) -> None:
    theirs, ours = PAIRS[tool]
    tuning = ours["finetune"]
    for setting, names in SAME.items():
        elsewhere = [theirs[name] for name in names if name in theirs]
        assert [tuning.get(setting)] * len(elsewhere) == elsewhere, setting
        assert bool(elsewhere) == (setting in tuning), setting
    assert tuning["examples_per_step"] == prod(theirs.get(name, 1) for name in BATCH)
    assert tuning["method"] == "lora"


@pytest.mark.parametrize("tool", PAIRS)
def test_a_converted_recipe_runs(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtune: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "answers.jsonl", tmp_path)
    recipe = PAIRS[tool][1]
    recipe["finetune"] |= {"base_model": "miniature", "template": "roles", "device": "cpu"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    short = ("--max-steps", 1, "--set", "finetune.window=32", "--set", "finetune.warmup_steps=0")
    result = rtune("finetune", "--recipe", "mine.yaml", *short, "--out", "tea")
    assert result.code == 0, result.err
    manifest = json.loads((tmp_path / "tea" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
