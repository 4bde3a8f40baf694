"""The card of an exported model: what it is, how to run it, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError
from response_tuning.serve.export.proof import NEAR_TIE, Proof
from response_tuning.templates import Chat

EVAL_RESULTS = ".eval_results"
_BENCHMARKS_OF_THE_HUB = {("core-gsm8k", "exact_match_strict"): ("openai/gsm8k", "gsm8k")}
"""(our benchmark, metric) -> (dataset, task) of the hub's registered benchmarks."""
_QUESTION = "How do I descale a kettle?"
_TEMPLATE = Path(__file__).parent / "card.md.jinja"


class Measured(NamedTuple):
    """One number of a report."""

    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seeds: int
    judge: str


@dataclass(frozen=True)
class About:
    """What the card is about."""

    title: str
    base: str
    """A hub id, or words; never a path."""
    base_is_hub: bool
    licence: str | None
    run: Mapping[str, Any] = field(default_factory=dict)
    """``version``, ``objective`` and ``settings`` of the training; empty if unknown."""
    merged: Mapping[str, Any] = field(default_factory=dict)
    is_adapter: bool = False
    results: Sequence[Measured] = ()
    confidence: str = "95 % interval"
    repository: str = ""
    gguf: str = ""
    modelfile: bool = False
    proof: str = ""


def card(about: About, chat: Chat) -> str:
    """Return the card, in Markdown, with its metadata in front."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        vars(about)
        | {
            "base": {"name": about.base, "is_hub": about.base_is_hub},
            "repository": about.repository or about.title,
            "question": _QUESTION,
            "prompt": chat.prompt([Message(role="user", content=_QUESTION)]).rstrip("\n"),
            "stop": _stop(chat),
            "system": _system(chat),
            "stop_of_base_differs": bool(about.run.get("stop_differs")),
            "results": [_shown(result) for result in about.results],
        }
    )
    return f"---\n{_metadata(about)}\n---\n\n{text}"


def eval_results(results: Sequence[Measured]) -> dict[str, str]:
    """Return the files of ``.eval_results``: name -> YAML, for benchmarks that the hub has."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from yaml import safe_dump

    files = {}
    for each in results:
        if (each.benchmark, each.metric) not in _BENCHMARKS_OF_THE_HUB:
            continue
        dataset, task = _BENCHMARKS_OF_THE_HUB[each.benchmark, each.metric]
        entry = EvalResultEntry(
            dataset, task, round(100 * each.value, 2), notes=f"{each.metric}; {_notes(each)}"
        )
        content = safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        files[f"{EVAL_RESULTS}/{each.benchmark}.yaml"] = content
    return files


def sentence(proof: Proof, kind: str) -> str:
    """Return what a proof found, for the card and the terminal."""
    text = (
        f"{proof.prompts:,} rendered prompts and their token ids are equal in llama.cpp, and the "
        f"stop token ends a reply. Of {proof.answers:,} greedy answers, {proof.equal:,} are equal "
        "token by token."
    )
    if proof.near_ties:
        text += (
            f" The other {len(proof.near_ties):,} leave ours at a token that our model finds at "
            f"most {max(proof.near_ties):.3f} nats less probable than its own"
        )
        text += "." if kind == "q8_0" else f", which is rounding (limit {NEAR_TIE:g})."
    return f"{text} Weights: {kind}."


def _metadata(about: About) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    library = "gguf" if about.gguf else "peft" if about.is_adapter else "transformers"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=each.benchmark,
            dataset_name=each.benchmark,
            metric_type=each.metric,
            metric_name=f"{each.metric} ({_notes(each)})",
            metric_value=round(each.value, 4),
        )
        for each in about.results
        if (each.benchmark, each.metric) not in _BENCHMARKS_OF_THE_HUB
    ]
    data = ModelCardData(
        base_model=about.base if about.base_is_hub else None,
        license=about.licence,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["response-tuning"],
        model_name=about.title,
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _notes(each: Measured) -> str:
    return (
        f"95 % interval {each.low:.4g} to {each.high:.4g}, n {each.n}, seeds {each.seeds}, "
        f"judge {each.judge}"
    )


def _shown(each: Measured) -> dict[str, Any]:
    numbers = {name: f"{getattr(each, name):.4g}" for name in ("value", "low", "high")}
    return each._asdict() | numbers


def _stop(chat: Chat) -> str:
    try:
        return chat.decode([chat.turn_end.stop_id])
    except TemplateError:
        return "` or `".join(string.replace("\n", "\\n") for string in chat.stop_strings)


def _system(chat: Chat) -> str:
    system, user = (
        Message(role="system", content="[system]"),
        Message(role="user", content="[user]"),
    )
    try:
        text = chat.prompt([system, user])
    except TemplateError:
        return "The template refuses system messages."
    if "[system]\n\n[user]" in text:
        return (
            "The template has no system turn: a system message is printed at the start of the "
            "user's message after it, with a blank line between them."
        )
    return "The template has a system turn."
