"""The base model as it is tuned: its tokenizer with the template saved inside, its weights."""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import digest
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, ModelError
from response_tuning.finetune.generation import carried_over
from response_tuning.models import checks, files, loading
from response_tuning.models.location import ModelFolder, locate
from response_tuning.templates import Chat, install, is_native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from response_tuning.finetune.rows import EncodedRow


logger = logging.getLogger(__name__)


def located(config: FinetuneConfig, *, weights: bool = False) -> ModelFolder:
    """Return the folder of the base model; of a hub model without its weights, unless ``weights``.

    Raises:
        ModelError: it is neither a folder nor an id that the hub or its cache knows.
    """
    return locate(config.base_model, config.base_revision, weights=weights)


def load_tokenizer(config: FinetuneConfig) -> "PreTrainedTokenizerBase":
    """Return the tokenizer as it will be saved: with the template installed, saved and read back.

    What trains is then exactly what any server loads. No token is added.

    Raises:
        ModelError: it cannot be loaded, or has no EOS token.
        TemplateError: the template is ``native`` and the tokenizer has none.
    """
    tokenizer = read_tokenizer(config)
    is_tuned_here = config.continue_from is not None
    if tokenizer.chat_template and not is_native(config.template) and not is_tuned_here:
        logger.warning(
            "%s already ships a chat template, so it may be tuned already: response tuning is "
            "about base models (the template is replaced by '%s')",
            config.base_model,
            config.template,
        )
    install(tokenizer, config.template)
    return read_back(tokenizer, config)


def read_back(
    tokenizer: "PreTrainedTokenizerBase", config: FinetuneConfig
) -> "PreTrainedTokenizerBase":
    """Return a tokenizer saved and read again, because saving can change it.

    Raises:
        ModelError: it cannot be loaded again.
    """
    from transformers import AutoTokenizer

    what = "no usable tokenizer"
    with tempfile.TemporaryDirectory() as folder, loading.explained(config.base_model, what):
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def read_tokenizer(config: FinetuneConfig) -> "PreTrainedTokenizerBase":
    """Return the base's own tokenizer.

    Raises:
        ModelError: it cannot be loaded, or has no EOS token.
    """
    tokenizer = loading.load_tokenizer(located(config))
    if tokenizer.eos_token_id is None:
        name = config.base_model
        raise ModelError(f"{name}: its tokenizer has no EOS token to end an answer with")
    return tokenizer


def load_model(config: FinetuneConfig) -> "PreTrainedModel":
    """Return the base model, from safetensors only; weights are fresh with ``random_init``.

    Raises:
        ConfigError: QLoRA without a GPU or without its extra.
        ModelError: the model cannot be loaded, or some of its weights are not in its files.
    """
    if config.method == "qlora":
        check_quantization()
    quantization = _quantization(config) if config.method == "qlora" else None
    if config.random_init:
        model = _fresh_model(config)
    else:
        model = loading.load_weights(
            located(config, weights=True),
            dtype=weight_type(config),
            quantization_config=quantization,
        )
    try_saving(model, config.base_model)
    return model


def load_dequantized(config: FinetuneConfig) -> "PreTrainedModel":
    """Return the base as QLoRA trained against it: its 4-bit weights, dequantized to bfloat16.

    Raises:
        ConfigError: bitsandbytes is not installed. It needs no GPU for this.
        ModelError: the model cannot be loaded.
    """
    check_bitsandbytes()
    model: Any = loading.load_weights(
        located(config, weights=True),
        dtype=weight_type(config),
        quantization_config=_quantization(config),
    )
    plain: PreTrainedModel = model.dequantize()
    return plain


def try_saving(model: "PreTrainedModel", name: str) -> None:
    """Save what transformers may refuse to save before hours of training, and not after them.

    Of the base's generation config, only what suits a tuned model is left; see ``carried_over``.

    Raises:
        ModelError: its configuration cannot be saved.
    """
    unsaved = "its config.json cannot be saved again"
    with tempfile.TemporaryDirectory() as folder, loading.explained(name, unsaved):
        model.config.save_pretrained(folder)
    model.generation_config, remarks = carried_over(model.generation_config)
    if remarks:
        logger.warning(
            "%s: its generation_config.json is carried over in part (token ids, and sampling "
            "settings that are valid): the tuned model's %s",
            name,
            ", and ".join(remarks),
        )


def with_known_ids(
    config: FinetuneConfig, chat: Chat, rows: "Iterable[EncodedRow]"
) -> "Iterator[EncodedRow]":
    """Yield ``rows``, of which each id has a row in the base model's embedding.

    Raises:
        ModelError: an id has none.
    """
    embedded = architecture(config).get_text_config().vocab_size
    without_row = checks.tokens_without_row(chat.tokenizer, embedded)
    template = f"{config.base_model}: the chat template '{config.template}' uses"
    checks.check_ids(chat.encode(chat.opening), without_row, template)
    checks.check_ids([chat.turn_end.stop_id], without_row, template)
    for row in rows:
        where = f"{config.base_model}: row {row.example.row} has"
        checks.check_ids(row.input_ids if without_row else [], without_row, where)
        yield row


def architecture(config: FinetuneConfig) -> "PretrainedConfig":
    """Return the base model's configuration; no weights are read.

    Raises:
        ModelError: the base has no configuration that can be used.
    """
    model = located(config)
    if files.has_weights(model.path) and not config.random_init:
        loading.check_weights(model)  # their headers alone; a plan needs no weights
    return loading.load_config(model)


