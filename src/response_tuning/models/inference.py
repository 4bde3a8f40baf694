"""Load a model to generate or to score: a whole one, or an adapter on its base."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from response_tuning import templates
from response_tuning.artifacts import Message, Sampling
from response_tuning.errors import ModelError, TemplateError
from response_tuning.models import checks, files, integrity, loading
from response_tuning.models.decoding import Weights
from response_tuning.models.local import LocalModel, PromptError, quiet
from response_tuning.models.location import ModelFolder, locate, locate_base
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

Precision = Literal["auto", "float32", "bfloat16"]


def load(
    model: str,
    template: str | None = None,
    revision: str = "main",
    device: Literal["auto", "cpu"] = "auto",
    precision: Precision = "auto",
) -> LocalModel:
    """Load a model folder, a PEFT adapter folder or a hub model, on the first GPU or the CPU.

    Weights are bfloat16 on a GPU that supports it, else float32, unless ``precision`` says
    otherwise. ``template`` names the chat template for a model that has none, or replaces its own.

    Raises:
        ModelError: the model cannot be found, is incomplete, or changed after its run.
        ConfigError: there is no such template.
        TemplateError: the model has no chat template and ``template`` is None.
    """
    folder, base = _locate(model, revision)
    is_adapter = base != folder
    # Before gigabytes are loaded. The digests are kept, so the identity reads no file again.
    if is_adapter:
        integrity.check_base(folder.path, base)
    integrity.check_weights(folder.path)
    identity = f"{folder.identity}+{base.identity}" if is_adapter else folder.identity
    with quiet():
        chat = _load_chat(folder, base, template or templates.NATIVE)
        weights = _load_weights(base, device, precision)
        rows = weights.get_input_embeddings().weight.shape[0]
        _check_template_tokens(chat, rows, model)
        if is_adapter:
            weights = loading.load_adapter(weights, folder.path)
        # Read before the reset, which drops the folder's own stop tokens.
        declared = _declared_stops(weights.generation_config, base.name)
        reset_generation_config(weights)
    local = LocalModel(
        identity=identity,
        model=weights,
        chat=chat,
        stop_ids=_stop_ids(chat, declared),
        context=_context(weights.config),
        rows=rows,
        declared_stops=declared,
    )
    _try_generating(local, model)
    return local


def with_template(
    local: LocalModel, model: str, template: str, revision: str = "main"
) -> LocalModel:
    """Return a loaded model under another template that it could be tuned with; weights are shared.

    Args:
        local: What ``load`` returned.
        model: The name that it was loaded by.
        template: A template's name or file.
        revision: As it was loaded.

    Raises:
        ConfigError: there is no such template.
        TemplateError: the model cannot be tuned with it: it prints no single stop token at the end
            of a turn, or has no opening.
        ModelError: the template uses a token that the model has no embedding for.
    """
    with quiet():
        chat = _load_chat(*_locate(model, revision), template)
        stop_ids = (chat.turn_end.stop_id,)
        if not chat.encode(chat.opening):
            raise TemplateError(templates.UNPREDICTED)
        if local.rows is not None:
            _check_template_tokens(chat, local.rows, model)
    return replace(local, chat=chat, stop_ids=stop_ids)


def under_template(
    local: LocalModel, model: str, template: str, revision: str = "main"
) -> LocalModel:
    """Return a loaded model as ``load`` returns it with ``template``; weights are shared.

    Any template will do, for example one with stop strings; see ``with_template`` for tuning.

    Raises:
        ConfigError: there is no such template.
        TemplateError: the model has no template of its own, and ``template`` is ``native``.
        ModelError: the template uses a token that the model has no embedding for.
    """
    with quiet():
        chat = _load_chat(*_locate(model, revision), template)
        if local.rows is not None:
            _check_template_tokens(chat, local.rows, model)
        return replace(local, chat=chat, stop_ids=_stop_ids(chat, local.declared_stops))


def load_chat(model: str, template: str | None = None, revision: str = "main") -> Chat:
    """Return the tokenizer of a model with its chat template, without its weights.

    Raises:
        ModelError: the model or its tokenizer cannot be found.
        ConfigError: there is no such template.
        TemplateError: the model has no chat template and ``template`` is None.
    """
    with quiet():
        return _load_chat(*_locate(model, revision), template or templates.NATIVE)


def has_native_template(model: str, revision: str = "main") -> bool:
    """Whether a model's tokenizer has a chat template of its own.

    Raises:
        ModelError: the model or its tokenizer cannot be found.
    """
    with quiet():
        return bool(_load_tokenizer(*_locate(model, revision)).chat_template)


def check_loadable(model: str, revision: str = "main") -> None:
    """Refuse a model folder, an adapter or a hub model that ``load`` could not read.

    Reads configurations and the headers of weights, so it costs next to nothing.

    Raises:
        ModelError: the model, or an adapter's base, is missing, damaged or of another kind.
    """
    folder = locate(model, revision)
    if files.kind(folder.path) == files.ADAPTER_CONFIG:
        files.check_adapter(folder.path)
        folder = locate_base(folder)
    if files.has_weights(folder.path):
        loading.check_weights(folder)
    loading.load_config(folder)


def context_of(model: str, revision: str = "main") -> int | None:
    """Return the longest sequence of a model in tokens, without its weights; None if unlimited.

    Raises:
        ModelError: the model's configuration cannot be read.
    """
    return _context(loading.load_config(_locate(model, revision)[1]))


def _context(config: "PretrainedConfig") -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def reset_generation_config(model: Weights) -> None:
    """Drop the folder's temperature, penalties and the like: ``Sampling`` alone decides."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig.from_dict({})


