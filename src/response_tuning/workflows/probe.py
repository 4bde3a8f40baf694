"""What a base model can do before tuning, and what tuning did to it: two questions about models.

``run_probe`` asks how probable a model finds the responses of instruction data, and
``run_token_shift`` compares a tuned model with its base token by token.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from response_tuning.configs import Config, DataConfig, ReportConfig
from response_tuning.errors import DataError
from response_tuning.limits import Seed
from response_tuning.probe.page import Contents, Figure, Model, Told, sentence, shown, write_page
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.workflows.data import run_data

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.probe.ranking import Ranking


RANKING, TOKEN_SHIFT = "response-ranking", "token-shift"
COMPARED = ("ranked_total", "ranked_per_token", "ranked_pmi", "pmi", "stop_at_end")
"""Metrics whose differences between models are said."""


class ProbeConfig(Config):
    """How a model is probed."""

    items: int = Field(default=1000, ge=2)
    """Instructions, drawn at random; all of them where there are fewer."""
    draws: int = Field(default=5, ge=1)
    """Other responses that each instruction's own is compared with."""
    seed: Seed = 0


class Probed(Score):
    """One number about one instruction or reply, from one model."""

    model: str


class Pairs(NamedTuple):
    """What is asked of a model: instructions with their own responses, both by the item's name."""

    prompts: dict[str, tuple[Message, ...]]
    responses: dict[str, str]
    without_instruction: int
    """Examples that are not used, for there is nothing to condition on."""
    source: dict[str, Any]


def run_probe(
    models: Sequence["EngineConfig"],
    data: DataConfig,
    probe: ProbeConfig,
    out: Path,
    console: "Console",
) -> None:
    """Probe a model, and compare others with it on the same instructions and draws.

    Leaves ``probe.html``, ``probe.json`` and ``probe.jsonl``, one number a line, in ``out``.

    Args:
        models: The one that is probed, such as an untouched base under the template that it is to
            be tuned with; then others, such as what became of it.
        data: Instructions with responses.
        probe: How many are asked, and against how many others.
        out: The folder; it may be there.
        console: Where the verdict is printed.

    Raises:
        DataError: the data have no two responses with an instruction, or none that fits.
        ModelError: a model cannot be loaded.
    """
    from response_tuning.probe.ranking import draws, verdict

    quiet_libraries()
    pairs = read_pairs(data, probe)
    drawn = draws(pairs.responses, probe.draws, probe.seed)
    rankings: dict[str, Ranking] = {}
    about: dict[str, dict[str, str]] = {}
    for config in models:
        name = _free_name(str(config.model), rankings)
        rankings[name], about[name] = _ranking(config, pairs, drawn, console)
    scores = {name: ranking.scores for name, ranking in rankings.items()}
    left_out = {name: ranking.left_out for name, ranking in rankings.items()}
    tables = _tables(scores, RANKING, probe.seed)
    found = [Model(name, _figures(tables, name)) for name in rankings]
    first = found[0].figures
    contents = Contents(
        verdict=verdict(first["ranked_pmi"].low, first["pmi"].low, first["ranked_words"].value),
        models=found,
        told=_told(pairs, scores[found[0].name]),
        differences=[_difference(line) for line in tables["comparisons"]],
        notes=[_asked(pairs, probe), *_left_out(left_out)],
        confidence=ReportConfig().confidence,
    )
    write_jsonl(out / "probe.jsonl", _probed(scores))
    write_json(
        out / "probe.json",
        {
            "verdict": contents.verdict,
            "says": sentence(contents),
            "models": about,
            **tables,
            "left_out": left_out,
            "data": pairs.source | {"without_instruction": pairs.without_instruction},
            "settings": probe.model_dump(),
            "packages": package_versions(),
        },
    )
    write_page(contents, out / "probe.html")
    said = [sentence(contents), *contents.differences, *contents.notes]
    _say(console, [*said, f"wrote {out / 'probe.html'}"])


