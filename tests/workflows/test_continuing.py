import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import read_json
from response_tuning.errors import ConfigError
from response_tuning.models.location import identity
from response_tuning.validation import build
from response_tuning.workflows.continuing import check_continuing, continued, in_order
from response_tuning.workflows.experiment import Experiment, cells
from response_tuning.workflows.run import checked, run_experiment
from tests.fixtures.experiments import quiet, settings

BASE: dict[str, Any] = {
    "seeds": [0, 1],
    "data": {"source": "miniature"},
    "finetune": {"base_model": "miniature", "method": "full"},
    "benchmarks": ["miniature-seen"],
}
DPO = {"data": {"split": "preferences", "preferences": {}}, "finetune": {"objective": "dpo"}}


def made(variants: dict[str, Any], **changes: Any) -> Experiment:
    return build(Experiment, {**BASE, "variants": variants, **changes}, "recipe.yaml")


def after(name: str, **changes: Any) -> dict[str, Any]:
    return {"after": name, **DPO, **changes}


def test_a_cell_continues_the_model_of_the_same_seed_in_its_template() -> None:
    every = cells(made({"dpo": after("rt"), "rt": {}}))
    last = next(cell for cell in every if cell.name == "dpo/seed-1")
    config = continued(last, every, Path("run"))
    assert config.base_model == "run/rt/seed-1/finetune"
    assert config.template == "native"
    assert config.objective == "dpo"
    first = next(cell for cell in every if cell.name == "rt/seed-1")
    assert continued(first, every, Path("run")) == first.finetune
    other = cells(made({"rt": {}, "dpo": after("rt", finetune={"template": "xml"})}))[-1]
    assert continued(other, cells(made({"rt": {}})), Path("run")).template == "xml"


def test_cells_follow_those_that_they_continue() -> None:
    every = cells(made({"c": after("b"), "b": after("a"), "a": {}, "other": {}}, seeds=[0]))
    assert [cell.variant for cell in in_order(every, every)] == ["a", "other", "b", "c"]


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        (
            {"rt": {}, "dpo": after("rtt")},
            r"'dpo': after: unknown variant 'rtt': did you mean 'rt'",
        ),
        ({"rt": {"finetune": None}, "dpo": after("rt")}, "'dpo': after: 'rt' is not tuned"),
        ({"a": after("b"), "b": after("a")}, "leads back to itself"),
        ({"a": after("a")}, "leads back to itself"),
    ],
)
def test_a_variant_that_cannot_be_continued_is_one_line(
    variants: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        cells(made(variants))


@pytest.mark.parametrize(
    ("rt", "reason"),
    [
        ({"finetune": {"method": "lora"}}, "'rt' leaves an adapter; set finetune.merge=true"),
        ({"seeds": [0]}, "'rt' has no seed 1; give both the same seeds"),
    ],
)
def test_what_would_fail_after_hours_of_training_fails_before(
    rt: dict[str, Any], reason: str
) -> None:
    experiment = made({"rt": rt, "dpo": after("rt")})
    with pytest.raises(ConfigError, match=reason):
        checked(experiment)


def test_a_merged_adapter_can_be_continued_and_a_chosen_cell_needs_its_base() -> None:
    every = cells(made({"rt": {"finetune": {"method": "lora", "merge": True}}, "dpo": after("rt")}))
    check_continuing(every, every, Path("none"))
    only = [cell for cell in every if cell.variant == "dpo"]
    with pytest.raises(ConfigError, match=r"dpo/seed-0 continues rt/seed-0, .* --only rt/seed-0"):
        check_continuing(every, only, Path("none"))


def test_a_value_of_a_grid_stands_for_the_variant_there() -> None:
    grid = {"finetune.learning_rate": [1e-4, 2e-4]}
    every = cells(made({"rt": {}, "dpo": after("rt")}, grid=grid, seeds=[0]))
    found = {cell.variant: cell.after for cell in every}
    assert found == {
        "rt-1e-4": None,
        "rt-2e-4": None,
        "dpo-1e-4": "rt-1e-4",
        "dpo-2e-4": "rt-2e-4",
    }


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model and two that continue it, of which one is named first."""
    out = tmp_path_factory.mktemp("continued") / "run"
    run_experiment(experiment_on(tiny_base), out, quiet())
    return out


def experiment_on(base: Path) -> Experiment:
    pairs: dict[str, Any] = {
        "after": "rt",
        "data": {"split": "preferences", "max_examples": 8, "preferences": {}},
    }
    variants = {
        "dpo": {**pairs, "finetune": {"objective": "dpo"}},
        "rt": {},
        "rt-dpo": {**pairs, "finetune": {"objective": "rt-dpo"}},
    }
    whole = settings(base) | {"variants": variants, "seeds": [0], "grade": {"limit": 4}}
    return build(Experiment, whole | {"report": {"baselines": ["rt"]}}, "recipe.yaml")


def test_a_run_tunes_the_earlier_variant_first_and_starts_from_its_weights(finished: Path) -> None:
    earlier = identity(str(finished / "rt/seed-0/finetune"), "main")
    for variant in ("dpo", "rt-dpo"):
        manifest = read_json(finished / f"{variant}/seed-0/finetune/manifest.json", "base")
        assert manifest["base"] == earlier
        first = (finished / f"{variant}/seed-0/finetune/metrics.jsonl").read_text().splitlines()[0]
        assert json.loads(first)["term_margin"] == pytest.approx(0, abs=1e-5)
    assert (finished / "report" / "results.csv").exists()
    assert read_json(finished / "manifest.json", "status")["status"] == "finished"


def test_a_finished_run_is_read_again_without_training(
    finished: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.finetune.run._train", lambda *_: pytest.fail("trained"))
    assert run_experiment(experiment_on(tiny_base), finished, quiet())


def test_confidence_comes_from_a_variant_that_records_it() -> None:
    mixed = {"confidence_of": "rt", "finetune": {"objective": "rt-sftmix"}}
    recording = {"finetune": {"record_confidence": True}}
    every = cells(made({"mixed": mixed, "rt": recording}))
    check_continuing(every, every, Path("none"))
    config = continued(every[0], every, Path("run"))
    file = "run/rt/seed-0/finetune/confidence.jsonl"
    assert config.objective_settings == {"confidence": file}
    assert config.base_model == "miniature"
    assert [cell.variant for cell in in_order(every, every)] == ["rt", "rt", "mixed", "mixed"]
    without = cells(made({"mixed": mixed, "rt": {}}))
    with pytest.raises(ConfigError, match=r"'rt' records no confidence; set .*record_confidence"):
        check_continuing(without, without, Path("none"))
