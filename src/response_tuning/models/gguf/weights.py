"""The weights of a GGUF model, dequantised, under the names of transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import sync_file
from response_tuning.errors import ModelError
from response_tuning.models.gguf.config import ROPE_FACTORS
from response_tuning.models.gguf.reading import Checkpoint, Tensor

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

SHARD_BYTES = 2 * 1024**3
"""Bytes of a weight file, and so of memory while it is written."""
_HALVES = {"F16": "float16", "BF16": "bfloat16"}


def save(checkpoint: Checkpoint, config: "PretrainedConfig", folder: Path, name: str) -> None:
    """Write a model's weights into ``folder`` as safetensors, and check that they are all there.

    Plain numbers keep their type. Quantised ones become float32, in which they are exact.

    Raises:
        ModelError: a weight is missing, has another shape, or has no place in the model.
    """
    from transformers import AutoModelForCausalLM

    model = _empty(config, AutoModelForCausalLM)
    wanted = {weight: tuple(value.shape) for weight, value in model.state_dict().items()}
    writer = _Writer(folder)
    for weight, values in _named(checkpoint, config, model, name):
        shape = wanted.pop(weight, None)
        if shape != tuple(values.shape):
            raise ModelError(
                f"{name}: {weight} has the shape {list(values.shape)}, and transformers expects "
                f"{shape and list(shape)} for {checkpoint.architecture!r}; give the model as a "
                "Hugging Face folder"
            )
        writer.add(weight, values.contiguous())
    missing = sorted(wanted.keys() - model.all_tied_weights_keys.keys())
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are missing, such as {missing[0]}; download it again"
        )
    writer.finish()


def bytes_needed(checkpoint: Checkpoint) -> int:
    """Return how many bytes the weights have once they are dequantised."""
    sizes = ((each.elements, 2 if each.type_name in _HALVES else 4) for each in checkpoint.tensors)
    return sum(elements * size for elements, size in sizes)


def _empty(config: "PretrainedConfig", loader: Any) -> "PreTrainedModel":  # noqa: ANN401
    """Return the model without memory for its weights."""
    import torch

    with torch.device("meta"):
        model: PreTrainedModel = loader.from_config(config)
    return model


def _named(
    checkpoint: Checkpoint, config: "PretrainedConfig", model: "PreTrainedModel", name: str
) -> "Iterator[tuple[str, torch.Tensor]]":
    from transformers.integrations.gguf.utils import is_gguf_arch_supported

    if is_gguf_arch_supported(checkpoint.architecture):
        return _loaded(checkpoint, config, name)
    return _renamed(checkpoint, config, model, name)


def _loaded(
    checkpoint: Checkpoint, config: "PretrainedConfig", name: str
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Let transformers load the whole model: it converts these architectures only that way."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    files = {tensor.file for tensor in checkpoint.tensors}
    if len(files) > 1:
        raise ModelError(
            f"{name}: transformers reads {checkpoint.architecture!r} from a single file only; join "
            "its parts with 'llama-gguf-split --merge'"
        )
    (file,) = files
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    tied = model.all_tied_weights_keys
    yield from ((key, value) for key, value in model.state_dict().items() if key not in tied)


def _renamed(
    checkpoint: Checkpoint, config: "PretrainedConfig", model: "PreTrainedModel", name: str
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Yield tensor by tensor what transformers' GGUF loader would hold in memory all at once."""
    import torch
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    kind: Any = TENSOR_PROCESSORS.get(checkpoint.architecture, TensorProcessor)
    processor = kind(config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    merged: dict[str, Any] = {"tensors": {}}
    for tensor in checkpoint.tensors:
        if tensor.name == ROPE_FACTORS:
            continue  # in the configuration
        # It may put a tensor of several experts into ``merged`` instead, and names that None.
        found = processor.process(
            tensor.read(), tensor.name, tensor_key_mapping=names, parsed_parameters=merged
        )
        if found.name is None:
            continue
        if found.name not in names:
            raise ModelError(
                f"{name}: {tensor.name} has no place in transformers' {checkpoint.architecture!r} "
                "and would be lost; give the model as a Hugging Face folder"
            )
        yield names[found.name], torch.tensor(found.weights, dtype=_type(tensor))
    yield from merged["tensors"].items()


def _type(tensor: Tensor) -> "torch.dtype":
    import torch

    kind: torch.dtype = getattr(torch, _HALVES.get(tensor.type_name, "float32"))
    return kind


class _Writer:
    """Writes tensors into files of ``SHARD_BYTES`` at most, or of one tensor that is larger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, torch.Tensor] = {}
        self._places: dict[str, str] = {}
        self._size = self._total = 0
        self._files: list[Path] = []

    def add(self, name: str, values: "torch.Tensor") -> None:
        if self._tensors and self._size + values.nbytes > SHARD_BYTES:
            self._flush()
        self._tensors[name] = values
        self._size += values.nbytes

    def finish(self) -> None:
        self._flush()
        if len(self._files) == 1:
            self._files[0].rename(self._folder / "model.safetensors")
            return
        index = {"metadata": {"total_size": self._total}, "weight_map": self._places}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def _flush(self) -> None:
        from safetensors.torch import save_file

        file = self._folder / f"model-{len(self._files) + 1:05}.safetensors"
        save_file(self._tensors, file, {"format": "pt"})
        sync_file(file)
        self._files.append(file)
        self._places |= dict.fromkeys(self._tensors, file.name)
        self._total += self._size
        self._tensors, self._size = {}, 0
