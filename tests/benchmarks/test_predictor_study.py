import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Score, write_json, write_jsonl
from response_tuning.errors import DataError
from response_tuning.probe import forecast
from response_tuning.probe.predictors import BASELINES, PREDICTORS
from response_tuning.workflows.experiment import cells, read_experiment
from response_tuning.workflows.predictors import PredictConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks/predictor_study.py"
STUDY = runpy.run_path(str(SCRIPT))
BENCHMARK = "miniature-unseen"
BASES = [f"b{n}" for n in range(5)]
RECIPE = """
data: {source: miniature, max_examples: 1000}
finetune: {base_model: miniature, device: cpu}
benchmarks: [miniature-unseen]
variants:
  stop: {finetune: null}
  rt: {finetune: {objective: response-tuning}}
  it: {finetune: {objective: instruction-tuning}}
grid:
  bases: BASES
  templates: [roles, tulu]
"""


def recipe(folder: Path, bases: dict[str, str]) -> Path:
    path = folder / "study.yaml"
    path.write_text(RECIPE.replace("BASES", json.dumps(bases)))
    return path


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    """A run and its frozen predictors: the score of RT is its willingness."""
    path = recipe(tmp_path, {name: f"bases/{name}" for name in BASES})
    experiment = read_experiment(path)
    run, frozen = tmp_path / "run", tmp_path / "frozen"
    frozen.mkdir()
    for n, base in enumerate(BASES):
        for template in ("roles", "tulu"):
            values = {name: float((3 * n) % 5) for name in (*PREDICTORS, *BASELINES)}
            values |= {"willingness": n / 5, "stop_strict": 0.0, "h_score": None}  # type: ignore[dict-item]
            content = {"base": base, "template": template, "benchmark": BENCHMARK, "values": values}
            write_json(frozen / f"{base}-{template}.json", content)
    for cell in cells(experiment):
        if cell.tuned:
            right = 2 * BASES.index(cell.place["bases"])
            scores = [
                Score(item_id=str(n), metric="strict", value=float(n < right)) for n in range(10)
            ]
            write_jsonl(cell.folder(run) / "grade" / f"{BENCHMARK}.jsonl", scores)
    write_json(run / "manifest.json", {"experiment": experiment.model_dump(mode="json")})
    return run, frozen


