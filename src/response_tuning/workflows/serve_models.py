"""``rtune serve``: which program serves each model, and what it is given."""

import importlib.util
import json
import secrets
import tempfile
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning import loopback, templates
from response_tuning.artifacts import digest, package_versions, read_json, written_aside
from response_tuning.errors import ConfigError, ResponseTuningError, TemplateError, unused
from response_tuning.models import files, gguf
from response_tuning.models.location import check_name, identity, locate
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows.playground import pane_sources

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.serve.server.backend import Launch
    from response_tuning.serve.server.launch import Source

AUTO = "auto"
LLAMA_CONTEXT = 8192
"""Tokens of a conversation in llama.cpp by default: it reserves the memory at the start."""
_PROVED = 20
"""Greedy answers that a converted model is compared on."""
_PROMPTS = (
    "What is the capital of France?",
    "Name three colours.",
    "What is 12 plus 30?",
    "Write a short poem about the sea.",
    "Explain what a magnet does, in two sentences.",
    "How do I boil an egg?",
    "Translate 'good morning' into German: Grüße!",
    "List the months of 1984 that have 31 days.",
    "Who wrote Hamlet?",
    "print('hello')\nWhat does this line do?",
    "Is a whale a fish?",
    "Give me advice for a job interview.",
    "What is <b>bold</b> text?",
    "Summarise: the cat sat on the mat, and then it left.",
    "What rhymes with tree?",
    "Why is the sky blue?",
    "  How   many spaces are here? ",
    "Say 'yes' or 'no': is 7 larger than 3?",
    "Tell me a joke \U0001f642",
    "What comes after Monday?",
)
"""What a converted model is compared on: letters, digits, code, spaces, accents and an emoji."""


class ServeSettings(NamedTuple):
    """What the command line says about a server."""

    models: Sequence[str]
    """``[NAME=]MODEL``: a folder, a GGUF file, a hub id, or the folder of a run."""
    template: str | None = None
    """Chat template for models without one."""
    host: str = loopback.HOST
    port: int = 8000
    """0 is any free port."""
    api_key_file: Path | None = None
    """File with the key that clients have to send."""
    backend: str = AUTO
    vllm: Path | None = None
    """Python of the environment that has vLLM."""
    context: int | None = None
    """Tokens that one conversation may have; None: the model's limit."""


def run_serve(settings: ServeSettings, console: "Console") -> None:
    """Serve the models until it is interrupted; the console says where.

    Raises:
        ResponseTuningError: a model or a setting cannot be used, or the port is taken.
    """
    client_key = _client_key(settings)
    _check(settings)
    # Before the libraries, which take seconds.
    console.print(f"checking {', '.join(settings.models)} ...", highlight=False, soft_wrap=True)
    from response_tuning.serve.server import backend, front

    sources = _sources(settings)
    with tempfile.TemporaryDirectory(prefix="rtune-serve-") as scratch:
        folder = Path(scratch)
        launches = [_launch(source, settings, folder, console, len(sources)) for source in sources]
        for launch in launches:
            console.print(
                f"loading {launch.model.name} ({launch.model.program}) ...", highlight=False
            )
        key = secrets.token_urlsafe(32)
        with backend.running(launches, folder, key) as backends:
            models = [launch.model for launch in launches]
            names = ", ".join(model.name for model in models)
            loopback.serve(
                front.front_app(models, key, backends.is_running, client_key, settings.host),
                settings.port,
                lambda address: console.print(
                    f"{address}v1 (models: {names}; Ctrl-C ends)", highlight=False, soft_wrap=True
                ),
                backends.end,
                settings.host,
            )


def _client_key(settings: ServeSettings) -> str | None:
    """Return the key that clients have to send, or None on loopback without one."""
    from response_tuning.serve.server.front import read_key

    try:
        is_loopback = ip_address(settings.host).is_loopback
    except ValueError as error:
        raise ConfigError(
            f"--host {settings.host}: not an IP address, such as {loopback.HOST}, or 0.0.0.0 for "
            "all of this machine's"
        ) from error
    if settings.api_key_file is not None:
        text = settings.api_key_file.read_text(encoding="utf-8", errors="replace")
        return read_key(text, f"--api-key-file {settings.api_key_file}")
    if not is_loopback:
        raise ConfigError(
            f"--host {settings.host}: other machines could use the models; give --api-key-file "
            "FILE, which holds the key that clients have to send"
        )
    return None


def _check(settings: ServeSettings) -> None:
    from response_tuning.serve.server import launch

    programs = (AUTO, launch.VLLM, launch.LLAMA, launch.LOCAL)
    if settings.backend not in programs:
        raise ConfigError(f"--backend {settings.backend}: choose one of {', '.join(programs)}")
    if settings.backend == launch.VLLM and settings.vllm is None:
        raise ConfigError("--backend vllm: give --vllm PYTHON, the Python of its environment")
    if settings.backend not in (AUTO, launch.VLLM):
        unused(f"--backend is {settings.backend}", vllm=settings.vllm)
    if settings.backend == launch.LOCAL:
        unused("a model in transformers has its own limit", context=settings.context)
    if settings.vllm is not None:
        launch.check_vllm(settings.vllm)


