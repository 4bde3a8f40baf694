import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Message, read_json
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.judging import judging_prompt
from response_tuning.likelihoods import Unscored
from response_tuning.miniature import BASE
from response_tuning.models.inference import load
from response_tuning.models.labels import expected, label_probabilities
from response_tuning.workflows.abstention import ABSTENTION
from response_tuning.workflows.best_of import BestOfConfig, run_best_of
from response_tuning.workflows.grade_answers import GradesConfig, run_grades

ROWS = [
    {"instruction": f"q{n % 3}", "response": f"answer {n} of some", "good": n % 2, "id": n}
    for n in range(9)
]


def quiet() -> Console:
    return Console(quiet=True)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a judge with random weights leaves."""
    folder = tmp_path_factory.mktemp("best-of")
    run_best_of(config(written(folder / "rows.jsonl", ROWS), BASE), folder / "out", quiet())
    return folder / "out"


def config(source: Path, model: Path, **changes: Any) -> BestOfConfig:
    engine = EngineConfig(model=str(model), template="roles", device="cpu")
    given: dict[str, Any] = {"source": source, "settings": engine, "form": "brief", "keep": 0.4}
    return BestOfConfig(**(given | changes))


def test_the_grade_is_the_mean_digit_behind_the_judges_prompt(judged: Path) -> None:
    local = load(str(BASE), "roles", device="cpu")
    prompts = [
        (
            Message(
                role="user",
                content=judging_prompt(str(row["response"]), str(row["instruction"]), form="brief"),
            ),
        )
        for row in ROWS
    ]
    shares = label_probabilities(local, prompts, 10_000)
    by_hand = [expected(one) for one in shares if not isinstance(one, Unscored)]
    found = rows_of(judged / "judged.jsonl")
    assert [row["grade"] for row in found] == pytest.approx(by_hand, abs=1e-4)
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert all(row["likelihood"] < 0 for row in found)


def test_the_best_of_each_instruction_has_its_highest_grade(judged: Path) -> None:
    found = rows_of(judged / "judged.jsonl")
    best = {row["instruction"]: row for row in rows_of(judged / "best.jsonl")}
    assert [*best] == ["q0", "q1", "q2"]
    for instruction, row in best.items():
        others = [one["grade"] for one in found if one["instruction"] == instruction]
        assert row["grade"] == max(others)


def test_kept_answers_are_those_with_the_highest_grades(judged: Path) -> None:
    kept = rows_of(judged / "kept.jsonl")
    grades = sorted((row["grade"] for row in rows_of(judged / "judged.jsonl")), reverse=True)
    assert sorted((row["grade"] for row in kept), reverse=True) == grades[: round(0.4 * 9)]
    assert [row["id"] for row in kept] == sorted(row["id"] for row in kept)


def test_the_choice_stands_beside_likelihood_oracle_and_chance(judged: Path) -> None:
    table = {line["choice"]: line for line in read_json(judged / "best-of.json")["table"]}
    assert [*table] == ["judge", "likelihood", "oracle", "random"]
    assert table["oracle"]["value"] == 1.0
    # q0 has the good answer 3 among 0, 3, 6; q1 has 1 and 7 among 1, 4, 7; q2 has 5 among 2, 5, 8
    assert table["random"]["value"] == pytest.approx((1 / 3 + 2 / 3 + 1 / 3) / 3)
    best = rows_of(judged / "best.jsonl")
    assert table["judge"]["value"] == pytest.approx(sum(row["good"] for row in best) / 3)
    assert 0 <= table["judge"]["auroc"]["value"] <= 1


def test_declining_by_grade_has_its_area_beside_the_likelihoods_and_both_bounds(
    judged: Path,
) -> None:
    table = {line["choice"]: line for line in read_json(judged / "best-of.json")["table"]}
    error = 5 / 9  # of rows 0, 2, 4, 6 and 8
    assert table["random"]["aurc"] == pytest.approx(error)
    for name in ("judge", "likelihood"):
        assert table["oracle"]["aurc"] <= table[name]["aurc"] <= 1
        risks = table[name]["abstention"]
        assert [one["stated_risk"] for one in risks] == [0.01, 0.05, 0.1, 0.2]
        assert all(one["threshold"] is None for one in risks), "nine answers show nothing"


def test_an_answer_with_a_lower_grade_becomes_an_abstention(tmp_path: Path, judged: Path) -> None:
    grades = sorted(row["grade"] for row in rows_of(judged / "judged.jsonl"))
    source = written(tmp_path / "rows.jsonl", ROWS)
    run_best_of(config(source, BASE, decline_below=grades[4]), tmp_path / "out", quiet())
    found = rows_of(tmp_path / "out" / "answered.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    declined = [row["grade"] for row in found if row["response"] == ABSTENTION]
    assert sorted(declined) == grades[:4]


def test_without_truth_there_is_no_table_and_the_response_alone_can_be_judged(
    tmp_path: Path, judged: Path
) -> None:
    plain = [{key: row[key] for key in ("instruction", "response", "id")} for row in ROWS]
    source = written(tmp_path / "rows.jsonl", plain)
    run_best_of(config(source, BASE, sees="response", keep=None), tmp_path / "out", quiet())
    assert read_json(tmp_path / "out" / "best-of.json")["table"] == []
    assert not (tmp_path / "out" / "kept.jsonl").exists()
    alone, both = (rows_of(folder / "judged.jsonl") for folder in (tmp_path / "out", judged))
    assert [row["grade"] for row in alone] != [row["grade"] for row in both]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "q"}, r"rows\.jsonl:2: no text in column 'response'"),
        ({"response": "a"}, r"rows\.jsonl:2: no text in column 'instruction'"),
        ({"instruction": "q", "response": "a", "good": "yes"}, r"rows\.jsonl:2: column 'good'"),
    ],
)
def test_a_bad_row_is_one_line_before_a_model_is_loaded(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    source = written(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(DataError, match=message):
        run_best_of(config(source, tmp_path / "no model"), tmp_path / "out", quiet())


def test_a_judge_has_to_be_named(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError, match="--model"):
        run_best_of(BestOfConfig(source=source), tmp_path / "out", quiet())


def test_graded_answers_have_the_digit_of_their_rating_and_likeness(tmp_path: Path) -> None:
    rows = [row | {"reference": f"answer {row['id']} of {row['instruction']}"} for row in ROWS]
    source = written(tmp_path / "rows.jsonl", rows)
    engine = EngineConfig(model=str(BASE), template="roles", device="cpu")
    run_grades(
        GradesConfig(source=source, settings=engine, form="brief"), tmp_path / "out", quiet()
    )
    graded = rows_of(tmp_path / "out" / "graded.jsonl")
    assert [row["id"] for row in graded] == [row["id"] for row in rows]
    assert all(0 <= row["rating"] <= 9 and 0 < row["similarity"] < 1 for row in graded)
    from response_tuning.data.grades import digits_of

    ratings, alike = ([row[key] for row in graded] for key in ("rating", "similarity"))
    assert [row["digit"] for row in graded] == digits_of(ratings, alike)
    assert read_json(tmp_path / "out" / "grades.json")["answers"] == 9


def test_an_answer_without_a_reference_cannot_be_graded(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", ROWS)
    engine = EngineConfig(model=str(tmp_path / "no model"))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no text in column 'reference'"):
        run_grades(GradesConfig(source=source, settings=engine), tmp_path / "out", quiet())
