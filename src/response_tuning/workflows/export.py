"""``rtune export``: a tuned model becomes files for other tools, proven to be the same model."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import Message, write_json, written_aside
from response_tuning.errors import ConfigError, unused
from response_tuning.folders import locked
from response_tuning.models import files
from response_tuning.models.location import is_shipped
from response_tuning.serve.export import (
    card,
    converter,
    hub,
    llama,
    modelfile,
    pieces,
    proof,
    whole,
)
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.workflows import exported_model
from response_tuning.workflows.exported_model import TunedModel

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.models.local import LocalModel

TARGETS = ("gguf", "ollama", "safetensors", "hub")
RECORD = "export.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Export:
    """What to export, and how."""

    model: str
    """A run of ``rtune finetune``, a cell of a run, a model folder or a hub id."""
    to: str
    out: Path
    kind: str = "f16"
    """Number format of a GGUF file."""
    converter: Path | None = None
    install_converter: bool = False
    rebuild_tokenizer: bool = False
    prompts: Path | None = None
    proof: bool = True
    answers: int = 200
    max_new_tokens: int = 64
    adapter: bool = False
    repository: str | None = None
    private: bool = False
    licence: str | None = None
    base: str | None = None
    """Hub id of the base, where the run knows it by a path."""

    @property
    def is_gguf(self) -> bool:
        """Whether a GGUF file is made."""
        return self.to in ("gguf", "ollama")


def run_export(asked: Export, console: "Console", *, dry_run: bool = False) -> None:
    """Write the export to ``asked.out``; with ``dry_run``, only print the files.

    Raises:
        ConfigError: a setting has no effect or is missing, or a tool is not installed.
        ModelError: the model cannot be loaded or converted, or the export is not the same model.
    """
    quiet_libraries()
    _check(asked)
    run = exported_model.located(asked.model)
    if asked.to == "hub" and asked.adapter and not exported_model.base_name(run, asked.base)[1]:
        raise ConfigError(
            "the base of this adapter is known by a path, which nobody else has: give its hub id "
            "(--base OWNER/NAME), or leave --adapter out"
        )
    if dry_run:  # the files first: what is missing here says nothing about them
        for line in _planned(asked, run):
            console.print(line, highlight=False, soft_wrap=True)
    _check_tools(asked, run)
    if dry_run:
        return
    if asked.install_converter:
        console.print(f"the converter is in {converter.install()}", highlight=False, soft_wrap=True)
    tool = converter.find(asked.converter) if asked.is_gguf else None
    with locked(asked.out, run.model.path, asked.prompts):
        _check_empty(asked.out)
        partial = asked.out / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write(asked, run, partial, tool, console)
            for file in partial.iterdir():
                file.replace(asked.out / file.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    console.print(f"wrote {asked.out}", highlight=False, soft_wrap=True)
    if asked.repository:
        address = hub.upload(asked.out, asked.repository, private=asked.private)
        console.print(f"uploaded: {address}", highlight=False, soft_wrap=True)


def _check(asked: Export) -> None:
    if asked.to not in TARGETS:
        raise ConfigError(f"--to {asked.to}: choose one of {', '.join(TARGETS)}")
    if asked.is_gguf and asked.kind not in converter.TYPES:
        raise ConfigError(
            f"--type {asked.kind}: choose one of {', '.join(converter.TYPES)}; llama-quantize "
            "makes smaller formats of an f16 file"
        )
    if asked.is_gguf:
        unused("a GGUF file holds the whole model", adapter=asked.adapter)
    else:
        why = f"--to {asked.to} writes no GGUF file"
        unused(why, converter=asked.converter, rebuild_tokenizer=asked.rebuild_tokenizer)
        unused(why, install_converter=asked.install_converter)
    if asked.to != "hub":
        unused("only --to hub uploads", repo=asked.repository, private=asked.private)
    elif asked.licence is None:
        raise ConfigError(
            "the card of a hub repository names a licence: give the base's, such as --license "
            "apache-2.0"
        )
    if asked.repository is not None:
        hub.check_repository(asked.repository)


def _check_tools(asked: Export, run: TunedModel) -> None:
    """Refuse a model that cannot be loaded, and an export without its tools."""
    from response_tuning.models import inference

    if not asked.adapter:
        inference.check_loadable(str(run.model.path))
    if asked.is_gguf and not asked.install_converter:
        converter.find(asked.converter)
    if asked.is_gguf and asked.proof:
        llama.check_installed()


def _check_empty(out: Path) -> None:
    held = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if held:
        raise ConfigError(
            f"{out}: holds files already, such as {held[0]}; choose another --out, or delete it"
        )


def _planned(asked: Export, run: TunedModel) -> Iterator[str]:
    """Yield the name of each file that the export holds, and what it is made of."""
    is_adapter = files.kind(run.model.path) == files.ADAPTER_CONFIG
    if asked.is_gguf:
        yield f"{run.title}-{asked.kind}.gguf"
        yield from ["Modelfile"] if asked.to == "ollama" else []
    elif is_adapter and not asked.adapter:
        yield "model.safetensors (the adapter merged into its base; several files if large)"
        yield "config.json"
    for file in files.files(run.model.path):
        if not asked.is_gguf and not (is_adapter and not asked.adapter and "adapter" in file.name):
            yield f"{file.name} ({file.stat().st_size:,} bytes)"
    if asked.to == "hub":
        yield from card.eval_results(exported_model.results(run))
    yield "README.md"
    yield RECORD


def _write(
    asked: Export,
    run: TunedModel,
    partial: Path,
    tool: converter.Converter | None,
    console: "Console",
) -> None:
    """Write every file of the export to ``partial``."""
    from response_tuning.models import inference

    folder = partial / "model" if asked.is_gguf else partial
    if asked.adapter:
        base, is_hub = exported_model.base_name(run, asked.base)
        whole.copy_adapter(run.model, folder, base if is_hub else None)
        merged: dict[str, Any] = {}
    else:
        merged = _about_merge(whole.write_whole(run.model, folder), run)
    record: dict[str, Any] = {"model": run.model.identity, "to": asked.to, "merged": merged}
    local = inference.load(str(run.model.path))
    if asked.is_gguf:
        assert tool is not None
        record |= _gguf(asked, run, folder, local, tool, console)
        shutil.rmtree(folder)
    elif merged and asked.proof:
        record["answers"] = _same_as_merged(asked, run, folder, local, console)
    about = _about(asked, run, merged, record)
    if asked.to == "ollama":
        _text(partial / "Modelfile", modelfile.modelfile(local.chat, about.gguf, local.context))
    if asked.to == "hub":
        for name, content in card.eval_results(about.results).items():
            _text(partial / name, content)
    _text(partial / "README.md", card.card(about, local.chat))
    write_json(partial / RECORD, record)


def _gguf(
    asked: Export,
    run: TunedModel,
    folder: Path,
    local: "LocalModel",
    tool: converter.Converter,
    console: "Console",
) -> dict[str, Any]:
    """Convert, and compare the file with the model; return what to record."""
    if asked.to == "ollama":
        modelfile.layout(local.chat)  # refuses a template before the work
    origin = pieces.provide(folder, exported_model.bases(run), rebuild=asked.rebuild_tokenizer)
    if origin:
        console.print(f"{pieces.TOKENIZER_MODEL}: {origin}", highlight=False, soft_wrap=True)
    file = folder.parent / f"{run.title}-{asked.kind}.gguf"
    console.print(f"converting to {file.name}", highlight=False, soft_wrap=True)
    converter.prepare(folder)
    converter.convert(folder, file, asked.kind, tool)
    record: dict[str, Any] = {"type": asked.kind, "tokenizer_model": origin, "file": file.name}
    if not asked.proof:
        console.print("not compared with the tuned model (--no-proof)", highlight=False)
        return record | {"proof": None}
    found = _proof(asked, run, file, local, console)
    text = card.sentence(found, asked.kind)
    console.print(text, highlight=False, soft_wrap=True)
    return record | {"proof": found.record(), "sentence": text}


def _proof(
    asked: Export, run: TunedModel, file: Path, local: "LocalModel", console: "Console"
) -> proof.Proof:
    conversations = _conversations(asked, run)
    with progress_bar("answers of the tuned model", console) as show:
        samples = proof.answered(local, conversations, asked.max_new_tokens, show)
    longest = max(len(each.prompt) + len(each.answer) for each in samples)
    room = max(longest, *(len(local.chat.encode(local.chat.opening)), 64)) + 8
    with llama.running(file, room, _threads()) as server:
        prompts = proof.check_prompts(local, server, conversations)
        proof.check_stop(local, server)
        with progress_bar("answers of the file", console) as show:
            found = proof.check_answers(local, server, samples, asked.kind, show)
    return found._replace(prompts=prompts)


def _same_as_merged(
    asked: Export, run: TunedModel, folder: Path, local: "LocalModel", console: "Console"
) -> dict[str, int]:
    """Compare greedy answers of an adapter with those of the merged model; both are ours."""
    from response_tuning.models import inference

    conversations = _conversations(asked, run)
    merged = inference.load(str(folder))
    both = []
    for model in (local, merged):
        with progress_bar("answers", console) as show:
            samples = proof.answered(model, conversations, asked.max_new_tokens, show)
        both.append([sample.answer for sample in samples])
    equal = sum(one == other for one, other in zip(*both, strict=True))
    console.print(
        f"of {len(both[0]):,} greedy answers of the adapter, {equal:,} are the merged model's too",
        highlight=False,
        soft_wrap=True,
    )
    return {"compared": len(both[0]), "equal": equal}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _conversations(asked: Export, run: TunedModel) -> list[list[Message]]:
    """Return the prompts to compare: of a file, of the cell's benchmarks, or of the training rows.

    Raises:
        ConfigError: there are none.
    """
    found: list[list[Message]] = []
    seen: set[str] = set()
    for messages in exported_model.prompts(run, asked.prompts):
        text = "\0".join(f"{message.role}\0{message.content}" for message in messages)
        if text not in seen:
            seen.add(text)
            found.append(messages)
        if len(found) == asked.answers:
            break
    if not found:
        raise ConfigError(
            f"{run.model.name}: there are no prompts to compare answers on: neither training rows "
            "nor completions are beside it; give --prompts FILE, or --no-proof"
        )
    return found


def _about_merge(merged: dict[str, Any], run: TunedModel) -> dict[str, Any]:
    if not merged:
        return {}
    four_bit = run.manifest.get("settings", {}).get("method") == "qlora"
    return {"dtype": merged["dtype"], "trained_against": "4-bit NF4" if four_bit else ""}


def _about(
    asked: Export, run: TunedModel, merged: dict[str, Any], record: dict[str, Any]
) -> card.About:
    base, is_hub = exported_model.base_name(run, asked.base)
    licence = asked.licence or ("apache-2.0" if is_shipped(run.base) else None)
    return card.About(
        title=run.title,
        base=base,
        base_is_hub=is_hub,
        licence=licence,
        run=exported_model.training(run),
        merged=merged,
        is_adapter=asked.adapter,
        results=exported_model.results(run),
        repository=asked.repository or "",
        gguf=record.get("file", ""),
        modelfile=asked.to == "ollama",
        proof=record.get("sentence", ""),
    )


def _text(path: Path, content: str) -> None:
    with written_aside(path) as out:
        out.write(content)
