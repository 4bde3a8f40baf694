"""Which published numbers a variant may stand beside, and the setting that is named otherwise."""

from pathlib import Path
from typing import Any

import pytest

from response_tuning import yaml_text
from response_tuning.probe.page import REFERENCE_RANKINGS
from response_tuning.report import PUBLISHED_FOLDER, Training, asked
from response_tuning.report.published import names
from response_tuning.workflows.experiment import Cell, Experiment, cells, read_experiment
from response_tuning.workflows.published import published_beside

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
JUDGES = {
    "just-eval": "gpt-4o-2024-08-06",
    "pairwise": "gpt-4-1106-preview",
    "refinement": "gpt-4-1106-preview",
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
        # One of four is the judge's; the three others are people's, by metrics that we do not have.
        ("pairwise", {"rt-alpaca": 4, "rt-dolly": 4, "rt-lima": 4}),
        (
            "core",
            dict.fromkeys(
                ["base", *(f"{m}-{d}" for m in ("rt", "it") for d in ("alpaca", "dolly", "lima"))],
                6,
            ),
        ),
        ("refinement", {"rt-refined": 1, "it-refined": 1}),
        (
            "refusals",
            {
                f"{method}-{data}-{dose}": 6
                for method in ("rt", "it")
                for data in ("alpaca", "dolly", "lima")
                for dose in (0, 100, 200, 500)
            },
        ),
        ("hewitt-response-tuning", {"base": 1, "rt": 1, "rt-tags": 1}),
        (
            "hewitt-single-task",
            {f"it-{data}": 1 for data in ("gsm8k", "mbpp", "poetry", "recipes", "chess")},
        ),
        (
            "hewitt-rules",
            {
                **{"rules-as-released": 1, "without-eos": 1},
                **{"without-diversity": 1, "without-uniform": 1},
            },
        ),
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
        assert one.rows or one.reasons, variant


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
        ("xstest", "false_refusal"): 250,
        ("refusal-suite", "refusal"): None,
    }
    _, rules = beside("hewitt-rules")
    assert [row.value for row in rules["without-uniform"].rows] == [0.163]
    assert [row.value for row in rules["rules-as-released"].rows] == [0.244]


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
    assert found["rt-lima"].reasons == (
        "pairwise: the judge is llama, and gpt-4-1106-preview in the table",
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


def test_the_probes_page_shows_the_published_rankings_of_bases_and_tuned_models() -> None:
    shown = [row.per_token for row in REFERENCE_RANKINGS if not row.words]
    rows = asked("hewitt-ranking")
    assert sorted(shown) == sorted(f"{row.value:.1%}".replace("%", " %") for row in rows)
