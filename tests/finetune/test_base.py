import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig

from response_tuning.artifacts import Example
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, ModelError, TemplateError
from response_tuning.finetune import base, dataset
from response_tuning.recipe import PRESETS
from response_tuning.templates import Chat

WEIGHTS = "model.safetensors"


def configured(folder: Path | str, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {"base_model": str(folder), "method": "full", "device": "cpu"} | changes
    )


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the base model that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def refusal(load: Callable[[FinetuneConfig], object], folder: Path | str) -> str:
    with pytest.raises(ModelError) as error:
        load(configured(folder))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}: ")
    return message


def test_the_tokenizer_is_read_back_with_the_template_and_no_token_more(tiny_base: Path) -> None:
    tokenizer = base.load_tokenizer(configured(tiny_base))
    assert Chat(tokenizer).opening == "<s><|assistant|>\n"
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(tiny_base))


def test_a_tokenizer_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    assert "no usable tokenizer: Expecting property name" in refusal(base.load_tokenizer, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "no usable tokenizer: " in refusal(base.load_tokenizer, folder)


def test_a_tokenizer_without_a_token_to_end_with_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert "no EOS token to end an answer with" in refusal(base.load_tokenizer, folder)


def test_native_is_refused_where_there_is_no_template(tiny_base: Path) -> None:
    with pytest.raises(TemplateError, match="use --template tulu"):
        base.load_tokenizer(configured(tiny_base, template="native"))


def test_weights_in_another_format_are_refused_with_what_to_do(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert refusal(base.load_model, folder).endswith("; convert its weights to safetensors")


def test_weights_that_are_cut_off_are_one_line(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])

    message = refusal(base.load_model, folder)
    assert "cannot be loaded: model.safetensors: Error while deserializing" in message


def test_weights_that_are_absent_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    message = refusal(base.load_model, folder)
    assert "1 weights that config.json requires are missing or have another shape" in message
    assert "such as model.layers.1.mlp.up_proj.weight" in message


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    assert "6 weights that config.json requires are missing" in refusal(base.load_model, folder)


@pytest.mark.parametrize(
    "config", ["{", "{}", '{"model_type": "brand-new"}', '{"model_type": "clip"}']
)
@pytest.mark.parametrize("random_init", [False, True])
def test_a_configuration_that_is_no_language_model_is_one_line(
    folder: Path, config: str, random_init: bool
) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"^[^\n]*: cannot be loaded: [^\n]+$") as error:
        base.load_model(configured(folder, random_init=random_init))
    assert str(error.value).count("cannot be loaded") == 1


IDS = {"bos_token_id": 0, "eos_token_id": 1}


def carried_over(folder: Path, declared: dict[str, Any], out: Path) -> dict[str, Any]:
    """What a tuned model's generation_config.json says after the base's said ``declared``."""
    (folder / "generation_config.json").write_text(json.dumps(declared))
    model = base.load_model(configured(folder))
    model.generation_config.eos_token_id = 5
    model.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    saved: dict[str, Any] = json.loads((out / "generation_config.json").read_text())
    assert (saved.pop("bos_token_id"), saved.pop("eos_token_id")) == (0, 5)
    return {name: value for name, value in saved.items() if name != "transformers_version"}


