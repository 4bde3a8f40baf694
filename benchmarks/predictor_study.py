"""Which number about an untouched base predicts what response tuning brings on it?

    python benchmarks/predictor_study.py freeze recipes/questions/when-it-works.yaml --out FROZEN
    rtune run recipes/questions/when-it-works.yaml --out RUN
    python benchmarks/predictor_study.py fit RUN --frozen FROZEN [--extend] [--write]
    python benchmarks/predictor_study.py check RUN --frozen FROZEN

``freeze`` computes all predictors of every base and template of the recipe's tuned cells, one file
each, and prints one digest over all of them for the lab log. It skips what exists and bases that
are not there yet, so that it may be called again. ``fit`` joins them with what the run reached so
far and prints the rank correlations, the errors on unseen bases and what passes the bar, for each
benchmark and, if there are several, for all bases on their own ones together; with ``--extend`` the
other bases of the study that the package ships come first, and with ``--write`` the result replaces
it. ``check`` prints what each fit on the shipped study expects of these bases, beside what they
reached. Both refuse a base that was tuned before it was frozen.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from response_tuning.artifacts import Score, digest, read_json, read_jsonl, write_json
from response_tuning.configs import DataConfig, EngineConfig
from response_tuning.errors import DataError, ModelError, ResponseTuningError
from response_tuning.probe import forecast
from response_tuning.probe.forecast import OUTCOMES, Row
from response_tuning.probe.predictors import BASELINES, DETAILS, PREDICTORS
from response_tuning.report.plots import COLOURS, STYLE, Drawing
from response_tuning.workflows.experiment import Cell, cells, read_experiment
from response_tuning.workflows.predictors import STRICT, PredictConfig, Questions, measure
from response_tuning.workflows.probe import ProbeConfig, read_pairs

OBJECTIVES = {"response-tuning": "rt", "instruction-tuning": "it"}
OWN = ("base_strict", "stop_strict")
REGISTERED = (("latent_ability", "perplexity"), ("willingness", "perplexity"))
"""Pairs of predictors that are fitted together, chosen before any base of the study was tuned."""
FEWEST_BASES = 4
DRAWN = ("token_rank", "perplexity", "stop_strict")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="Freeze predictors, and fit them to outcomes.")
    commands = parser.add_subparsers(dest="command", required=True)
    freezing = commands.add_parser("freeze", help="compute all predictors")
    freezing.add_argument("recipe", type=Path)
    freezing.add_argument("--out", type=Path, required=True)
    freezing.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    fitting = commands.add_parser("fit", help="join predictors with outcomes")
    fitting.add_argument("run", type=Path)
    fitting.add_argument("--frozen", type=Path, required=True)
    fitting.add_argument("--extend", action="store_true", help="add to the package's study")
    fitting.add_argument("--write", action="store_true", help="replace the package's study")
    fitting.add_argument("--svg", type=Path, help="draw the outcomes over two predictors")
    checking = commands.add_parser("check", help="compare the shipped study's fits with outcomes")
    checking.add_argument("run", type=Path)
    checking.add_argument("--frozen", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        if given.command == "freeze":
            freeze(given.recipe, given.set, given.out)
        elif given.command == "check":
            print("\n".join(check(forecast.read_study(), joined(given.run, given.frozen))))
        else:
            rows = joined(given.run, given.frozen)
            rows = extended(forecast.read_study(), rows) if given.extend else rows
            print("\n".join(fit(rows, write=given.write)))
            if given.svg is not None:
                given.svg.write_text(drawn(rows).svg, encoding="utf-8")
    except ResponseTuningError as error:
        raise SystemExit(f"predictor_study: {error}") from error


def freeze(recipe: Path, settings: Sequence[str], out: Path) -> None:
    """Write ``<base>-<template>-<benchmark>.json`` for every base of the recipe that exists."""
    import torch

    experiment = read_experiment(recipe, settings)
    if experiment.threads:
        torch.set_num_threads(experiment.threads)
    out.mkdir(parents=True, exist_ok=True)
    first = _units(cells(experiment))
    for (base, template), cell in first.items():
        for benchmark in cell.benchmarks:
            path = out / f"{base}-{template}-{benchmark}.json"
            if not path.exists():
                _freeze(cell, Questions(benchmark, experiment.grade), path)
    files = sorted(out.glob("*.json"))
    print(f"{len(files)} files, digest {digest(*(file.read_text('utf-8') for file in files))}")


def _units(every: Sequence[Cell]) -> dict[tuple[str, str], Cell]:
    """Return the first tuned cell of each base and template, by the names of the grid."""
    found: dict[tuple[str, str], Cell] = {}
    for cell in every:
        if cell.tuned:
            found.setdefault(_of(cell), cell)
    return found


def _of(cell: Cell) -> tuple[str, str]:
    """Return the names of a cell's base and template: those in the grid, if it has such axes."""
    tuning = cell.finetune
    base = cell.place.get("bases", Path(tuning.base_model).stem)
    return base, cell.place.get("templates", tuning.template)


