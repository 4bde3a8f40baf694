import shutil
from pathlib import Path
from typing import Any

import pytest

from response_tuning.validation import build
from response_tuning.workflows.experiment import Experiment
from response_tuning.workflows.run import run_experiment
from tests.fixtures.experiments import Make, quiet, settings


@pytest.fixture(scope="session")
def make(miniature_base: Path) -> Make:
    """Make the experiment, with changes of its sections."""

    def experiment(**changes: Any) -> Experiment:
        values = settings(miniature_base)
        for name, change in changes.items():
            whole = isinstance(change, dict) and name != "variants"
            values[name] = values.get(name, {}) | change if whole else change
        return build(Experiment, values, "recipe.yaml")

    return experiment


@pytest.fixture(scope="session")
def uninterrupted(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves that runs the experiment from start to end."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    run_experiment(make(), run, quiet())
    return run


@pytest.fixture
def run(uninterrupted: Path, tmp_path: Path) -> Path:
    """A finished run to play with."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    return tmp_path / "run"
