import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from response_tuning.errors import ModelError
from response_tuning.models.loading import (
    explained,
    load_adapter,
    load_config,
    load_tokenizer,
    load_weights,
)
from response_tuning.models.location import ModelFolder, locate

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the base model that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def rewrite(file: Path, change: Callable[[Weights], Weights]) -> None:
    save_file(change(load_file(file)), file, {"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def refusal(load: Callable[..., object], folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(ModelFolder(folder.name, folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def sums_on_disk(folder: Path) -> dict[str, float]:
    """The sum of each weight in the file."""
    return {name: float(weight.sum()) for name, weight in load_file(folder / WEIGHTS).items()}


def sums_in_memory(folder: Path) -> dict[str, float]:
    """The sum of each parameter of the model, under its name in the file."""
    model = load_weights(ModelFolder(folder.name, folder))
    return {name: float(weight.detach().sum()) for name, weight in model.named_parameters()}


def projections(weights: Weights) -> list[str]:
    return [name for name in weights if "proj" in name]


def beside(*suffixes: str) -> Callable[[Weights], Weights]:
    """Put numbers beside each linear layer's weight."""
    return lambda weights: (
        weights
        | {
            name.removesuffix("weight") + suffix: torch.ones(2)
            for name in projections(weights)
            for suffix in suffixes
        }
    )


def in_place(*suffixes: str) -> Callable[[Weights], Weights]:
    """Put packed numbers in the place of each linear layer's weight."""

    def change(weights: Weights) -> Weights:
        gone = projections(weights)
        return {name: weights[name] for name in weights if name not in gone} | {
            name.removesuffix("weight") + suffix: torch.zeros(4, 4, dtype=torch.int32)
            for name in gone
            for suffix in suffixes
        }

    return change


def test_a_whole_model_is_loaded_with_every_weight(folder: Path) -> None:
    model = load_weights(ModelFolder("base", folder), dtype=torch.float32)
    stored = load_file(folder / WEIGHTS)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in stored.items())
    assert len(stored) == len(model.state_dict())


@pytest.mark.usefixtures("hub_model")
def test_a_hub_model_keeps_its_id_as_its_name() -> None:
    model = load_weights(locate("someone/tiny"))
    assert model.name_or_path == model.config.name_or_path == "someone/tiny"


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.int8])
def test_quantised_weights_in_the_hubs_cache_are_refused_as_those_in_a_folder_are(
    hub_model: Path, stored: torch.dtype
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(hub_model / WEIGHTS, lambda all_: all_ | {name: all_[name].to(stored)})
    with pytest.raises(ModelError) as error:
        load_weights(locate("someone/tiny"))
    message = str(error.value)
    assert message.startswith("someone/tiny: ")
    assert f"its weights are quantised ({name} is stored as " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fp8", {"quantization_config": {"quant_method": "fp8"}}),
        ("gptq, 4 bits", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        ("awq, 4 bits", {"quantization_config": {"quant_method": "awq", "w_bit": 4}}),
        ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("compressed-tensors", {"quantization_config": {"quant_method": "compressed-tensors"}}),
        ("unnamed", {"compression_config": {"format": "pack-quantized"}}),
        ("mxfp4", {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}),
        ("brand-new", {"quantization_config": {"quant_method": "brand-new"}}),
    ],
)
def test_a_configuration_of_quantised_weights_is_refused(
    folder: Path, method: str, settings: dict[str, Any]
) -> None:
    configure(folder, **settings)
    for load in (load_config, load_weights):
        message = refusal(load, folder)
        assert message.startswith(f"base: its weights are quantised ({method}), and only")
        assert "give the unquantised model" in message


def test_a_configuration_that_says_it_is_not_quantised_is_believed(folder: Path) -> None:
    configure(folder, quantization_config=None)
    assert sums_in_memory(folder) == sums_on_disk(folder)


@pytest.mark.parametrize(
    "change",
    [
        beside("weight_scale_inv"),  # FP8 with block scales
        beside("weight_scale", "input_scale"),  # FP8 of compressed-tensors, ModelOpt
        beside("SCB", "weight_format"),  # bitsandbytes, 8 bits
        beside("weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"),
        in_place("qweight", "qzeros", "scales", "g_idx"),  # GPTQ and AWQ
        in_place("weight_packed", "weight_scale", "weight_shape"),  # compressed-tensors
    ],
)
def test_scales_are_noticed_without_a_word_in_the_configuration(
    folder: Path, change: Callable[[Weights], Weights]
) -> None:
    rewrite(folder / WEIGHTS, change)
    message = refusal(load_weights, folder)
    assert "base: its weights are quantised (" in message
    assert "they have scales such as" in message or "is stored as I32" in message


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.2.input_layernorm.weight",
        "v_head.summary.weight",
        "mtp.fc.weight",
        "vision_tower.patch.weight",
    ],
)
def test_a_weight_that_the_architecture_has_no_place_for_is_not_lost(
    folder: Path, name: str
) -> None:
    rewrite(folder / WEIGHTS, lambda weights: weights | {name: torch.ones(3)})
    message = refusal(load_weights, folder)
    assert "1 weights have no place in the architecture that config.json names" in message
    assert name in message


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]
)
def test_what_follows_from_the_configuration_may_be_stored_too(folder: Path, name: str) -> None:
    before = sums_on_disk(folder)
    rewrite(folder / WEIGHTS, lambda weights: weights | {name: torch.ones(4)})
    assert sums_in_memory(folder) == before