@pytest.fixture
def unshipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study is written into ``tmp_path``, and not into the package."""
    monkeypatch.setattr(forecast, "RESAMPLES", 10)
    monkeypatch.setattr(forecast, "STUDY", tmp_path / "study.csv")
    monkeypatch.setattr(forecast, "ADOPTED", tmp_path / "study.json")


def test_the_findings_name_the_predictor_that_decides(
    study: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "RESAMPLES", 50)
    lines = STUDY["fit"](STUDY["joined"](*study), write=False)
    assert lines[:2] == [BENCHMARK, "rt: 10 bases x templates, 5 bases"]
    found = "\n".join(lines)
    assert "best: willingness, error" in found
    assert "h_score" not in found, "some base lacks it"
    assert "passes" in found and "does not pass" not in found


@pytest.mark.usefixtures("unshipped")
def test_a_study_is_written_and_read_again(study: tuple[Path, Path], tmp_path: Path) -> None:
    STUDY["fit"](STUDY["joined"](*study), write=True)
    rows = forecast.read_study(tmp_path / "study.csv")
    assert len(rows) == 10
    assert rows[0].reached == {"rt": 0.0, "it": 0.0}
    assert rows[-1].measured["willingness"] == 0.8
    adopted = json.loads((tmp_path / "study.json").read_text())[BENCHMARK]["rt"]
    assert adopted["passed"] is True
    assert adopted["predictors"] == ["willingness"]


@pytest.mark.usefixtures("unshipped")
def test_a_study_is_extended_by_a_base_that_answered_another_benchmark(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    shipped = STUDY["joined"](*study)
    own = shipped[0]._replace(benchmark="prompts", base="mine", reached={"rt": 0.3, "it": 0.4})
    better = own._replace(reached={"rt": 0.5})
    rows = STUDY["extended"](STUDY["extended"](shipped, [own]), [better])
    assert rows == [*shipped, better], "a base under a known name replaces the one that was there"
    lines = STUDY["fit"](rows, write=True)
    assert "rt: 1 bases, fewer than 4" in lines[lines.index("prompts") :]
    place = lines.index("each base on its own benchmark")
    assert lines[place + 1] == "rt: 11 bases x templates, 6 bases"
    assert forecast.read_study(tmp_path / "study.csv") == rows
    assert {*json.loads((tmp_path / "study.json").read_text())} == {BENCHMARK}, "too few of prompts"


def test_a_base_that_was_tuned_before_it_was_frozen_is_refused(study: tuple[Path, Path]) -> None:
    import os

    run, frozen = study
    score = run / "rt-b0-roles/seed-0/grade" / f"{BENCHMARK}.jsonl"
    os.utime(score, (0, 0))
    with pytest.raises(DataError, match=r"is older than .*b0-roles\.json"):
        STUDY["joined"](run, frozen)


def test_what_is_frozen_is_not_measured_again_and_a_missing_base_is_named(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    few = PredictConfig(
        items=3, draws=1, questions=2, sampled=1, samples=1, max_new_tokens=2, tuned_on=16
    )
    STUDY["freeze"].__globals__["PredictConfig"] = lambda responses: few
    path = recipe(tmp_path, {"tiny": str(tiny_base), "none": "no/such"})
    STUDY["freeze"](path, ["grid.templates=[roles, tulu]"], tmp_path / "frozen")
    said = capsys.readouterr().out
    assert "none: not measured: " in said
    files = {file.name: file.read_bytes() for file in (tmp_path / "frozen").iterdir()}
    assert {*files} == {f"tiny-{name}-{BENCHMARK}.json" for name in ("roles", "tulu")}
    (line,) = (one for one in said.splitlines() if one.startswith("2 files, digest "))
    STUDY["freeze"](path, [], tmp_path / "frozen")
    assert line in capsys.readouterr().out
    one = json.loads(files[f"tiny-roles-{BENCHMARK}.json"])
    assert {*PREDICTORS} <= {*one["values"]}


def test_the_drawing_has_a_panel_for_each_of_its_numbers() -> None:
    values = {"token_rank": 0.5, "perplexity": 1.0, "stop_strict": 0.0}
    rows = [
        forecast.Row("test", name, "a", values, {"rt": 0.4, "it": 0.6}) for name in ("one", "two")
    ]
    drawn = STUDY["drawn"](rows).svg
    assert all(f">{name}<" in drawn for name in values)
    assert "test, strict" in drawn


def test_a_study_is_checked_on_another_base(study: tuple[Path, Path]) -> None:
    rows = STUDY["joined"](*study)
    new = [row for row in rows if row.base == "b2"]
    lines = STUDY["check"]([row for row in rows if row.base != "b2"], new)
    errors = {
        line.split()[0]: float(line.split()[-1]) for line in lines[3:] if len(line.split()) > 3
    }
    assert lines[0] == "rt" and lines[1].split() == ["roles", "tulu", "error"]
    assert lines[2].split() == ["reached", "40.0", "40.0"]
    expected = {
        name: 100 * forecast.predicted(rows[:4] + rows[6:], [name], "rt", new[0])
        for name in ("willingness", "perplexity")
    }
    assert errors == pytest.approx(
        errors | {name: abs(value - 40) for name, value in expected.items()}, abs=0.051
    )


def test_a_recipe_with_one_base_takes_its_name_from_the_models(
    tiny_base: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, {"tiny": str(tiny_base), "none": "no/such"})
    content = path.read_text().replace("base_model: miniature", f"base_model: {tiny_base}")
    path.write_text("\n".join(line for line in content.splitlines() if "bases:" not in line))
    units = STUDY["_units"](cells(read_experiment(path)))
    assert {*units} == {(tiny_base.stem, "roles"), (tiny_base.stem, "tulu")}
