from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import package_versions, read_json, write_json
from response_tuning.errors import ConfigError
from response_tuning.workflows.report import report_run
from response_tuning.workflows.run import run_experiment
from tests.fixtures.experiments import BENCHMARK, Make, quiet

OWN = package_versions()["response-tuning"]


def change(path: Path, *keys: str, value: Any) -> None:
    content = read_json(path)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    write_json(path, content)


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("rt/seed-1/finetune/manifest.json", ("packages", "response-tuning")),
        ("base/seed-1/grade/manifest.json", (BENCHMARK, "rules")),
    ],
)
def test_a_report_on_cells_of_two_versions_is_refused_with_a_cell_of_each(
    run: Path, file: str, keys: tuple[str, ...]
) -> None:
    change(run / file, *keys, value="0.0.9")
    before = (run / "report" / "report.md").read_bytes()
    with pytest.raises(ConfigError) as caught:
        report_run(run, quiet())
    cell = file.rpartition("/")[0].rpartition("/")[0]
    assert str(caught.value) == (
        f"{run}: cells of two versions of response-tuning cannot be compared: rt/seed-0 by {OWN}, "
        f"{cell} by 0.0.9; make all of them with one version, in another folder (rtune run RECIPE "
        "--out FOLDER)"
    )
    assert (run / "report" / "report.md").read_bytes() == before


def test_a_run_that_another_version_began_is_refused_before_anything_is_done(
    make: Make, run: Path
) -> None:
    path = run / "rt" / "seed-0" / "finetune" / "manifest.json"
    change(path, "packages", "response-tuning", value="0.0.9")
    with pytest.raises(ConfigError) as caught:
        run_experiment(make(), run, quiet())
    assert f"rt/seed-0 was tuned by response-tuning 0.0.9, and this is {OWN}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_grades_of_another_version_are_made_again_by_a_run(make: Make, run: Path) -> None:
    change(run / "base" / "seed-1" / "grade" / "manifest.json", BENCHMARK, "rules", value="0.0.9")
    run_experiment(make(), run, quiet())
    assert report_run(run, quiet())
