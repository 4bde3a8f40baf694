"""Which published numbers a variant may stand beside, and the setting that is named otherwise."""

from pathlib import Path
from typing import Any

import pytest

from response_tuning import yaml_text
from response_tuning.probe.page import REFERENCE_RANKINGS
from response_tuning.report import PUBLISHED_FOLDER, Training, asked
from response_tuning.report.beside import not_measured
from response_tuning.report.published import names
from response_tuning.workflows.experiment import Cell, Experiment, cells, read_experiment
from response_tuning.workflows.published import published_beside

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
JUDGES = {
    "just-eval": "gpt-4o-2024-08-06",
    "pairwise": "gpt-4-1106-preview",
    "refinement": "gpt-4-1106-preview",
    "refinement-all": "gpt-4-1106-preview",
    "refusals": "meta-llama/Llama-3.1-70B-Instruct",
    "hewitt-response-tuning": "gpt-4-1106-preview",
    "hewitt-single-task": "gpt-4-1106-preview",
    "hewitt-rules": "gpt-4-1106-preview",
}
SIZES = {"alpaca": 51_760, "dolly": 15_000, "lima": 1000, "mbpp": 374, "poetry": 571}


def trained(cell: Cell) -> list[Training]:
    """What the manifest of a cell would say after it was trained on the published data."""
    if cell.data is None:
        return []
    size = 1084 if cell.data.source == "GAIR/lima" else SIZES.get(cell.data.source, 1000)
    kept = (cell.data.max_examples or size) + cell.data.mixture.refusals
    return [Training(cell.finetune.objective, (), "", kept, 1, 1)]


def beside(name: str, *settings: str, judge: str | None = None) -> tuple[Experiment, Any]:
    """The published numbers beside each variant of a recipe, run as it says."""
    model = judge or JUDGES.get(name, "judge")
    engine = [] if name == "core" else ["grade.judge.engine=openai"]
    engine += [] if name == "core" else [f"grade.judge.settings.model={model}"]
    experiment = read_experiment(PAPER / f"{name}.yaml", [*engine, *settings])
    every = cells(experiment)
    first = {cell.variant: cell for cell in reversed(every)}
    found = {
        variant: published_beside(experiment, every, cell, trained(cell))
        for variant, cell in first.items()
    }
    return experiment, found


def counts(found: Any) -> dict[str, int]:
    return {variant: len(one.rows) for variant, one in found.items() if one.rows}


def listed(found: Any) -> dict[str, list[tuple[str, float]]]:
    """The parts of tables that are listed without a difference, with the numbers."""
    return {
        variant: [(one.part, row.value) for one in of_variant.not_compared for row in one.rows]
        for variant, of_variant in found.items()
        if of_variant.not_compared
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "just-eval",
            dict.fromkeys(
                ["base", *(f"{m}-{d}" for m in ("rt", "it") for d in ("alpaca", "dolly", "lima"))],
                6,
            ),
        ),
        # People's, by metrics that we do not have; the fourth, the judge's, is only listed.
        ("pairwise", {"rt-alpaca": 3, "rt-dolly": 3, "rt-lima": 3}),
        (
            "core",
            dict.fromkeys(
                ["base", *(f"{m}-{d}" for m in ("rt", "it") for d in ("alpaca", "dolly", "lima"))],
                4,
            ),
        ),
        ("refinement", {}),
        ("refinement-all", {}),
        (
            "refusals",
            {
                f"{method}-{data}-{dose}": 5
                for method in ("rt", "it")
                for data in ("alpaca", "dolly", "lima")
                for dose in (0, 100, 200, 500)
            },
        ),
        ("hewitt-response-tuning", {}),
        ("hewitt-single-task", {}),
        ("hewitt-rules", {}),
        ("acceptability", {}),
        ("infobench", {}),
        ("news", {}),
        ("olmo", {}),
    ],
)
def test_a_recipe_as_published_stands_beside_its_table(name: str, expected: dict[str, int]) -> None:
    experiment, found = beside(name)
    assert experiment.report.published
    assert counts(found) == expected
    for variant, one in found.items():
        assert one.rows or one.reasons or one.not_compared, variant