def _locate(model: str, revision: str) -> tuple[ModelFolder, ModelFolder]:
    """Return the folder of a model and that of its base; they differ for an adapter."""
    folder = locate(model, revision)
    is_adapter = files.kind(folder.path) == files.ADAPTER_CONFIG
    return folder, locate_base(folder) if is_adapter else folder


def _load_chat(folder: ModelFolder, base: ModelFolder, template: str) -> Chat:
    tokenizer = _load_tokenizer(folder, base)
    templates.install(tokenizer, template)
    return Chat(tokenizer)


def _load_tokenizer(folder: ModelFolder, base: ModelFolder) -> "PreTrainedTokenizerBase":
    # The configuration first: the tokenizer's loader reads it too, and explains errors worse.
    loading.load_config(base)
    return loading.load_tokenizer(folder if files.has_tokenizer(folder.path) else base)


def _load_weights(
    base: ModelFolder, device: Literal["auto", "cpu"], precision: Precision
) -> Weights:
    import torch

    from response_tuning.models.head import copy_strided_inputs

    on_gpu = device == "auto" and torch.cuda.is_available()
    if precision == "auto":
        precision = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
    weights = loading.load_weights(
        base,
        dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
        device_map="cuda" if on_gpu else "cpu",
    )
    if precision == "bfloat16":
        copy_strided_inputs(weights)
    return weights


def _check_template_tokens(chat: Chat, rows: int, name: str) -> None:
    """Refuse a template that uses tokens the model's embedding of ``rows`` rows has none for."""
    without_row = checks.tokens_without_row(chat.tokenizer, rows)
    if without_row:
        used = chat.encode(chat.prompt([Message(role="user", content="")]))
        checks.check_ids(used, without_row, f"{name}: the chat template uses")


def _try_generating(local: LocalModel, name: str) -> None:
    """Generate two tokens and drop them: a model that cannot generate fails before the work.

    Raises:
        ModelError: it is no causal language model, or cannot generate.
    """
    sampling = Sampling(max_new_tokens=2)
    with loading.explained(name, "cannot generate"):
        checks.check_causal(local.model, name)
        try:
            draft = local.draft([Message(role="user", content="Hello")], sampling)
        except (TemplateError, PromptError):
            return  # each real prompt then reports it as its own error
        local.extend([draft], sampling)


def _stop_ids(chat: Chat, declared: tuple[int, ...]) -> tuple[int, ...]:
    """Return the template's stop token first, then the stop tokens that the model declares."""
    try:
        turn_end = [chat.turn_end.stop_id]
    except TemplateError:  # turns end in text, as in a prompt of examples: stop strings end them
        turn_end = []
    return tuple(dict.fromkeys([*turn_end, *declared]))


def _declared_stops(generation_config: "GenerationConfig", name: str) -> tuple[int, ...]:
    declared = generation_config.eos_token_id
    own = declared if isinstance(declared, list) else [] if declared is None else [declared]
    if not all(isinstance(stop, int) for stop in own):
        raise ModelError(
            f"{name}: eos_token_id in {files.GENERATION_CONFIG} is no token id: {declared!r}"
        )
    return tuple(own)
