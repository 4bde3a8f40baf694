import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, LlamaConfig

from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import DataError, ModelError
from response_tuning.finetune import base, memory, plan, timing
from response_tuning.finetune.dataset import encode
from response_tuning.finetune.memory import load_of
from response_tuning.finetune.run import finetune
from response_tuning.templates import Chat

EXAMPLES = [
    Example(row=i, instruction="Count.", response="one two three " * (1 + i % 7)) for i in range(21)
]
ARCHITECTURES = {
    "tied": LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=True,
    ),
    "gpt-neox": GPTNeoXConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    ),
}


def configured(folder: Path, **changes: Any) -> FinetuneConfig:
    values = {"base_model": str(folder), "method": "full", "examples_per_step": 4, "window": 64}
    return FinetuneConfig.model_validate(values | {"device": "cpu"} | changes)


@pytest.fixture(scope="session")
def weightless(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "[bold]no weights"  # markup to rich
    return Path(shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture(params=["tiny_base", *ARCHITECTURES])
def any_base(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Path:
    if request.param == "tiny_base":
        return tiny_base
    model: Any = AutoModelForCausalLM.from_config(ARCHITECTURES[request.param])  # type: ignore[no-untyped-call]
    model.save_pretrained(tmp_path)
    return tmp_path


def printed(config: FinetuneConfig, examples: list[Example] = EXAMPLES) -> str:
    console = Console(file=io.StringIO(), width=20)
    plan.print_plan(config, examples, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_parameters_are_counted_as_the_real_model_has_them(any_base: Path, method: str) -> None:
    config = configured(any_base, method=method, lora_r=4)
    size = memory.measure(config)
    model: Any = base.load_model(config)
    assert size.total == model.num_parameters()
    if method == "lora":
        model = base.with_adapter(model, config)
    assert size.trainable == model.num_parameters(only_trainable=True)
    text = model.config
    assert size[2:5] == (text.num_hidden_layers, text.hidden_size, text.vocab_size)


def test_qlora_trains_what_lora_does(tiny_base: Path) -> None:
    sizes = [memory.measure(configured(tiny_base, method=method)) for method in ("lora", "qlora")]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "schedule",
    [
        {"epochs": 2},
        {"epochs": 1.4},
        {"epochs": 0.1},
        {"epochs": 9, "max_steps": 8},
        {"max_steps": 3, "seed": 5},
        {"epochs": 1, "eval_fraction": 0.3},
    ],
    ids=str,
)
def test_steps_and_tokens_are_those_that_the_run_then_takes(
    tiny_base: Path, tmp_path: Path, schedule: dict[str, Any]
) -> None:
    write_jsonl(tmp_path / "examples.jsonl", EXAMPLES)
    write_json(
        tmp_path / "audit.json",
        {"rows": 21, "examples": 21, "rows_kept": 21, "dropped": {}} | {"source": {"name": "x"}},
    )
    config = configured(tiny_base, **schedule)
    steps, tokens = re.findall(r"([\d,]+) (?:steps|tokens)\b", printed(config))[:2]
    finetune(config, tmp_path, tmp_path / "out", Console(quiet=True))
    metrics = (tmp_path / "out" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    taken = [line["tokens"] for line in lines if "loss" in line]
    assert int(steps.replace(",", "")) == len(taken)
    assert int(tokens.replace(",", "")) == sum(taken)


def test_the_plan_chooses_by_the_memory_what_the_run_then_chooses(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "examples.jsonl", EXAMPLES)
    write_json(
        tmp_path / "audit.json",
        {"rows": 21, "examples": 21, "rows_kept": 21, "dropped": {}} | {"source": {"name": "x"}},
    )
    free, taken = 3 * 2**30, 0

    def rate(_: FinetuneConfig) -> float:
        nonlocal taken
        taken = 2**30  # by the products that are timed
        return 1e9

    monkeypatch.setattr(plan, "_rate", rate)
    monkeypatch.setattr(plan, "_free_memory", lambda _: free - taken)
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    config = configured(tiny_base, max_steps=1)
    last = printed(config).splitlines()[-1]
    assert last.endswith("of 3.0 GiB are for them")
    console = Console(file=io.StringIO(), width=20)
    finetune(config, tmp_path, tmp_path / "out", console)
    assert isinstance(console.file, io.StringIO)
    assert last in console.file.getvalue().splitlines()


def test_time_is_that_of_tokens_and_updates(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "measured", lambda *_: timing.Seconds(token=0.01, step=100.0))
    config = configured(tiny_base, max_steps=18)
    text = printed(config)
    tokens = int(re.findall(r"([\d,]+) tokens", text)[0].replace(",", ""))
    assert f"and {(18 * 100 + tokens / 100) / 60:.0f} min on this machine's CPU" in text


def test_a_model_that_cannot_be_timed_is_estimated_by_the_rate_of_products(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("no flattened steps")

    config = configured(tiny_base, max_steps=18)
    monkeypatch.setattr(timing, "measured", refuse)
    monkeypatch.setattr(
        plan, "_rate", lambda _: memory.measure(config).total / 10 / plan.EFFICIENCY
    )
    text = printed(config)
    tokens = int(re.findall(r"([\d,]+) tokens", text)[0].replace(",", ""))
    assert f"and {6 * 10 * tokens / 3600:.1f} h on this machine's CPU" in text


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_plan_needs_no_weights_and_leaves_none(weightless: Path, method: str) -> None:
    before = sorted(weightless.iterdir())
    with pytest.raises(ModelError):
        base.load_model(configured(weightless))
    text = printed(configured(weightless, method=method, twins=["instruction-tuning"]))
    first, examples, steps, costs = text.splitlines()
    assert first.startswith(f"response-tuning of {weightless} ({method}): ")
    assert re.fullmatch(r"21 examples: \d+ kept, \d+ truncated, 0 dropped, 0 held out", examples)
    assert re.fullmatch(
        r"18 steps of 4 examples; [\d,]+ tokens, of which \d\d\.\d% carry loss", steps
    )
    assert re.fullmatch(r"about \d+\.\d\d GiB of memory and \d+ s on this machine's CPU", costs)
    assert sorted(weightless.iterdir()) == before


def test_what_would_be_dropped_and_held_out_is_counted(weightless: Path) -> None:
    examples = [*EXAMPLES, Example(row=21, response="Just said.")]
    config = configured(weightless, objective="instruction-tuning", eval_fraction=0.2)
    assert "22 examples: 18 kept, 3 truncated, 1 dropped, 4 held out" in printed(config, examples)


def test_nothing_to_train_on_is_said_before_it_starts(weightless: Path) -> None:
    with pytest.raises(DataError, match="1 no instruction"):
        printed(
            configured(weightless, objective="instruction-tuning"),
            [Example(row=0, response="Just said.")],
        )


def test_a_folder_that_holds_only_a_tokenizer_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"^[^\n]*: not a model folder: it has no config\.json"):
        printed(configured(tmp_path))


def test_the_estimate_grows_with_what_it_is_made_of(weightless: Path, tmp_path: Path) -> None:
    def gib(**changes: Any) -> float:
        config = configured(weightless, **{"tokens_per_micro_batch": 400} | changes)
        chat = Chat(base.load_tokenizer(config))
        encoded = encode(config, chat, EXAMPLES, tmp_path / "tokens")
        fit = memory.fit(config, load_of(config, encoded), None)
        return plan._memory(config, memory.measure(config), encoded, fit)

    assert gib(method="lora") < gib()
    assert gib(method="qlora") < gib(method="lora")
    assert gib(tokens_per_micro_batch=64) < gib()
    assert gib(precision="bfloat16") < gib()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_a_duration_is_said_in_its_own_unit(seconds: float, said: str) -> None:
    assert plan._duration(seconds) == said


def test_a_model_is_counted_without_room_for_it(
    weightless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Llama-3.2-1B, whose published size is 1,235,814,400.
    config = json.loads((weightless / "config.json").read_text())
    config |= {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    config |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    config |= {"vocab_size": 128256, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    count = memory._count
    devices: set[str] = set()

    def watched(model: Any, **how: Any) -> int:
        devices.update(parameter.device.type for parameter in model.parameters())
        return count(model, **how)

    monkeypatch.setattr(memory, "_count", watched)
    assert memory.measure(configured(tmp_path, method="lora")).total == 1_235_814_400
    assert devices == {"meta"}
