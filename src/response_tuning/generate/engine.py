"""The one protocol through which the rest of the package runs a model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic_core import PydanticSerializationError

from response_tuning.artifacts import Completion, Request, Sampling, digest
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, DataError, unused
from response_tuning.registry import Registry


class Engine(Protocol):
    """A model that completes prompts."""

    @property
    def model(self) -> str:
        """Identity of the model: other weights have another identity."""
        ...

    @property
    def template(self) -> str:
        """Identity of the chat template that turns messages into a prompt."""
        ...

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield one completion for each request when it is finished, in any order.

        A request that fails is a completion with an ``error``.

        Raises:
            EngineError: the engine cannot answer any request.
        """
        ...


ENGINES: Registry[Callable[[EngineConfig], Engine]] = Registry(
    "engine", package="response_tuning.generate.engines"
)


def open_engine(name: str, config: EngineConfig) -> Engine:
    """Load or connect to the model that ``config`` describes.

    Raises:
        ConfigError: there is no such engine, or a required setting is missing.
        ModelError: the model cannot be loaded.
        TemplateError: the model has no chat template and the settings name none.
    """
    engine = ENGINES.get(name)
    check_settings(name, config)
    return engine(config)


_READ_BY: dict[str, frozenset[str]] = {
    "hf": frozenset({"model", "revision", "template", "device", "precision"})
    | {"tokens_per_batch", "rules", "confidence", "digits"},
    "openai": frozenset({"model", "template", "base_url", "replicas", "concurrency"})
    | {"timeout_s", "max_retries", "api_key_env"},
    "openai-batch": frozenset({"model", "template", "base_url"})
    | {"timeout_s", "max_retries", "api_key_env"},
    "scripted": frozenset({"model", "table"}),
    "miniature": frozenset({"model"}),
}
"""Settings that each built-in engine uses; an engine of the user's may use any.
Commands that need a name give ``scripted`` a model, and ``openai`` itself explains why it takes no
template."""


_UNFILTERED = frozenset({"hf", "scripted", "miniature"})
"""Built-in engines without a content filter; an engine of the user's may have one."""


def check_retry(engines: Iterable[str], *, retry_filtered: bool) -> None:
    """Refuse ``retry_filtered`` if none of ``engines`` can have a content filter.

    Raises:
        ConfigError: one line that names the flag.
    """
    if _UNFILTERED.issuperset(engines):
        unused("no server is used, so there is no filter", retry_filtered=retry_filtered)


def check_settings(name: str, config: EngineConfig) -> None:
    """Refuse settings that have no effect on the engine ``name``, and a model that is missing.

    Raises:
        ConfigError: one line that names the first of them.
    """
    if name == "hf" and config.model is None:
        raise ConfigError("engine 'hf': give it a model folder, a .gguf file or a hub id (--model)")
    for key, field in EngineConfig.model_fields.items():
        given = getattr(config, key) != field.default
        if given and key not in _READ_BY.get(name, EngineConfig.model_fields):
            raise ConfigError(f"engine '{name}' has no use for {key}; remove it")
    local = Path(config.model or "")
    if name == "hf" and config.revision != "main" and config.model and local.exists():
        what = "folder" if local.is_dir() else "file"
        raise ConfigError(f"revision: {config.model} is a {what}, which has none; remove it")


def key(engine: Engine, request: Request, sampling: Sampling) -> str:
    """Return the key of a completion: a digest of model, template, sampling and prompt.

    Not of the item's id or the engine's settings: equal keys mean an interchangeable answer.

    Raises:
        DataError: the prompt cannot be written as UTF-8.
    """
    try:
        prompt = [message.model_dump_json() for message in request.prompt]
    except PydanticSerializationError as error:
        raise DataError(f"item {request.item_id}: the prompt is not valid Unicode") from error
    return digest(engine.model, engine.template, sampling.model_dump_json(), *prompt)


class Usage(NamedTuple):
    """Token counts of an answer, as far as the engine reports them."""

    tokens: int | None = None
    prompt_tokens: int | None = None


NO_USAGE = Usage()


def answered(
    engine: Engine,
    request: Request,
    sampling: Sampling,
    response: str,
    finish_reason: Literal["stop", "length"],
    usage: Usage = NO_USAGE,
) -> Completion:
    """Return the record of an answer."""
    answer = {"response": response, "finish_reason": finish_reason, **usage._asdict()}
    return recorded(engine, request, sampling, answer)


def failed(engine: Engine, request: Request, sampling: Sampling, error: str) -> Completion:
    """Return the record of a request that failed."""
    failure = {"response": None, "finish_reason": None, "error": error}
    return recorded(engine, request, sampling, failure)


def recorded(
    engine: Engine, request: Request, sampling: Sampling, outcome: Mapping[str, Any]
) -> Completion:
    """Return the record of a request; ``outcome`` holds the response or the error, and so on."""
    return Completion(
        item_id=request.item_id,
        prompt=request.prompt,
        key=key(engine, request, sampling),
        model=engine.model,
        template=engine.template,
        sampling=sampling,
        **outcome,
    )


def one_line(text: str) -> str:
    """Return ``text`` on one line, at most 200 characters."""
    return " ".join(text.split())[:200]
