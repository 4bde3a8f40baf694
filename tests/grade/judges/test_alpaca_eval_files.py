import csv
import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, write_json
from response_tuning.errors import DataError
from response_tuning.grade import Item
from response_tuning.grade.judges.alpaca_eval_files import (
    model_outputs,
    read_annotations,
    read_difficulties,
    read_model_outputs,
    win_rate,
)

MODELS = ["alpaca-farm-ppo-human", "phi-2-sft", "minichat-3b", "falcon-7b-instruct"]


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def annotation(preference: object, **other: Any) -> dict[str, Any]:
    texts = {"instruction": "Why?", "dataset": "koala", "output_1": "Because.", "output_2": "So."}
    return {**texts, "annotator": "gpt4", "preference": preference, **other}


def test_answers_are_exported_in_the_order_of_the_items(tmp_path: Path) -> None:
    items = [
        Item(item_id=name, prompt=(Message(role="user", content=f"{name}?"),), group="koala")
        for name in ("b", "a")
    ]
    out = tmp_path / "model_outputs.json"
    rows = model_outputs(items, {"a": "x \u2028 é", "b": None}, "mine")
    write_json(out, rows)
    assert rows == [
        {"dataset": "koala", "instruction": "b?", "output": "", "generator": "mine"},
        {"dataset": "koala", "instruction": "a?", "output": "x \u2028 é", "generator": "mine"},
    ]
    assert list(rows[0]) == ["dataset", "instruction", "output", "generator"]
    assert read_model_outputs(out) == {"b?": "", "a?": "x \u2028 é"}


def test_two_outputs_to_one_instruction_are_refused(tmp_path: Path) -> None:
    row = {"instruction": "Why?", "output": "So."}
    path = written(tmp_path / "outputs.json", [row, row])
    with pytest.raises(DataError, match=r"outputs\.json: record 2: a second output to 'Why\?'"):
        read_model_outputs(path)


@pytest.mark.parametrize(
    ("preference", "share"),
    [(1, 0), (2, 1), (2.0, 1), (0, 0.5), (1.5, 0.5), (1.25, 0.25), (None, None)],
)
def test_a_preference_is_read_as_the_share_of_the_models_output(
    tmp_path: Path, preference: float | None, share: float | None
) -> None:
    path = written(tmp_path / "annotations.json", [annotation(preference)])
    (found,) = read_annotations(path)
    assert found == ("Why?", "Because.", "So.", share)


@pytest.mark.parametrize("preference", [3, 0.5, -1, "A", [2], float("nan")])
def test_a_preference_that_means_nothing_is_refused(tmp_path: Path, preference: object) -> None:
    rows = [annotation(1), annotation(preference)]
    with pytest.raises(DataError, match=r"annotations\.json: record 2: expected a ") as caught:
        read_annotations(written(tmp_path / "annotations.json", rows))
    assert "\n" not in str(caught.value)


def test_an_annotation_without_an_output_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "annotations.json", [annotation(1, output_2=None)])
    with pytest.raises(DataError, match="record 1: expected text in 'output_2', found None"):
        read_annotations(path)


def test_the_win_rate_counts_a_tie_as_half_a_win_and_leaves_failures_out(tmp_path: Path) -> None:
    rows = [annotation(preference) for preference in (2, 2, 1, 0, 1.75, None)]
    found = win_rate(read_annotations(written(tmp_path / "annotations.json", rows)))
    assert found.rate == pytest.approx((1 + 1 + 0 + 0.5 + 0.75) / 5)
    assert found[2:] == (3, 1, 1, 5)


def test_annotations_that_all_failed_have_no_win_rate(tmp_path: Path) -> None:
    path = written(tmp_path / "annotations.json", [annotation(None)])
    with pytest.raises(DataError, match="none of the 1 annotations"):
        win_rate(read_annotations(path))


@pytest.mark.parametrize("name", ["difficulties.csv", "difficulties.json"])
def test_difficulties_are_read_by_instruction(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [{"instruction": "Why, oh why?", "difficulty": -0.5}]
    if name.endswith("json"):
        written(path, rows)
    else:
        path.write_text('instruction,difficulty\n"Why, oh why?",-0.5\n')
    assert read_difficulties(path) == {"Why, oh why?": -0.5}


@pytest.mark.parametrize("difficulty", ["hard", "", "inf"])
def test_a_difficulty_that_is_no_number_is_named(tmp_path: Path, difficulty: str) -> None:
    path = tmp_path / "difficulties.csv"
    path.write_text(f"instruction,difficulty\nWhy?,{difficulty}\n")
    with pytest.raises(DataError, match=r"csv:2: expected a number in 'difficulty', found '"):
        read_difficulties(path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("leaderboard", "annotations"),
    [
        ("leaderboard_ae1.csv", "annotations_ae1_gpt4.json"),
        ("leaderboard_ae2.csv", "annotations_ae2_weighted.json"),
    ],
)
def test_published_win_rates_are_reproduced_from_published_annotations(
    public_data: Path, model: str, leaderboard: str, annotations: str
) -> None:
    folder = public_data / "alpaca_eval"
    with (folder / leaderboard).open(encoding="utf-8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row[""] == model)
    found = win_rate(read_annotations(folder / model / annotations))
    assert 100 * found.rate == pytest.approx(float(row["win_rate"]), abs=1e-6)
    assert 100 * found.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-6)
    counts = (row["n_wins"], row["n_draws"], row["n_wins_base"], row["n_total"])
    assert found[2:] == tuple(map(int, counts))


@pytest.mark.parametrize("model", MODELS)
def test_published_answers_survive_being_read_and_written(public_data: Path, model: str) -> None:
    path = public_data / "alpaca_eval" / model / "outputs.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    asked = [(Message(role="user", content=row["instruction"]),) for row in rows]
    items = [
        Item(item_id=str(place), prompt=asked[place], group=row["dataset"])
        for place, row in enumerate(rows)
    ]
    outputs = read_model_outputs(path)
    answers = {item.item_id: outputs[item.prompt[0].content] for item in items}
    assert model_outputs(items, answers, model) == rows
