"""``rtune probe --predict``: what response tuning will bring, before any tuning; then the audit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from response_tuning.artifacts import (
    Record,
    Score,
    digest,
    file_digest,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
)
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import STAGE_MANIFEST, shared, turn
from response_tuning.workflows.predictors import (
    STRICT,
    PredictConfig,
    Questions,
    graded_by_rule,
    measure,
)
from response_tuning.workflows.probe import ProbeConfig, print_lines, read_pairs

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.probe.forecast import Row
    from response_tuning.workflows.experiment import Cell

PREDICTION = "prediction.json"
PREDICTIONS = "predictions"
"""Folder of a run with the predictions that its report compares with the outcome."""
ARMS = {"response-tuning": "rt", "instruction-tuning": "it"}
"""Objective -> outcome of the study."""
NAMES = {"rt": "response tuning", "it": "instruction tuning"}


_NONE = "the study of predictors is not finished, so no predictor has shown what it can do"


class Range(Record):
    """A predicted score: a share, with the ends of its interval."""

    value: float
    low: float
    high: float


class Prediction(Record):
    """What ``prediction.json`` holds."""

    base: str
    """Identity of the base."""
    template: str
    """Digest of the template."""
    template_name: str
    benchmark: str
    metric: Literal["strict"] = STRICT
    responses: int
    """Responses that the base would be tuned on."""
    reached: dict[str, Range]
    """Outcome (``rt``, ``it``) -> the predicted score; none if no predictor passed the bar."""
    reason: str
    """Why there is no prediction, or that the base is unlike those of the study; may be empty."""
    values: dict[str, float | None]
    """Every predictor; null for what could not be computed."""
    enough: int | None
    """Responses that bring most of the fall of the loss; null if it did not fall."""
    short_run_rate: float | None = None
    """Learning rate of the short run that says so."""
    study: str
    """Digest of the study that the fit is made on."""
    settings: dict[str, Any]
    packages: dict[str, str]


class Checked(NamedTuple):
    """A prediction beside what a variant of the run reached."""

    variant: str
    benchmark: str
    metric: str
    predicted: float
    low: float
    high: float
    reached: float
    inside: bool
    seeds: int
    prompts: int
    """Prompts that were answered at each seed."""
    before: bool
    """Whether the file of the prediction is older than the tuned model."""


def run_predict(
    model: "EngineConfig",
    data: "DataConfig",
    questions: Questions,
    out: Path,
    console: "Console",
    run: Path | None = None,
) -> None:
    """Predict the scores of a base, and leave ``prediction.json`` in ``out``, and in ``run``.

    Raises:
        ConfigError: the benchmark's answers are not scored by rule.
        DataError: too few of the responses can be scored.
        ModelError: the base cannot be loaded.
    """
    from response_tuning.models.inference import load

    settings = PredictConfig()  # those of the study: other numbers would not fit it
    check_predictable(questions)
    benchmark = questions.benchmark
    pairs = read_pairs(data, ProbeConfig(items=settings.items + settings.tuned_on))
    local = load(str(model.model), model.template, model.revision, model.device)
    probed = measure(local, model, pairs, questions, settings)
    reached, reason, study = forecasts(benchmark, probed.values)
    found = Prediction(
        base=local.identity,
        template=local.chat.digest,
        template_name=model.template or "native",
        benchmark=benchmark,
        responses=settings.responses,
        reached=reached,
        reason=reason,
        values={name: value if value == value else None for name, value in probed.values.items()},
        enough=probed.enough,
        short_run_rate=probed.rate,
        study=study,
        settings=settings.model_dump(),
        packages=package_versions(),
    )
    content = found.model_dump(mode="json")
    write_json(out / PREDICTION, content)
    written = [out / PREDICTION]
    if run is not None:
        name = f"{digest(found.base, found.template, benchmark)[:12]}.json"
        with shared(run), turn(run):
            write_json(run / PREDICTIONS / name, content)
        written.append(run / PREDICTIONS / name)
    print_lines(console, [sentence(found), *(f"wrote {path}" for path in written)])


def check_predictable(questions: Questions) -> None:
    """Refuse a benchmark that no prediction can be made on, and settings without effect on it.

    Raises:
        ConfigError: see ``graded_by_rule``; or a setting has no effect.
        DataError: its questions cannot be read.
    """
    from response_tuning.grade import check_effect

    if questions.grade.limit is not None:
        raise ConfigError("grade.limit has no effect on a prediction; remove it")
    rule = graded_by_rule(questions)
    check_effect([questions.benchmark], questions.grade)
    rule.items()


def forecasts(benchmark: str, values: Mapping[str, float]) -> tuple[dict[str, Range], str, str]:
    """Return the predicted scores, why there are none or how far to trust them, and the study."""
    from response_tuning.probe import forecast

    study = file_digest(forecast.STUDY)
    rows = [row for row in forecast.read_study() if row.benchmark == benchmark]
    adopted = read_json(forecast.ADOPTED).get(benchmark)
    if not (rows and adopted):
        known = ", ".join(read_json(forecast.ADOPTED))
        other = f"the study of predictors covers other benchmarks ({known})"
        return {}, other if known else _NONE, study
    if not adopted.get("rt", {}).get("passed"):
        return {}, _failed(adopted.get("rt")), study
    new = forecast.Row(benchmark, "", "", values, {})
    reached: dict[str, Range] = {}
    beyond: set[str] = set()
    for outcome, found in adopted.items():
        names = found["predictors"]
        of_outcome = forecast.complete(rows, outcome)
        if not found["passed"] or names != forecast.usable([*of_outcome, new], names):
            continue
        beyond |= {name for name in names if not _within(name, values, of_outcome)}
        expected = forecast.interval(of_outcome, names, outcome, new)
        reached[outcome] = Range(**expected._asdict())
    return reached, _beyond(beyond), study


def _within(name: str, values: Mapping[str, float], rows: "Sequence[Row]") -> bool:
    known = [row.measured[name] for row in rows]
    return min(known) <= values[name] <= max(known)


def _beyond(names: set[str]) -> str:
    if not names:
        return ""
    return f"the base is unlike those of the study in {', '.join(sorted(names))}: do not rely on it"


def _failed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "the study has too few bases"
    return (
        f"on bases that the fit had not seen, the best of fourteen predictors erred by "
        f"{100 * found['nested_error']:.0f} points and the best baseline by "
        f"{100 * found['baseline_error']:.0f}; the bar is half of that"
    )


def sentence(found: Prediction) -> str:
    """Return a prediction in words."""
    base = found.values.get("base_strict") or 0.0
    stopped = found.values.get("stop_strict") or 0.0
    parts = [_expected(found)]
    parts.append(
        f"The base itself has {100 * base:.1f} %, and {100 * stopped:.1f} % with a newline as stop "
        "string."
    )
    rt = found.reached.get("rt")
    if rt and rt.value > base:
        share = min(1.0, max(0.0, (stopped - base) / (rt.value - base)))
        parts.append(f"So {100 * share:.0f} % of the predicted gain is learning to stop.")
    if found.enough is not None:
        parts.append(
            f"95 % of the fall of the loss of unseen responses takes about {found.enough:,} of "
            f"{found.responses:,} responses, by a curve through the losses of a short run at a "
            f"learning rate of {found.short_run_rate:g}."
        )
    elif found.short_run_rate is not None:
        fell = (found.values.get("learnability") or 0.0) > 0
        why = "no curve fits its losses" if fell else "the loss rose in it"
        parts.append(f"How many responses are enough is not known from the short run: {why}.")
    return " ".join(parts)


def _expected(found: Prediction) -> str:
    what = f"{found.benchmark}, {found.metric}, after {found.responses:,} responses"
    if not found.reached:
        return f"No prediction for {what}: {found.reason}."
    each = [
        f"{NAMES[outcome]} {100 * one.value:.0f} % (90 % interval {100 * one.low:.0f} to "
        f"{100 * one.high:.0f})"
        for outcome, one in found.reached.items()
    ]
    warning = f" Warning: {found.reason}." if found.reason else ""
    return f"Predicted for {what}: {', '.join(each)}.{warning}"


def read_predictions(run: Path) -> dict[Path, Prediction]:
    """Return the predictions in a run's folder, by file.

    Raises:
        DataError: a file there is no prediction.
    """
    found = {}
    for path in sorted((run / PREDICTIONS).glob("*.json")):
        try:
            found[path] = Prediction.model_validate(_content(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{path}: {where}: {first['msg']}; delete it, or predict again with 'rtune probe "
                "--for'"
            ) from error
    return found


def _content(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(path).items() if key != "schema"}


def checked(run: Path, whole: "Sequence[Cell]") -> list[Checked]:
    """Return each prediction in a run beside what the variants that it is about reached."""
    predictions = read_predictions(run)
    if not predictions:
        return []
    by_variant: dict[str, list[Cell]] = {}
    for cell in whole:
        if cell.tuned and cell.finetune.objective in ARMS:
            by_variant.setdefault(cell.variant, []).append(cell)
    return [
        one
        for variant, of_variant in by_variant.items()
        for path, prediction in predictions.items()
        for one in _checked(run, of_variant, path, prediction)
    ]


def _checked(
    run: Path, of_variant: "Sequence[Cell]", path: Path, prediction: Prediction
) -> Iterator[Checked]:
    first = of_variant[0]
    tuned = [cell.folder(run) / "finetune" / STAGE_MANIFEST for cell in of_variant]
    manifest = read_json(tuned[0])
    about = (prediction.base, prediction.template)
    expected = prediction.reached.get(ARMS[first.finetune.objective])
    if about != (manifest.get("base"), manifest.get("template")) or expected is None:
        return
    if manifest.get("audit", {}).get("kept") != prediction.responses:
        return
    graded = [c.folder(run) / "grade" / f"{prediction.benchmark}.jsonl" for c in of_variant]
    values = [_values(scores, prediction.metric) for scores in graded if scores.exists()]
    if values:
        reached = fmean(map(fmean, values))
        yield Checked(
            variant=first.variant,
            benchmark=prediction.benchmark,
            metric=prediction.metric,
            predicted=expected.value,
            low=expected.low,
            high=expected.high,
            reached=reached,
            inside=expected.low <= reached <= expected.high,
            seeds=len(values),
            prompts=len(values[0]),
            before=path.stat().st_mtime < min(one.stat().st_mtime for one in tuned),
        )


def _values(path: Path, metric: str) -> list[float]:
    return [score.value for score in read_jsonl(path, Score) if score.metric == metric]


def audit_sentences(run: Path, every: Sequence[Checked]) -> list[str]:
    """Return a sentence for each prediction in a run: what was reached, or that nothing was."""
    lines = [
        f"{_when(one)} for {one.variant} on {one.benchmark}, {one.metric}: "
        f"{100 * one.predicted:.1f} % (90 % interval {100 * one.low:.1f} to {100 * one.high:.1f}). "
        f"Reached: {100 * one.reached:.1f} % of {one.prompts:,} prompts, "
        f"{'inside' if one.inside else 'outside'} the interval."
        for one in every
    ]
    found = {(one.benchmark, one.predicted) for one in every}
    for prediction in read_predictions(run).values():
        if not any((prediction.benchmark, r.value) in found for r in prediction.reached.values()):
            lines.append(_without_outcome(prediction))
    return lines


def _when(one: Checked) -> str:
    if one.before:
        return "Predicted before tuning"
    return "Predicted, in a file that is newer than the tuned model and so no test,"


def write_audit(run: Path, every: Sequence[Checked]) -> None:
    """Write ``report/predictions.csv``, or delete an earlier one if nothing was predicted."""
    from response_tuning.report.tables import write_csv

    path = run / "report" / "predictions.csv"
    path.unlink(missing_ok=True)
    if every:
        write_csv(path, Checked, every)


def _without_outcome(prediction: Prediction) -> str:
    about = f"{prediction.benchmark} under '{prediction.template_name}'"
    if not prediction.reached:
        return f"No score was predicted for {about}: {prediction.reason}."
    return (
        f"The prediction for {about} has no outcome here: no variant was tuned on its base and "
        f"template with {prediction.responses:,} responses."
    )
