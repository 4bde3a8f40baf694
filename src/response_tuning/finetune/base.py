"""The base model: its identity, its tokenizer with the template saved inside, its weights."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import miniature
from response_tuning.artifacts import file_digest
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, ModelError
from response_tuning.templates import NATIVE, install

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def identity(config: FinetuneConfig) -> str:
    """Return what the base model is: a digest of its folder, or its hub id and commit.

    Raises:
        ModelError: there is no such folder, and neither the hub nor its cache here can say what
            the id stands for.
    """
    folder = Path(miniature.resolved(config.base_model))
    if folder.is_dir():
        return f"sha256:{file_digest(folder)}"
    if folder.exists() or config.base_model.startswith((".", "/", "~")):
        raise ModelError(f"{config.base_model}: not a folder with a model")
    from huggingface_hub import snapshot_download

    try:
        # One small file, because its folder is named after the commit, without a network too.
        snapshot = snapshot_download(
            config.base_model, revision=config.base_revision, allow_patterns=["config.json"]
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config.base_model}: no such folder, and the hub says: {_one_line(error)}; "
            "give a folder, or log in and accept the model's licence"
        ) from error
    return f"{config.base_model}@{Path(snapshot).name}"


def check_found(config: FinetuneConfig) -> None:
    """Refuse a base that is not there; unlike ``identity``, this reads no weights.

    Raises:
        ModelError: it is neither a folder nor an id that the hub or its cache knows.
    """
    if not Path(miniature.resolved(config.base_model)).is_dir():
        identity(config)


def load_tokenizer(config: FinetuneConfig) -> "PreTrainedTokenizerBase":
    """Return the tokenizer as it will be saved: with the template installed, saved and read back.

    What trains is then exactly what any server loads. No token is added.

    Raises:
        ModelError: it cannot be loaded, or has no EOS token.
        TemplateError: ``native`` is asked of a tokenizer that has no template.
    """
    from transformers import AutoTokenizer

    tokenizer = read_tokenizer(config)
    if tokenizer.chat_template and config.template != NATIVE:
        logger.warning(
            "%s already ships a chat template, so it may be tuned already: response tuning is "
            "about base models (the template is replaced by '%s')",
            config.base_model,
            config.template,
        )
    install(tokenizer, config.template)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def read_tokenizer(config: FinetuneConfig) -> "PreTrainedTokenizerBase":
    """Return the base's own tokenizer.

    Raises:
        ModelError: it cannot be loaded, or has no EOS token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            miniature.resolved(config.base_model),
            revision=config.base_revision,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.base_model}: no usable tokenizer: {_one_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{config.base_model}: its tokenizer has no EOS token to end an answer with"
        )
    return tokenizer


def load_model(config: FinetuneConfig) -> "PreTrainedModel":
    """Return the base model, from safetensors only; weights are fresh with ``random_init``.

    Raises:
        ConfigError: QLoRA without a GPU or without its extra.
        ModelError: the model cannot be loaded, or some of its weights are not in its files.
    """
    from transformers import AutoModelForCausalLM

    quantization = _quantization() if config.method == "qlora" else None
    if config.random_init:
        return _fresh_model(config)
    with _explained(config):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            miniature.resolved(config.base_model),
            revision=config.base_revision,
            dtype=weight_type(config),
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=False,
            # Reported below in one line; weights that are absent would silently be random.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    model: PreTrainedModel
    model, found = loaded
    wrong = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if wrong:
        raise ModelError(
            f"{config.base_model}: {len(wrong)} weights that config.json asks for are absent or of "
            f"another shape, such as {wrong[0]}; save the model again"
        )
    return model


def architecture(config: FinetuneConfig) -> "PretrainedConfig":
    """Return the base model's configuration; no weights are read.

    Raises:
        ModelError: there is none that can be used.
    """
    from transformers import AutoConfig

    with _explained(config):
        found: PretrainedConfig = AutoConfig.from_pretrained(
            miniature.resolved(config.base_model),
            revision=config.base_revision,
            trust_remote_code=False,
        )
    return found


def fitted(config: FinetuneConfig) -> FinetuneConfig:
    """Return ``config`` with a window that the model has positions for; a cut is said.

    Raises:
        ModelError: the base has no configuration that can be used.
    """
    positions = getattr(architecture(config).get_text_config(), "max_position_embeddings", None)
    if positions is None or config.window <= positions:
        return config
    logger.warning(
        "the window of %d tokens is cut to the %d positions of %s",
        config.window,
        positions,
        config.base_model,
    )
    return config.model_copy(update={"window": positions})


def _fresh_model(config: FinetuneConfig) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    shape = architecture(config)
    with torch.random.fork_rng(), _explained(config):
        torch.manual_seed(config.seed)
        fresh: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            shape, dtype=weight_type(config)
        )
    return fresh


def weight_type(config: FinetuneConfig) -> "torch.dtype":
    """Return the precision of the weights: full tuning keeps float32 and computes in bfloat16."""
    import torch

    frozen_base = config.method != "full"
    return torch.bfloat16 if frozen_base and computes_in_bfloat16(config) else torch.float32


def computes_in_bfloat16(config: FinetuneConfig) -> bool:
    """Say whether matrix products run in bfloat16."""
    import torch

    if config.precision == "auto":
        on_gpu = config.device != "cpu" and torch.cuda.is_available()
        return on_gpu and torch.cuda.is_bf16_supported()
    return config.precision == "bfloat16"


def with_adapter(model: "PreTrainedModel", config: FinetuneConfig) -> Any:  # noqa: ANN401 - PEFT's
    """Return ``model`` under a fresh LoRA adapter on every linear layer (paper, section 4.1)."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if config.method == "qlora":
        model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model, use_gradient_checkpointing=config.gradient_checkpointing
        )
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return get_peft_model(model, lora)


def check_quantization() -> None:
    """Refuse QLoRA where it cannot run.

    Raises:
        ConfigError: there is no GPU, or the extra is not installed.
    """
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("method 'qlora' needs a CUDA GPU; use --method lora here")
    try:
        import bitsandbytes  # noqa: F401 - only asked whether it is there
    except ImportError as error:
        raise ConfigError(
            "method 'qlora' needs bitsandbytes: pip install 'response-tuning[qlora]'"
        ) from error


def _quantization() -> Any:  # noqa: ANN401 - a transformers class, imported late
    """Return the paper's quantisation: NF4 with double quantisation, computing in bfloat16."""
    import torch
    from transformers import BitsAndBytesConfig

    check_quantization()
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


@contextmanager
def _explained(config: FinetuneConfig) -> Iterator[None]:
    """Say in one line why the base model cannot be loaded."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = _one_line(error).rstrip(".")
        # Said of a folder, and of a hub model, that has weights in another format or none at all.
        hint = "; convert its weights to safetensors" if "model.safetensors" in reason else ""
        raise ModelError(f"{config.base_model}: cannot be loaded: {reason}{hint}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
