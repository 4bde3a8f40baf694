import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError, ModelError
from response_tuning.finetune import dataset, memory, run
from response_tuning.finetune.progress import Metrics
from response_tuning.finetune.run import finetune
from response_tuning.finetune.trainer import ResponseTrainer
from response_tuning.templates import Chat
from tests.finetune import runs
from tests.fixtures.processes import run_in_processes

SAVE_STEPS, STEPS = 4, 14


@pytest.fixture
def console() -> Console:
    return Console(width=200)


def configured(base: Path, **changes: Any) -> FinetuneConfig:
    values = {
        "base_model": str(base),
        "method": "full",
        "max_steps": STEPS,
        "save_steps": SAVE_STEPS,
        "examples_per_step": 8,
        "tokens_per_micro_batch": 200,
        "window": 96,
        "device": "cpu",
    }
    return FinetuneConfig.model_validate(values | changes)


def in_a_process(
    config: FinetuneConfig,
    data: Path,
    out: Path,
    kill: tuple[str, int] | None = None,
    *,
    processes: int = 1,
) -> int:
    """Run in a process of its own, or in several; return their exit code, -9 if killed."""
    codes = run_in_processes(runs.run, config, data, out, kill, count=processes)
    return min(codes)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    files = list(out.glob("*.safetensors"))
    assert len(files) == 1
    return load_file(files[0])


def identical(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="session")
def uninterrupted(
    tiny_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    finished = {}
    for method, changes in METHODS.items():
        finished[method] = tmp_path_factory.mktemp(method)
        finetune(configured(tiny_base, **changes), data, finished[method], Console())
    return finished


def test_a_prompt_weight_of_0_is_instruction_tuning_to_the_byte_and_another_is_not(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    def files(name: str, weight: float | None, **changes: Any) -> tuple[bytes, bytes]:
        objective: dict[str, Any] = {"objective": "instruction-tuning"}
        if weight is not None:
            settings = {"prompt_weight": weight}
            objective = {
                "objective": "weighted-instruction-tuning",
                "objective_settings": settings,
            }
        changes |= {"max_steps": 2, **objective}
        out = finetune(configured(tiny_base, **changes), data, tmp_path / name, console)
        return (out / "metrics.jsonl").read_bytes(), (out / "model.safetensors").read_bytes()

    plain = files("plain", None)
    assert files("zero", 0.0) == plain
    some = files("some", 0.25)
    assert some[0] != plain[0]
    files("large", 0.25, tokens_per_micro_batch=5000)
    few, many = metrics(tmp_path / "some"), metrics(tmp_path / "large")
    assert [line["loss"] for line in few] == pytest.approx(
        [line["loss"] for line in many], rel=1e-6
    )
    card = (tmp_path / "some" / "README.md").read_text(encoding="utf-8")
    assert "| objective_settings | {'prompt_weight': 0.25} |" in card


METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "lora_r": 4, "lora_dropout": 0.1},
}


@pytest.mark.parametrize(
    ("method", "kill"),
    [
        ("full", ("saving", 8)),
        ("lora", ("step", 6)),
        pytest.param("full", ("step", 6), marks=pytest.mark.exhaustive),
        pytest.param("lora", ("saving", 8), marks=pytest.mark.exhaustive),
    ],
)  # kills at other places: tests/test_crashes.py
def test_a_killed_run_ends_in_the_weights_of_an_uninterrupted_one(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    method: str,
    kill: tuple[str, int],
) -> None:
    config = configured(tiny_base, **METHODS[method])
    assert in_a_process(config, data, tmp_path, kill) == -9
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "running"
    assert in_a_process(config, data, tmp_path) == 0
    assert identical(tmp_path, uninterrupted[method])
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, STEPS + 1))
    assert metrics(tmp_path) == metrics(uninterrupted[method])


