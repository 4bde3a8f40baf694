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


def reason(error: BaseException) -> str:
    """Return what a library says, on one line of bearable length."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    if isinstance(error, KeyError):
        return f"{text} is asked for and not there"
    told = isinstance(error, (OSError, ValueError, RuntimeError)) and bool(text)
    return text if told else f"{type(error).__name__}: {text}".removesuffix(": ")


def load_config(source: str | Path, name: object, revision: str = "main") -> "PretrainedConfig":
    """Return the configuration of a causal language model; no weights are read.

    Raises:
        ModelError: there is none, or it is that of another kind of model, or of quantised weights.
    """
    from transformers import AutoConfig, PreTrainedConfig

    files.check_folder(Path(source))
    if Path(source).is_dir() and files.kind(Path(source)) == files.ADAPTER:
        raise ModelError(
            f"{name}: cannot be loaded: an adapter, and not a whole model; give its base, or merge "
            "it first"
        )
    with explained(name):
        raw: object = PreTrainedConfig.get_config_dict(source, revision=revision)[0]
        if not isinstance(raw, dict):
            raise ModelError(f"{name}: cannot be loaded: its {files.CONFIG} is no JSON object")
        _check_kind(raw, name)
        found: PretrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    if getattr(found, "is_encoder_decoder", False):
        raise ModelError(
            f"{name}: cannot be loaded: '{found.model_type}' is an encoder-decoder model, and not "
            "a causal language model"
        )
    return found


def load_tokenizer(
    source: str | Path, name: object, revision: str = "main", what: str = "no usable tokenizer"
) -> "PreTrainedTokenizerBase":
    """Return a tokenizer.

    Raises:
        ModelError: there is none that can be used.
    """
    from transformers import AutoTokenizer

    files.check_folder(Path(source))
    if Path(source).is_dir() and not files.has_tokenizer(Path(source)):
        raise ModelError(f"{name}: {what}: it has no tokenizer.json; copy it there")
    with explained(name, what):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    return tokenizer


def load_weights(
    source: str | Path,
    name: object,
    revision: str = "main",
    **how: Any,  # noqa: ANN401 - dtype, device, quantisation
) -> "PreTrainedModel":
    """Return a model with all of its weights and nothing else, from safetensors only.

    Raises:
        ModelError: it cannot be loaded so.
    """
    from transformers import AutoModelForCausalLM

    if Path(source).is_dir():
        files.check_weights(Path(source))
    config = load_config(source, name, revision)
    if not Path(source).is_dir():
        _check_snapshot(str(source), name, revision)
    with explained(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            # Reported below in one line; weights that are absent would silently be random.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
    model: PreTrainedModel
    model, found = loaded
    _check_keys(found, name)
    _check_tied(model, name)
    check_finite(model, name)
    return model


def snapshot(model: str, revision: str = "main") -> Path:
    """Return the folder with all that is needed of a hub model, downloaded unless it is cached.

    Raises:
        ModelError: neither the hub nor its cache can give it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=files.FILES))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model}: neither a folder nor a model that the hub can give: {reason(error)}"
        ) from error


def _check_snapshot(model: str, name: object, revision: str) -> None:
    """Refuse weights of the hub that would be refused in a folder."""
    try:
        files.check_weights(snapshot(model, revision))
    except ModelError as error:
        said = str(error)
        raise ModelError(said if said.startswith(f"{name}: ") else f"{name}: {said}") from error


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
