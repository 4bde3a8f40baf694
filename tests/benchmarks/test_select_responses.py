import json
import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/select_responses.py"))


def test_a_judge_keeps_its_highest_grades_and_the_oracle_what_is_sound() -> None:
    rows = [
        {"response": str(n), "good": float(n % 2), "grade": n, "likelihood": -n} for n in range(10)
    ]
    kept = SCRIPT["chosen"](rows, {"response": rows, "self-judge": rows[::-1]}, seed=0)
    assert [row["response"] for row in kept["response"]] == ["7", "8", "9"]
    assert [row["response"] for row in kept["self-judge"]] == ["9", "8", "7"]
    assert {row["response"] for row in kept["likelihood"]} == {"0", "1", "2"}
    assert all(row["good"] for row in kept["oracle"])
    assert len(kept["oracle"]) == 5
    assert len(kept["random"]) == 3
    assert kept["all"] == rows


def test_the_pool_has_sound_and_spoilt_answers_and_is_the_same_each_time() -> None:
    pool = list(SCRIPT["pool"]())
    assert pool == list(SCRIPT["pool"]())
    assert 0.25 < sum(row["good"] for row in pool) / len(pool) < 0.35


def test_the_table_has_a_number_a_seed() -> None:
    found = [{"random": {"responses": 3, "sound": s, "seen": 0.5, "unseen": 0.25}} for s in (0, 1)]
    *_, line = SCRIPT["table"](found)
    assert line == "| random | 3 | 0.0, 100.0 | 50.0, 50.0 | 25.0, 25.0 |"


def test_the_recipe_is_one_that_can_be_read(tmp_path: Path) -> None:
    from response_tuning.workflows.experiment import read_experiment

    file = tmp_path / "recipe.yaml"
    data = tmp_path / "random.jsonl"
    data.write_text('{"response": "It is so."}\n')
    file.write_text(json.dumps(SCRIPT["recipe"]({"random": data}, 1)))
    assert read_experiment(file, []).seeds == (1,)