SINGLE_TASKS = ("gsm8k", "mbpp", "poetry", "recipes", "chess")
LENGTH_CONTROLLED = "alpaca-eval/length_controlled_win_rate"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pairwise", {"rt-alpaca": 0.39, "rt-dolly": 0.41, "rt-lima": 0.4}),
        ("refinement", {"rt-refined": 0.6348, "it-refined": 0.6288}),
        (
            "refinement-all",
            {
                **{"rt-refined": 0.6348, "it-refined": 0.6288},
                **{"rt-alpaca-refined": 0.4939, "it-alpaca-refined": 0.5337},
                **{"rt-dolly-refined": 0.6609, "it-dolly-refined": 0.6875},
            },
        ),
        ("hewitt-response-tuning", {"base": 0.024, "rt": 0.433, "rt-tags": 0.418}),
        (
            "hewitt-single-task",
            {
                **{"it-gsm8k": 0.237, "it-mbpp": 0.169, "it-poetry": 0.229},
                **{"it-recipes": 0.146, "it-chess": 0.021},
            },
        ),
        (
            "hewitt-rules",
            {
                **{"rules-as-released": 0.244, "without-eos": 0.104},
                **{"without-diversity": 0.143, "without-uniform": 0.163},
            },
        ),
    ],
)
def test_a_win_rate_by_a_judge_who_sees_one_order_is_listed_and_not_compared(
    name: str, expected: dict[str, float]
) -> None:
    _, found = beside(name)
    assert listed(found) == {
        variant: [(LENGTH_CONTROLLED, value)] for variant, value in expected.items()
    }
    (one,) = found[next(iter(expected))].not_compared
    assert "sees one order of a pair" in one.why


def test_votes_of_people_are_named_as_not_measured_once_for_each_metric() -> None:
    _, found = beside("pairwise")
    rows = {variant: one.rows for variant, one in found.items()}
    assert [*not_measured([], rows)] == [
        f"human_{outcome}_rate (alpaca-eval) is not measured here"
        for outcome in ("win", "tie", "loss")
    ]


def test_of_the_core_tasks_the_four_with_the_papers_protocol_are_compared() -> None:
    _, found = beside("core")
    assert {row.benchmark for row in found["rt-lima"].rows} == {
        *("core-openbookqa", "core-hellaswag", "core-arc", "core-piqa")
    }
    reasons = {one.part: one.why for one in found["rt-lima"].not_compared}
    assert reasons == {
        "core-mmlu": "the paper's MMLU is open-instruct's, and ours is lm-eval's",
        "core-gsm8k": "the paper does not say which filter of GSM8K it reports",
        "core-average": "MMLU and GSM8K are part of the mean, and neither can be compared",
    }


def test_a_rate_that_the_paper_does_not_define_is_listed_and_not_compared() -> None:
    _, found = beside("refusals")
    assert listed(found)["it-alpaca-0"] == [("xstest/false_refusal", 0.09)]


@pytest.mark.parametrize("base", ["allenai/OLMo-7B", "allenai/OLMo-7B-hf"])
def test_hewitts_olmo_is_the_checkpoint_of_february_2024(base: str) -> None:
    olmo = [f"base={base}", "finetune.learning_rate=3e-6"]
    _, found = beside("hewitt-response-tuning", *olmo, "variants.rt.finetune.epochs=7")
    assert listed(found) == {
        "base": [(LENGTH_CONTROLLED, 0.047)],
        "rt": [(LENGTH_CONTROLLED, 0.437)],
    }
    assert "data.refinement.settings.model is gpt-4" in found["rt-rewritten"].reasons[-1]
    epochs = {"mbpp": 7, "poetry": 5, "chess": 20}
    own = [f"variants.it-{data}.finetune.epochs={number}" for data, number in epochs.items()]
    _, found = beside("hewitt-single-task", *olmo, *own)
    assert listed(found).keys() == {f"it-{name}" for name in SINGLE_TASKS}
    _, april = beside("hewitt-response-tuning", "base=allenai/OLMo-7B-0424-hf")
    assert not listed(april)
    assert "the base is allenai/OLMo-7B-0424-hf, and the table has" in april["rt"].reasons[0]


