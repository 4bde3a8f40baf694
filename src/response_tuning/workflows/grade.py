"""``rtune grade``: completions of one benchmark become scores."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from response_tuning import plugins, seals
from response_tuning.artifacts import (
    Score,
    file_digest,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.folders import STAGE_MANIFEST, folder_state, locked_file
from response_tuning.metrics import WITHOUT_VERDICT, Display, JudgeErrors
from response_tuning.unread import unread
from response_tuning.workflows.judge import Judge, check_retry
from response_tuning.workflows.recorded import recorded_in

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.grade import Average


JUDGE_JOURNAL = "judge.journal"


def grade_answers(benchmark: str, config: GradeConfig, folder: Path, judge: Judge) -> None:
    """Grade a cell's answers to one benchmark, unless they are graded exactly so already."""
    from response_tuning.grade import grade

    completions = folder / "generate" / f"{benchmark}.jsonl"
    scores, manifest = folder / "grade" / f"{benchmark}.jsonl", folder / "grade" / STAGE_MANIFEST
    graded = recorded_in(scores.parent)
    # The package version stands for the grading code: another version grades again.
    inputs = {
        "completions": file_digest(completions),
        "rules": package_versions()["response-tuning"],
        **_judged_by(benchmark, config),
    }
    recorded = graded.get(benchmark)
    before = recorded if isinstance(recorded, dict) else {}
    files = before.get("files") or [scores.name]
    state = folder_state(scores.parent, before or None, inputs, files)
    if state.whole and not judge.retry_filtered:
        return
    ask_judge = judge.with_journal(folder / "grade" / JUDGE_JOURNAL, benchmark)
    grade(benchmark, completions, scores, config, ask_judge)
    made_from = {name: value for name, value in inputs.items() if value is not None}
    made_from["files"] = seals.sums(scores.parent, [scores.name])
    write_json(manifest, graded | {benchmark: made_from})


def print_scores(scores: Sequence[Score], console: "Console") -> bool:
    """Print every metric; return False if too many verdicts were unreadable to give rates."""
    lost = unread(scores)
    metrics: dict[str, list[Score]] = {}
    for score in scores:
        metrics.setdefault(score.metric, []).append(score)
    for metric, of_metric in metrics.items():
        if lost.too_many and metric not in WITHOUT_VERDICT:
            console.print(f"{metric:>22}  n/a    ({lost})", style="red", highlight=False)
            continue
        mean = fmean([s.value for s in of_metric], [s.weight for s in of_metric])
        console.print(f"{metric:>22}  {mean:.3f}  (n {len(of_metric):,})", highlight=False)
    return not lost.too_many


def print_totals(scores: Path, console: "Console") -> None:
    """Print the numbers beside a file of scores that are not means over its items."""
    from response_tuning.grade import totals_file

    path = totals_file(scores)
    for one in read_json(path)["totals"] if path.exists() else ():
        interval = f"[{one['low']:.3f}, {one['high']:.3f}]"
        about = f"(n {one['n']:,}; {one['note']})"
        console.print(
            f"{one['metric']:>22}  {one['value']:.3f} {interval}  {about}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def write_average(average: "Average", folder: Path) -> None:
    """Write the average of a cell's benchmarks as one more benchmark.

    With ``grade.limit``, a benchmark may have no item with one of the metrics, and one of them may
    have too many unread verdicts. In both cases there is no average.
    """
    graded = {name: folder / "grade" / f"{name}.jsonl" for name in average.benchmarks}
    scores = {name: list(read_jsonl(path, Score)) for name, path in graded.items()}
    out = folder / "grade" / f"{average.name}.jsonl"
    out.unlink(missing_ok=True)
    complete = all(
        {*average.metrics} <= {one.metric for one in of_benchmark}
        for of_benchmark in scores.values()
    )
    if complete and not any(unread(of_benchmark).too_many for of_benchmark in scores.values()):
        write_jsonl(out, average.scores(scores))


def about_judge(benchmarks: Sequence[str], config: GradeConfig) -> list[str]:
    """Return sentences on who judged, how far people agree, and which rates are corrected for it.

    Empty if nothing was judged.
    """
    from response_tuning.grade import JudgedBenchmark, facts, open_benchmark, open_lm_eval
    from response_tuning.grade.agreement.record import correction_sentence, judge_sentence

    judged = [
        name
        for name in benchmarks
        if open_lm_eval(name) is None
        and (
            facts(name, config).is_judged
            or isinstance(open_benchmark(name, config), JudgedBenchmark)
        )
    ]
    sentence = judge_sentence(config.judge, judged)
    errors = _refusal_errors(benchmarks, config)
    known_errors = dict.fromkeys(errors.values())
    corrections = [correction_sentence(known, [*errors]) for known in known_errors]
    return [*([sentence] if sentence else []), *corrections]


def shown_benchmarks(benchmarks: Sequence[str], config: GradeConfig) -> dict[str, Display]:
    """Return how a report shows each benchmark, with the known errors of its judge."""
    from response_tuning.grade import displays

    shown = displays(benchmarks, config)
    errors = _refusal_errors(benchmarks, config)
    return shown | {name: shown[name]._replace(errors=known) for name, known in errors.items()}


def _refusal_errors(benchmarks: Sequence[str], config: GradeConfig) -> dict[str, JudgeErrors]:
    """Return the judge's errors by benchmark of refusals, averages included; empty if unknown."""
    from response_tuning.grade import BENCHMARKS, averages
    from response_tuning.grade.agreement.record import judge_errors
    from response_tuning.grade.judges.refusals import RefusalBenchmark

    judged = [name for name in benchmarks if isinstance(BENCHMARKS.get(name), RefusalBenchmark)]
    errors = judge_errors(config.judge) if judged else None
    if errors is None:
        return {}
    return dict.fromkeys([*judged, *(one.name for one in averages(judged, config))], errors)


def _judged_by(benchmark: str, config: GradeConfig) -> dict[str, Any]:
    """Return what else decides the scores; None for what does not apply to the benchmark."""
    from response_tuning.grade import JudgedBenchmark, open_benchmark

    rule = open_benchmark(benchmark, config)
    inputs: dict[str, Any] = {"origin": getattr(rule, "origin", None)}
    inputs |= {"judge": None, "reference": None}
    if not type(rule).__module__.startswith("response_tuning."):
        inputs["plugins"] = plugins.versions()  # "rules" is the version of our own rules
    if isinstance(rule, JudgedBenchmark):
        inputs["judge"] = config.judge.model_dump(mode="json", exclude={*config.judge.NOT_JUDGING})
        if config.reference is not None:
            if not Path(config.reference).exists():
                raise ConfigError(f"grade.reference: no such file or variant: {config.reference}")
            inputs["reference"] = file_digest(Path(config.reference))
    return inputs


def run_grade(
    benchmark: str,
    completions: Path,
    out: Path,
    config: GradeConfig,
    console: "Console",
    *,
    retry_filtered: bool = False,
) -> bool:
    """Grade one file of completions, and print every metric.

    Returns False if too many verdicts were unreadable to give rates.
    """
    from response_tuning.grade import check_effect, grade

    check_effect([benchmark], config)
    check_retry(config.judge, retry_filtered=retry_filtered)
    with locked_file(out, completions, config) as journal:
        say = Judge(config.judge, console, retry_filtered=retry_filtered).with_journal(
            journal, benchmark
        )
        count = grade(benchmark, completions, out, config, say)
    known = print_scores(list(read_jsonl(out, Score)), console)
    print_totals(out, console)
    console.print(f"wrote {out}: {count:,} scores", highlight=False, soft_wrap=True)
    return known
