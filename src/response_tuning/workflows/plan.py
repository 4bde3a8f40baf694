"""``rtune run --dry-run``: the cells of a run, and what they would cost."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.configs import JudgeConfig
from response_tuning.models.location import is_here
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows.cell_manifest import lacking
from response_tuning.workflows.context import check_context
from response_tuning.workflows.cost import Cost, answers_once, asked_once, cost_of
from response_tuning.workflows.experiment import Cell, Experiment
from response_tuning.workflows.names import check_sources, check_template
from response_tuning.workflows.report import shown_benchmarks
from response_tuning.workflows.run import check_filters, checked, chosen_of, device_of

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.grade import Item


def plan_experiment(
    experiment: Experiment,
    console: "Console",
    only: Sequence[str] = (),
    *,
    out: Path | None = None,
    retry_filtered: bool = False,
) -> None:
    """Print what ``run_experiment`` would do, and about what it would cost; write nothing.

    Cells that are whole in the folder ``out`` are no part of the cost.

    Raises:
        ConfigError: as ``run_experiment``.
        DataError: a source of data cannot be found.
    """
    from response_tuning.grade import lacks_judge

    quiet_libraries()
    needed: list[str] = []
    planned = chosen_of(checked(experiment, needed), only)
    check_filters(experiment, planned, retry_filtered=retry_filtered)
    check_sources(planned)
    for cell in planned:
        if not cell.tuned and cell.local and is_here(cell.finetune.base_model):
            check_template(cell)
    check_context(planned, experiment)
    for line in (*_variant_lines(planned), *_count_lines(planned, experiment)):
        console.print(line, highlight=False, soft_wrap=True)
    left = [cell for cell in planned if out is None or lacking(cell, experiment, out)]
    if out is not None and len(left) < len(planned):
        done = len(planned) - len(left)
        console.print(f"{done} of them are whole in {out}", highlight=False, soft_wrap=True)
    cost, left_out = cost_of(left, experiment)
    estimated = {cell.variant for cell in left} - {*chain(*left_out.values())}
    if estimated:
        for line in _cost_lines(cost, device_of(planned)):
            console.print(line, highlight=False, soft_wrap=True)
    about = "at most" if left_out else "about"
    judging = _judge_lines(cost, about, experiment.grade.judge)
    for line in (*judging, *_power_lines(experiment, planned)):
        console.print(line, highlight=False, soft_wrap=True)
    benchmarks = dict.fromkeys(name for cell in planned for name in cell.benchmarks)
    needed += filter(None, [lacks_judge(benchmarks, experiment.grade)])
    refusals = (f"before it can run: {one}" for one in needed)
    for line in (*_not_counted(planned, left_out), *refusals):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _variant_lines(planned: Sequence[Cell]) -> Iterator[str]:
    # Reversed, so that the first seed of each variant is the one that stays in the dict.
    first_seeds = {cell.variant: cell for cell in reversed(planned)}
    for variant in dict.fromkeys(cell.variant for cell in planned):
        yield f"{variant}: {_described(first_seeds[variant])}"


def _count_lines(planned: Sequence[Cell], experiment: Experiment) -> Iterator[str]:
    from response_tuning.grade import open_benchmark, open_lm_eval

    asked = {name for cell in planned for name in cell.benchmarks}
    items = {
        name: open_benchmark(name, experiment.grade).items()
        for name in experiment.benchmarks
        if name in asked and open_lm_eval(name) is None
    }
    by_lm_eval = [name for name in experiment.benchmarks if name in asked and open_lm_eval(name)]
    tuned = sum(cell.tuned for cell in planned)
    answering = {(cell.variant, "" if answers_once(cell) else cell.seed): cell for cell in planned}
    answers = sum(map(partial(_answers, items), answering.values()))
    yield f"seeds: {', '.join(map(str, dict.fromkeys(cell.seed for cell in planned)))}"
    counts = (f"{name} ({len(of_one):,} items)" for name, of_one in items.items())
    yield f"benchmarks: {', '.join(counts)}"
    if by_lm_eval:
        yield f"by lm-eval: {', '.join(by_lm_eval)}"
    yield f"{len(planned)} cells: {tuned} to tune, {answers:,} answers"


def _answers(items: "Mapping[str, Sequence[Item]]", cell: Cell) -> int:
    """Return how many answers a cell gives, of which benchmarks with one prompt share one."""
    own = {name: items[name] for name in cell.benchmarks if name in items}
    return sum(map(len, asked_once(own).values()))


def _cost_lines(cost: Cost, device: str) -> Iterator[str]:
    unit = "processor" if device.startswith("cpu") else "GPU"
    yield (
        f"cost: about {_hours(cost.tuning + cost.answering + cost.other)} {unit} hours "
        f"({_hours(cost.tuning)} of tuning, {_hours(cost.answering)} of answering, "
        f"{_hours(cost.other)} of all else) and {cost.memory / 2**30:.1f} GiB, measured here "
        f"({device})"
    )
    yield f"tokens: about {cost.trained:,.0f} in training, {cost.generated:,.0f} in answers"


def _judge_lines(cost: Cost, about: str, judge: JudgeConfig) -> Iterator[str]:
    if cost.questions:
        replies = cost.questions * judge.max_new_tokens
        price = ""
        if judge.price_in is not None and judge.price_out is not None:
            asked, replied = cost.asked * judge.price_in, replies * judge.price_out
            price = f"; {asked / 1e6:,.2f} dollars, and at most {replied / 1e6:,.2f} for replies"
        yield (
            f"judge: {cost.questions:,.0f} requests, {about} {cost.asked:,.0f} tokens, and at most "
            f"{replies:,.0f} of replies{price}"
        )


def _not_counted(planned: Sequence[Cell], left_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
    from response_tuning.grade import open_lm_eval

    by_lm_eval = [name for cell in planned for name in cell.benchmarks if open_lm_eval(name)]
    refined = [cell.variant for cell in planned if cell.data and cell.data.refinement]
    for what, of in (("lm-eval", by_lm_eval), ("requests that refine responses", refined)):
        if of:
            yield f"not counted: {what}: {', '.join(dict.fromkeys(of))}"
    for reason, variants in left_out.items():
        yield f"not counted: {', '.join(variants)}: {reason}"


def _power_lines(experiment: Experiment, planned: Sequence[Cell]) -> Iterator[str]:
    """Yield which differences the planned comparisons can show; nothing if nothing is compared."""
    from response_tuning.grade import open_benchmark, open_lm_eval, planned_prompts
    from response_tuning.report import plan_power

    if not experiment.report.baselines:
        return
    clusters: dict[str, int] = {}
    published, not_known = [], []
    for name in experiment.benchmarks:
        by_lm_eval = open_lm_eval(name)
        if by_lm_eval is None:
            items = open_benchmark(name, experiment.grade).items()
            clusters[name] = len({item.cluster or item.item_id for item in items})
            continue
        count, copied = planned_prompts(by_lm_eval, experiment.grade)
        if count is None:
            not_known.append(name)
            continue
        clusters[name] = count  # lm-eval's items have no clusters: each asks about its own
        if not copied:
            published.append(name)
    seeds, level = len({cell.seed for cell in planned}), experiment.report.confidence
    yield from plan_power(clusters, shown_benchmarks(experiment), seeds, level)
    if published:
        yield f"prompts of {', '.join(published)}: counted in the published datasets, not read here"
    if not_known:
        yield (
            f"power on {', '.join(not_known)}: not known, because lm-eval counts the prompts when "
            "it loads the data"
        )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _described(cell: Cell) -> str:
    if cell.data is None:
        return f"{cell.finetune.base_model}, as it is"
    size = f"{cell.data.max_examples:,} of " if cell.data.max_examples else ""
    mixed = cell.data.mixture.refusals
    refusals = f" and {mixed:,} refusals" if mixed else ""
    refiner = cell.data.refinement
    refined = f", refined by {refiner.settings.model or refiner.engine}" if refiner else ""
    fresh = " with fresh weights" if cell.finetune.random_init else ""
    base = f"the model of '{cell.after}'" if cell.after else cell.finetune.base_model
    return (
        f"{cell.finetune.objective} ({cell.finetune.method}) of {base}{fresh} "
        f"on {size}{cell.data.source}{refined}{refusals}"
    )