def test_causal_masks_that_gpt_neox_once_stored_are_harmless(
    tiny_base: Path, tmp_path: Path
) -> None:
    from transformers import GPTNeoXConfig

    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = GPTNeoXConfig(vocab_size=50, intermediate_size=64, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    masks = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
    }
    before = sums_on_disk(tmp_path)
    rewrite(tmp_path / WEIGHTS, lambda weights: weights | masks)
    # transformers 5.23 renames the head as it loads.
    assert sorted(sums_in_memory(tmp_path).values()) == sorted(before.values())


def test_an_embedding_of_another_size_is_named_with_both(folder: Path) -> None:
    configure(folder, vocab_size=400)
    assert "such as lm_head.weight is [384, 32] and not [400, 32]" in refusal(load_weights, folder)


def test_a_weight_that_is_no_number_is_refused(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(weights: Weights) -> Weights:
        weights[name][0, 0] = float("nan")
        return weights

    rewrite(folder / WEIGHTS, spoil)
    assert f"base: {name} holds NaN" in refusal(load_weights, folder)


@pytest.mark.parametrize("same", [True, False])
def test_embeddings_that_are_tied_and_differ_are_both_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, same: bool
) -> None:
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=50, intermediate_size=64, tie_word_embeddings=True, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]

    def head(weights: Weights) -> Weights:
        rows = weights["model.embed_tokens.weight"]
        return weights | {"lm_head.weight": rows.clone() if same else rows.flip(0).contiguous()}

    rewrite(tmp_path / WEIGHTS, head)
    model: Any = load_weights(ModelFolder("tied", tmp_path), dtype=torch.float32)
    assert torch.equal(model.lm_head.weight, load_file(tmp_path / WEIGHTS)["lm_head.weight"])
    assert model.config.tie_word_embeddings == same
    assert ("they differ" in caplog.text) != same


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": None}, "names no model_type"),
        ({"model_type": ["llama"]}, "names no model_type"),
        ({"model_type": "nova"}, "does not know the model type 'nova'"),
        (
            {"model_type": "nova", "auto_map": {"AutoConfig": "c.C"}},
            "its own code, which rtune never runs",
        ),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "it is a ViTModel, not a"),
        ({"model_type": "t5", "architectures": None}, "it is a 't5', not a causal"),
        ({"model_type": "bart"}, "'bart' is an encoder-decoder model"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "it is a LlamaForSequenceClass"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "it is a BertForMaskedLM"),
        ({"num_hidden_layers": "two"}, "expected int, got str"),
    ],
)
def test_a_configuration_of_another_kind_is_refused(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    configure(folder, **changes)
    message = refusal(load_config, folder)
    assert message.startswith("base: cannot be loaded: ")
    assert said in message


@pytest.mark.parametrize("changes", [{"hidden_act": "nova"}, {"rope_scaling": {"type": "nova"}}])
def test_a_name_that_the_library_does_not_know_is_repeated(
    folder: Path, changes: dict[str, Any]
) -> None:
    configure(folder, **changes)
    assert "'nova' is unknown or missing" in refusal(load_weights, folder)


@pytest.mark.parametrize("content", ["[]", "3", '"llama"', "{", ""])
def test_a_configuration_that_is_no_object_is_one_line(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert refusal(load_config, folder).startswith("base: cannot be loaded: ")


def test_code_in_the_repository_is_not_needed_where_the_library_knows_the_type(
    folder: Path,
) -> None:
    configure(folder, auto_map={"AutoModelForCausalLM": "modeling.Own"})
    assert sums_in_memory(folder) == sums_on_disk(folder)


@pytest.mark.parametrize("content", ["{}", "[]", '{"model": 3, "added_tokens": []}'])
def test_a_tokenizer_that_makes_no_sense_is_one_line(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    assert refusal(load_tokenizer, folder).startswith("base: no usable tokenizer: ")


def test_a_folder_without_a_tokenizer_says_what_to_copy(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert refusal(load_tokenizer, folder).endswith("it has no tokenizer.json; copy it there")


def test_memory_that_runs_out_is_not_the_files_fault() -> None:
    with pytest.raises(torch.OutOfMemoryError), explained("base"):
        raise torch.OutOfMemoryError


@pytest.fixture
def saved(tiny_base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Save a random adapter of the base model."""

    def save(settings: Any = None) -> Path:
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(tiny_base)
        model: Any = get_peft_model(base, settings or lora())
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value += 0.3 * torch.randn_like(value)
        model.save_pretrained(str(tmp_path / "adapter"))
        return tmp_path / "adapter"

    return save


def lora(**more: Any) -> LoraConfig:
    usual: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(**usual | more)


def loaded(folder: Path, base: Path) -> Any:
    return load_adapter(load_weights(ModelFolder(str(base), base), dtype=torch.float32), folder)


def misfit(folder: Path, base: Path) -> str:
    with pytest.raises(ModelError) as error:
        loaded(folder, base)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}: ")


KINDS = {
    "lora": lora(),
    "rslora": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "ranks": lora(rank_pattern={"q_proj": 2}),
    "head": lora(modules_to_save=["lm_head"]),
    "tokens": lora(trainable_token_indices=[3, 4]),
    "ia3": IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    ),
    "loha": LoHaConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "task-less": lora(task_type=None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_what_peft_computes(
    saved: Callable[..., Path], tiny_base: Path, kind: str
) -> None:
    folder, ids = saved(KINDS[kind]), torch.arange(2, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(tiny_base)
    untouched = plain(ids).logits
    expected = PeftModel.from_pretrained(plain, str(folder))(ids).logits
    with torch.no_grad():
        assert torch.equal(loaded(folder, tiny_base)(ids).logits, expected)
    assert not torch.allclose(expected, untouched, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
)
def test_an_adapter_that_prompts_is_refused(
    saved: Callable[..., Path], tiny_base: Path, settings: Any
) -> None:
    message = misfit(saved(settings), tiny_base)
    assert "puts its own tokens in front of every prompt" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("model.layers", "model.language_model.layers"),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name if "layers.1." not in name else None,
        lambda name: name if "lora_B" not in name else None,
        lambda name: name.replace("layers.1.", "layers.7."),
    ],
)
def test_an_adapter_whose_names_do_not_fit_does_not_pass_for_its_base(
    saved: Callable[..., Path], tiny_base: Path, change: Callable[[str], str | None]
) -> None:
    folder = saved()
    rewrite(
        folder / ADAPTER,
        lambda weights: {new: value for name, value in weights.items() if (new := change(name))},
    )
    message = misfit(folder, tiny_base)
    assert message.startswith(f"the adapter does not fit the base {tiny_base} ")
    assert "of its weights are missing or have no place in the base" in message


def test_an_adapter_on_another_base_is_one_line(saved: Callable[..., Path], tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    other = LlamaConfig(vocab_size=384, hidden_size=64, intermediate_size=64, **shape)
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "other")  # type: ignore[no-untyped-call]
    assert "size mismatch" in misfit(saved(), tmp_path / "other")


def test_an_adapter_of_another_rank_than_it_says_is_one_line(
    saved: Callable[..., Path], tiny_base: Path
) -> None:
    folder = saved()
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"r": 8}))
    assert "size mismatch" in misfit(folder, tiny_base)


def test_an_adapter_without_a_module_that_it_replaces_is_refused(
    saved: Callable[..., Path], tiny_base: Path
) -> None:
    folder = saved(lora(modules_to_save=["lm_head"]))
    rewrite(
        folder / ADAPTER,
        lambda weights: {name: value for name, value in weights.items() if "lora" in name},
    )
    assert "lm_head" in misfit(folder, tiny_base)


def test_an_adapter_of_an_unknown_kind_is_refused(
    saved: Callable[..., Path], tiny_base: Path
) -> None:
    folder = saved()
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "NOVA"}))
    assert misfit(folder, tiny_base).startswith("the adapter's settings cannot be used: 'NOVA'")


def test_an_adapter_that_holds_no_numbers_is_refused(
    saved: Callable[..., Path], tiny_base: Path
) -> None:
    folder = saved()
    rewrite(
        folder / ADAPTER,
        lambda weights: {name: value * float("nan") for name, value in weights.items()},
    )
    assert "holds NaN or infinite numbers" in misfit(folder, tiny_base)


def test_an_adapter_is_no_base(saved: Callable[..., Path]) -> None:
    assert "an adapter, not a whole model" in refusal(load_config, saved())


def test_a_tokenizer_of_a_model_folder_is_loaded(folder: Path) -> None:
    expected = AutoTokenizer.from_pretrained(folder)
    assert load_tokenizer(ModelFolder("base", folder)).get_vocab() == expected.get_vocab()


def test_threads_can_load_models_at_the_same_time(tiny_base: Path) -> None:
    model = ModelFolder("base", tiny_base)
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load_weights(model), range(8)))
    sums = {sum(float(one.detach().sum()) for one in model.parameters()) for model in loaded}
    assert len(sums) == 1


# In a process of its own: the limits are read at the first product in bfloat16.
STEPS = """
import ctypes
import torch
import response_tuning.models.loading
from transformers import LlamaConfig, LlamaForCausalLM

class Heap(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap

def step(length):
    ids = torch.zeros(1, length, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    model.zero_grad()

def used():
    heap = libc.mallinfo2()
    return (heap.uordblks + heap.hblkhd) // 2**20

model = LlamaForCausalLM(LlamaConfig(
    vocab_size=20_000, hidden_size=128, intermediate_size=256, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1,
))
for length in range(200, 212):
    step(length)
before = used()
for length in range(212, 232):
    step(length)
print(used() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="oneDNN, and the C library of Linux, which says how much is in use",
)
def test_steps_of_ever_new_lengths_in_bfloat16_leave_no_memory_behind() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 50  # MiB; 225 without a limit