def test_a_run_that_is_killed_while_it_encodes_leaves_no_store_and_starts_anew(
    tiny_base: Path, data: Path, tmp_path: Path, uninterrupted: dict[str, Path], console: Console
) -> None:
    assert in_a_process(configured(tiny_base), data, tmp_path, ("encoding", 20)) == -9
    (left,) = data.with_name("tokens").iterdir()
    assert left.suffix == ".partial"
    finetune(configured(tiny_base), data, tmp_path, console)
    assert identical(tmp_path, uninterrupted["full"])
    assert not data.with_name("tokens").exists()


def test_a_resumed_run_reads_what_was_encoded_before(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert in_a_process(configured(tiny_base), data, tmp_path, ("step", 6)) == -9
    monkeypatch.setattr(dataset, "rows", None)
    finetune(configured(tiny_base), data, tmp_path, console)
    assert identical(tmp_path, uninterrupted["full"])
    audits = [
        json.loads((out / "manifest.json").read_text())["audit"]
        for out in (tmp_path, uninterrupted["full"])
    ]
    assert audits[0] == audits[1]
    assert not data.with_name("tokens").exists()


def test_a_store_is_named_after_all_that_decides_what_is_in_it(chat: Chat) -> None:
    def name(found: dict[str, Any] | None = None, **settings: Any) -> str:
        manifest = {"base": "a", "examples_sha256": "b", "packages": {"tokenizers": "1"}}
        config = configured(Path("base"), **settings)
        return dataset.store_folder(config, chat, manifest | (found or {}), Path("out")).name

    names = [
        name(),
        name(objective="instruction-tuning"),
        name(twins=["instruction-tuning"]),
        name(window=97),
        name(train_on_final_newline=True),
        name(seed=1),
        name({"base": "c"}),
        name({"examples_sha256": "d"}),
        name({"packages": {"tokenizers": "2"}}),
    ]
    for same in ({"learning_rate": 1.0}, {"eval_fraction": 0.5}, {"examples_per_step": 3}):
        assert name(**same) == names[0]
    chat.tokenizer.chat_template = f"{chat.tokenizer.chat_template} "
    names.append(name())
    assert len(set(names)) == len(names)


def test_a_run_on_a_clock_that_differs_leaves_the_same_metrics(
    tiny_base: Path, data: Path, tmp_path: Path, uninterrupted: dict[str, Path], console: Console
) -> None:
    finetune(configured(tiny_base), data, tmp_path, console)
    again = (tmp_path / "metrics.jsonl").read_bytes()
    assert again == (uninterrupted["full"] / "metrics.jsonl").read_bytes()
    assert identical(tmp_path, uninterrupted["full"])


def test_a_finished_run_is_not_repeated(
    tiny_base: Path,
    data: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = uninterrupted["full"]
    before = {f.name: f.stat().st_mtime_ns for f in out.iterdir()}
    finetune(configured(tiny_base), data, out, console)
    assert "already finished" in capsys.readouterr().out
    assert before == {f.name: f.stat().st_mtime_ns for f in out.iterdir()}


def test_the_checkpoints_and_tokens_that_a_kill_left_beside_a_finished_model_go(
    tiny_base: Path, data: Path, uninterrupted: dict[str, Path], console: Console
) -> None:
    out = uninterrupted["full"]
    for name in ("checkpoints/checkpoint-14", "tokens/abc", ".partial"):
        (out / name).mkdir(parents=True)
        (out / name / "left").touch()
    finetune(configured(tiny_base), data, out, console)
    assert not {"checkpoints", "tokens", ".partial"} & {path.name for path in out.iterdir()}


def damaged(name: str) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "weights"],
)
@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_finished_model_that_is_no_longer_what_was_written_is_refused(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    method: str,
    gone: bool,
    name: str,
) -> None:
    out = Path(shutil.copytree(uninterrupted[method], tmp_path / "run"))
    weights = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}[method]
    if name == "config.json" and method == "lora":
        name = "adapter_config.json"
    name = weights if name == "weights" else name
    (Path.unlink if gone else damaged(name))(out / name if gone else out)
    said = "is gone" if gone else "is no longer what was written"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(DataError, match=f"has finished, but {name} {said}; put the file back"):
        finetune(configured(tiny_base, **METHODS[method]), data, out, console)
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_a_card_that_was_edited_is_no_damage(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(uninterrupted["full"], tmp_path / "run"))
    (out / "README.md").write_text("Mine.")
    finetune(configured(tiny_base), data, out, console)
    assert "already finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ids.bin", "rows.bin", "counts.json", "complete"])
