import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.errors import ModelError, TemplateError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models.inference import (
    check_loadable,
    has_native_template,
    load,
    under_template,
    with_template,
)
from response_tuning.models.likelihood import log_likelihoods

SaveModel = Callable[..., Path]


@pytest.fixture
def adapter(llama: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    folder = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    return folder


def strides_of_head_inputs(model: Path, precision: Literal["float32", "bfloat16"]) -> list[bool]:
    """Return for each use of the head, while a model answers two prompts, if it had no gaps."""
    local = load(str(model), device="cpu", precision=precision)
    contiguous: list[bool] = []
    local.model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, __: contiguous.append(inputs[0].is_contiguous())
    )
    sampling = Sampling(max_new_tokens=2)
    asked = [[Message(role="user", content=text)] for text in ("Hi", "How are you today?")]
    local.extend([local.draft(prompt, sampling) for prompt in asked], sampling)
    return contiguous


def test_the_head_reads_its_weights_once_for_all_prompts_in_bfloat16(llama: Path) -> None:
    inputs = strides_of_head_inputs(llama, "bfloat16")
    assert len(inputs) > 1 and all(inputs)


def opened(model: Path, **settings: Any) -> str:
    config = EngineConfig.model_validate({"model": str(model), "device": "cpu", **settings})
    return open_engine("hf", config).model


def test_a_model_that_holds_no_numbers_is_refused_before_it_is_asked(
    llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(llama, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"up_proj\.weight holds NaN or infinite numbers"):
        opened(folder)


@pytest.fixture
def wordy(llama: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer knows a word and two marks that it has no embedding for."""
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(llama, tmp_path / "wordy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["attic"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|ask|>", "<|say|>"]})
    tokenizer.save_pretrained(folder)
    return folder


def test_a_template_that_uses_tokens_without_embedding_is_refused(
    wordy: Path, tmp_path: Path
) -> None:
    (tmp_path / "marks.jinja").write_text("<|ask|>{{ messages[0]['content'] }}<|say|>")
    with pytest.raises(ModelError, match=r"the chat template uses the token '<\|ask\|>' \(id "):
        opened(wordy, template=str(tmp_path / "marks.jinja"))


def test_a_prompt_that_holds_a_token_without_embedding_is_an_error_of_its_own(wordy: Path) -> None:
    asked = [
        Request(item_id=word, prompt=(Message(role="user", content=f"the {word} is warm"),))
        for word in ("attic", "kitchen")
    ]
    engine = open_engine("hf", EngineConfig(model=str(wordy), device="cpu"))
    answers = {one.item_id: one for one in engine.complete(asked, Sampling(max_new_tokens=3))}
    assert "the prompt has the token 'attic'" in str(answers["attic"].error)
    assert answers["kitchen"].error is None


def test_a_reply_that_holds_a_token_without_embedding_is_not_scored(wordy: Path) -> None:
    local = load(str(wordy), device="cpu")
    question = (Message(role="user", content="where?"),)
    pairs = [Pair(prompt=question, response=text) for text in ("in the attic", "in the kitchen")]
    attic, kitchen = log_likelihoods(local, pairs, 1000)
    assert isinstance(attic, Unscored)
    assert "'attic'" in attic.reason
    assert isinstance(kitchen, Likelihood)


@pytest.mark.parametrize("declared", ["x", [1, "x"], [[1]], 1.5])
def test_a_stop_token_that_is_no_id_is_named(llama: Path, tmp_path: Path, declared: object) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "odd"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": declared}))
    with pytest.raises(ModelError, match=r"eos_token_id in generation_config\.json is no token id"):
        opened(folder)


def test_an_adapter_is_loadable_as_its_base_is(adapter: Path, llama: Path) -> None:
    check_loadable(str(adapter))
    check_loadable(str(llama))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    gone = settings | {"base_model_name_or_path": str(adapter / "gone")}
    (adapter / "adapter_config.json").write_text(json.dumps(gone))
    with pytest.raises(ModelError, match=r"its base model: .*gone: no such folder"):
        check_loadable(str(adapter))


def test_a_loaded_model_is_scored_under_another_template_as_if_loaded_with_it(
    tiny_base: Path,
) -> None:
    pair = Pair((Message(role="user", content="where?"),), "in the kitchen")
    local = load(str(tiny_base), "tulu", device="cpu")
    other = with_template(local, str(tiny_base), "xml")
    fresh = load(str(tiny_base), "xml", device="cpu")
    assert other.model is local.model
    assert other.chat.digest == fresh.chat.digest != local.chat.digest
    assert log_likelihoods(other, [pair], 1000) == log_likelihoods(fresh, [pair], 1000)


def test_a_template_that_a_model_cannot_be_tuned_with_is_refused(
    llama: Path, tmp_path: Path
) -> None:
    local = load(str(llama), device="cpu")
    with pytest.raises(TemplateError, match="not one special token"):
        with_template(local, str(llama), "urial")
    bare = tmp_path / "bare.jinja"
    bare.write_text(
        "{% for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' "
        "else '\\n') }}{% endfor %}"
    )
    with pytest.raises(TemplateError, match="nothing predicts its first token"):
        with_template(local, str(llama), str(bare))


def test_a_tokenizer_says_whether_it_has_a_template_of_its_own(
    tiny_base: Path, llama: Path
) -> None:
    assert not has_native_template(str(tiny_base))
    assert has_native_template(str(llama))


@pytest.mark.parametrize("template", ["roles", "urial", "tulu"])
def test_a_loaded_model_under_any_template_is_as_if_loaded_with_it(
    save_model: SaveModel, template: str
) -> None:
    folder = str(save_model("llama", context=2048, eos=[0, 7]))
    local, loaded = load(folder), load(folder, template)
    other = under_template(local, folder, template)
    assert other.model is local.model
    assert other.chat.digest == loaded.chat.digest
    assert other.stop_ids == loaded.stop_ids
    assert set(other.stop_ids) == {0, 7}
    assert under_template(other, folder, "native").chat.digest == local.chat.digest


def test_a_template_with_tokens_without_embedding_is_refused_for_a_loaded_model(
    wordy: Path, tmp_path: Path
) -> None:
    local = load(str(wordy))
    marks = tmp_path / "marks.jinja"
    marks.write_text("<|ask|>{{ messages[0]['content'] }}<|say|>", encoding="utf-8")
    with pytest.raises(ModelError, match=r"the chat template uses the token '<\|ask\|>' \(id "):
        under_template(local, str(wordy), str(marks))
