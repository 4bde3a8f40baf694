import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from response_tuning.errors import ConfigError, ModelError
from response_tuning.models import gguf, loading
from response_tuning.models.gguf import conversion, reading, weights
from response_tuning.models.location import identity, locate
from tests.fixtures.gguf_files import write_gguf

pytestmark = pytest.mark.usefixtures("gguf_cache")
TEXT = "What is the capital of France? <|user|>\nParis 2024  is\tthe\n\ncapital."


def logits(model: Path) -> torch.Tensor:
    folder = locate(str(model))
    tokenizer = loading.load_tokenizer(folder)
    with torch.no_grad():
        found: torch.Tensor = loading.load_weights(folder, dtype=torch.float32)(
            torch.tensor([tokenizer(TEXT).input_ids])
        ).logits
    return found


def refusal(model: Path, kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as error:
        locate(str(model))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(model)) or kind is ConfigError
    return message.removeprefix(f"{model}: ")


def test_a_gguf_file_is_the_model_that_it_was_written_from(gguf_file: Path, llama: Path) -> None:
    assert torch.equal(logits(gguf_file), logits(llama))


def test_its_tokens_are_those_of_the_model(gguf_file: Path, llama: Path) -> None:
    ours, theirs = (loading.load_tokenizer(locate(str(model))) for model in (gguf_file, llama))
    assert ours(TEXT).input_ids == theirs(TEXT).input_ids
    assert ours.decode(ours(TEXT).input_ids) == TEXT
    assert (ours.eos_token, ours.bos_token) == (theirs.eos_token, theirs.bos_token)


