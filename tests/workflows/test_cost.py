import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Message, Request, read_json
from response_tuning.grade import Item
from response_tuning.models.local import Draft
from response_tuning.workflows.cost import Cost, _batches, asked_once, cost_of
from response_tuning.workflows.data import run_data
from response_tuning.workflows.experiment import Experiment, cells
from response_tuning.workflows.plan import plan_experiment
from tests.fixtures.experiments import ITEMS, Make

ALONE: dict[str, Any] = {"variants": {"rt": {}}, "report": {"baselines": []}}


BARE: dict[str, Any] = {"report": {"baselines": []}}


def cost(experiment: Experiment) -> Cost:
    found, left_out = cost_of(cells(experiment), experiment)
    assert not left_out
    return found


def printed(experiment: Experiment) -> list[str]:
    out = StringIO()
    plan_experiment(experiment, Console(file=out, width=200))
    return out.getvalue().splitlines()


def test_costs_of_cells_add_up_and_share_the_memory() -> None:
    one = Cost(
        tuning=1, answering=2, memory=30, trained=4, generated=5, questions=6, asked=7, other=8
    )
    both = one.plus(Cost(tuning=10, memory=20, other=1)).times(2)
    assert both == Cost(22, 4, 30, 8, 10, 12, 14, 18)


def test_the_tokens_of_training_are_those_of_the_run(make: Make, uninterrupted: Path) -> None:
    trained = cost(make(**ALONE)).trained
    audits = [
        read_json(uninterrupted / f"rt/seed-{seed}/finetune/manifest.json")["audit"]
        for seed in (0, 1)
    ]
    # Each seed draws its own sample: the first one is estimated and counted for both.
    assert trained == 2 * audits[0]["tokens"]


def test_a_greedy_model_that_is_not_tuned_answers_once_for_all_seeds(make: Make) -> None:
    base: dict[str, Any] = {"variants": {"base": {"finetune": None}}}
    limit = make(**base).generate["max_new_tokens"]
    for changes, answers in (({}, 1), ({"generate": {"temperature": 1}}, 2)):
        found = cost(make(**base | changes))
        assert found.trained == found.tuning == 0
        assert 0 < found.generated <= answers * ITEMS * limit
        assert found.answering > 0 and found.memory > 0
    one, two = (cost(make(**base | {"seeds": seeds})).generated for seeds in ([0], [0, 1]))
    assert one == pytest.approx(two)


def test_tuned_models_answer_as_long_as_their_responses(make: Make, uninterrupted: Path) -> None:
    audit = read_json(uninterrupted / "rt/seed-0/finetune/manifest.json")["audit"]
    mean = min(audit["supervised_tokens"] / audit["kept"], 8)
    assert cost(make(**ALONE, seeds=[0])).generated == pytest.approx(mean * ITEMS)


