"""Finding and loading a model: a local folder, an adapter on its base, or a hub id."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from response_tuning import miniature, templates
from response_tuning.artifacts import digest, file_digest, read_json
from response_tuning.errors import ModelError, TemplateError
from response_tuning.generate.decoding import Weights
from response_tuning.generate.engine import one_line
from response_tuning.generate.local import LocalModel, quiet
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

_ADAPTER, _CONFIG = "adapter_config.json", "config.json"
_WEIGHTS = {
    _ADAPTER: ["adapter_model.safetensors"],
    _CONFIG: ["model.safetensors", "model.safetensors.index.json"],
}
_TOKENIZER = ["tokenizer*", "*.model", "vocab*", "merges.txt"]
_FILES = [
    *["*config.json", "adapter_model.safetensors", "model*.safetensors*"],
    *[*_TOKENIZER, "special_tokens_map.json", "added_tokens.json", "chat_template*"],
]
"""All that decides what a model says. Of a hub repository, nothing else is downloaded."""


def load(
    model: str,
    template: str | None = None,
    revision: str = "main",
    device: Literal["auto", "cpu"] = "auto",
) -> LocalModel:
    """Load a model folder, a PEFT adapter folder or a hub model, on the first GPU or the CPU.

    Weights are bfloat16 on a GPU that has it, else float32. ``template`` names the chat template
    for a model that has none, or in place of its own.

    Raises:
        ModelError: the model cannot be found, or is not complete.
        ConfigError: there is no such template.
        TemplateError: the model has no chat template and none is named.
    """
    folder, identity = _locate(model, revision)
    base, adapted = folder, _kind(folder) == _ADAPTER
    if adapted:
        base, base_identity = _locate_base(folder)
        identity = f"{identity}+{base_identity}"
    has_tokenizer = any(True for pattern in _TOKENIZER for _ in folder.glob(pattern))
    with quiet():
        tokenizer = _load_tokenizer(folder if has_tokenizer else base)
        templates.install(tokenizer, template or templates.NATIVE)
        weights = _load_weights(base, device)
        if adapted:
            weights = _load_adapter(weights, folder)
        stop_ids = _stop_ids(Chat(tokenizer), weights.generation_config)
        _forget_taste(weights)
    return LocalModel(
        identity=identity,
        model=weights,
        chat=Chat(tokenizer),
        stop_ids=stop_ids,
        context=getattr(weights.config.get_text_config(), "max_position_embeddings", None),
    )


def identity(model: str, revision: str = "main") -> str:
    """Return what a model is, without loading it.

    Raises:
        ModelError: it cannot be found.
    """
    folder, found = _locate(model, revision)
    return f"{found}+{_locate_base(folder)[1]}" if _kind(folder) == _ADAPTER else found


def _locate(model: str, revision: str) -> tuple[Path, str]:
    """Return a local folder and its identity."""
    folder = Path(miniature.resolved(model))
    if folder.is_dir():
        files = sorted({file for pattern in _FILES for file in folder.glob(pattern)})
        return folder, f"local@{digest(*(f'{file.name} {file_digest(file)}' for file in files))}"
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"{model}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model}: neither a folder nor a model that the hub can give: {one_line(str(error))}"
        ) from error
    return folder, f"{model}@{folder.name}"


def _locate_base(adapter: Path) -> tuple[Path, str]:
    """Return the folder and the identity of the model that ``adapter`` was trained on."""
    settings = read_json(adapter / _ADAPTER)
    named = str(settings.get("base_model_name_or_path"))
    try:
        base, identity = _locate(named, settings.get("revision") or "main")
        kind = _kind(base)
    except ModelError as error:
        raise ModelError(f"{adapter / _ADAPTER}: its base model: {error}") from error
    if kind == _ADAPTER:
        raise ModelError(f"{adapter / _ADAPTER}: its base model {base} is an adapter: merge that")
    return base, identity


def _kind(folder: Path) -> str:
    """Return the name of the file that says what ``folder`` holds: an adapter or a whole model."""
    for kind, weights in _WEIGHTS.items():
        if (folder / kind).is_file():
            if not any((folder / name).is_file() for name in weights):
                raise ModelError(
                    f"{folder}: no {weights[0]}; save the weights with save_pretrained, since "
                    "other formats than safetensors are not loaded"
                )
            return kind
    raise ModelError(f"{folder}: no {_CONFIG} or {_ADAPTER}, so it is no model folder")


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: the tokenizer cannot be loaded: {one_line(str(error))}"
        ) from error
    return tokenizer


def _load_weights(folder: Path, device: Literal["auto", "cpu"]) -> Weights:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    on_gpu = device == "auto" and torch.cuda.is_available()
    short = on_gpu and torch.cuda.is_bf16_supported()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if short else torch.float32,
            device_map="cuda" if on_gpu else "cpu",
            use_safetensors=True,
            trust_remote_code=False,
            # Reported below in one line; weights that are absent would silently be random.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded: {one_line(str(error))}") from error
    model, found = loaded
    wrong = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} weights that {_CONFIG} asks for are absent or of another "
            f"shape, such as {wrong[0]}; save the model again"
        )
    return model


def _load_adapter(base: Weights, folder: Path) -> Weights:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # peft 0.21 asks for this attribute, which transformers 5.23 is about to rename.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            return PeftModel.from_pretrained(base, folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: the adapter cannot be loaded: {one_line(str(error))}"
        ) from error


def _stop_ids(chat: Chat, generation_config: "GenerationConfig") -> tuple[int, ...]:
    """Return the template's stop token first, then those that the model declares itself."""
    declared = generation_config.eos_token_id
    own = declared if isinstance(declared, list) else [] if declared is None else [declared]
    try:
        turn_end = [chat.turn_end.stop_id]
    except TemplateError:  # turns end in text, as in a prompt of examples: stop strings see to it
        turn_end = []
    return tuple(dict.fromkeys([*turn_end, *own]))


def _forget_taste(model: Weights) -> None:
    """Drop the folder's temperature, penalties and the like: ``Sampling`` alone decides."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig.from_dict({})