def test_a_local_copy_is_named_because_it_is_not_compared_with_the_published_data() -> None:
    copy = ["variants.rt-lima.data.path=mine.jsonl"]
    _, found = beside("just-eval", *copy)
    (remark,) = set(found["rt-lima"].remarks) - {*found["it-lima"].remarks}
    assert remark == (
        "just-eval: data.path is a local copy, which is not compared with the published data."
    )
    _, found = beside("refusals", "data.mixture.path=mine.jsonl")
    assert "refusals: data.mixture.path is a local" in found["rt-lima-200"].remarks[-1]
    assert len(found["rt-lima-0"].remarks) == 1, "without refusals, none come from the file"
    _, found = beside("core", "grade.data=copies")
    assert "core: The prompts are a local copy (grade.data, " in found["base"].remarks[-1]


def test_a_dataset_of_somebody_else_with_the_same_last_name_is_another_one() -> None:
    _, found = beside("just-eval", "variants.rt-lima.data.source=somebody/lima")
    assert found["rt-lima"].rows == ()
    assert "the data are somebody/lima, and the table has" in found["rt-lima"].reasons[0]


@pytest.mark.parametrize("name", ["pairwise", "acceptability"])
def test_means_over_datasets_are_beside_no_variant_and_the_reason_is_given(name: str) -> None:
    _, found = beside(name, "base=google/gemma-2-9b")
    assert found["rt-lima"].reasons[-1] == (
        "model-size: the data are lima, and the table has mean of alpaca, dolly and lima"
    )


def test_the_rows_are_those_of_the_variant() -> None:
    _, found = beside("refusals")
    rows = found["rt-lima-200"].rows
    assert {(row.base, row.data, row.refusals, row.method) for row in rows} == {
        ("Llama-3.1-8B", "lima", 200, "response-tuning")
    }
    assert {(row.benchmark, row.metric): row.prompts for row in rows} == {
        ("advbench", "refusal"): 520,
        ("harmbench", "refusal"): 300,
        ("malicious-instruct", "refusal"): 100,
        ("xstest", "refusal"): 200,
        ("refusal-suite", "refusal"): None,
    }


def test_another_base_of_the_table_has_its_own_numbers() -> None:
    _, found = beside("just-eval", "finetune.base_model=google/gemma-2-2b")
    overall = [row.value for row in found["rt-lima"].rows if row.metric == "overall"]
    assert overall == [3.09]


@pytest.mark.parametrize(
    ("settings", "variant", "reason"),
    [
        (
            ["finetune.base_model=miniature"],
            "rt-lima",
            "the base is miniature, and the table has Ll",
        ),
        (["finetune.epochs=3"], "rt-lima", "finetune.epochs is 3.0, and 10 in the table"),
        (["finetune.template=roles"], "base", "finetune.template is roles, and tulu in the table"),
        (["generate.temperature=0.7"], "base", "generate.temperature is 0.7, and 0.0 in the table"),
        (
            ["variants.rt-lima.data.curation={near_duplicates: 0.9}"],
            "rt-lima",
            "data.curation.near_duplicates is 0.9, and not set in the table",
        ),
        (
            ["variants.rt-lima.data.source=miniature"],
            "rt-lima",
            "the data are miniature, and the table has alpaca, dolly, lima",
        ),
        (
            ["variants.rt-lima.data.max_examples=500"],
            "rt-lima",
            "500 examples were trained on, and",
        ),
        (["grade.limit=10"], "it-lima", "grade.limit is 10, and the table has all prompts"),
        (
            ["variants.rt-lima.finetune.objective=response-tuning-empty-user"],
            "rt-lima",
            "the table has no response-tuning-empty-user of this base, only ",
        ),
        (
            ["variants.base.generate.rules={}"],
            "base",
            "generate.rules is {}, and not set in the table",
        ),
    ],
)
def test_what_differs_is_named(settings: list[str], variant: str, reason: str) -> None:
    _, found = beside("just-eval", *settings)
    assert found[variant].rows == ()
    (said,) = found[variant].reasons
    assert said.startswith(f"just-eval: {reason}")


