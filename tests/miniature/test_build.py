import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from response_tuning import miniature
from response_tuning.errors import ConfigError
from response_tuning.miniature.build import BuildConfig, build_base, corpus_tokens, make_tokenizer
from response_tuning.validation import build

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 64,
    "vocabulary": 300,
    "context": 32,
    "rows_per_step": 2,
    "tokens": 1500,
    "save_steps": 3,
}


def configured(mixture: dict[str, Any] | None = None, **changes: Any) -> BuildConfig:
    return build(BuildConfig, {"pretrain": TINY | changes, "mixture": mixture or {}}, "tests")


def silent(done: int, total: int) -> None:
    pass


@pytest.fixture(autouse=True)
def _little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("response_tuning.miniature.build.TOKENIZER_DOCUMENTS", 100)
    monkeypatch.setattr("response_tuning.miniature.build.ENCODED_AT_ONCE", 7)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    build_base(configured(), tmp_path / "base", silent)
    return tmp_path / "base"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(
    base: Path, tmp_path: Path
) -> None:
    build_base(configured(), tmp_path / "same", silent)
    build_base(configured(seed=1), tmp_path / "other", silent)
    for name in ("model.safetensors", "tokenizer.json"):
        first, same, other = ((path / name).read_bytes() for path in folders(tmp_path))
        assert first == same != other


def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / name for name in ("base", "same", "other")]


def test_a_killed_build_goes_on_to_the_bytes_of_an_uninterrupted_one(
    base: Path, tmp_path: Path
) -> None:
    def kill(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        build_base(configured(), killed, kill)
    assert not (killed / "model.safetensors").exists()
    steps: list[int] = []
    build_base(configured(), killed, lambda done, total: steps.append(done))
    assert steps == list(range(7, 24))
    for name in ("model.safetensors", "built.json", "tokenizer.json", "loss.svg"):
        assert (killed / name).read_bytes() == (base / name).read_bytes()


def test_a_finished_build_is_not_repeated(base: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    steps: list[int] = []
    loss = build_base(configured(), base, lambda done, total: steps.append(done))
    assert steps == []
    assert json.loads((base / "built.json").read_text())["loss"] == round(loss, 4)
    assert (base / "model.safetensors").read_bytes() == before


def test_another_build_in_the_same_folder_is_refused_and_changes_nothing(base: Path) -> None:
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    for other in (configured(seed=1), configured({"any_role": 0.1})):
        with pytest.raises(
            ConfigError, match=r"config\.json belongs to another build; choose another"
        ):
            build_base(other, base, silent)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


def test_nothing_needs_the_work_folder_afterwards(base: Path) -> None:
    shutil.rmtree(base / "work")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    assert model(torch.zeros((1, 3), dtype=torch.long)).logits.shape == (1, 3, 300)


def test_the_base_is_a_hugging_face_folder_in_float16_without_a_chat_template(base: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.config.bos_token_id == model.config.eos_token_id
    assert tokenizer.chat_template is None
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 32
    assert len(tokenizer) == model.config.vocab_size == 300
    text = "What is 3 and 8?\n\n<|user|>\nZoë said “ünïcode” ☃."
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_what_the_base_was_made_of_stands_beside_it(base: Path) -> None:
    made = json.loads((base / "built.json").read_text())
    assert (
        BuildConfig.model_validate({k: made[k] for k in BuildConfig.model_fields}) == configured()
    )
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    assert made["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert made["packages"]["torch"] == torch.__version__
    assert 3 < made["loss"] < 7


def test_the_corpus_is_packed_with_an_end_of_text_before_every_document(tmp_path: Path) -> None:
    from itertools import islice

    from response_tuning.miniature.corpus import documents
    from response_tuning.miniature.writer import Mixture

    config = configured(tokens=4000)
    tokenizer = make_tokenizer(config)
    ids = corpus_tokens(config, tokenizer, tmp_path / "tokens.npy")
    assert ids.dtype == np.uint16
    assert ids.shape == (4000,)
    assert ids[0] == tokenizer.eos_token_id
    texts = str(tokenizer.decode(ids.tolist())).split("</s>")
    assert texts[0] == ""
    expected = list(islice(documents(0, Mixture()), len(texts) - 1))
    assert texts[1:-1] == expected[:-1]
    assert expected[-1].startswith(texts[-1].rstrip("\ufffd"))
    again = corpus_tokens(config, tokenizer, tmp_path / "tokens.npy")
    assert np.array_equal(ids, again)


def test_a_flipped_bit_in_the_encoded_corpus_has_it_encoded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tokens=4000)
    tokenizer = make_tokenizer(config)
    path = tmp_path / "tokens.npy"
    ids = corpus_tokens(config, tokenizer, path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert np.array_equal(corpus_tokens(config, tokenizer, path), ids)
    (record,) = caplog.records
    assert record.message == (f"{path} is no longer what was written; encoding the corpus again")
    assert np.array_equal(np.load(path), ids)


def test_a_number_is_the_same_tokens_wherever_it_stands() -> None:
    tokenizer = make_tokenizer(configured())
    alone = tokenizer.encode("64", add_special_tokens=False)
    assert len(alone) == 2
    for text in ("It is 64", "1. 64", "x64"):
        assert tokenizer.encode(text, add_special_tokens=False)[-2:] == alone


def test_another_mixture_gives_another_corpus(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(configured())
    packed = [
        corpus_tokens(configured(mixture), tokenizer, tmp_path / f"{number}.npy").tolist()
        for number, mixture in enumerate(({}, {}, {"registers": {"transcript": 0}}))
    ]
    assert packed[0] == packed[1] != packed[2]


def test_the_shipped_base_is_what_the_defaults_build() -> None:
    made = json.loads((miniature.BASE / "built.json").read_text())
    assert {k: made[k] for k in BuildConfig.model_fields} == BuildConfig().model_dump(mode="json")
    assert (miniature.BASE / "model.safetensors").stat().st_size < 10_000_000


def test_the_tokenizer_of_the_shipped_base_is_that_of_the_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    shipped = AutoTokenizer.from_pretrained(miniature.BASE)
    assert make_tokenizer(BuildConfig()).get_vocab() == shipped.get_vocab()


def test_the_name_of_the_miniature_stands_for_the_shipped_folder() -> None:
    assert miniature.resolved("miniature") == str(miniature.BASE)
    assert miniature.resolved("runs/miniature") == "runs/miniature"
