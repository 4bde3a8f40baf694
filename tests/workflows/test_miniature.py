import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from response_tuning.errors import ConfigError
from response_tuning.folders import locked
from response_tuning.recipe import read_layers
from response_tuning.workflows.miniature import build_miniature

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 64,
    "vocabulary": 300,
    "context": 32,
    "rows_per_step": 2,
    "tokens": 1500,
}
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("response_tuning.miniature.build.TOKENIZER_DOCUMENTS", 100)
    monkeypatch.setattr("response_tuning.miniature.build.ENCODED_AT_ONCE", 7)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    bases = {f"answers-{share}": {"mixture": {"always_answered": share / 100}} for share in (0, 40)}
    path = tmp_path / "bases.yaml"
    path.write_text(yaml.safe_dump({"pretrain": TINY, "bases": bases}))
    return path


def shares(out: Path) -> dict[str, float]:
    return {
        path.parent.name: json.loads(path.read_text())["mixture"]["always_answered"]
        for path in out.glob("*/built.json")
    }


def test_a_recipe_of_bases_builds_each_in_a_folder_of_its_name(
    recipe: Path, tmp_path: Path
) -> None:
    build_miniature([], tmp_path / "out", Console(quiet=True), recipe)
    assert shares(tmp_path / "out") == {"answers-0": 0.0, "answers-40": 0.4}
    alone = tmp_path / "alone"
    settings = [f"pretrain={json.dumps(TINY)}", "mixture.always_answered=0.4"]
    build_miniature(settings, alone, Console(quiet=True))
    weights = [folder / "model.safetensors" for folder in (alone, tmp_path / "out" / "answers-40")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_base_that_another_process_builds_is_left_to_it(recipe: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    out = tmp_path / "out"
    build_miniature([], out, Console(quiet=True), recipe)
    (out / "answers-40" / "built.json").unlink()
    with locked(out / "answers-40", inside=True):
        build_miniature([], out, console, recipe)
    assert "answers-40: in use by another process" in console.export_text()
    assert shares(out) == {"answers-0": 0.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bases": {}}, "bases: expected a name and settings for each base"),
        ({"bases": ["a"]}, "bases: expected a name and settings for each base"),
        ({"bases": {"a": 3}}, "bases.a: expected settings"),
        (
            {"bases": {"a": {}, "b": {"mixture": {"nope": 1}}}},
            "bases.b: mixture: unknown key 'nope'",
        ),
    ],
)
def test_an_impossible_series_is_refused_before_anything_is_built(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bases.yaml"
    path.write_text(yaml.safe_dump({"pretrain": TINY, **change}))
    with pytest.raises(ConfigError, match=said):
        build_miniature([], tmp_path / "out", Console(quiet=True), path)
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_the_five_bases_differs_in_who_answers_alone() -> None:
    layers = read_layers(RECIPES / "bases" / "answers.yaml", {})
    bases = layers.content["bases"]
    assert [one["mixture"]["always_answered"] for one in bases.values()] == [
        0,
        0.01,
        0.05,
        0.2,
        0.4,
    ]
    assert {tuple(one) for one in bases.values()} == {("mixture",)}
    assert layers.content["mixture"] == {"else_answered": 0}
