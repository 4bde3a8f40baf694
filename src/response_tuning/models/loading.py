"""The one way in which models are loaded, to be tuned and to be asked alike.

Every weight is accounted for: none made up, none left out, none without its scale, none that is no
number. What a library cannot read is one line that names the model.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError, ResponseTuningError
from response_tuning.models import files
from response_tuning.models.checks import check_finite
from response_tuning.models.location import ModelFolder
from response_tuning.readers import one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

# Tasks that end no text; heads for them take the place of the one that predicts the next token.
_OTHER_TASKS = re.compile(r"For(MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice)$")
# What GPTQ, AWQ, bitsandbytes, FP8, compressed-tensors, HQQ and MXFP4 store beside their weights.
_SCALES = re.compile(
    r"(scales?|scale_inv|scale_\w+|SCB|absmax|quant_map|quant_state\S*|weight_format|g_idx"
    r"|q?weight_packed|weight_shape|qweight|qzeros|zeros|zero_points?|_blocks|_scales)$"
)


@contextmanager
def explained(name: object, what: str = "cannot be loaded") -> Iterator[None]:
    """Say in one line why a library cannot use the files of the model ``name``.

    Raises:
        ModelError: whatever else the block raises; memory that runs out is somebody else's matter.
    """
    import torch

    try:
        yield
    except (ResponseTuningError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise anything at files that they did not write
        raise ModelError(f"{name}: {what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return what a library says, on one line of bearable length."""
    text = one_line(error).rstrip(".")
    if isinstance(error, KeyError):
        return f"{text} is asked for and not there"
    told = isinstance(error, (OSError, ValueError, RuntimeError)) and bool(text)
    return text if told else f"{type(error).__name__}: {text}".removesuffix(": ")


def load_config(model: ModelFolder) -> "PretrainedConfig":
    """Return the configuration of a causal language model; no weights are read.

    Raises:
        ModelError: there is none, or it is that of another kind of model, or of quantised weights.
    """
    from transformers import AutoConfig, PreTrainedConfig

    name, folder = model.name, model.path
    with _by_its_name(model):
        files.check_folder(folder)
        kind = files.kind(folder)
    if kind == files.ADAPTER:
        raise ModelError(
            f"{name}: cannot be loaded: an adapter, and not a whole model; give its base, or merge "
            "it first"
        )
    with explained(name):
        raw: object = PreTrainedConfig.get_config_dict(folder)[0]
        if not isinstance(raw, dict):
            raise ModelError(f"{name}: cannot be loaded: its {files.CONFIG} is no JSON object")
        _check_kind(raw, name)
        found: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(found, "is_encoder_decoder", False):
        raise ModelError(
            f"{name}: cannot be loaded: '{found.model_type}' is an encoder-decoder model, and not "
            "a causal language model"
        )
    return found


