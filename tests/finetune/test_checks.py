from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, ModelError, ResponseTuningError, TemplateError
from response_tuning.finetune.checks import check


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"base_model": "./nowhere"}, ModelError, "nowhere"),
        ({"report_to": "tensorbord"}, ConfigError, "did you mean 'tensorboard'"),
        ({"report_to": "comet_ml"}, ConfigError, "'comet_ml' is not installed"),
        ({"optimizer": "adamw"}, ConfigError, "unknown optimizer 'adamw'"),
        (
            {"optimizer": "adamw_torc"},
            ConfigError,
            "^unknown optimizer 'adamw_torc': did you mean 'adamw_torch'[?]$",
        ),
        (
            {"optimizer": "galore_adamw"},
            ConfigError,
            "'galore_adamw' cannot be used here: .*galore",
        ),
        ({"template": "native"}, TemplateError, "has no chat template"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    tiny_base: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    kind: type[ResponseTuningError],
    said: str,
) -> None:
    config = FinetuneConfig.model_validate({"base_model": str(tiny_base)} | settings)
    with pytest.raises(kind, match=said):
        check(config, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_can_be_used_passes(tiny_base: Path, tmp_path: Path) -> None:
    check(FinetuneConfig(base_model=str(tiny_base), report_to="tensorboard"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_qlora_needs_a_gpu(tiny_base: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="needs a CUDA GPU; use --method lora"):
        check(FinetuneConfig(base_model=str(tiny_base), method="qlora"), tmp_path / "out")


@pytest.mark.parametrize(
    "flags",
    [
        ["--base-model", "./nowhere"],
        ["--report-to", "nobody"],
        ["--set", "finetune.optimizer=nothing"],
        ["--epochs", "1e308"],
        ["--learning-rate", "nan"],
        ["--max-steps", "9" * 30],
    ],
)
def test_the_command_says_so_before_it_prepares_any_data(
    rtune: Callable[..., Any], tiny_base: Path, tmp_path: Path, flags: list[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"response": "It is."}\n')
    command = ["finetune", "--base-model", tiny_base, "--data", answers, "--out", tmp_path / "o"]
    ended = rtune(*command, *flags)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