def test_another_judge_and_another_reference_are_named() -> None:
    _, found = beside("pairwise", judge="llama")
    assert (
        found["rt-lima"].reasons[0]
        == "pairwise: the judge is llama, and gpt-4-1106-preview in the table"
    )
    _, found = beside("pairwise", "variants.rt-alpaca.reference=it-lima")
    assert (
        found["rt-alpaca"]
        .reasons[0]
        .startswith(
            "pairwise: the reference, it-lima, has data.source lima where the table's has alpaca"
        )
    )
    _, found = beside("acceptability")
    assert "people rated in the table" in found["rt-lima"].reasons[0]


def test_another_owners_copy_of_a_base_and_a_servers_model_are_not_the_papers() -> None:
    _, theirs = beside("just-eval", "base=meta-llama/Llama-3.1-8B")
    assert theirs["rt-lima"].rows
    _, copied = beside("just-eval", "base=somebody/Llama-3.1-8B")
    assert not counts(copied)
    assert "the base is somebody/Llama-3.1-8B, and the table has" in copied["rt-lima"].reasons[0]
    served = ("variants.base.generate={engine: openai, settings: {model: m}}",)
    _, asked = beside("just-eval", *served)
    assert not asked["base"].rows
    assert "engine 'openai' answers, whose model is not compared" in asked["base"].reasons[0]


def test_a_local_base_is_known_by_its_name_alone(tmp_path: Path) -> None:
    base = tmp_path / "Llama-3.1-8B"
    base.mkdir()
    _, found = beside("just-eval", f"base={base}")
    assert found["rt-lima"].rows
    assert any("finetune.base_model is a local folder" in one for one in found["rt-lima"].remarks)
    base.rmdir()
    _, gone = beside("just-eval", f"base={base}")
    assert gone["rt-lima"] == found["rt-lima"], "a report may be written elsewhere"


def test_a_table_asked_for_by_metric_gives_that_metric_alone() -> None:
    _, found = beside("just-eval", "report.published=[just-eval/overall]")
    assert [row.metric for row in found["it-dolly"].rows] == ["overall"]
    assert found["it-dolly"].remarks[0].startswith("just-eval/overall: The judge's instructions")


def test_every_table_has_a_protocol() -> None:
    tables = yaml_text.read(PUBLISHED_FOLDER / "tables.yaml")["tables"]
    assert sorted(tables) == names()
    for name, facts in tables.items():
        benchmarks = {row.benchmark for row in asked(name)} - {"refusal-suite", "core-average"}
        assert benchmarks == {key.partition("/")[0] for key in facts["prompts"]}, name


def test_every_reason_against_a_number_is_about_a_number_of_its_table() -> None:
    for name, facts in yaml_text.read(PUBLISHED_FOLDER / "tables.yaml")["tables"].items():
        parts = {
            part for row in asked(name) for part in (row.benchmark, f"{row.benchmark}/{row.metric}")
        }
        assert {*facts.get("against", {})} <= parts, name


def test_the_probes_page_shows_the_published_rankings_of_bases_and_tuned_models() -> None:
    shown = [row.per_token for row in REFERENCE_RANKINGS if not row.words]
    rows = asked("hewitt-ranking")
    assert sorted(shown) == sorted(f"{row.value:.1%}".replace("%", " %") for row in rows)
