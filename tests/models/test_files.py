import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from response_tuning.errors import DataError, ModelError
from response_tuning.models import files

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345678\n"


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the base model that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def refusal(check: Callable[[Path], object], folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        check(folder)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}: ")


def stored_as(folder: Path, kind: torch.dtype) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "proj" in name)
    save_file(weights | {name: weights[name].to(kind)}, folder / WEIGHTS, {"format": "pt"})


def sharded(folder: Path, *names: str) -> None:
    """Call the weights the first of the shards that an index names."""
    (folder / WEIGHTS).rename(folder / names[0])
    index = {"weight_map": {str(number): name for number, name in enumerate(names)}}
    (folder / files.INDEX).write_text(json.dumps(index))


def test_a_whole_model_is_what_it_seems(folder: Path) -> None:
    files.check_weights(folder)
    assert files.kind(folder) == files.CONFIG
    sharded(folder, "model-00001-of-00001.safetensors")
    files.check_weights(folder)


@pytest.mark.parametrize(
    "file", [WEIGHTS, "tokenizer.json", "config.json", "generation_config.json"]
)
def test_a_pointer_of_git_lfs_is_no_file(folder: Path, file: str) -> None:
    (folder / file).write_text(POINTER)
    message = refusal(files.check_folder, folder)
    assert message.startswith(f"cannot be loaded: {file} is a Git LFS pointer")
    assert "run 'git lfs pull' there" in message


@pytest.mark.parametrize(
    "kind",
    [
        *(torch.int8, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
    ],
    ids=str,
)
def test_numbers_that_are_nothing_without_their_scales_are_refused(
    folder: Path, kind: torch.dtype
) -> None:
    stored_as(folder, kind)
    assert refusal(files.check_weights, folder).startswith("its weights are quantised (model.")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_numbers_of_another_precision_are_whole(folder: Path, kind: torch.dtype) -> None:
    stored_as(folder, kind)
    files.check_weights(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt_neox.layers.0.attention.bias", torch.uint8),
        ("gpt_neox.layers.0.attention.bias", torch.bool),
        ("transformer.h.0.attn.bias", torch.uint8),
        ("transformer.h.0.attn.masked_bias", torch.int32),
        ("model.embeddings.position_ids", torch.int64),
    ],
)
def test_masks_and_positions_of_older_checkpoints_are_no_quantised_weights(
    folder: Path, name: str, kind: torch.dtype
) -> None:
    buffer = {name: torch.ones(4, dtype=kind)}
    save_file(load_file(folder / WEIGHTS) | buffer, folder / WEIGHTS, {"format": "pt"})
    files.check_weights(folder)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16], ids=str)
def test_an_adapter_of_quantised_weights_is_refused(tmp_path: Path, kind: torch.dtype) -> None:
    weights = {"base.q_proj.lora_A.weight": torch.ones(2, 4, dtype=kind)}
    save_file(weights, tmp_path / files.ADAPTER_WEIGHTS, {"format": "pt"})
    message = refusal(files.check_adapter, tmp_path)
    assert message.startswith("its weights are quantised (base.q_proj.lora_A.weight is stored as")


def test_an_adapter_config_beside_a_whole_model_is_named(folder: Path) -> None:
    (folder / files.ADAPTER_CONFIG).write_text("{}")
    message = refusal(files.check_weights, folder)
    assert message.endswith(f"delete {folder / files.ADAPTER_CONFIG} to use the whole model")


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"<!DOCTYPE html>" * 99])
def test_weights_that_are_none_are_named(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    message = refusal(files.check_weights, folder)
    assert message.startswith("cannot be loaded: model.safetensors: ")
    assert message.endswith("it is truncated or damaged: download or save it again")


def test_weights_that_are_cut_short_are_named(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 5000)
    assert "truncated or damaged" in refusal(files.check_weights, folder)


def test_shards_that_are_not_there_are_named(folder: Path) -> None:
    sharded(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    message = refusal(files.check_weights, folder)
    assert message.startswith("no model-00002-of-00002.safetensors; download the model again")


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_without_files_is_named(folder: Path, content: str) -> None:
    sharded(folder, "model-00001-of-00001.safetensors")
    (folder / files.INDEX).write_text(content)
    assert "index.json: no weight_map" in refusal(files.check_weights, folder)


@pytest.mark.parametrize("file", [files.INDEX, files.GENERATION_CONFIG])
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_file_that_is_no_json_object_is_named(folder: Path, file: str, content: str) -> None:
    sharded(folder, "model-00001-of-00001.safetensors")
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=f"{file}: (cannot be read as|expected a) JSON"):
        files.check_weights(folder)


@pytest.mark.parametrize("other", ["pytorch_model.bin", "consolidated.00.pth", "model-q4.gguf"])
def test_weights_in_another_format_are_named(folder: Path, other: str) -> None:
    (folder / WEIGHTS).rename(folder / other)
    message = refusal(files.check_weights, folder)
    assert message.startswith(
        f"no model.safetensors, only {other}, and only safetensors are loaded"
    )
    assert message.endswith("convert its weights to safetensors")


def test_a_file_in_place_of_a_folder_is_refused(folder: Path) -> None:
    message = refusal(files.check_folder, folder / "config.json")
    assert message.endswith("a file; give the folder that holds the model")


def test_a_folder_with_an_adapter_and_a_whole_model_is_neither(folder: Path) -> None:
    (folder / files.ADAPTER_CONFIG).write_text("{}")
    assert files.kind(folder) == files.CONFIG  # its weights are not there
    (folder / files.ADAPTER_WEIGHTS).touch()
    assert "holds both an adapter" in refusal(files.kind, folder)
    (folder / WEIGHTS).unlink()
    assert (
        files.kind(folder) == files.ADAPTER_CONFIG
    )  # with the base's config.json, as other tools save


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    assert refusal(files.kind, tmp_path).endswith(
        "it has no config.json and no adapter_config.json"
    )


def test_an_adapter_without_its_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / files.ADAPTER_CONFIG).write_text("{}")
    assert refusal(files.check_adapter, tmp_path).startswith("no adapter_model.safetensors; ")
    (tmp_path / "adapter_model.bin").touch()
    assert "only adapter_model.bin" in refusal(files.check_adapter, tmp_path)
