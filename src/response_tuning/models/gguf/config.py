"""The configuration of a GGUF model: transformers reads it from the settings in the header."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError
from response_tuning.models.gguf.reading import Checkpoint
from response_tuning.models.gguf.tokenizer import end_ids, special_ids

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

ROPE_FACTORS = "rope_freqs.weight"
"""How llama.cpp stores the scaled frequencies of Llama 3.1 and later; transformers ignores it."""
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The values of every Llama 3.1 to 3.3; only ``factor`` differs from model to model."""
_WHOLE = "give the model as a Hugging Face folder"


def build(checkpoint: Checkpoint, name: str) -> "PretrainedConfig":
    """Return the configuration of a GGUF model.

    Raises:
        ModelError: it is no causal language model, or transformers cannot read its architecture.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    _check_kind(checkpoint, name)
    settings = _of_transformers(checkpoint, name)
    kind = settings.pop("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{name}: not a causal language model: its architecture is {checkpoint.architecture!r}"
        )
    # The name inside the file is no place that a model can be loaded from.
    settings.pop("_model_name_or_path", None)
    settings["architectures"] = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]]
    settings |= special_ids(checkpoint.settings)
    settings["dtype"] = "float32"  # as most GGUF files are quantised, and dequantised to that
    config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(settings)
    _scale_positions(config, checkpoint, name)
    return config


def generation(checkpoint: Checkpoint) -> "GenerationConfig":
    """Return the generation config of a GGUF model: every token that ends an answer."""
    from transformers import GenerationConfig

    ids: dict[str, Any] = special_ids(checkpoint.settings)
    ids |= {"eos_token_id": end_ids(checkpoint.settings) or None}
    return GenerationConfig(**ids)  # type: ignore[no-untyped-call]


def _check_kind(checkpoint: Checkpoint, name: str) -> None:
    kind = checkpoint.settings.get("general.type", "model")
    if kind != "model" or not checkpoint.architecture:
        what = f"a GGUF file of the type {kind!r}" if kind != "model" else "it has no architecture"
        raise ModelError(f"{name}: not a language model: {what}; give the model's own file")
    if not checkpoint.tensors:
        raise ModelError(f"{name}: it has no weights, only a vocabulary; give the model's own file")


def _of_transformers(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Return the settings of transformers' configuration, ``model_type`` included."""
    from transformers import __version__
    from transformers.integrations.gguf.gguf_config_mapping import (
        GGUF_CONFIG_ARCHS,
        get_gguf_config,
    )
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    names = tuple(tensor.name for tensor in checkpoint.tensors)
    try:
        if checkpoint.architecture in GGUF_CONFIG_ARCHS:
            vocabulary = len(checkpoint.settings.get("tokenizer.ggml.tokens", ()))
            settings = {**checkpoint.settings, "tokenizer.ggml.tokens": vocabulary}
            return get_gguf_config(settings, names)
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "header.gguf"
            _write_header(small, checkpoint)
            loaded: Any = load_gguf_checkpoint(str(small))  # type: ignore[no-untyped-call]
            found: dict[str, Any] = loaded["config"]
    except KeyError as error:
        raise ModelError(f"{name}: its header lacks {error}; download it again") from error
    except (ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{name}: transformers {__version__} cannot read the architecture "
            f"{checkpoint.architecture!r} from a GGUF file; {_WHOLE}"
        ) from error
    return found


def _write_header(path: Path, checkpoint: Checkpoint) -> None:
    """Write a GGUF file with the settings and tensor names of another, and nothing else.

    transformers reads a configuration with ``gguf.GGUFReader``, which needs 19 s for the vocabulary
    of Gemma 3, and only the first part of a split file.
    """
    import numpy as np
    from gguf import GGUFValueType, GGUFWriter

    kinds = {bool: GGUFValueType.BOOL, int: GGUFValueType.INT64, float: GGUFValueType.FLOAT64}
    writer = GGUFWriter(path, checkpoint.architecture)
    settings = checkpoint.settings
    size = f"{checkpoint.architecture}.vocab_size"
    tokens = settings.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list):
        settings = {size: len(tokens), **settings}
    for key, value in settings.items():
        if key == "general.architecture" or (isinstance(value, list) and "tokenizer." in key):
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kinds.get(type(value), GGUFValueType.STRING))
    for tensor in checkpoint.tensors:
        writer.add_tensor(tensor.name, np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _scale_positions(config: "PretrainedConfig", checkpoint: Checkpoint, name: str) -> None:
    """Set the scaling of rotary positions, which transformers does not read from a GGUF file.

    Raises:
        ModelError: it is of a kind that the header does not describe in full.
    """
    prefix = f"{checkpoint.architecture}.rope.scaling."
    kind = checkpoint.settings.get(f"{prefix}type", "none")
    factor = checkpoint.settings.get(f"{prefix}factor", 1.0)
    stored = next((tensor for tensor in checkpoint.tensors if tensor.name == ROPE_FACTORS), None)
    if stored is not None:
        found = {**_LLAMA_3_ROPE, "factor": float(stored.read().max())}
        _set_rope(config, found)
        if not _has_factors(config, stored.read()):
            raise ModelError(f"{name}: its scaling of positions is not that of Llama 3; {_WHOLE}")
    elif kind == "linear":
        _set_rope(config, {"rope_type": "linear", "factor": factor})
    elif kind != "none":
        raise ModelError(
            f"{name}: it scales positions by the rule {kind!r}, which a GGUF file does not "
            f"describe in full; {_WHOLE}"
        )


def _set_rope(config: "PretrainedConfig", scaling: Mapping[str, Any]) -> None:
    rope: dict[str, Any] = config.rope_parameters
    # Gemma 3 scales the positions of its global layers alone.
    rope.get("full_attention", rope).update(scaling)


def _has_factors(config: "PretrainedConfig", stored: Any) -> bool:  # noqa: ANN401 - an array
    """Whether transformers computes the frequencies that the file stores as divisors."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    heads = config.hidden_size // config.num_attention_heads
    size = getattr(config, "head_dim", None) or heads
    base = config.rope_parameters["rope_theta"]
    plain = base ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    divisors = torch.from_numpy(stored.copy()).double().flatten()
    return scaled.shape == divisors.shape and torch.allclose(
        scaled.double(), plain / divisors, rtol=1e-4
    )