def test_encoded_examples_that_are_no_longer_what_was_written_are_encoded_again(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run, "_trainer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(configured(tiny_base), data, tmp_path, console)
    (store,) = data.with_name("tokens").iterdir()
    damaged(name)(store)
    finetune(configured(tiny_base), data, tmp_path, console)
    (record,) = caplog.records
    assert f"{store.name}: {name} " in record.message
    assert record.message.endswith("; the examples are encoded again")
    assert identical(tmp_path, uninterrupted["full"])


def test_weights_of_an_earlier_run_do_not_stay_beside_new_ones(
    tiny_base: Path, data: Path, tmp_path: Path, uninterrupted: dict[str, Path], console: Console
) -> None:
    out = Path(shutil.copytree(uninterrupted["lora"], tmp_path / "run"))
    (out / "manifest.json").unlink()
    finetune(configured(tiny_base), data, out, console)
    assert identical(out, uninterrupted["full"])
    assert not (out / "adapter_config.json").exists()


def test_an_evaluation_that_a_kill_kept_from_the_end_of_an_epoch_is_made_up_for(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 36 examples in steps of 9: a checkpoint at the end of each epoch of 4 steps.
    config = configured(tiny_base, eval_fraction=0.1, examples_per_step=9, max_steps=6)
    finetune(config, data, tmp_path / "whole", console)
    evaluate = ResponseTrainer.evaluate
    for kills in (4, 6):
        with monkeypatch.context() as patch:
            patch.setattr(
                ResponseTrainer,
                "evaluate",
                lambda self, kills=kills, **_: (
                    1 / 0 if self.state.global_step == kills else evaluate(self)
                ),
            )
            with pytest.raises(ZeroDivisionError):
                finetune(config, data, tmp_path / "killed", console)
    finetune(config, data, tmp_path / "killed", console)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert identical(tmp_path / "killed", tmp_path / "whole")
    held_out = [
        json.loads((tmp_path / name / "manifest.json").read_text())["held_out_loss"]
        for name in ("killed", "whole")
    ]
    assert held_out[0] == held_out[1]


def test_another_run_in_the_same_folder_is_refused_with_the_setting_that_differs(
    tiny_base: Path, data: Path, uninterrupted: dict[str, Path], console: Console
) -> None:
    with pytest.raises(ConfigError, match=r"holds another run: seed was 0, now 1"):
        finetune(configured(tiny_base, seed=1), data, uninterrupted["full"], console)


def test_what_goes_through_the_model_at_once_may_change_in_the_middle_of_a_run(
    tiny_base: Path,
    data: Path,
    uninterrupted: dict[str, Path],
    console: Console,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for change in ({"tokens_per_micro_batch": "auto"}, {"gradient_checkpointing": True}):
        finetune(configured(tiny_base, **change), data, uninterrupted["full"], console)
        assert "already finished" in capsys.readouterr().out


def cramp(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Let 4 GiB seem free, and memory run out where more than ``tokens`` are taken at once."""
    compute = ResponseTrainer.compute_loss

    def with_little_memory(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        if inputs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError
        return compute(self, model, inputs, *rest, **more)

    monkeypatch.setattr(memory, "free_memory", lambda _: 4 * 2**30)
    monkeypatch.setattr(ResponseTrainer, "compute_loss", with_little_memory)


def test_a_run_says_what_it_chose_by_the_memory_and_what_it_had_to_change(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    console: Console,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cramp(monkeypatch, 250)
    auto = {"tokens_per_micro_batch": "auto", "max_steps": 4}
    finetune(configured(tiny_base, **auto), data, tmp_path / "auto", console)
    said = "tokens at once, activations kept: by estimate 2.5 of 4.0 GiB are for them"
    assert capsys.readouterr().out.count(said) == 1
    manifest = json.loads((tmp_path / "auto" / "manifest.json").read_text())
    assert manifest["settings"]["tokens_per_micro_batch"] == "auto"
    found = manifest["memory"]
    budget = found["tokens_per_micro_batch"]
    assert found == {
        "tokens_per_micro_batch": budget,
        "gradient_checkpointing": False,
        "backed_off": [{"step": 1, "tokens_per_micro_batch": budget}],
    }
    lines = metrics(tmp_path / "auto")
    assert [line.get("tokens_per_micro_batch") for line in lines] == [budget, None, None, None]
    explicit = auto | {"tokens_per_micro_batch": budget}
    finetune(configured(tiny_base, **explicit), data, tmp_path / "said", console)
    assert identical(tmp_path / "auto", tmp_path / "said")


@pytest.mark.parametrize("limit", [120, 250, 10**6], ids=["less", "as much", "more"])
def test_a_run_that_backed_off_resumes_with_the_memory_that_there_is_then(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
) -> None:
    auto = configured(tiny_base, tokens_per_micro_batch="auto", learning_rate=1e-4)
    write = Metrics.on_log

    def write_or_stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write(self, args, state, control, **kwargs)
        if state.global_step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Metrics, "on_log", write_or_stop)
        cramp(killed, 250)
        with pytest.raises(KeyboardInterrupt):
            finetune(auto, data, tmp_path / "killed", console)
    cramp(monkeypatch, limit)
    finetune(auto, data, tmp_path / "killed", console)
    backed_off = json.loads((tmp_path / "killed" / "manifest.json").read_text())["memory"]
    assert bool(backed_off["backed_off"]) == (limit < 10**6)
    assert all(change["step"] == SAVE_STEPS + 1 for change in backed_off["backed_off"])
    whole = configured(tiny_base, learning_rate=1e-4)
    finetune(whole, data, tmp_path / "whole", console)
    lines = {line["step"]: line["loss"] for line in metrics(tmp_path / "killed") if "loss" in line}
    expected = {line["step"]: line["loss"] for line in metrics(tmp_path / "whole")}
    assert lines == pytest.approx(expected, abs=5e-6)
    for name, weight in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "killed")[name], weight, atol=1e-5, rtol=0)


def test_the_folder_is_a_plain_hugging_face_model(
    tiny_base: Path, uninterrupted: dict[str, Path]
) -> None:
    out = uninterrupted["full"]
    model: Any = AutoModelForCausalLM.from_pretrained(out)
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == 384
    assert Chat(tokenizer).opening == "<s><|assistant|>\n"
    assert json.loads((out / "config.json").read_text()).get("use_cache", True)
    assert not list(out.rglob("*.bin"))
    assert not (out / "checkpoints").exists()
    before: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    changed = [
        name
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    ]
    assert len(changed) == len(list(model.parameters()))


def test_an_adapter_folder_loads_with_peft(tiny_base: Path, uninterrupted: dict[str, Path]) -> None:
    out = uninterrupted["lora"]
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    model = PeftModel.from_pretrained(base, str(out))
    assert any("lora_B" in name and bool(p.any()) for name, p in model.named_parameters())
    assert {"adapter_config.json", "chat_template.jinja", "generation_config.json"} <= {
        file.name for file in out.iterdir()
    }


def test_the_manifest_and_the_card_tell_what_was_trained(uninterrupted: dict[str, Path]) -> None:
    manifest = json.loads((uninterrupted["full"] / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["audit"] | {"tokens": 0, "supervised_tokens": 0} == {
        "examples": 40,
        "kept": manifest["audit"]["kept"],
        "truncated": 40 - manifest["audit"]["kept"],
        "dropped": {},
        "remarks": {},
        "held_out": 0,
        "tokens": 0,
        "supervised_tokens": 0,
        "hidden_tokens": 0,
    }
    assert manifest["base"].startswith("local@")
    assert manifest["packages"]["torch"] == torch.__version__
    card = (uninterrupted["full"] / "README.md").read_text()
    assert "| rows or turns dropped: empty response | 1 |" in card
    assert "41 rows gave 40 examples" in card
    assert "| learning_rate | 0.0002 |" in card


def test_two_processes_make_the_model_that_one_makes(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    config = configured(tiny_base, eval_fraction=0.1, max_steps=7, learning_rate=1e-4)
    finetune(config, data, tmp_path / "one", console)
    assert in_a_process(config, data, tmp_path / "two", processes=2) == 0
    one, two = (metrics(tmp_path / name) for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, abs=5e-6)
    first_weights, second_weights = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert not identical(tmp_path / "one", tmp_path / "two"), "did each process run all of it?"
    for name, weight in first_weights.items():
        torch.testing.assert_close(weight, second_weights[name], atol=1e-5, rtol=0)


def test_two_killed_processes_end_in_the_weights_of_two_uninterrupted_ones(
    tiny_base: Path, data: Path, tmp_path: Path
) -> None:
    config = configured(tiny_base, **METHODS["lora"], examples_per_step=9)
    for name, kill in (("whole", None), ("killed", ("step", 6)), ("killed", None)):
        code = in_a_process(config, data, tmp_path / name, kill, processes=2)
        assert (code == 0) == (kill is None)
    assert identical(tmp_path / "whole", tmp_path / "killed")


def test_held_out_examples_are_the_same_in_both_arms_and_are_not_trained_on(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    arms = ("response-tuning", "instruction-tuning")
    for arm in arms:
        config = configured(tiny_base, objective=arm, twins=arms, eval_fraction=0.2, max_steps=6)
        finetune(config, data, tmp_path / arm, console)
    audits = [json.loads((tmp_path / arm / "manifest.json").read_text())["audit"] for arm in arms]
    assert [a["dropped"] for a in audits] == [{"no instruction": 1}] * 2
    assert audits[0]["held_out"] == audits[1]["held_out"] == 8
    assert audits[0]["supervised_tokens"] == audits[1]["supervised_tokens"]
    for arm in arms:
        held_out = [line["eval_loss"] for line in metrics(tmp_path / arm) if "eval_loss" in line]
        assert len(held_out) == 2
        manifest = json.loads((tmp_path / arm / "manifest.json").read_text())
        assert manifest["held_out_loss"] == held_out[-1]
        assert (
            f"held-out examples: {held_out[-1]:.4f} a token"
            in (tmp_path / arm / "README.md").read_text()
        )
    per_step = [
        [line["supervised_tokens"] for line in metrics(tmp_path / arm) if "loss" in line]
        for arm in arms
    ]
    assert per_step[0] == per_step[1]


def test_nothing_to_train_on_is_said_with_the_reasons(
    tiny_base: Path, tmp_path: Path, console: Console, data: Path
) -> None:
    write_jsonl(tmp_path / "examples.jsonl", [Example(row=0, response="Just said.")])
    write_json(tmp_path / "audit.json", json.loads((data / "audit.json").read_text()))
    with pytest.raises(DataError, match="'instruction-tuning': 1 no instruction"):
        finetune(
            configured(tiny_base, objective="instruction-tuning"), tmp_path, tmp_path / "o", console
        )


def test_a_loss_that_diverges_ends_the_run_in_one_line(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    config = configured(tiny_base, learning_rate=1e30, max_grad_norm=1e30)
    with pytest.raises(ModelError, match="diverged; lower --learning-rate, and start over"):
        finetune(config, data, tmp_path, console)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_last_step_that_diverges_leaves_no_model(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console, method: str
) -> None:
    config = configured(
        tiny_base, method=method, learning_rate=1e30, max_grad_norm=1e30, max_steps=1
    )
    with pytest.raises(ModelError, match="diverged; lower --learning-rate, and start over"):
        finetune(config, data, tmp_path, console)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_tracker_by_name_hears_of_the_run(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    finetune(configured(tiny_base, max_steps=2, report_to="tensorboard"), data, tmp_path, console)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [("tensorbord", "did you mean 'tensorboard'"), ("comet_ml", "pip install comet_ml")],
)
def test_a_tracker_that_is_not_there_is_said_before_anything_is_loaded(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console, name: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        finetune(configured(tiny_base, report_to=name), data, tmp_path, console)


def test_qlora_without_a_gpu_says_what_to_use(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="needs a CUDA GPU; use --method lora"):
        finetune(configured(tiny_base, method="qlora"), data, tmp_path, console)


def test_a_random_initialisation_shares_no_weights_with_the_base(
    tiny_base: Path, data: Path, tmp_path: Path, console: Console
) -> None:
    config = configured(tiny_base, random_init=True, seed=1, max_steps=1, learning_rate=1e-9)
    finetune(config, data, tmp_path / "a", console)
    finetune(config, data, tmp_path / "b", console)
    fresh, base = weights(tmp_path / "a"), load_file(tiny_base / "model.safetensors")
    assert identical(tmp_path / "a", tmp_path / "b")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(fresh[name], base[name], atol=1e-3)


def test_a_base_that_is_already_tuned_gets_one_warning(
    uninterrupted: dict[str, Path],
    data: Path,
    tmp_path: Path,
    console: Console,
    caplog: pytest.LogCaptureFixture,
) -> None:
    finetune(configured(uninterrupted["full"], max_steps=1), data, tmp_path, console)
    assert [r.message for r in caplog.records if "already ships a chat template" in r.message]
    assert len(caplog.records) == 1


def test_only_the_length_of_a_hidden_instruction_reaches_the_weights(
    tiny_base: Path, tmp_path: Path, console: Console
) -> None:
    asked = {"who": "Who is it for?", "why": "Why is it so?", "what": "What is it?"}
    arms = {
        (objective, name): tmp_path / objective / name
        for objective in ("decoupled", "instruction-tuning")
        for name in asked
    }
    for (objective, name), out in arms.items():
        data = tmp_path / "data" / objective / name
        data.mkdir(parents=True)
        examples = [
            Example(row=row, instruction=asked[name], response=f"It is {row} of them.")
            for row in range(4)
        ]
        write_jsonl(data / "examples.jsonl", examples)
        audit = {"rows": 4, "rows_kept": 4, "examples": 4, "dropped": {}}
        write_json(data / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
        finetune(configured(tiny_base, objective=objective, max_steps=3), data, out, console)
    audits = {
        arm: json.loads((out / "manifest.json").read_text())["audit"] for arm, out in arms.items()
    }
    hidden = {name: audits["decoupled", name]["hidden_tokens"] for name in asked}
    assert hidden["who"] == hidden["why"] > hidden["what"] > 0
    for name in asked:
        shown = audits["instruction-tuning", name]
        assert shown["hidden_tokens"] == 0
        assert shown["tokens"] == audits["decoupled", name]["tokens"] + hidden[name]
    for objective, same in (("decoupled", True), ("instruction-tuning", False)):
        assert identical(arms[objective, "who"], arms[objective, "why"]) == same
        assert not identical(arms[objective, "who"], arms[objective, "what"])
    card = (arms["decoupled", "who"] / "README.md").read_text()
    assert "| further tokens, hidden from attention |" in card
    assert "In use the prompt is the ordinary one" in " ".join(card.split())
    assert "hidden" not in (arms["instruction-tuning", "who"] / "README.md").read_text()