def _sources(settings: ServeSettings) -> "list[Source]":
    """Check the models, without loading them; the folder of a run stands for some of its variants.

    Raises:
        ConfigError: there is none, two have one name, or no model needs the given template.
        ModelError: one is missing, damaged, or of another kind.
        TemplateError: one has no chat template, and none is given.
    """
    from response_tuning.serve.server.launch import Source

    if not settings.models:
        raise ConfigError("rtune serve needs a model, such as: rtune serve tuned")
    found = pane_sources(settings.models)
    if served := next((source for source in found if source.url), None):
        raise ConfigError(
            f"{served.model}@{served.url}: a model that a server has already; give a model's folder"
        )
    sources, needed = [], False
    for name, model, template, _ in found:
        _check_model(model)
        if template is None and not _has_template(model):
            template, needed = settings.template, True
            if template is None:
                raise TemplateError(f"{model}: it has no chat template; give --template tulu")
            templates.check(template)
        sources.append(Source(name, model, identity(model), template))
    if settings.template is not None and not needed:
        unused("every model has a chat template", template=settings.template)
    return sources


def _check_model(model: str) -> None:
    from response_tuning.models.inference import check_loadable

    check_name(model)
    if not gguf.is_gguf(Path(model)):
        quiet_libraries()
        check_loadable(model)


def _has_template(model: str) -> bool:
    from response_tuning.models.inference import has_native_template

    if gguf.is_gguf(Path(model)):
        return bool(gguf.header(Path(model)).get("tokenizer.chat_template"))
    return has_native_template(model)


def _launch(
    source: "Source", settings: ServeSettings, scratch: Path, console: "Console", models: int
) -> "Launch":
    """Return how a model is served, after what has to be made for that."""
    from response_tuning.serve.server import launch

    is_file = gguf.is_gguf(Path(source.path))
    wanted = settings.backend
    if wanted == launch.VLLM or (wanted == AUTO and settings.vllm and not is_file):
        return _in_vllm(source, settings, scratch, models)
    if wanted == launch.LLAMA or (wanted == AUTO and (is_file or _has_llama())):
        try:
            return _in_llama(source, settings, console, is_file=is_file)
        except ResponseTuningError as error:
            if wanted == launch.LLAMA or is_file:
                raise
            why = f"{source.name}: not with llama.cpp: {error}"
            console.print(why, highlight=False, soft_wrap=True)
    if settings.context is not None:
        raise ConfigError(f"--context has no effect on {source.name}, which transformers serves")
    if source.template and source.template in templates.TEMPLATES.names():
        # As a file: its process knows no template of a plug-in that this one imported.
        source = source._replace(template=_template(source, scratch))
    return launch.local(source)


def _template(source: "Source", scratch: Path) -> str:
    """Write the text of a model's template to a file, and return its path."""
    assert source.template is not None
    file = scratch / f"{source.name}.jinja"
    file.write_text(templates.jinja(source.template), encoding="utf-8")
    return str(file)


def _has_llama() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def _in_llama(
    source: "Source", settings: ServeSettings, console: "Console", *, is_file: bool
) -> "Launch":
    """Serve a GGUF file, or a folder after its conversion, which is proven and kept."""
    from response_tuning.serve.server import launch

    if not _has_llama():
        raise ConfigError(
            f"{source.path}: llama.cpp is not installed: run pip install 'response-tuning[llama]', "
            "or give --backend transformers"
        )
    if not is_file:
        if source.template is not None:
            raise ConfigError("--template is not part of a model's conversion")
        source = source._replace(path=str(_converted(source, console)))
    header = gguf.header(Path(source.path))
    own = str(header.get("tokenizer.chat_template", ""))
    text = templates.jinja(source.template) if source.template else own
    given = text if source.template else ""
    trained = int(header.get(f"{header.get('general.architecture')}.context_length") or 0)
    context = settings.context or min(trained or LLAMA_CONTEXT, LLAMA_CONTEXT)
    if trained and context > trained:
        raise ConfigError(f"--context {context}: {source.name} has at most {trained} tokens")
    return launch.llama(source, context, given, templates.stop_strings(text))


def _converted(source: "Source", console: "Console") -> Path:
    """Return the GGUF file of a folder; it is made once, compared with the model, and kept.

    Raises:
        ResponseTuningError: it cannot be made, or is not the same model.
    """
    from response_tuning.workflows.export import RECORD, Export, run_export

    version = package_versions()["response-tuning"]
    out = files.cache_folder() / f"serve-{digest(source.identity, version)}"
    if not (out / RECORD).is_file():
        with tempfile.TemporaryDirectory() as scratch:
            prompts = Path(scratch) / "prompts.jsonl"
            prompts.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in _PROMPTS))
            asked = Export(source.path, "gguf", out, prompts=prompts, answers=_PROVED)
            run_export(asked, console)
    return out / str(read_json(out / RECORD)["file"])


def _in_vllm(source: "Source", settings: ServeSettings, scratch: Path, models: int) -> "Launch":
    """Serve a folder or a hub id; an adapter is merged first."""
    from response_tuning.models.inference import load_chat
    from response_tuning.serve.export.whole import write_whole
    from response_tuning.serve.server import launch

    if gguf.is_gguf(Path(source.path)):
        raise ConfigError(f"{source.path}: vLLM is for folders; use --backend llama.cpp")
    assert settings.vllm is not None
    folder = locate(source.path)
    chat = load_chat(source.path, source.template)
    path = folder.path
    if files.kind(path) == files.ADAPTER_CONFIG:
        path = scratch / f"{source.name}-merged"
        write_whole(folder, path)
    template = None
    if source.template:
        template = scratch / f"{source.name}.jinja"
        with written_aside(template) as out:
            out.write(str(chat.tokenizer.chat_template))
    try:
        stop_ids: tuple[int, ...] = (chat.turn_end.stop_id,)
    except TemplateError:
        stop_ids = ()  # the template's turns end in strings
    use = launch.VllmUse(
        settings.vllm, models, settings.context, template, chat.stop_strings, stop_ids
    )
    return launch.vllm(source._replace(path=str(path)), use)
