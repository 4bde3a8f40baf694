import csv
import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Score, read_json, write_json, write_jsonl
from response_tuning.configs import DataConfig, EngineConfig, GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.probe import forecast
from response_tuning.probe.predictors import BASELINES, DETAILS, PREDICTORS
from response_tuning.workflows import predict
from response_tuning.workflows.experiment import Cell, cells, read_experiment
from response_tuning.workflows.predict import (
    PREDICTIONS,
    Prediction,
    Range,
    audit_sentences,
    check_predictable,
    checked,
    run_predict,
    sentence,
)
from response_tuning.workflows.predictors import PredictConfig, Questions

BENCHMARK = "miniature-unseen"
UNSEEN = Questions(BENCHMARK, GradeConfig())
FEW = PredictConfig(
    items=4, draws=1, questions=3, sampled=2, samples=2, max_new_tokens=4, tuned_on=64
)
RECIPE = """
data: {source: miniature, max_examples: 1000}
finetune: {base_model: miniature, template: roles}
benchmarks: [miniature-unseen]
seeds: [0, 1]
variants:
  base: {finetune: null}
  rt: {finetune: {objective: response-tuning}}
  it: {finetune: {objective: instruction-tuning}}
"""


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the study that the package ships."""

    def replace(*, passed: bool, high: float = 1.0) -> None:
        lines = ["benchmark,base,template,willingness,rt,it"]
        for n in range(6):
            lines += [f"{BENCHMARK},b{n},roles,{high * n / 5},{0.1 + n / 7},{0.9}"]
        study, adopted = tmp_path / "study.csv", tmp_path / "study.json"
        study.write_text("\n".join(lines) + "\n")
        found = {
            "predictors": ["willingness"],
            "error": 0.03,
            "nested_error": 0.04,
            "baseline": ["perplexity"],
            "baseline_error": 0.2,
            "passed": passed,
        }
        adopted.write_text(json.dumps({BENCHMARK: {"rt": found, "it": found}}))
        monkeypatch.setattr(forecast, "STUDY", study)
        monkeypatch.setattr(forecast, "ADOPTED", adopted)
        monkeypatch.setattr(forecast, "read_study", partial(forecast.read_study, study))

    return replace


def predicted(
    base: Path | str,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    questions: Questions = UNSEEN,
    **more: Any,
) -> str:
    monkeypatch.setattr(predict, "PredictConfig", lambda: FEW)
    said = io.StringIO()
    engine = EngineConfig(model=str(base), template="roles", device="cpu")
    data = DataConfig(source="miniature")
    run_predict(engine, data, questions, out, Console(file=said, width=1000), **more)
    return said.getvalue()


def prediction(**changes: Any) -> Prediction:
    content: dict[str, Any] = {
        "base": "identity",
        "template": "digest",
        "template_name": "roles",
        "benchmark": BENCHMARK,
        "responses": 1000,
        "reached": {"rt": Range(value=0.8, low=0.6, high=0.9)},
        "reason": "",
        "values": {"base_strict": 0.0, "stop_strict": 0.2},
        "enough": 265,
        "short_run_rate": 4e-4,
        "study": "study",
        "settings": {},
        "packages": {},
    }
    return Prediction(**{**content, **changes})


def test_every_predictor_of_a_base_is_measured_and_written(
    tiny_base: Path, tmp_path: Path, ship: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(passed=True)
    said = predicted(tiny_base, tmp_path / "probe", monkeypatch, run=tmp_path / "run")
    found = Prediction.model_validate(
        {k: v for k, v in read_json(tmp_path / "probe/prediction.json").items() if k != "schema"}
    )
    assert {*PREDICTORS, *DETAILS, *BASELINES} <= {*found.values}
    assert all(found.values[name] is not None for name in PREDICTORS if name != "h_score")
    assert found.values["willingness"] == found.values["base_strict"] == 0
    assert {*found.reached} == {"rt", "it"}
    assert found.reached["rt"].low <= found.reached["rt"].value <= found.reached["rt"].high
    assert said.startswith(f"Predicted for {BENCHMARK}, strict, after 1,000 responses: response")
    (left,) = (tmp_path / "run" / PREDICTIONS).glob("*.json")
    assert left.read_bytes() == (tmp_path / "probe/prediction.json").read_bytes()


def test_own_questions_with_expected_words_are_asked_of_the_base(
    tmp_path: Path, ship: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(passed=True)
    questions = tmp_path / "questions.jsonl"
    rows = ({"prompt": f"Is {n} a number?", "expected": "e"} for n in range(5))
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade = GradeConfig(paths={"prompts": questions})
    own = Questions("prompts", grade)
    said = predicted("miniature", tmp_path, monkeypatch, questions=own)
    assert said.startswith("No prediction for prompts")
    assert f"the study of predictors covers other benchmarks ({BENCHMARK})" in said
    values = read_json(tmp_path / "prediction.json")["values"]
    assert values["willingness"] is not None

    with pytest.raises(ConfigError, match="name your file"):
        check_predictable(Questions("prompts", GradeConfig()))
    with pytest.raises(ConfigError, match="limit has no effect"):
        check_predictable(Questions("prompts", GradeConfig(limit=3)))


def test_no_number_is_printed_if_no_predictor_passed_the_bar(ship: Any) -> None:
    ship(passed=False)
    reached, reason, _ = predict.forecasts(BENCHMARK, {"willingness": 0.5})
    assert reached == {}
    assert "erred by 4 points and the best baseline by 20; the bar is half of that" in reason
    said = sentence(prediction(reached=reached, reason=reason))
    assert said.startswith(f"No prediction for {BENCHMARK}")
    assert "predicted gain" not in said


def test_a_benchmark_outside_the_study_has_no_prediction(ship: Any) -> None:
    ship(passed=True)
    reached, reason, _ = predict.forecasts("miniature-seen", {"willingness": 0.5})
    assert reached == {}
    assert reason == f"the study of predictors covers other benchmarks ({BENCHMARK})"


def test_without_a_finished_study_no_number_is_printed(
    tmp_path: Path, ship: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(passed=True)
    (tmp_path / "study.json").write_text("{}")
    reached, reason, _ = predict.forecasts(BENCHMARK, {"willingness": 0.5})
    assert (reached, reason.startswith("the study of predictors is not finished")) == ({}, True)


def test_the_study_that_is_shipped_can_be_read_and_its_errors_are_those_of_its_rows() -> None:
    rows = forecast.read_study()
    for benchmark, outcomes in json.loads(forecast.ADOPTED.read_text("utf-8")).items():
        for outcome, found in outcomes.items():
            mine = [row for row in rows if row.benchmark == benchmark]
            of_outcome = forecast.complete(mine, outcome)
            error = forecast.left_out_error(of_outcome, found["predictors"], outcome)
            assert error == pytest.approx(found["error"], abs=1e-3)
            passed = found["nested_error"] <= forecast.BAR * found["baseline_error"]
            assert found["passed"] is passed


def test_a_base_unlike_those_of_the_study_is_named_as_such(ship: Any) -> None:
    ship(passed=True, high=0.5)
    reached, reason, _ = predict.forecasts(BENCHMARK, {"willingness": 0.9})
    assert reached
    assert reason == "the base is unlike those of the study in willingness: do not rely on it"


def test_the_sentence_says_how_much_of_the_gain_is_learning_to_stop() -> None:
    said = sentence(prediction())
    assert "response tuning 80 % (90 % interval 60 to 90)" in said
    assert "So 25 % of the predicted gain is learning to stop." in said, "20 of 80 points"
    assert "about 265 of 1,000 responses" in said


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[Path, list[Cell]]:
    """A run whose cells look as if they were tuned: RT reached 70 and 90 %."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    every, folder = cells(read_experiment(recipe)), tmp_path / "run"
    for cell in every:
        if cell.tuned:
            manifest = {"base": "identity", "template": "digest", "audit": {"kept": 1000}}
            write_json(cell.folder(folder) / "finetune" / "manifest.json", manifest)
        right = 7 + 2 * cell.seed
        scores = [Score(item_id=str(n), metric="strict", value=float(n < right)) for n in range(10)]
        write_jsonl(cell.folder(folder) / "grade" / f"{BENCHMARK}.jsonl", scores)
    return folder, every


