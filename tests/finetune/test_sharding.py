import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune import base, sharding
from response_tuning.finetune.run import finetune
from tests.finetune import sharded_processes
from tests.finetune.test_preference_loss import written
from tests.finetune.test_run import configured
from tests.fixtures.processes import run_in_processes

METHODS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"method": "lora", "lora_r": 4}}
MORE = [("full", 4, 1), ("lora", 2, 1), ("lora", 4, 1), ("full", 4, 2), ("lora", 4, 2)]
CASES = [("full", 2, 1), *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in MORE)]
"""Method, processes, nodes."""


@pytest.fixture(scope="module")
def tied_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with its embedding as its head."""
    folder = tmp_path_factory.mktemp("tied_base")
    for file in tiny_base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    shape = AutoConfig.from_pretrained(tiny_base, tie_word_embeddings=True)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(shape)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


def run_sharded(
    config: FinetuneConfig, data: Path, out: Path, processes: int, **how: Any
) -> list[int]:
    kill = how.pop("kill", None)
    shard = "node" if how.get("nodes", 1) > 1 else "full"
    config = config.model_copy(update={"shard": shard if processes > 1 else None})
    return run_in_processes(sharded_processes.run, config, data, out, kill, count=processes, **how)


def check_same(one: Path, other: Path) -> None:
    """Losses and weights within 1e-5, and the same files."""
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (one, other)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    names = {path.name for path in one.iterdir()}
    assert {path.name for path in other.iterdir()} == names
    (file,) = (name for name in names if name.endswith(".safetensors"))
    first, second = load_file(one / file), load_file(other / file)
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5
    config = next(name for name in ("config.json", "adapter_config.json") if name in names)
    assert (one / config).read_text() == (other / config).read_text()


@pytest.mark.parametrize(("method", "processes", "nodes"), CASES)
def test_each_process_holds_its_share_and_the_steps_and_the_model_are_those_of_one_process(
    tied_base: Path, data: Path, tmp_path: Path, method: str, processes: int, nodes: int
) -> None:
    config = configured(tied_base, max_steps=5, learning_rate=1e-4, **METHODS[method])
    one, out = finetune(config, data, tmp_path / "one", Console()), tmp_path / "sharded"
    assert run_sharded(config, data, out, processes, nodes=nodes) == [0] * processes

    among = processes // nodes
    found = [json.loads((tmp_path / f"sharded.{rank}.json").read_text()) for rank in range(among)]
    held = found[0]["held"]
    replicated = "Replicate(), " if nodes > 1 else ""
    for name, (placements, shape, _) in held.items():
        assert placements in (f"({replicated}Shard(dim=0),)", f"({replicated}Shard(dim=0))"), name
        rows = [process["held"][name][2][0] for process in found]
        assert rows[0] == math.ceil(shape[0] / among)
        assert sum(rows) == shape[0]
    assert len(held) == found[0]["parameters"]
    assert found[0]["groups"] >= found[0]["layers"] + 1

    line = f"sharded over {among} processes{f', in each of {nodes} nodes' if nodes > 1 else ''}: "
    printed = (tmp_path / "sharded.printed").read_text()
    assert f"{line}{len(held)} of {len(held)} parameters\n" in printed
    check_same(one, out)


def test_two_processes_learn_preferences_as_one_does(tied_base: Path, tmp_path: Path) -> None:
    config = configured(tied_base, max_steps=2, learning_rate=1e-4, objective="dpo")
    pairs, out = written(tmp_path / "pairs", range(12)), tmp_path / "sharded"
    one = finetune(config, pairs, tmp_path / "one", Console())
    assert run_sharded(config, pairs, out, 2) == [0, 0]
    assert "sharded over 2 processes: " in (tmp_path / "sharded.printed").read_text()
    check_same(one, out)


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.exhaustive) for m in METHODS])
@pytest.mark.parametrize("processes", [4, 1])
def test_two_processes_that_are_killed_go_on_as_four_or_as_one(
    tied_base: Path, data: Path, tmp_path: Path, method: str, processes: int
) -> None:
    config = configured(tied_base, max_steps=9, learning_rate=1e-4, **METHODS[method])
    one, out = finetune(config, data, tmp_path / "one", Console()), tmp_path / "sharded"
    assert -9 in run_sharded(config, data, out, 2, kill=("step", 6))
    assert run_sharded(config, data, out, processes) == [0] * processes
    assert "resuming from checkpoint-4\n" in (tmp_path / "sharded.printed").read_text()
    check_same(one, out)


@pytest.mark.parametrize(
    ("shard", "processes", "on_node", "error"),
    [
        ("full", 1, 1, r"there is one; start several with 'torchrun --nproc-per-node"),
        ("node", 4, 1, "4 processes, 1 of them on this node; .* or use --shard full"),
        ("node", 5, 2, "start the same number"),
        ("full", 2, 1, ""),
        ("node", 4, 2, ""),
    ],
)
def test_what_cannot_be_divided_is_refused_before_the_data(
    monkeypatch: pytest.MonkeyPatch, shard: str, processes: int, on_node: int, error: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(on_node))
    config = FinetuneConfig.model_validate({"base_model": "any", "shard": shard})
    if error:
        with pytest.raises(ConfigError, match=error):
            sharding.check(config)
    else:
        sharding.check(config)
        assert sharding.shards_of(config) == 2


def test_a_run_that_asked_for_sharding_and_shards_nothing_is_refused(
    tiny_base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # a launcher asks, and starts one process
    with pytest.raises(ConfigError, match="0 of 21 parameters, though sharding was asked for"):
        finetune(configured(tiny_base), data, tmp_path / "out", Console())


def test_4_bit_weights_are_stored_as_numbers_that_fsdp2_can_divide() -> None:
    def stored(shard: str | None) -> Any:
        settings = {"base_model": "any", "method": "qlora", "shard": shard}
        config = FinetuneConfig.model_validate(settings)
        return base._quantization(config).bnb_4bit_quant_storage

    assert stored("full") == torch.bfloat16
    assert stored(None) == torch.uint8


@pytest.mark.exhaustive
def test_sharded_steps_in_bfloat16_end_near_those_of_one_process(
    tied_base: Path, data: Path, tmp_path: Path
) -> None:
    config = configured(tied_base, max_steps=5, learning_rate=1e-4, precision="bfloat16")
    one, out = finetune(config, data, tmp_path / "one", Console()), tmp_path / "sharded"
    assert run_sharded(config, data, out, 2) == [0, 0]
    first, second = load_file(one / "model.safetensors"), load_file(out / "model.safetensors")
    # Five steps of AdamW move a weight by 5e-4 at most. In bfloat16 a step's sign may differ.
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 5e-4
    before, after = (
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, out)
    )
    assert after == pytest.approx(before, rel=3e-4)


@pytest.mark.exhaustive
def test_a_run_saved_whole_says_how_to_go_on_without_sharding(
    tied_base: Path, data: Path, tmp_path: Path
) -> None:
    config, out = configured(tied_base, max_steps=9), tmp_path / "out"
    assert run_sharded(config, data, out, 1, kill=("step", 6)) == [-9]
    codes = run_in_processes(
        sharded_processes.refused, config.model_copy(update={"shard": "full"}), data, out, count=2
    )
    assert codes == [0, 0]
    assert run_sharded(config, data, out, 1) == [0]