@pytest.mark.parametrize(
    ("declared", "saved"),
    [
        (
            {"temperature": 0.9, "top_p": 0.6},
            {"temperature": 0.9, "top_p": 0.6, "do_sample": True},
        ),
        ({"num_beams": 1, "early_stopping": True, "length_penalty": 2.0}, {}),
        ({"pad_token_id": -1}, {}),
        ({"eos_token_id": [1, 2], "top_k": 3}, {"top_k": 3, "do_sample": True}),
        ({"do_sample": True, "temperature": "hot"}, {"do_sample": True}),
        ({"do_sample": "yes", "temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"do_sample": True, "temperature": True, "top_p": 7, "top_k": 1.5}, {"do_sample": True}),
    ],
)
def test_sampling_settings_that_are_not_valid_are_not_saved_with_the_tuned_model(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    declared: dict[str, Any],
    saved: dict[str, Any],
) -> None:
    assert carried_over(folder, IDS | declared, tmp_path / "saved") == saved
    assert caplog.text.count("generation_config.json is carried over in part") == 1
    (warning,) = caplog.messages
    for name in declared.keys() - saved.keys() - {"num_beams", "eos_token_id"}:
        assert name in warning


@pytest.mark.parametrize(
    "declared",
    [
        {"suppress_tokens": [5]},
        {"begin_suppress_tokens": [5]},
        {"min_length": 50},
        {"min_new_tokens": 50},
        {"max_length": 40},
        {"max_new_tokens": 1},
        {"bad_words_ids": [[5]]},
        {"forced_bos_token_id": 3},
        {"forced_eos_token_id": 3},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3},
    ],
    ids=lambda declared: next(iter(declared)),
)
def test_settings_of_the_base_that_can_keep_a_reply_from_ending_are_not_carried_over(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, declared: dict[str, Any]
) -> None:
    assert carried_over(folder, IDS | declared, tmp_path / "saved") == {}
    (warning,) = caplog.messages
    assert warning.endswith(f"the tuned model's lacks {next(iter(declared))}")


def test_a_generation_config_that_can_be_saved_is_left_as_it_is(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declared = {"eos_token_id": [1, 2], "do_sample": True, "temperature": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(declared))
    found = base.load_model(configured(folder)).generation_config
    assert {name: getattr(found, name) for name in declared} == declared
    (folder / "generation_config.json").unlink()
    base.load_model(configured(folder))
    assert caplog.text == ""


def test_a_wrong_base_is_known_before_anything_is_prepared(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])
    for load in (base.architecture, base.fitted):
        assert "model.safetensors: Error while deserializing" in refusal(load, folder)
    base.fitted(configured(folder, random_init=True))  # reads none of its weights


@pytest.fixture
def chatty(folder: Path) -> Path:
    """A base whose tokenizer has two chat tokens and a word for which the model has no rows."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.add_tokens(["attic"])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps(
            json.loads((folder / "config.json").read_text()) | {"vocab_size": len(tokenizer) - 3}
        )
    )
    return folder


def known(folder: Path, response: str, **settings: Any) -> list[Any]:
    config = configured(folder, **settings)
    chat = Chat(base.load_tokenizer(config))
    rows = dataset.rows(config, chat, [Example(row=7, response=response)])
    return list(base.with_known_ids(config, chat, rows))


def test_tokens_that_the_model_has_no_rows_for_are_refused_where_they_are_used(
    chatty: Path,
) -> None:
    with pytest.raises(ModelError, match=r"chat template 'native' uses the token '<\|im_start\|>'"):
        known(chatty, "It is dried.", template="native")
    with pytest.raises(ModelError, match=r"row 7 has the token 'attic' \(id \d+\)"):
        known(chatty, "It is dried in the attic.", template="tulu")
    (row,) = known(chatty, "It is dried.", template="tulu")
    assert row.trained


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stop_token_that_an_adapter_would_leave_untrained_is_refused(
    tiny_base: Path, method: str
) -> None:
    config = configured(tiny_base, method=method)
    model: Any = base.load_model(config)
    chat = Chat(base.load_tokenizer(config))
    base.check_stop(model, chat, config)
    with torch.no_grad():
        model.lm_head.weight[chat.turn_end.stop_id] = model.lm_head.weight[5]
    if method == "full":
        base.check_stop(model, chat, config)
        return
    with pytest.raises(
        ModelError, match=r"ends a reply with '</s>' .* no reply would ever stop"
    ) as error:
        base.check_stop(model, chat, config)
    assert str(error.value).endswith(
        "; use --method full, or a --template whose stop token the base was trained on"
    )


@pytest.mark.parametrize(
    ("method", "merge", "refused"),
    [("full", False, True), ("lora", True, True), ("lora", False, False)],
)
def test_a_disk_without_room_for_the_model_is_known_before_the_first_step(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    merge: bool,
    refused: bool,
) -> None:
    config = configured(tiny_base, method=method, merge=merge)
    model = base.load_model(config)
    base.check_space(model, config, tmp_path / "not" / "yet" / "there")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    if not refused:
        base.check_space(model, config, tmp_path)
        return
    with pytest.raises(ConfigError, match=r"the disk has 0\.00 GiB left, and the"):
        base.check_space(model, config, tmp_path)


def test_layers_that_lora_cannot_adapt_are_one_line(tmp_path: Path) -> None:
    shape = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    config = configured(tmp_path, method="lora")
    with pytest.raises(ModelError, match=r"LoRA .* \(use --method full\): [^\n]*out_proj"):
        base.with_adapter(base.load_model(config), config)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("random_init", [False, True])
def test_the_same_seed_gives_the_same_weights_and_disturbs_nobody(
    tiny_base: Path, method: str, random_init: bool
) -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        config = configured(tiny_base, method=method, random_init=random_init, seed=seed, lora_r=4)
        state = torch.get_rng_state()
        model: Any = base.load_model(config)
        if method == "lora":
            model = base.with_adapter(model, config)
        assert torch.equal(torch.get_rng_state(), state)
        return dict(model.named_parameters())

    first = drawn(1)
    torch.rand(3)
    second, other = drawn(1), drawn(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    differ = {name for name in first if not torch.equal(first[name], other[name])}
    assert any("lora_A" in name for name in differ) == (method == "lora")
    assert any("lora_" not in name for name in differ) == random_init


def test_the_adapter_is_the_papers_and_starts_as_the_base(tiny_base: Path) -> None:
    settings = {**PRESETS["paper"], "method": "lora", "merge": False, "precision": "float32"}
    config = configured(tiny_base, **settings)
    plain: Any = base.load_model(config)
    ids = torch.arange(2, 40)[None]
    expected = plain(input_ids=ids).logits
    model = base.with_adapter(plain, config)
    lora = model.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.bias) == (64, 16, 0.1, "none")
    adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted == linear  # all of them, and not the head
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())
    assert torch.equal(model.train(False)(input_ids=ids).logits, expected)


def test_an_adapter_names_the_commit_of_its_hub_base(hub_model: Path, tiny_base: Path) -> None:
    for name, commit in (("someone/tiny", hub_model.name), (str(tiny_base), None)):
        config = configured(name, method="lora")
        settings = base.with_adapter(base.load_model(config), config).peft_config["default"]
        assert (settings.base_model_name_or_path, settings.revision) == (name, commit)


def test_an_adapter_names_its_layers_in_one_order_in_every_process(tiny_base: Path) -> None:
    config = FinetuneConfig(base_model=str(tiny_base), method="lora")
    adapter = base.with_adapter(base.load_model(config), config).peft_config["default"]
    assert adapter.target_modules == sorted(adapter.target_modules)
    assert {name.split(".")[-1] for name in adapter.target_modules} >= {"q_proj", "down_proj"}


@pytest.mark.parametrize(
    ("method", "precision", "device", "gpu", "dtype"),
    [
        ("full", "bfloat16", "auto", True, torch.float32),
        ("full", "auto", "auto", True, torch.float32),
        ("lora", "bfloat16", "cpu", False, torch.bfloat16),
        ("lora", "float32", "auto", True, torch.float32),
        ("lora", "auto", "auto", True, torch.bfloat16),
        ("lora", "auto", "auto", False, torch.float32),
        ("lora", "auto", "cpu", True, torch.float32),
        ("qlora", "bfloat16", "auto", True, torch.bfloat16),
    ],
)
def test_frozen_weights_are_short_and_trained_ones_are_float32(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    precision: str,
    device: str,
    gpu: bool,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu)
    config = configured("base", method=method, precision=precision, device=device)
    assert base.weight_type(config) == dtype


@pytest.mark.parametrize("random_init", [False, True])
def test_weights_are_loaded_in_their_type(tiny_base: Path, random_init: bool) -> None:
    config = configured(tiny_base, method="lora", precision="bfloat16", random_init=random_init)
    assert {p.dtype for p in base.load_model(config).parameters()} == {torch.bfloat16}


def test_qlora_without_its_extra_says_what_to_install(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[qlora\]'"):
        base.load_model(configured(tiny_base, method="qlora"))


def test_qlora_quantises_as_the_paper_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    config = FinetuneConfig.model_validate({"base_model": "any", "method": "qlora"})
    found = base._quantization(config)
    assert found.load_in_4bit
    assert (found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == ("nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