def leave(run: Path, found: Prediction, name: str = "one") -> None:
    path = run / PREDICTIONS / f"{name}.json"
    write_json(path, found.model_dump(mode="json"))
    os.utime(path, (0, 0))  # long before any tuning


def test_a_prediction_is_compared_with_what_its_variant_reached(
    tuned: tuple[Path, list[Cell]],
) -> None:
    folder, every = tuned
    assert checked(folder, every) == []
    leave(folder, prediction())
    (found,) = checked(folder, every)
    assert (found.variant, found.predicted, found.seeds) == ("rt", 0.8, 2)
    assert found.reached == pytest.approx(0.8)
    assert found.inside
    assert audit_sentences(folder, [found]) == [
        "Predicted before tuning for rt on miniature-unseen, strict: 80.0 % (90 % interval 60.0 to "
        "90.0). Reached: 80.0 % of 10 prompts, inside the interval."
    ]
    leave(folder, prediction())
    (folder / PREDICTIONS / "one.json").touch()
    (late,) = checked(folder, every)
    assert audit_sentences(folder, [late])[0].startswith(
        "Predicted, in a file that is newer than the tuned model and so no test, for rt on "
    )
    predict.write_audit(folder, [found])
    with (folder / "report/predictions.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert (row["variant"], row["reached"], row["inside"]) == ("rt", "0.8", "true")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base": "another"}, "has no outcome here"),
        ({"template": "another"}, "has no outcome here"),
        ({"responses": 320}, "with 320 responses"),
        ({"reached": {}, "reason": "nothing passed"}, "No score was predicted for"),
    ],
)
def test_a_prediction_about_something_else_is_not_compared_and_the_report_says_so(
    tuned: tuple[Path, list[Cell]], change: dict[str, Any], why: str
) -> None:
    folder, every = tuned
    leave(folder, prediction(**change))
    found = checked(folder, every)
    assert found == []
    (line,) = audit_sentences(folder, found)
    assert why in line


