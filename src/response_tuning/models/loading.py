"""The one loader of models and tokenizers: for tuning, generation, lm-eval, the probe and data.

It accounts for every weight: it refuses a model with an invented, dropped, quantised, NaN or
infinite weight. When a library
cannot read a file, the error is one line that names the model.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError, ResponseTuningError
from response_tuning.models import files
from response_tuning.models.checks import check_finite
from response_tuning.models.location import ModelFolder
from response_tuning.readers import one_line
from response_tuning.terminal import hide_known_warnings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

# oneDNN keeps a kernel, with its working memory, for each shape of a product, 1,024 of them, and
# torch's layer above it as many again. Steps differ in length, so a step in bfloat16 left up to 1
# GB behind. A step has some 30 to 70 shapes. Both read their limit at the first such product.
for _limit in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_limit, "128")

_LOADING = threading.Lock()
"""Held while weights load: transformers switches parts of torch off meanwhile, for every thread."""
# Tasks whose head replaces the one that predicts the next token.
_OTHER_TASKS = re.compile(r"For(MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice)$")
# What GPTQ, AWQ, bitsandbytes, FP8, compressed-tensors, HQQ and MXFP4 store beside their weights.
_SCALES = re.compile(
    r"(scales?|scale_inv|scale_\w+|SCB|absmax|quant_map|quant_state\S*|weight_format|g_idx"
    r"|q?weight_packed|weight_shape|qweight|qzeros|zeros|zero_points?|_blocks|_scales)$"
)


@contextmanager
def explained(name: object, what: str = "cannot be loaded") -> Iterator[None]:
    """Turn a library's error about the files of the model ``name`` into one line.

    Raises:
        ModelError: the block raised something. Running out of memory passes through, because
            callers can react to it, and so do this package's own errors.
    """
    import torch

    try:
        yield
    except (ResponseTuningError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise any class at files that they did not write
        raise ModelError(f"{name}: {what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return the message of a library's error on one short line."""
    text = one_line(error).rstrip(".")
    if isinstance(error, KeyError):
        return f"{text} is unknown or missing"
    # Messages of other classes, such as TypeError, mean little without the class.
    speaks_for_itself = isinstance(error, (OSError, ValueError, RuntimeError)) and bool(text)
    return text if speaks_for_itself else f"{type(error).__name__}: {text}".removesuffix(": ")


def load_config(model: ModelFolder) -> "PretrainedConfig":
    """Return the configuration of a causal language model; no weights are read.

    Raises:
        ModelError: it is missing, or describes another kind of model or quantised weights.
    """
    from transformers import AutoConfig, PreTrainedConfig

    name, folder = model.name, model.path
    with _by_its_name(model):
        files.check_folder(folder)
        kind = files.kind(folder)
    if kind == files.ADAPTER_CONFIG:
        raise ModelError(
            f"{name}: cannot be loaded: it is an adapter, not a whole model; give its base, or "
            "merge it first"
        )
    with explained(name):
        # As plain JSON first: AutoConfig explains an unknown or a quantised model worse than we do.
        raw: object = PreTrainedConfig.get_config_dict(folder)[0]
        if not isinstance(raw, dict):
            raise ModelError(f"{name}: cannot be loaded: its {files.CONFIG} is no JSON object")
        _check_kind(raw, name)
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.name_or_path = model.source
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name}: cannot be loaded: '{config.model_type}' is an encoder-decoder model, not a "
            "causal language model"
        )
    return config


def load_tokenizer(
    model: ModelFolder, what: str = "no usable tokenizer"
) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer.

    Raises:
        ModelError: the folder has no usable one; the message says ``what``.
    """
    from transformers import AutoTokenizer

    with _by_its_name(model):
        files.check_folder(model.path)
    # Without any of its files, AutoTokenizer builds an empty tokenizer for some model types.
    if not files.has_tokenizer(model.path):
        raise ModelError(f"{model.name}: {what}: it has no tokenizer.json; copy it there")
    with explained(model.name, what):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model.path, trust_remote_code=False
        )
    return tokenizer


def check_weights(model: ModelFolder) -> None:
    """Refuse weights that cannot be loaded as they are; only their headers are read.

    Raises:
        ModelError: they are absent, cut short or quantised.
    """
    with _by_its_name(model):
        files.check_weights(model.path)


def load_weights(
    model: ModelFolder,
    **how: Any,  # noqa: ANN401 - dtype, device, quantisation
) -> "PreTrainedModel":
    """Return a model with exactly the weights in its files, from safetensors only.

    Raises:
        ModelError: it cannot be loaded, or its files lack weights or hold others.
    """
    with _LOADING:  # its lazy import is no safer in threads
        from transformers import AutoModelForCausalLM

    check_weights(model)
    config = load_config(model)
    with explained(model.name), _LOADING:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.path,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            # transformers fills absent weights with random numbers; ``_check_keys`` refuses them
            # below, in one line.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
    weights: PreTrainedModel
    weights, key_report = loaded
    # PEFT writes this into the adapter's settings: the hub id, not a folder of this cache.
    weights.name_or_path = weights.config.name_or_path = model.source
    _check_keys(key_report, model.name)
    _untie_if_different(weights, model.name)
    check_finite(weights, model.name)
    return weights


@contextmanager
def _by_its_name(model: ModelFolder) -> Iterator[None]:
    """Begin messages about files of the hub's cache with the id that the user knows."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{model.name}: {error}") if model.commit else error from error