def fitted(config: FinetuneConfig) -> FinetuneConfig:
    """Return ``config`` with a window that the model has positions for; log a cut.

    Raises:
        ModelError: the base has no configuration that can be used.
    """
    window = fitted_window(config)
    if window == config.window:
        return config
    logger.warning(
        "the window of %d tokens is cut to the %d positions of %s",
        config.window,
        window,
        config.base_model,
    )
    return config.model_copy(update={"window": window})


def fitted_window(config: FinetuneConfig) -> int:
    """Return the window, or the number of the model's positions if there are fewer."""
    positions = getattr(architecture(config).get_text_config(), "max_position_embeddings", None)
    return config.window if positions is None else min(config.window, positions)


def tokenizer_digest(config: FinetuneConfig, chat: Chat) -> str:
    """Return a digest of all that decides ids and stop tokens, but for the template.

    The model has a part in it: tokens that its embedding has no row for are refused. Models of one
    family have equal digests, whatever their size.
    """
    embedded = architecture(config).get_text_config().vocab_size
    tokenizer: Any = chat.tokenizer
    return digest(
        tokenizer.backend_tokenizer.to_str(),  # an encoder has refused a tokenizer without one
        json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str),
        json.dumps(sorted(checks.tokens_without_row(tokenizer, embedded))),
    )


def _fresh_model(config: FinetuneConfig) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    shape = architecture(config)
    with torch.random.fork_rng(), loading.explained(config.base_model):
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
    what = "LoRA cannot be put on its linear layers (use --method full)"
    # The adapter names its base by the commit: the hub's main branch may move on.
    commit = located(config).commit or None
    with torch.random.fork_rng(), loading.explained(config.base_model, what):
        torch.manual_seed(config.seed)
        adapted: Any = get_peft_model(model, lora, revision=commit)
    # PEFT keeps them as a set, whose order differs from process to process, and saves it so.
    for settings in adapted.peft_config.values():
        settings.target_modules = sorted(settings.target_modules)
    return adapted


def check_stop(model: "PreTrainedModel", chat: Chat, config: FinetuneConfig) -> None:
    """Refuse an adapter on layers where the model could never say the template's stop token.

    Raises:
        ModelError: the stop token's row is untrained, and stays so.
    """
    stop = chat.turn_end.stop_id
    if config.method == "full" or not checks.is_untrained(model, stop):
        return
    token = chat.decode([stop])
    other = "--template tulu, which ends replies with the base's EOS token"
    if stop == chat.tokenizer.eos_token_id:  # tulu stops at EOS too
        other = "a --template whose stop token the base was trained on"
    raise ModelError(
        f"{config.base_model}: the template '{config.template}' ends a reply with {token!r} (id "
        f"{stop}), whose output embedding is untrained, and an adapter on the linear layers leaves "
        f"it so: no reply would ever stop; use --method full, or {other}"
    )


def stop_at(chat: Chat, generation: "GenerationConfig", config: FinetuneConfig) -> dict[str, Any]:
    """Set the stop token of ``generation``, the base's config, to the template's; describe it.

    Other tools read the generation config of the base, not the one beside an adapter. Where the
    base has another stop token, a warning says so.
    """
    stop, before = chat.turn_end.stop_id, generation.eos_token_id
    found = {
        "token": chat.decode([stop]),
        "id": stop,
        "of_base": stop in (before if isinstance(before, list) else [before]),
    }
    if config.method != "full" and not (found["of_base"] or config.merge):
        logger.warning(
            "a reply stops at %s, where other tools that load an adapter stop at the base model's "
            "stop token, which is another one: merge it for them (--merge), or see README.md",
            found["token"],
        )
    generation.eos_token_id = generation.pad_token_id = stop
    return found


def check_space(model: "PreTrainedModel", config: FinetuneConfig, out: Path) -> None:
    """Refuse a disk that has no room for the tuned model alone; checkpoints take more.

    Raises:
        ConfigError: the disk has too little room.
    """
    if config.method != "full" and not config.merge:
        return
    needed = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    # ``out`` may not exist yet: its nearest existing parent is on the same disk.
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    if free < needed:
        raise ConfigError(
            f"{out}: the disk has {free / 2**30:.2f} GiB left, and the tuned model takes "
            f"{needed / 2**30:.2f} GiB; free some, or choose another --out"
        )


def check_quantization() -> None:
    """Refuse QLoRA where it cannot run.

    Raises:
        ConfigError: there is no GPU, or the extra is not installed.
    """
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("method 'qlora' needs a CUDA GPU; use --method lora here")
    check_bitsandbytes()


def check_bitsandbytes() -> None:
    """Refuse 4-bit weights where bitsandbytes is not installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import bitsandbytes  # noqa: F401 - checks that it is installed
    except ImportError as error:
        raise ConfigError(
            "4-bit weights need bitsandbytes: pip install 'response-tuning[qlora]'"
        ) from error


def _quantization(config: FinetuneConfig) -> Any:  # noqa: ANN401 - a transformers class
    """Return the paper's quantisation: NF4 with double quantisation, computing in bfloat16.

    FSDP2 divides floating-point numbers only, so that the bytes of 4-bit weights are then stored as
    bfloat16 numbers. Their values are the same.
    """
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16 if config.shard else torch.uint8,
    )