def test_a_damaged_prediction_is_one_line(tuned: tuple[Path, list[Cell]]) -> None:
    folder, every = tuned
    write_json(folder / PREDICTIONS / "x.json", {"base": 3})
    with pytest.raises(DataError, match=r"x\.json: \w+: .*delete it, or predict again") as error:
        checked(folder, every)
    assert "\n" not in str(error.value)


def test_a_report_has_the_prediction_and_the_outcome(rtune: Callable[..., Any], run: Path) -> None:
    manifest = read_json(run / "rt/seed-0/finetune/manifest.json", "base", "template", "audit")
    about = {key: manifest[key] for key in ("base", "template")}
    about |= {"benchmark": "miniature-unseen-validation", "responses": manifest["audit"]["kept"]}
    leave(run, prediction(**about))
    assert rtune("report", run).code == 0
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert "Predicted before tuning for rt on miniature-unseen-validation, strict: 80.0 %" in text
    with (run / "report/predictions.csv").open(encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    with (run / "report/results.csv").open(encoding="utf-8") as lines:
        (result,) = (
            line
            for line in csv.DictReader(lines)
            if (line["variant"], line["metric"]) == ("rt", "strict")
        )
    assert float(row["reached"]) == float(result["value"])
    (run / PREDICTIONS / "one.json").unlink()
    assert rtune("report", run).code == 0
    assert not (run / "report/predictions.csv").exists()