def load_adapter(base: "PreTrainedModel", folder: Path) -> Any:  # noqa: ANN401 - PEFT's
    """Return ``base`` under the adapter in ``folder``.

    Raises:
        ModelError: its kind is not supported, or it does not fit the base.
    """
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel

    files.check_adapter(folder)
    with explained(folder, "the adapter's settings cannot be used"):
        settings = PeftConfig.from_pretrained(str(folder))
    kind = getattr(settings.peft_type, "value", settings.peft_type)
    if settings.is_prompt_learning or getattr(settings, "is_adaption_prompt", False):
        raise ModelError(
            f"{folder}: an adapter of the kind {kind} puts its own tokens in front of every "
            "prompt, which is not supported; give a LoRA adapter"
        )
    settings.inference_mode = True
    hide_known_warnings()
    # ``PeftModel.from_pretrained`` only warns of absent weights and drops weights without a place.
    # So wrap first, then load, and refuse both.
    wrapper = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(settings.task_type, PeftModel)
    misfit = f"the adapter does not fit the base {base.name_or_path} (was it trained on another?)"
    with explained(folder, misfit):
        model = wrapper(base, settings)
        loaded = model.load_adapter(
            str(folder),
            "default",
            torch_device=str(base.device),
            key_mapping=getattr(base, "_checkpoint_conversion_mapping", {}),
        )
    wrong = sorted([*loaded.missing_keys, *loaded.unexpected_keys])
    if wrong:
        raise ModelError(
            f"{folder}: {misfit}: {len(wrong)} of its weights are missing or have no place in the "
            f"base, such as {wrong[0]}"
        )
    check_finite(model, folder)
    return model


def _check_kind(raw: Mapping[str, Any], name: object) -> None:
    from transformers import CONFIG_MAPPING, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if how := _quantisation(raw):
        raise ModelError(
            f"{name}: its weights are quantised ({how}), and only unquantised weights are loaded; "
            "give the unquantised model (to generate with this one, serve it with vLLM: --engine "
            "openai)"
        )
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"{name}: cannot be loaded: its {files.CONFIG} names no model_type")
    if kind not in CONFIG_MAPPING:
        own = "; it ships its own code, which rtune never runs" if raw.get("auto_map") else ""
        raise ModelError(
            f"{name}: cannot be loaded: transformers {__version__} does not know the model type "
            f"{kind!r}{own}"
        )
    # By ``architectures`` too: a Llama classifier has the model type of a Llama, and a random head
    # would be put in the place of its own.
    saved = [str(one) for one in raw.get("architectures") or []]
    other = [one for one in saved if _OTHER_TASKS.search(one)]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (saved and len(other) == len(saved)):
        raise ModelError(
            f"{name}: cannot be loaded: it is a {saved[0] if saved else repr(kind)}, not a causal "
            "language model"
        )


def _quantisation(raw: Mapping[str, Any]) -> str:
    """Return the quantisation that a configuration names; empty if it names none.

    Multimodal models keep it inside ``text_config`` or the like, so one level down counts too.
    """
    parts = [raw, *(part for part in raw.values() if isinstance(part, Mapping))]
    for part in parts:
        settings = part.get("quantization_config") or part.get("compression_config")
        if settings:
            settings = settings if isinstance(settings, Mapping) else {}
            method = settings.get("quant_method") or settings.get("quantization") or "unnamed"
            bits = settings.get("bits") or settings.get("w_bit")
            return f"{method}, {bits} bits" if bits else str(method)
    return ""


def _check_keys(report: Mapping[str, Any], name: object) -> None:
    """Refuse weights that are absent, have no place, or have another shape.

    ``report`` is transformers' ``output_loading_info``.
    """
    shapes = {
        weight: f"{weight} is {list(stored)} and not {list(expected)}"
        for weight, stored, expected in report["mismatched_keys"]
    }
    wrong = [shapes.get(weight, weight) for weight in sorted({*report["missing_keys"], *shapes})]
    left = sorted(report["unexpected_keys"])
    # Scales first: a quantised model also lacks weights, and "save it again" would not help.
    if left and any(map(_SCALES.search, left)):
        scale = next(weight for weight in left if _SCALES.search(weight))
        raise ModelError(
            f"{name}: its weights are quantised (they have scales such as {scale}), and only "
            "unquantised weights are loaded; give the unquantised model"
        )
    if wrong:
        raise ModelError(
            f"{name}: {len(wrong)} weights that config.json requires are missing or have another "
            f"shape, such as {wrong[0]}; save the model again"
        )
    if left:
        raise ModelError(
            f"{name}: {len(left)} weights have no place in the architecture that config.json names "
            f"and would be lost, such as {left[0]}; correct config.json, or save the model again"
        )


def _untie_if_different(model: "PreTrainedModel", name: object) -> None:
    """Correct a configuration that ties embeddings which differ: saving would lose one of them."""
    config = model.config.get_text_config()
    inputs: Any = model.get_input_embeddings()
    outputs: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not getattr(config, "tie_word_embeddings", False) or outputs is None:
        return
    if inputs.weight is not outputs.weight:
        logger.warning(
            "%s: config.json ties the embeddings of its input and output, but they differ; both "
            "are used (tie_word_embeddings: false)",
            name,
        )
        for each in (model.config, config):
            each.tie_word_embeddings = False