def read_pairs(data: DataConfig, probe: ProbeConfig) -> Pairs:
    """Read instructions with responses, at most as many as are to be probed.

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
                f"{data.source}: {len(usable)} of its responses have an instruction, and two are "
                "needed; name the column with --instruction-column"
            )
        chosen = random.Random(probe.seed).sample(usable, min(probe.items, len(usable)))
        wanted = set(chosen)
        drawn = {
            f"{example.row}-{example.turn}": example
            for number, example in enumerate(read_jsonl(examples, Example))
            if number in wanted
        }
    return Pairs(
        prompts={name: _prompt(example) for name, example in drawn.items()},
        responses={name: example.response for name, example in drawn.items()},
        without_instruction=audit["examples"] - len(usable),
        source=audit["source"],
    )


def _ranking(
    config: "EngineConfig", pairs: Pairs, drawn: Mapping[str, Sequence[str]], console: "Console"
) -> "tuple[Ranking, dict[str, str]]":
    """Have one model, which is in memory only here, rank the responses; and say what it is."""
    from response_tuning.generate import open_engine
    from response_tuning.generate.engines.hf import HfEngine
    from response_tuning.probe.ranking import rank

    engine = open_engine("hf", config)
    assert isinstance(engine, HfEngine)
    with progress_bar(f"responses under {config.model}", console) as advance:
        ranking = rank(pairs.prompts, drawn, pairs.responses, engine.log_likelihoods, advance)
    return ranking, {"identity": engine.model, "template": engine.template}


def _tables(
    scores: Mapping[str, Sequence[Score]], benchmark: str, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Have the report estimate every metric, and the differences from the first model."""
    from response_tuning.report import Variant
    from response_tuning.report.comparison import compare
    from response_tuning.report.reading import read_scores

    names = [*scores]
    variants = [Variant(str(number), name) for number, name in enumerate(names)]
    config = ReportConfig(baselines=("0",), equivalence=(), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            path = Path(folder) / variant.name / "seed-0" / "grade" / f"{benchmark}.jsonl"
            write_jsonl(path, scores[variant.label])
        benchmarks, _ = read_scores(Path(folder), [variant.name for variant in variants])
    found = compare(benchmarks, variants, config)
    results = [
        {"model": names[int(r.variant)]}
        | {key: getattr(r, key) for key in ("metric", "value", "low", "high", "n")}
        for r in found.results
    ]
    comparisons = [
        {"model": names[int(c.variant)]}
        | {key: getattr(c, key) for key in ("metric", "delta", "low", "high", "p_value", "n")}
        for c in found.comparisons
        if c.metric in COMPARED
    ]
    return {"results": results, "comparisons": comparisons}


def _figures(tables: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> dict[str, Figure]:
    return {
        line["metric"]: Figure(line["value"], line["low"], line["high"], line["n"])
        for line in tables["results"]
        if line["model"] == name
    }


def _difference(line: Mapping[str, Any]) -> str:
    metric = line["metric"]
    delta, low, high = (shown(metric, line[key]) for key in ("delta", "low", "high"))
    sign = "+" if line["delta"] > 0 else ""
    return f"{line['model']}: {metric} {sign}{delta} [{low}, {high}], p {line['p_value']:.2g}"


def _probed(scores: Mapping[str, Sequence[Score]]) -> Iterator[Probed]:
    for name, found in scores.items():
        for score in found:
            yield Probed(model=name, **score.model_dump())


def _told(pairs: Pairs, scores: Sequence[Score]) -> list[Told]:
    return [
        Told(score.value, pairs.prompts[score.item_id][-1].content, pairs.responses[score.item_id])
        for score in scores
        if score.metric == "pmi"
    ]


def _asked(pairs: Pairs, probe: ProbeConfig) -> str:
    unused = pairs.without_instruction
    return (
        f"{len(pairs.prompts):,} instructions of {Path(pairs.source['name']).name}, each one's "
        f"response against {probe.draws} others, drawn with seed {probe.seed}"
        + (f"; {unused:,} responses have no instruction" if unused else "")
        + "."
    )


def _left_out(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"{name}: left out {count:,} {reason}."
        for name, found in reasons.items()
        for reason, count in found.items()
    ]


def _free_name(model: str, taken: Mapping[str, object]) -> str:
    """Return how the model is called, with a number where it is there twice."""
    return model if model not in taken else f"{model} ({len(taken) + 1})"


def _prompt(example: Example) -> tuple[Message, ...]:
    assert example.instruction is not None
    return (*example.earlier, Message(role="user", content=example.instruction))


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def _say(console: "Console", lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
