"""A model is loaded to generate: whole, or as an adapter on its base."""

from typing import TYPE_CHECKING, Literal

from response_tuning import templates
from response_tuning.artifacts import Message, Sampling
from response_tuning.errors import ModelError, TemplateError
from response_tuning.models import as_left, checks, files, loading
from response_tuning.models.decoding import Weights
from response_tuning.models.local import LocalModel, PromptError, quiet
from response_tuning.models.location import ModelFolder, locate, locate_base
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from transformers import GenerationConfig


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
        ModelError: the model cannot be found, is not complete, or no longer what its run left.
        ConfigError: there is no such template.
        TemplateError: the model has no chat template and none is named.
    """
    found = locate(model, revision)
    adapted = files.kind(found.path) == files.ADAPTER
    # Errors name the model that the user gave, or, where its base is at fault, that base.
    base = locate_base(found) if adapted else found
    if adapted:
        as_left.check_base(found.path, base)
    as_left.check_weights(found.path)
    identity = f"{found.identity}+{base.identity}" if adapted else found.identity
    with quiet():
        loading.load_config(base)  # a tokenizer that is asked first says it in other words
        tokenizer = loading.load_tokenizer(found if files.has_tokenizer(found.path) else base)
        templates.install(tokenizer, template or templates.NATIVE)
        chat = Chat(tokenizer)
        weights = _load_weights(base, device)
        rows = weights.get_input_embeddings().weight.shape[0]
        _check_vocabulary(chat, rows, model)
        if adapted:
            weights = loading.load_adapter(weights, found.path)
        stop_ids = _stop_ids(chat, weights.generation_config, base.name)
        _forget_taste(weights)
    local = LocalModel(
        identity=identity,
        model=weights,
        chat=chat,
        stop_ids=stop_ids,
        context=getattr(weights.config.get_text_config(), "max_position_embeddings", None),
        rows=rows,
    )
    _try(local, model)
    return local


def _load_weights(base: ModelFolder, device: Literal["auto", "cpu"]) -> Weights:
    import torch

    on_gpu = device == "auto" and torch.cuda.is_available()
    short = on_gpu and torch.cuda.is_bf16_supported()
    return loading.load_weights(
        base,
        dtype=torch.bfloat16 if short else torch.float32,
        device_map="cuda" if on_gpu else "cpu",
    )


def _check_vocabulary(chat: Chat, rows: int, name: str) -> None:
    """Refuse a template that uses tokens for which the model has no embedding."""
    strange = checks.beyond(chat.tokenizer, rows)
    if strange:
        used = chat.encode(chat.prompt([Message(role="user", content="")]))
        checks.check_ids(used, strange, f"{name}: the chat template uses")


def _try(local: LocalModel, name: str) -> None:
    """Have the model say two words, of which nothing is kept: what is wrong shows before the work.

    Raises:
        ModelError: it is no causal language model, or cannot say anything.
    """
    sampling = Sampling(max_new_tokens=2)
    with loading.explained(name, "cannot say anything"):
        checks.check_causal(local.model, name)
        try:
            draft = local.draft([Message(role="user", content="Hello")], sampling)
        except (TemplateError, PromptError):
            return  # then every prompt has that to say of itself
        local.extend([draft], sampling)


def _stop_ids(chat: Chat, generation_config: "GenerationConfig", name: str) -> tuple[int, ...]:
    """Return the template's stop token first, then those that the model declares itself."""
    declared = generation_config.eos_token_id
    own = declared if isinstance(declared, list) else [] if declared is None else [declared]
    if not all(isinstance(stop, int) for stop in own):
        raise ModelError(f"{name}: eos_token_id in {files.GENERATION} is no token id: {declared!r}")
    try:
        turn_end = [chat.turn_end.stop_id]
    except TemplateError:  # turns end in text, as in a prompt of examples: stop strings see to it
        turn_end = []
    return tuple(dict.fromkeys([*turn_end, *own]))


def _forget_taste(model: Weights) -> None:
    """Drop the folder's temperature, penalties and the like: ``Sampling`` alone decides."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig.from_dict({})