def test_quantised_weights_are_dequantised_exactly(llama: Path, tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, dequantize, quantize
    from safetensors.numpy import load_file

    folder = locate(str(write_gguf(tmp_path / "q.gguf", llama, kind="Q8_0"))).path
    ours, theirs = load_file(folder / "model.safetensors"), load_file(llama / "model.safetensors")
    assert ours.keys() == theirs.keys()
    name = "model.layers.1.mlp.down_proj.weight"
    kind = GGMLQuantizationType.Q8_0
    assert np.array_equal(ours[name], dequantize(quantize(theirs[name], kind), kind))
    assert not np.array_equal(ours[name], theirs[name])


def test_half_precision_stays_what_it_is(llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = locate(str(write_gguf(tmp_path / "half.gguf", llama, kind="BF16"))).path
    found = load_file(folder / "model.safetensors")
    assert found["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert found["model.norm.weight"].dtype == torch.float32


def test_its_identity_is_its_sha256_and_asking_converts_nothing(
    gguf_file: Path, tmp_path: Path
) -> None:
    sha = hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    assert identity(str(gguf_file)) == f"gguf@{sha}"
    assert not (tmp_path / "cache").exists()
    assert locate(str(gguf_file)).identity == f"gguf@{sha}"


def test_it_is_converted_once(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = locate(str(gguf_file)).path
    monkeypatch.setattr(weights, "save", None)
    assert locate(str(gguf_file)).path == folder
    moved = gguf_file.with_name("moved.gguf")
    shutil.copy(gguf_file, moved)
    assert json.loads((folder / conversion.PROVENANCE).read_text())["file"] == "tiny.gguf"
    assert locate(str(gguf_file)).source == str(gguf_file)


def test_a_conversion_that_fails_leaves_nothing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save", fail)
    assert refusal(gguf_file) == "cannot be converted: No space left on device"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_known_beforehand(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    message = refusal(gguf_file)
    assert "GB left; set RESPONSE_TUNING_CACHE to a folder on another disk" in message


def test_a_split_file_is_named_by_its_first_part(llama: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "big.gguf", llama, split=8)
    parts = sorted(tmp_path.glob("big-*.gguf"))
    assert len(parts) > 2
    assert torch.equal(logits(parts[0]), logits(llama))
    sums = "\n".join(hashlib.sha256(part.read_bytes()).hexdigest() for part in parts)
    assert identity(str(parts[0])) == f"gguf@{hashlib.sha256(sums.encode()).hexdigest()}"
    assert refusal(parts[1]) == f"a later part of a split file; give the first: {parts[0].name}"
    alone = tmp_path / "renamed.gguf"
    shutil.copy(parts[0], alone)
    assert refusal(alone).startswith(f"one of {len(parts)} parts; keep the names that end in ")
    parts[1].unlink()
    assert refusal(parts[0]) == f"{parts[1].name} is missing beside it; download all parts"


def test_large_weights_are_several_files(
    gguf_file: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", 20_000)
    assert torch.equal(logits(gguf_file), logits(llama))
    assert len([*locate(str(gguf_file)).path.glob("model-*.safetensors")]) > 2


def test_a_blob_of_ollama_needs_no_suffix(gguf_file: Path, llama: Path) -> None:
    blob = gguf_file.rename(gguf_file.with_name("sha256-0f1e"))
    assert torch.equal(logits(blob), logits(llama))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"general.architecture": "rwkv9"},
            r"transformers 5\S+ cannot read the architecture 'rwkv9' from a GGUF file; give the "
            "model as a Hugging Face folder",
        ),
        (
            {"general.architecture": "t5"},
            "not a causal language model: its architecture is 't5'",
        ),
        (
            {"general.type": "mmproj"},
            "not a language model: a GGUF file of the type 'mmproj'; give the model's own file",
        ),
        (
            {"tokenizer.ggml.tokens": None},
            "it has no tokenizer inside; give a GGUF file with one, or the model as a Hugging Face "
            "folder",
        ),
        (
            {"tokenizer.ggml.model": "rwkv"},
            "its tokenizer cannot be rebuilt: Cannot build a tokenizer from .*'rwkv'.*",
        ),
        (
            {"tokenizer.ggml.pre": "unheard-of"},
            "its tokenizer splits text by the rule 'unheard-of', which is not known here, so its "
            "tokens would be others; give the model as a Hugging Face folder",
        ),
        (
            {"tokenizer.ggml.bos_token_id": 100_000},
            r"its tokenizer has \d+ tokens, and bos_token_id is 100000; the file is damaged: "
            "download it again",
        ),
        (
            {"llama.rope.scaling.type": "yarn"},
            "it scales positions by the rule 'yarn', which a GGUF file does not describe in full; "
            "give the model as a Hugging Face folder",
        ),
        (
            {"llama.feed_forward_length": 96},
            r"model\.layers\.0\.mlp\.down_proj\.weight has the shape \[32, 64\], and transformers "
            r"expects \[32, 96\] for 'llama'; give the model as a Hugging Face folder",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_one_line(
    settings: dict[str, Any], message: str, llama: Path, tmp_path: Path
) -> None:
    import re

    file = write_gguf(tmp_path / "odd.gguf", llama, settings=settings)
    found = refusal(file)
    assert re.fullmatch(message, found), found
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_vocabulary_alone_is_no_model(llama: Path, tmp_path: Path) -> None:
    from gguf import GGUFWriter

    file = tmp_path / "vocabulary.gguf"
    writer = GGUFWriter(file, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert refusal(file) == "it has no weights, only a vocabulary; give the model's own file"


def test_weights_that_are_missing_or_would_be_lost_are_refused(llama: Path, tmp_path: Path) -> None:
    lost = write_gguf(tmp_path / "lost.gguf", llama, leave_out=["blk.1.ffn_up.weight"])
    assert refusal(lost) == (
        "1 weights are missing, such as model.layers.1.mlp.up_proj.weight; download it again"
    )
    more = write_gguf(
        tmp_path / "more.gguf", llama, extra={"blk.0.ffn_sub_norm.weight": np.ones(32, np.float32)}
    )
    assert refusal(more).startswith(
        "blk.0.ffn_sub_norm.weight has no place in transformers' 'llama' and would be lost"
    )


def test_a_truncated_file_is_one_line(gguf_file: Path, tmp_path: Path) -> None:
    content = gguf_file.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 4000, 300, 30, 10):
        cut = tmp_path / f"cut-{size}.gguf"
        cut.write_bytes(content[:size])
        found = refusal(cut)
        assert found.startswith("truncated or damaged: ")
        assert found.endswith("; download it again")


def test_what_is_no_gguf_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    for content in (b"", b"GGU", b"PK\3\4 an archive", b"<!doctype html>"):
        file.write_bytes(content)
        assert refusal(file) == "not a GGUF file: it does not begin with 'GGUF'"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345678\n")
    assert refusal(file).startswith("a Git LFS pointer, not the file; run 'git lfs pull' there")
    file.write_bytes(b"GGUF\1\0\0\0" + bytes(16))
    assert refusal(file).startswith("GGUF version 1 (or a big-endian file)")


def test_without_the_package_the_line_installs_it(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert refusal(gguf_file, ConfigError) == (
        "a GGUF model needs the package gguf: pip install 'response-tuning[gguf]'"
    )


def test_a_folder_with_a_gguf_file_names_the_file(gguf_file: Path) -> None:
    with pytest.raises(ModelError, match=r"; to use tiny\.gguf in it, give that file$"):
        loading.load_config(locate(str(gguf_file.parent)))


def test_the_scaled_positions_of_llama_3_are_recovered(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    source = tmp_path / "scaled"
    shutil.copytree(llama, source)
    config = AutoConfig.from_pretrained(llama)
    config.rope_parameters = {"rope_theta": 500_000.0, **scaling}
    config.save_pretrained(source)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500_000.0 ** -(torch.arange(0, 8, 2) / 8)
    factors = (plain / scaled).numpy().astype(np.float32)
    assert factors.max() == pytest.approx(32)
    file = write_gguf(tmp_path / "llama3.gguf", source, extra={"rope_freqs.weight": factors})
    assert torch.equal(logits(file), logits(source))
    assert not torch.equal(logits(source), logits(llama))
    other = write_gguf(tmp_path / "other.gguf", source, extra={"rope_freqs.weight": factors**0.5})
    assert refusal(other).startswith("its scaling of positions is not that of Llama 3")


def test_linear_scaling_of_positions_is_kept(llama: Path, tmp_path: Path) -> None:
    settings = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    folder = locate(str(write_gguf(tmp_path / "long.gguf", llama, settings=settings)))
    rope = loading.load_config(folder).rope_parameters
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)


def test_the_end_of_a_turn_ends_an_answer_too(llama: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "turns.gguf", llama, settings={"tokenizer.ggml.eot_token_id": 7})
    made = json.loads((locate(str(file)).path / "generation_config.json").read_text())
    assert made["eos_token_id"] == [0, 7]


def test_the_header_is_read_as_the_package_reads_it(gguf_file: Path) -> None:
    from gguf import GGUFReader

    ours, theirs = reading.read([gguf_file]), GGUFReader(gguf_file)
    expected = {
        key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")
    }
    assert ours.settings == expected
    places = {tensor.name: (tensor.offset, tensor.size) for tensor in ours.tensors}
    assert places == {each.name: (each.data_offset, each.n_bytes) for each in theirs.tensors}


def test_other_files_are_no_gguf_files(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("GG")
    assert not gguf.is_gguf(file)
    assert not gguf.is_gguf(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match=r"none\.gguf: no such file$"):
        locate(str(tmp_path / "none.gguf"))
