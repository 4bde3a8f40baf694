import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from response_tuning.errors import ConfigError
from response_tuning.recipe import make_recipe
from response_tuning.workflows.continuation import settings_of


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers") / "answers.csv"
    rows = [f"Answer {n};The tea number {n} is served in cup {n % 7}, hot." for n in range(48)]
    path.write_text("\n".join(["question;answer", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def tune(answers: Path, tiny_base: Path, rtune: Any, tmp_path: Path) -> Any:
    """Run ``rtune finetune`` for a few steps; flags override these."""

    def run(out: str, *flags: object, data: object = answers) -> Any:
        steps = ("--max-steps", 2, "--window", 96, "--set", "finetune.device=cpu")
        first = () if "--continue-from" in flags else ("--base-model", tiny_base, *steps)
        source = () if "--continue-from" in flags else ("--data", data)
        return rtune("finetune", *first, *source, *flags, "--out", tmp_path / out)

    return run


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_own_answers_are_held_out_and_the_end_says_where_the_model_is_and_what_is_next(
    tune: Any, tmp_path: Path
) -> None:
    result = tune("own")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].startswith("loading ")
    assert "5 of these are held out; --eval-fraction 0 trains on all" in lines
    assert any(line.startswith("loss on 5 held-out examples: ") for line in lines)
    assert any(line.startswith("memorisation: given the first half") for line in lines)
    out = tmp_path / "own"
    assert lines[-3].startswith(f"wrote {out}: the adapter, ")
    assert lines[-2] == f"next: rtune chat {out}"
    assert manifest(out)["settings"]["eval_fraction"] == 0.1
    assert manifest(out)["recalled"]["held_out"][1] == 5


@pytest.mark.parametrize(
    "flags",
    [("--eval-fraction", 0), ("--max-examples", 39)],
    ids=["told not to", "too few"],
)
def test_nothing_is_held_out_of_few_answers_or_if_told_so(
    flags: tuple[object, ...], tune: Any, tmp_path: Path
) -> None:
    assert tune("own", *flags).code == 0
    assert manifest(tmp_path / "own")["settings"]["eval_fraction"] == 0.0


def test_nothing_is_held_out_of_a_named_dataset_or_by_a_recipe(
    tune: Any, rtune: Any, answers: Path, tiny_base: Path, tmp_path: Path
) -> None:
    assert tune("named", "--max-examples", 48, data="miniature").code == 0
    assert manifest(tmp_path / "named")["settings"]["eval_fraction"] == 0.0
    recipe = {
        "data": {"source": str(answers)},
        "finetune": {"base_model": str(tiny_base), "max_steps": 1, "window": 96, "device": "cpu"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    flags = ("--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "by recipe")
    assert rtune("finetune", *flags).code == 0
    assert manifest(tmp_path / "by recipe")["settings"]["eval_fraction"] == 0.0


def test_a_run_that_began_without_held_out_answers_goes_on_without(
    tune: Any, tmp_path: Path
) -> None:
    assert tune("own", "--eval-fraction", 0).code == 0
    again = tune("own")
    assert again.code == 0, again.err
    assert "already finished, nothing to do" in again.out


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_finished_run_is_extended_from_its_own_weights_with_its_settings_and_data(
    method: str, tune: Any, tmp_path: Path
) -> None:
    assert tune("first", "--method", method, "--template", "chatml-text").code == 0
    # So small a rate changes no weight: what comes out is what training started from.
    still = ("--learning-rate", 1e-30, "--max-steps", 1)
    result = tune("second", "--continue-from", tmp_path / "first", *still)
    assert result.code == 0, result.err
    assert "already ships a chat template" not in result.err
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    before, after = (load_file(tmp_path / run / name) for run in ("first", "second"))
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)
    first, second = (manifest(tmp_path / run) for run in ("first", "second"))
    assert second["examples_sha256"] == first["examples_sha256"]
    assert second["settings"]["template"] == "chatml-text"
    assert second["settings"]["continue_from"] == str(tmp_path / "first")
    assert first["base"] in second["base"] or method == "full"
    assert second["base"] != first["base"]
    again = tune("second", "--continue-from", tmp_path / "first", *still)
    assert "already finished, nothing to do" in again.out


def test_other_data_are_read_by_their_own_settings(
    tune: Any, answers: Path, tmp_path: Path
) -> None:
    assert tune("first", "--response-column", "question").code == 0
    other = tmp_path / "more.jsonl"
    other.write_text('{"response": "It is served hot."}\n{"response": "It is served cold."}\n')
    flags = ("--continue-from", tmp_path / "first", "--data", other, "--eval-fraction", 0)
    result = tune("second", *flags)
    assert result.code == 0, result.err
    assert manifest(tmp_path / "second")["data"]["source"]["columns"]["response"] == "response"
    assert manifest(tmp_path / "second")["data"]["examples"] == 2


def test_what_cannot_be_extended_is_refused_in_a_line(tune: Any, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert tune("first").code == 0

    def refused(*flags: object, out: str = "second") -> str:
        result = tune(out, "--continue-from", *flags)
        assert result.code == 2, result.out
        assert result.err.count("\n") == 1
        return str(result.err)

    assert "is the run to continue from; choose a new folder" in refused(first, out="first")
    assert "no run: it has no manifest.json" in refused(tmp_path / "nothing")
    assert "--preset has no effect" in refused(first, "--preset", "small")
    assert "its adapter has lora_r 16, and this run 8" in refused(
        first, "--set", "finetune.lora_r=8"
    )
    assert "an adapter, and --method full" in refused(first, "--method", "full")
    running = json.loads((first / "manifest.json").read_text()) | {"status": "running"}
    (first / "manifest.json").write_text(json.dumps(running))
    assert "the run has not finished (status running)" in refused(first)


def test_more_epochs_in_the_same_folder_are_refused_with_the_way_to_get_them(
    tune: Any, tmp_path: Path
) -> None:
    assert tune("own").code == 0
    result = tune("own", "--max-steps", 3)
    assert result.code == 2
    assert f"extend it with --continue-from {tmp_path / 'own'}" in result.err


def test_a_recipe_names_the_weights_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run: it has no manifest\.json"):
        settings_of(tmp_path)
    flags = {"finetune": {"base_model": "b", "continue_from": "run"}, "data": {"source": "s"}}
    assert make_recipe(None, None, flags, []).finetune.continue_from == Path("run")