def load_tokenizer(
    model: ModelFolder, what: str = "no usable tokenizer"
) -> "PreTrainedTokenizerBase":
    """Return a tokenizer.

    Raises:
        ModelError: there is none that can be used.
    """
    from transformers import AutoTokenizer

    with _by_its_name(model):
        files.check_folder(model.path)
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
    """Return a model with all of its weights and nothing else, from safetensors only.

    Raises:
        ModelError: it cannot be loaded so.
    """
    from transformers import AutoModelForCausalLM

    check_weights(model)
    config = load_config(model)
    with explained(model.name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.path,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            # Reported below in one line; weights that are absent would silently be random.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
    whole: PreTrainedModel
    whole, found = loaded
    # An adapter that is saved later names its base so: by its hub id, not by a folder of the cache.
    whole.name_or_path = whole.config.name_or_path = model.source
    _check_keys(found, model.name)
    _check_tied(whole, model.name)
    check_finite(whole, model.name)
    return whole


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
        ModelError: it is of a kind that is not supported, or does not fit the base.
    """
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel

    files.check_adapter(folder)
    with explained(folder, "the adapter's settings cannot be used"):
        settings = PeftConfig.from_pretrained(str(folder))
    kind = getattr(settings.peft_type, "value", settings.peft_type)
    if settings.is_prompt_learning or getattr(settings, "is_adaption_prompt", False):
        raise ModelError(
            f"{folder}: an adapter of the kind {kind} puts tokens of its own in front of every "
            "prompt, which is not supported; give a LoRA adapter"
        )
    settings.inference_mode = True
    wrapper = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(settings.task_type, PeftModel)
    misfit = f"the adapter does not fit the base {base.name_or_path} (was it trained on another?)"
    with explained(folder, misfit):
        model = wrapper(base, settings)
        found = model.load_adapter(
            str(folder),
            "default",
            torch_device=str(base.device),
            key_mapping=getattr(base, "_checkpoint_conversion_mapping", {}),
        )
    wrong = sorted([*found.missing_keys, *found.unexpected_keys])
    if wrong:
        raise ModelError(
            f"{folder}: {misfit}: {len(wrong)} of its weights have names that the base has no "
            f"place for, or are absent, such as {wrong[0]}"
        )
    check_finite(model, folder)
    return model


def _check_kind(raw: Mapping[str, Any], name: object) -> None:
    from transformers import CONFIG_MAPPING, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if how := _quantisation(raw):
        raise ModelError(
            f"{name}: its weights are quantised ({how}), and only unquantised weights are loaded; "
            "give the unquantised model (to ask this one, serve it with vLLM: --engine openai)"
        )
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"{name}: cannot be loaded: its {files.CONFIG} names no model_type")
    if kind not in CONFIG_MAPPING:
        own = "; it has code of its own, which is never run" if raw.get("auto_map") else ""
        raise ModelError(
            f"{name}: cannot be loaded: transformers {__version__} knows no model type "
            f"{kind!r}{own}"
        )
    saved = [str(one) for one in raw.get("architectures") or []]
    other = [one for one in saved if _OTHER_TASKS.search(one)]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (saved and len(other) == len(saved)):
        raise ModelError(
            f"{name}: cannot be loaded: it is a {saved[0] if saved else repr(kind)}, and not a "
            "causal language model"
        )


def _quantisation(raw: Mapping[str, Any]) -> str:
    """Return how a configuration says that its weights are quantised; empty where they are not."""
    parts = [raw, *(part for part in raw.values() if isinstance(part, Mapping))]
    for part in parts:
        settings = part.get("quantization_config") or part.get("compression_config")
        if settings:
            settings = settings if isinstance(settings, Mapping) else {}
            method = settings.get("quant_method") or settings.get("quantization") or "unnamed"
            bits = settings.get("bits") or settings.get("w_bit")
            return f"{method}, {bits} bits" if bits else str(method)
    return ""


def _check_keys(found: Mapping[str, Any], name: object) -> None:
    """Refuse weights that were made up, left out or cut to size."""
    shapes = {
        weight: f"{weight} is {list(stored)} and not {list(asked)}"
        for weight, stored, asked in found["mismatched_keys"]
    }
    wrong = [shapes.get(weight, weight) for weight in sorted({*found["missing_keys"], *shapes})]
    left = sorted(found["unexpected_keys"])
    if left and any(map(_SCALES.search, left)):
        scale = next(weight for weight in left if _SCALES.search(weight))
        raise ModelError(
            f"{name}: its weights are quantised (they have scales such as {scale}), and only "
            "unquantised weights are loaded; give the unquantised model"
        )
    if wrong:
        raise ModelError(
            f"{name}: {len(wrong)} weights that config.json asks for are absent or of another "
            f"shape, such as {wrong[0]}; save the model again"
        )
    if left:
        raise ModelError(
            f"{name}: {len(left)} weights have no place in the architecture that config.json names "
            f"and would be lost, such as {left[0]}; correct config.json, or save the model again"
        )


def _check_tied(model: "PreTrainedModel", name: object) -> None:
    """Correct a configuration that ties embeddings which differ: saved so, one would be lost."""
    config = model.config.get_text_config()
    read: Any = model.get_input_embeddings()
    spoken: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not getattr(config, "tie_word_embeddings", False) or spoken is None:
        return
    if read.weight is not spoken.weight:
        logger.warning(
            "%s: config.json ties the embeddings of its input and output, but they differ; both "
            "are used (tie_word_embeddings: false)",
            name,
        )
        for each in (model.config, config):
            each.tie_word_embeddings = False