def _freeze(cell: Cell, questions: Questions, path: Path) -> None:
    from response_tuning.models.inference import load

    tuning, (base, template) = cell.finetune, _of(cell)
    assert cell.data is not None
    config = PredictConfig(responses=cell.data.max_examples or 1000)
    model = EngineConfig(model=tuning.base_model, template=tuning.template, device=tuning.device)
    try:
        local = load(tuning.base_model, tuning.template, tuning.base_revision, tuning.device)
    except ModelError as error:
        print(f"{base}: not measured: {error}")
        return
    # All rows of the source, and not the cell's subset: what is drawn does not depend on a seed.
    source = DataConfig(**cell.data.model_dump(include={"source", "path", "split", "revision"}))
    pairs = read_pairs(source, ProbeConfig(items=config.items + config.tuned_on))
    probed = measure(local, model, pairs, questions, config)
    content = {
        "base": base,
        "identity": local.identity,
        "template": template,
        "benchmark": questions.benchmark,
        "values": {name: _rounded(value) for name, value in probed.values.items()},
        "enough": probed.enough,
        "settings": config.model_dump(),
    }
    write_json(path, content)
    print(f"{path.name}", flush=True)


def _rounded(value: float) -> float | None:
    """Return five digits, and null for what could not be computed: JSON has no NaN."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def extended(study: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return a study with new rows; those of the same name, template and benchmark are replaced.

    A base is known by its name: the same weights under another one would count as two bases.
    """
    replaced = {row[:3] for row in new}
    return [*(row for row in study if row[:3] not in replaced), *new]


def fit(rows: Sequence[Row], *, write: bool) -> list[str]:
    """Return the findings of a study, and replace the shipped one if ``write`` is true."""
    lines: list[str] = []
    adopted: dict[str, Any] = {}
    benchmarks = [*dict.fromkeys(row.benchmark for row in rows)]
    for benchmark in benchmarks:
        found, passed = findings([row for row in rows if row.benchmark == benchmark])
        lines += [benchmark, *found]
        adopted |= {benchmark: passed} if passed else {}
    if len(benchmarks) > 1:
        lines += ["each base on its own benchmark", *findings(rows)[0]]
    if write:
        _write(rows, adopted)
        lines.append(f"wrote {forecast.STUDY} and {forecast.ADOPTED.name}")
    return lines


def check(study: Sequence[Row], new: Sequence[Row]) -> list[str]:
    """Return what fits of single predictors expect of bases outside a study, and what came.

    Scores are in percent. The bases may have answered another benchmark than those of the study.
    """
    lines = []
    for outcome in OUTCOMES:
        known, later = forecast.complete(study, outcome), forecast.complete(new, outcome)
        names = forecast.usable([*known, *later], [*PREDICTORS, *BASELINES, forecast.OWN_SCORE])
        reached = [row.reached[outcome] for row in later]
        lines += [
            outcome,
            _cells("", [row.template for row in later], "error"),
            _cells("reached", [f"{100 * score:.1f}" for score in reached], ""),
        ]
        for name in ((), *((name,) for name in names)):
            expected = [forecast.predicted(known, name, outcome, row) for row in later]
            error = fmean(abs(a - b) for a, b in zip(expected, reached, strict=True))
            shown = [f"{100 * score:.1f}" for score in expected]
            lines.append(_cells(*(name or ("the mean",)), shown, f"{100 * error:.1f}"))
    return lines


def _cells(name: str, values: Sequence[str], error: str) -> str:
    return f"{name:18}{''.join(f'{value:>14}' for value in values)}{error:>8}".rstrip()


