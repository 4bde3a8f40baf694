"""Finding and loading a model: a local folder, an adapter on its base, or a hub id."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from response_tuning import miniature, templates
from response_tuning.artifacts import Message, Sampling, digest, file_digest, read_json
from response_tuning.errors import ModelError, TemplateError
from response_tuning.models import as_left, checks, files, loading
from response_tuning.models.decoding import Weights
from response_tuning.models.local import LocalModel, PromptError, quiet
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from transformers import GenerationConfig


_LOCAL = "local@"
"""How the identity of a folder begins; that of a hub model begins with its id."""


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
    known: as_left.Digests = {}
    folder, identity = _locate(model, revision, known)
    base, adapted = folder, files.kind(folder) == files.ADAPTER
    if adapted:
        base, base_identity = _locate_base(folder, known)
        identity = f"{identity}+{base_identity}"
        if base_identity.startswith(_LOCAL):
            as_left.check_base(folder, base, known)
    as_left.check_weights(folder, known)
    # Errors name the model that the user gave, or, where its base is at fault, that base.
    name = str(base) if adapted else model
    with quiet():
        loading.load_config(base, name)  # a tokenizer that is asked first says it in other words
        own = files.has_tokenizer(folder)
        tokenizer = loading.load_tokenizer(folder if own else base, model if own else name)
        templates.install(tokenizer, template or templates.NATIVE)
        chat = Chat(tokenizer)
        weights = _load_weights(base, name, device)
        rows = weights.get_input_embeddings().weight.shape[0]
        _check_vocabulary(chat, rows, model)
        if adapted:
            weights = loading.load_adapter(weights, folder)
        stop_ids = _stop_ids(chat, weights.generation_config, name)
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


def identity(model: str, revision: str = "main") -> str:
    """Return what a model is, without loading it.

    Raises:
        ModelError: it cannot be found.
    """
    folder, found = _locate(model, revision, {})
    if files.kind(folder) == files.ADAPTER:
        return f"{found}+{_locate_base(folder, {})[1]}"
    return found


def _locate(model: str, revision: str, known: as_left.Digests) -> tuple[Path, str]:
    """Return a local folder and its identity; ``known`` gets the digests of its files."""
    folder = Path(miniature.resolved(model))
    if folder.is_dir():
        found = files.files(folder)
        known |= {file: file_digest(file) for file in found}
        return folder, _LOCAL + digest(*(f"{file.name} {known[file]}" for file in found))
    if folder.exists():
        raise ModelError(f"{model}: a file; give the folder that holds the model")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"{model}: no such folder")
    folder = loading.snapshot(model, revision)
    return folder, f"{model}@{folder.name}"


def _locate_base(adapter: Path, known: as_left.Digests) -> tuple[Path, str]:
    """Return the folder and the identity of the model that ``adapter`` was trained on."""
    where = adapter / files.ADAPTER
    settings = read_json(where)
    named = settings.get("base_model_name_or_path")
    if not (named and isinstance(named, str)):
        raise ModelError(f"{where}: it names no base model; set base_model_name_or_path")
    try:
        base, identity = _locate(named, settings.get("revision") or "main", known)
        kind = files.kind(base)
    except ModelError as error:
        raise ModelError(f"{where}: its base model: {error}") from error
    if kind == files.ADAPTER:
        raise ModelError(f"{where}: its base model {base} is an adapter: merge that")
    return base, identity


def _load_weights(folder: Path, name: str, device: Literal["auto", "cpu"]) -> Weights:
    import torch

    on_gpu = device == "auto" and torch.cuda.is_available()
    short = on_gpu and torch.cuda.is_bf16_supported()
    return loading.load_weights(
        folder,
        name,
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