def test_a_cell_also_costs_its_data_its_loads_and_its_scores_and_a_run_its_start(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from response_tuning.models import inference
    from response_tuning.workflows import cost as estimates

    seconds = [0.0]
    monkeypatch.setattr(estimates, "clock", lambda device: lambda: seconds[0])
    load = inference.load

    def loaded(*arguments: Any) -> Any:
        seconds[0] += 5
        return load(*arguments)

    def prepared(*arguments: Any) -> Any:
        seconds[0] += 100
        return run_data(*arguments)

    monkeypatch.setattr(inference, "load", loaded)
    monkeypatch.setattr("response_tuning.workflows.cost.run_data", prepared)
    scores = estimates.ANSWER * ITEMS
    base: dict[str, Any] = {"variants": {"base": {"finetune": None}}, "report": {"baselines": []}}
    # The base is loaded; a tuned model is made of it, saved, and loaded again.
    assert cost(make(**base, seeds=[0])).other == pytest.approx(estimates.START + 5 + scores)
    each = 100 + 3 * 5 + scores
    assert cost(make(**ALONE, seeds=[0])).other == pytest.approx(estimates.START + each)
    assert cost(make(**ALONE, seeds=[0, 1])).other == pytest.approx(estimates.START + 2 * each)


def test_what_is_quick_is_timed_twice_because_imports_are_part_of_the_first_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from response_tuning.models import inference
    from response_tuning.workflows import cost as estimates

    took, seconds = [5.0, 0.1], [0.0]
    monkeypatch.setattr(estimates, "clock", lambda device: lambda: seconds[0])
    load = inference.load

    def loaded(*arguments: Any) -> Any:
        seconds[0] += took.pop(0)
        return load(*arguments)

    monkeypatch.setattr(inference, "load", loaded)
    base: dict[str, Any] = {"variants": {"base": {"finetune": None}}, "report": {"baselines": []}}
    other = cost(make(**base, seeds=[0])).other
    assert other == pytest.approx(estimates.START + 0.1 + estimates.ANSWER * ITEMS)
    assert not took


def test_rows_that_wait_for_another_batch_are_read_once_more_with_their_answers() -> None:
    request = Request(item_id="", prompt=())
    prompts = [(request, Draft([1] * width, limit=4)) for width in (10, 12, 12, 16)]
    # In one batch, all are as wide as the widest.
    assert _batches(prompts, 1000, 3) == (1, 4 * 16)
    # In two, with room for their answers; of the first, at most a quarter of the rows wait.
    batches, read = _batches(prompts, 3 * 16, 3)
    assert (batches, read) == (2, 3 * 12 + 3 / 4 * (12 + 3) + 16)


def test_a_run_of_which_nothing_can_be_estimated_has_no_start_either(make: Make) -> None:
    experiment = make(variants={"rt": {"finetune": {"base_model": "nobody/absent-1B"}}}, **BARE)
    assert cost_of(cells(experiment), experiment)[0] == Cost()


def test_settings_that_cost_nothing_are_measured_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from response_tuning.finetune import plan

    calls = []
    estimate = plan.estimate

    def counted(*arguments: Any) -> plan.Plan:
        calls.append(arguments)
        return estimate(*arguments)

    monkeypatch.setattr(plan, "estimate", counted)
    grid = {"finetune.weight_decay": [0.1, 0.2], "finetune.window": [32, 64]}
    found = cost(make(**ALONE, grid=grid, seeds=[0]))
    assert len(calls) == 2
    assert found.trained > 0


def test_a_base_is_timed_once_for_tunings_of_one_kind(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from response_tuning.finetune import timing

    timed = []
    measured = timing.measured

    def counted(*arguments: Any) -> timing.Seconds:
        timed.append(arguments)
        return measured(*arguments)

    monkeypatch.setattr(timing, "measured", counted)
    grid = {"finetune.epochs": [1, 2], "finetune.examples_per_step": [2, 4]}
    one = cost(make(**ALONE, seeds=[0]))
    four = cost(make(**ALONE, grid=grid, seeds=[0]))
    assert len(timed) == 2
    assert four.trained == 6 * one.trained


def test_a_prompt_is_answered_once_whatever_benchmarks_ask_it(make: Make, tmp_path: Path) -> None:
    def items(*questions: str) -> list[Item]:
        prompts = ((Message(role="user", content=question),) for question in questions)
        return [Item(item_id=str(n), prompt=prompt) for n, prompt in enumerate(prompts)]

    left = asked_once({"one": items("a", "b", "a"), "two": items("b", "c"), "three": items("a")})
    assert {name: [item.item_id for item in of_one] for name, of_one in left.items()} == {
        "one": ["0", "1"],
        "two": ["1"],
        "three": [],
    }
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"id": str(n), "prompt": f"Name {min(n, 2)}.", "expected": ["a"]} for n in range(4)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    grade = {"paths": {"prompts": str(prompts)}}
    experiment = make(**ALONE, seeds=[0], benchmarks=["prompts"], grade=grade)
    assert cost(experiment).generated == pytest.approx(
        3 / ITEMS * cost(make(**ALONE, seeds=[0])).generated
    )
    counted = [line for line in printed(experiment) if "items)" in line or " cells" in line]
    assert counted == ["benchmarks: prompts (4 items)", "1 cells: 1 to tune, 3 answers"]


def test_questions_to_a_judge_are_counted_for_each_cell_with_their_price(
    make: Make, tmp_path: Path
) -> None:
    rows = [
        {
            "id": f"user_{number}",
            "instruction": "Write a poem.",
            "input": "",
            "category": "Poem",
            "decomposed_questions": ["Is it a poem?", "Does it rhyme?"][:number],
            "subset": "Easy_set",
            "question_label": [["Format"], ["Style"]][:number],
        }
        for number in (1, 2)
    ]
    (tmp_path / "infobench").mkdir()
    file = tmp_path / "infobench" / "infobench.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "table.jsonl").write_text("")
    judge = {
        "engine": "scripted",
        "settings": {"table": str(tmp_path / "table.jsonl")},
        "max_new_tokens": 5,
        "price_in": 3e6,
        "price_out": 1e6,
    }
    grade = {"data": str(tmp_path), "judge": judge}
    experiment = make(benchmarks=["infobench"], grade=grade)
    found = cost(experiment)
    # Three requirements, two variants, two seeds.
    assert found.questions == 3 * 2 * 2
    assert found.asked > 12 * 50
    (line,) = (line for line in printed(experiment) if line.startswith("judge: "))
    asked, dollars = f"{found.asked:,.0f}", f"{3 * found.asked:,.2f}"
    assert line == (
        f"judge: 12 requests, about {asked} tokens, and at most 60 of replies; "
        f"{dollars} dollars, and at most 60.00 for replies"
    )


def test_a_variant_that_cannot_be_estimated_is_named_with_its_reason(make: Make) -> None:
    variants = {
        "rt": {"finetune": {"base_model": "nobody/absent-1B"}},
        "base": {"finetune": None},
        "served": {
            "finetune": None,
            "generate": {"engine": "scripted", "settings": {"table": "table.jsonl"}},
        },
    }
    experiment = make(variants=variants)
    found, left_out = cost_of(cells(experiment), experiment)
    assert left_out == {
        "nobody/absent-1B is not on this machine": ["rt"],
        "engine 'scripted' answers, and not this machine": ["served"],
    }
    assert found.trained == 0 and found.generated > 0


def test_a_judge_is_counted_at_most_where_no_base_can_be_timed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_text("")
    judge = {"engine": "scripted", "settings": {"table": str(tmp_path / "table.jsonl")}}
    (tmp_path / "xstest").mkdir()
    rows = "prompt,label,type\nHow?,safe,own\nWhy?,unsafe,own\n"
    (tmp_path / "xstest" / "xstest_prompts.csv").write_text(rows)
    experiment = make(
        variants={"rt": {"finetune": {"base_model": "nobody/absent-1B"}}},
        benchmarks=["xstest"],
        grade={"data": str(tmp_path), "judge": judge},
        report={"baselines": []},
    )
    lines = printed(experiment)
    assert not any(line.startswith(("cost:", "tokens:")) for line in lines)
    (line,) = (line for line in lines if line.startswith("judge: "))
    assert line.startswith("judge: 4 requests, at most ")
    assert lines[-1] == "not counted: rt: nobody/absent-1B is not on this machine"


def test_what_a_dry_run_does_not_count_is_named(make: Make, tmp_path: Path) -> None:
    refiner = {"engine": "scripted", "settings": {"table": str(tmp_path / "table.jsonl")}}
    (tmp_path / "table.jsonl").write_text("")
    variants = {"rt": {"data": {"refinement": refiner}}}
    lines = printed(make(variants=variants, report={"baselines": []}))
    assert "not counted: requests that refine responses: rt" in lines


def test_a_dry_run_prints_the_cost_after_its_cells(make: Make) -> None:
    lines = printed(make())
    place = next(n for n, line in enumerate(lines) if line.startswith("4 cells: 2 to tune, "))
    assert lines[place + 1].startswith("cost: about ")
    assert " processor hours (" in lines[place + 1]
    form = r"about (\S+) .* \((\S+) of tuning, (\S+) of answering, (\S+) of all else\) and "
    numbers = re.search(form, lines[place + 1])
    assert numbers
    total, *parts = map(float, numbers.groups())
    assert total == pytest.approx(sum(parts), rel=0.1)
    assert lines[place + 2].startswith("tokens: about ")