def drawn(rows: Sequence[Row]) -> Drawing:
    """Draw what both arms reach over ``DRAWN``, a dot for each base and template."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 3.2 * len(DRAWN), 3.6), layout="constrained")
        grid = figure.subplots(1, len(DRAWN), sharey=True, squeeze=False)[0]
        for axes, name in zip(grid, DRAWN, strict=True):
            for colour, outcome in zip(COLOURS, OUTCOMES, strict=False):
                of_outcome = forecast.complete(rows, outcome)
                places = [row.measured[name] for row in of_outcome]
                scores = [row.reached[outcome] for row in of_outcome]
                axes.scatter(places, scores, s=18, color=colour, alpha=0.7, label=outcome)
            axes.set(ylim=(-0.03, 1.03), xlabel=name)
            axes.yaxis.set_major_formatter("{x:.0%}")
        grid[0].set_ylabel(f"{rows[0].benchmark}, strict")
        grid[0].legend(loc="upper left")
    return Drawing(figure)


def joined(run: Path, frozen: Path) -> list[Row]:
    """Return a row for each frozen base and template of which at least one arm was tuned.

    Raises:
        DataError: nothing was tuned, or a base was tuned before it was frozen.
    """
    from response_tuning.validation import build
    from response_tuning.workflows.experiment import Experiment

    content = read_json(run / "manifest.json", "experiment")["experiment"]
    every = cells(build(Experiment, content, str(run / "manifest.json")))
    rows = []
    for path in sorted(frozen.glob("*.json")):
        one = read_json(path, "base", "template", "benchmark", "values")
        mine = [c for c in every if c.tuned and _is_at(c, one)]
        reached = _reached(run, mine, one, path)
        values = {name: value for name, value in one["values"].items() if value is not None}
        if reached:
            rows.append(Row(one["benchmark"], one["base"], one["template"], values, reached))
    if not rows:
        raise DataError(f"{run}: no base of {frozen} was tuned; run the recipe first")
    return rows


def _is_at(cell: Cell, one: Mapping[str, Any]) -> bool:
    return _of(cell) == (one["base"], one["template"])


def _reached(
    run: Path, mine: Sequence[Cell], one: Mapping[str, Any], frozen: Path
) -> dict[str, float]:
    by_arm: dict[str, list[float]] = {}
    for cell in mine:
        scores = cell.folder(run) / "grade" / f"{one['benchmark']}.jsonl"
        if not scores.exists():
            continue
        if scores.stat().st_mtime < frozen.stat().st_mtime:
            raise DataError(f"{scores}: is older than {frozen}, which should come before tuning")
        strict = [s.value for s in read_jsonl(scores, Score) if s.metric == STRICT]
        by_arm.setdefault(OBJECTIVES[cell.finetune.objective], []).append(fmean(strict))
    return {arm: fmean(values) for arm, values in by_arm.items()}


def findings(rows: Sequence[Row]) -> tuple[list[str], dict[str, Any]]:
    """Return lines on one benchmark, and what passed: outcome -> predictors and errors."""
    lines, passed = [], {}
    for outcome in OUTCOMES:
        of_outcome = forecast.complete(rows, outcome)
        bases = {row.base for row in of_outcome}
        if len(bases) < FEWEST_BASES:
            lines.append(f"{outcome}: {len(bases)} bases, fewer than {FEWEST_BASES}")
            continue
        more, passed[outcome] = _findings(of_outcome, outcome, len(bases))
        lines += more
    return lines, passed


def _findings(rows: Sequence[Row], outcome: str, bases: int) -> tuple[list[str], dict[str, Any]]:
    table = forecast.ranks(rows, outcome)
    lines = [f"{outcome}: {len(rows)} bases x templates, {bases} bases", _HEAD]
    lines += [_line(name, rank) for name, rank in table.items()]
    names = forecast.usable(rows, [*PREDICTORS])
    candidates = [(name,) for name in names]
    candidates += [pair for pair in REGISTERED if {*pair} <= {*names, *BASELINES}]
    errors = {one: forecast.left_out_error(rows, one, outcome) for one in candidates}
    baselines = {(n,): table[n].error for n in BASELINES if n in table}
    baselines[()] = forecast.left_out_error(rows, (), outcome)
    best, beaten = min(errors, key=errors.__getitem__), min(baselines, key=baselines.__getitem__)
    nested = forecast.nested_error(rows, candidates, outcome)
    verdict = "passes" if nested <= forecast.BAR * baselines[beaten] else "does not pass"
    lines += [
        f"best: {' + '.join(best)}, error {100 * errors[best]:.1f} points; chosen without the "
        f"unseen base: {100 * nested:.1f}",
        f"best baseline: {' + '.join(beaten) or 'the mean'}, {100 * baselines[beaten]:.1f} points",
        f"the bar is {100 * forecast.BAR * baselines[beaten]:.1f} points: {verdict}",
    ]
    for pair in REGISTERED:
        if pair in errors:
            lines.append(f"registered pair {' + '.join(pair)}: {100 * errors[pair]:.1f} points")
    return lines, {
        "predictors": [*best],
        "error": round(errors[best], 4),
        "nested_error": round(nested, 4),
        "baseline": [*beaten],
        "baseline_error": round(baselines[beaten], 4),
        "passed": verdict == "passes",
    }


_HEAD = f"{'':18}{'Spearman':>9} {'95 % CI':>16} {'partial':>8} {'error':>7}"


def _line(name: str, rank: forecast.Rank) -> str:
    return (
        f"{name:18}{rank.spearman:9.2f} [{rank.low:6.2f}, {rank.high:6.2f}] {rank.partial:8.2f} "
        f"{100 * rank.error:7.1f}"
    )


def _write(rows: Sequence[Row], adopted: Mapping[str, Any]) -> None:
    names = [*PREDICTORS, *DETAILS, *BASELINES, *OWN]
    head = ["benchmark", "base", "template", *names, *OUTCOMES]
    with forecast.STUDY.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(_fields(rows, names))
    forecast.ADOPTED.write_text(json.dumps(adopted, indent=2) + "\n", encoding="utf-8")


def _fields(rows: Sequence[Row], names: Sequence[str]) -> Iterator[list[object]]:
    for row in rows:
        values = [row.measured.get(name, "") for name in names]
        reached = [f"{row.reached[o]:.5g}" if o in row.reached else "" for o in OUTCOMES]
        yield [row.benchmark, row.base, row.template, *values, *reached]


if __name__ == "__main__":
    main()
