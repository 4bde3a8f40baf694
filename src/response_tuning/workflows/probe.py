"""``rtune probe``: how well a base model knows which response belongs to which instruction."""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from response_tuning.artifacts import (
    Example,
    Message,
    Score,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import Config, DataConfig
from response_tuning.errors import DataError
from response_tuning.limits import Seed
from response_tuning.probe.page import (
    Interval,
    ProbedModel,
    ProbeExample,
    ProbeReport,
    formatted,
    sentence,
    write_page,
)
from response_tuning.report_config import ReportConfig
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.workflows.data import run_data
from response_tuning.workflows.template_fit import (
    MeasuredTemplates,
    beside_references,
    not_measured,
    records,
)

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.models.local import LocalModel
    from response_tuning.probe.ranking import ProbeVerdict, Ranking


COMPARED_METRICS = ("ranked_total", "ranked_per_token", "ranked_pmi", "pmi", "stop_at_end")
"""Metrics whose differences between models are reported."""


class ProbeConfig(Config):
    """Settings of a probe."""

    items: int = Field(default=1000, ge=2)
    """Instructions, drawn at random; all of them if there are fewer."""
    draws: int = Field(default=5, ge=1)
    """Other responses that each instruction's own response is compared with."""
    seed: Seed = 0
    """Seed of both draws."""


class Probed(Score):
    """One number about one instruction or reply, from one model."""

    model: str


class Pairs(NamedTuple):
    """Instructions with their own responses, both by the item's name."""

    prompts: dict[str, tuple[Message, ...]]
    responses: dict[str, str]
    without_instruction: int
    """Examples that are not used: they have no instruction."""
    source: dict[str, Any]


class Probe(NamedTuple):
    """The measurements of all models, by the model's name, the probed one first."""

    rankings: "dict[str, Ranking]"
    models: dict[str, dict[str, str]]
    """Identity and template of each model."""
    templates: MeasuredTemplates
    """The first model's template beside plain ones."""


def run_probe(
    models: Sequence["EngineConfig"],
    data: DataConfig,
    config: ProbeConfig,
    out: Path,
    console: "Console",
) -> None:
    """Probe a model, and compare others with it on the same instructions and draws.

    Leaves ``probe.html``, ``probe.json`` and ``probe.jsonl``, one number a line, in ``out``.

    Args:
        models: The probed model, such as an untouched base under the template that you will tune it
            with; then others, such as the tuned model.
        data: Instructions with responses.
        config: How many instructions, and how many other responses for each.
        out: The folder; it may exist.
        console: Where the verdict is printed.

    Raises:
        DataError: the data have fewer than two responses with an instruction, or none that fits.
        ModelError: a model cannot be loaded.
    """
    # Measure, then write, then print: a model that cannot be loaded leaves no file.
    quiet_libraries()
    pairs = read_pairs(data, config)
    probe = measure(models, pairs, config, console)
    scores = {name: ranking.scores for name, ranking in probe.rankings.items()}
    tables = estimates(scores, "response-ranking")
    report = _report(pairs, probe, config, tables, models[0].template or "native")
    _write(out, pairs, probe, config, tables, report)
    lines = [sentence(report), *report.differences, *report.notes, f"wrote {out / 'probe.html'}"]
    print_lines(console, lines)


def measure(
    models: Sequence["EngineConfig"], pairs: Pairs, config: ProbeConfig, console: "Console"
) -> Probe:
    """Rank the responses under each model."""
    from response_tuning.models.inference import load
    from response_tuning.pairing import draws

    # The same draws for every model: their differences are then paired.
    drawn = draws(pairs.responses, config.draws, config.seed)
    probe = Probe({}, {}, MeasuredTemplates([], [], {}))
    for model in models:
        name = _unique_name(str(model.model), probe.rankings)
        local = load(str(model.model), model.template, model.revision, model.device)
        ranking = rank_responses(local, model, pairs, drawn, console)
        if not probe.rankings:
            found = beside_references(
                local, model, pairs.prompts, pairs.responses, ranking.scores, config.seed
            )
            probe = probe._replace(templates=found)
        probe.rankings[name] = ranking
        probe.models[name] = {"identity": local.identity, "template": local.chat.digest}
        del local  # before the next model is loaded
    return probe


def read_pairs(data: DataConfig, config: ProbeConfig) -> Pairs:
    """Read instructions with responses: a random sample of ``config.items``.

    Raises:
        DataError: the data have fewer than two responses with an instruction.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_data(data, Path(folder))
        audit = read_json(Path(folder) / "audit.json", "examples", "source")
        examples = Path(folder) / "examples.jsonl"
        usable = [
            number
            for number, example in enumerate(read_jsonl(examples, Example))
            if example.instruction is not None
        ]
        if len(usable) < 2:
            raise DataError(
                f"{data.source}: {len(usable)} of its responses have an instruction, and a probe "
                "needs two; give data with instructions under one of their usual names"
            )
        # Two passes over the file: the data may be larger than memory, the sample is not.
        chosen = set(random.Random(config.seed).sample(usable, min(config.items, len(usable))))
        drawn = {
            f"{example.row}-{example.turn}": example
            for number, example in enumerate(read_jsonl(examples, Example))
            if number in chosen
        }
    return Pairs(
        prompts={name: _prompt(example) for name, example in drawn.items()},
        responses={name: example.response for name, example in drawn.items()},
        without_instruction=audit["examples"] - len(usable),
        source=audit["source"],
    )


def estimates(
    scores: Mapping[str, Sequence[Score]],
    benchmark: str,
    compared: Sequence[str] = COMPARED_METRICS,
) -> dict[str, list[dict[str, Any]]]:
    """Estimate every metric of each model, and ``compared`` metrics' differences from the first.

    The report does it, with the intervals and tests of a run. It reads a run's folders, so the
    scores are written as such: each model is a variant of one seed.
    """
    from response_tuning.report import Variant
    from response_tuning.report.comparison import compare
    from response_tuning.report.reading import read_scores

    names = [*scores]
    # Numbers name the folders, because a model's name may be a path.
    variants = [Variant(str(number), name) for number, name in enumerate(names)]
    config = ReportConfig(baselines=("0",))
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            path = Path(folder) / variant.name / "seed-0" / "grade" / f"{benchmark}.jsonl"
            write_jsonl(path, scores[variant.label])
        benchmarks, _ = read_scores(Path(folder), [variant.name for variant in variants])
    findings = compare(benchmarks, variants, config)
    results = [
        {"model": names[int(r.variant)]}
        | {key: getattr(r, key) for key in ("metric", "value", "low", "high", "n")}
        for r in findings.results
    ]
    comparisons = [
        {"model": names[int(c.variant)]}
        | {key: getattr(c, key) for key in ("metric", "delta", "low", "high", "p_value", "n")}
        for c in findings.comparisons
        if c.metric in compared
    ]
    return {"results": results, "comparisons": comparisons}


def left_out_sentences(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return one sentence for each model and reason."""
    return [
        f"{name}: left out {count:,} {reason}."
        for name, counts in reasons.items()
        for reason, count in counts.items()
    ]


def print_lines(console: "Console", lines: Sequence[str]) -> None:
    """Print lines as they are: without wrapping, colours or markup."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def rank_responses(
    local: "LocalModel",
    model: "EngineConfig",
    pairs: Pairs,
    drawn: Mapping[str, Sequence[str]],
    console: "Console",
    what: str = "",
) -> "Ranking":
    """Rank the responses under one loaded model; ``what`` labels the progress bar."""
    from response_tuning.models.likelihood import log_likelihoods
    from response_tuning.probe.ranking import rank

    scorer = partial(log_likelihoods, local, tokens_per_batch=model.tokens_per_batch)
    with progress_bar(f"responses under {what or model.model}", console) as advance:
        return rank(pairs.prompts, drawn, pairs.responses, scorer, advance)


def ranking_verdict(metrics: Mapping[str, Interval]) -> "ProbeVerdict":
    """Return the verdict on a model's ranking, by the lower ends of its intervals.

    So few items cannot make a model strong.
    """
    from response_tuning.probe.ranking import verdict

    low, words = metrics["ranked_pmi"].low, metrics["ranked_words"].value
    return verdict(low, metrics["pmi"].low, words)


def _report(
    pairs: Pairs,
    probe: Probe,
    config: ProbeConfig,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    template: str,
) -> ProbeReport:
    models = [ProbedModel(name, intervals(tables, name)) for name in probe.rankings]
    left_out = {name: ranking.left_out for name, ranking in probe.rankings.items()}
    return ProbeReport(
        ranking=ranking_verdict(models[0].metrics),
        template=template,
        templates=probe.templates.rated,
        models=models,
        examples=_examples(pairs, probe.rankings[models[0].name].scores),
        differences=[_difference(line) for line in tables["comparisons"]],
        notes=[
            setup(pairs, config),
            *left_out_sentences(left_out),
            *not_measured(probe.templates.unusable),
        ],
        confidence=ReportConfig().confidence,
    )


def _write(
    out: Path,
    pairs: Pairs,
    probe: Probe,
    config: ProbeConfig,
    tables: Mapping[str, Any],
    report: ProbeReport,
) -> None:
    write_jsonl(out / "probe.jsonl", _probed(probe.rankings))
    write_json(
        out / "probe.json",
        {
            "verdict": report.verdict,
            "says": sentence(report),
            "models": probe.models,
            "templates": records(probe.templates),
            **tables,
            "left_out": {name: ranking.left_out for name, ranking in probe.rankings.items()},
            "data": pairs.source | {"without_instruction": pairs.without_instruction},
            "settings": config.model_dump(),
            "packages": package_versions(),
        },
    )
    write_page(report, out / "probe.html")


def intervals(tables: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> dict[str, Interval]:
    """Return the metrics of one model from what ``estimates`` found."""
    return {
        line["metric"]: Interval(line["value"], line["low"], line["high"], line["n"])
        for line in tables["results"]
        if line["model"] == name
    }


def _difference(line: Mapping[str, Any]) -> str:
    metric = line["metric"]
    delta, low, high = (formatted(metric, line[key]) for key in ("delta", "low", "high"))
    sign = "+" if line["delta"] > 0 else ""
    return f"{line['model']}: {metric} {sign}{delta} [{low}, {high}], p {line['p_value']:.2g}"


def _probed(rankings: "Mapping[str, Ranking]") -> Iterator[Probed]:
    for name, ranking in rankings.items():
        for score in ranking.scores:
            yield Probed(model=name, **score.model_dump())


def _examples(pairs: Pairs, scores: Sequence[Score]) -> list[ProbeExample]:
    return [
        ProbeExample(
            score.value, pairs.prompts[score.item_id][-1].content, pairs.responses[score.item_id]
        )
        for score in scores
        if score.metric == "pmi"
    ]


def setup(pairs: Pairs, config: ProbeConfig) -> str:
    """Return in one sentence what was measured on."""
    unused = pairs.without_instruction
    return (
        f"{len(pairs.prompts):,} instructions of {Path(pairs.source['name']).name}; each response "
        f"is compared with {config.draws} others, drawn with seed {config.seed}"
        + (f"; {unused:,} responses without an instruction are not used" if unused else "")
        + "."
    )


def _unique_name(model: str, taken: Mapping[str, object]) -> str:
    """Return the model's name, with a number if it is taken."""
    return model if model not in taken else f"{model} ({len(taken) + 1})"


def _prompt(example: Example) -> tuple[Message, ...]:
    assert example.instruction is not None
    return (*example.earlier, Message(role="user", content=example.instruction))
