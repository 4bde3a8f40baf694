from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import ConfigError
from response_tuning.validation import build
from response_tuning.workflows.experiment import (
    Cell,
    Experiment,
    cells,
    check_experiment,
    with_reference,
)

BASE: dict[str, Any] = {
    "data": {"source": "miniature"},
    "finetune": {"base_model": "miniature"},
    "benchmarks": ["miniature-seen"],
    "variants": {"base": {"finetune": None}, "rt": {}},
}
IT = {"finetune": {"objective": "instruction-tuning"}}
BASES = {"a": "x/a", "b": {"finetune": {"base_model": "x/b", "template": "xml"}}}


def made(**changes: Any) -> Experiment:
    return build(Experiment, BASE | changes, "recipe.yaml")


def found(**changes: Any) -> dict[str, Cell]:
    experiment = made(**changes)
    every = cells(experiment)
    check_experiment(experiment, every)
    return {cell.variant: cell for cell in every}


def test_variants_are_crossed_with_axes_and_named_after_their_values() -> None:
    every = found(grid={"bases": BASES, "doses": [0, 10], "finetune.learning_rate": ["1e-4", 2e-4]})
    assert [*every] == [
        *("base-a", "base-b"),
        *(
            f"rt-{base}-{dose}-{rate}"
            for base in "ab"
            for dose in (0, 10)
            for rate in ("1e-4", "2e-4")
        ),
    ]
    last = every["rt-b-10-2e-4"]
    assert last.data is not None
    assert (last.finetune.base_model, last.finetune.template) == ("x/b", "xml")
    assert (last.data.mixture.refusals, last.finetune.learning_rate) == (10, 2e-4)
    assert last.place == {
        "variant": "rt",
        "bases": "b",
        "doses": "10",
        "finetune.learning_rate": "2e-4",
    }


def test_an_untuned_variant_is_crossed_only_with_what_changes_its_answers() -> None:
    every = found(
        grid={"bases": BASES, "methods": ["full", "lora"], "generate.max_new_tokens": [8, 16]},
        variants={
            "rt": {},
            "base": {"finetune": None},
            "urial": {"finetune": None, "generate": {"template": "urial"}},
            "served": {
                "finetune": None,
                "generate": {"engine": "openai", "settings": {"model": "m"}},
            },
        },
    )
    assert len([name for name in every if name.startswith("rt-")]) == 8
    assert [name for name in every if not name.startswith("rt-")] == [
        *(
            f"{name}-{base}-{limit}"
            for name in ("base", "urial")
            for base in "ab"
            for limit in (8, 16)
        ),
        *("served-8", "served-16"),
    ]
    # The base's own template, unless the variant has one.
    assert every["base-b-8"].generate.template == "xml"
    assert every["urial-b-8"].generate.template == "urial"
    assert every["base-a-8"].generate.template is None


def test_settings_of_an_adapter_are_not_crossed_with_full_tuning() -> None:
    every = found(
        grid={"methods": ["full", "lora"], "finetune.lora_r": [4, 8]}, variants={"rt": {}}
    )
    assert [*every] == ["rt-full", "rt-lora-4", "rt-lora-8"]


def test_settings_of_a_mixture_are_not_crossed_with_no_refusals() -> None:
    selectors = ["all", "paper-regex"]
    every = found(grid={"doses": [0, 10], "data.mixture.selector": selectors}, variants={"rt": {}})
    assert [*every] == ["rt-0", "rt-10-all", "rt-10-paper-regex"]


@pytest.mark.parametrize("nested", [True, False])
def test_named_values_of_an_axis_may_be_lists(nested: bool) -> None:
    values = {"none": [], "docs": [{"source": "miniature", "split": "plain"}]}
    grid = {"data": {"also": values}} if nested else {"data.also": values}
    every = found(grid=grid, variants={"rt": {}})
    assert [*every] == ["rt-none", "rt-docs"]


def test_a_variant_may_have_axes_of_its_own_or_stay_out_of_one() -> None:
    every = found(
        grid={"doses": [0, 10]},
        variants={
            "rt": {},
            "few": {"doses": [5]},
            "it": IT | {"grid": {"doses": None, "templates": ["xml", "roles"]}},
        },
    )
    assert [*every] == ["rt-0", "rt-10", "few-5", "it-xml", "it-roles"]


def test_without_variants_the_first_axis_is_the_variants_and_seeds_are_an_axis() -> None:
    experiment = build(
        Experiment,
        {key: value for key, value in BASE.items() if key != "variants"}
        | {
            "grid": {
                "objectives": {
                    "base": {"finetune": None},
                    "rt": "response-tuning",
                    "it": "instruction-tuning",
                },
                "seeds": [3, 4],
                "bases": BASES,
                "exclude": [{"objectives": "it", "bases": "b"}],
            }
        },
        "recipe.yaml",
    )
    assert [cell.name for cell in cells(experiment)] == [
        f"{name}/seed-{seed}"
        for name in ("base-a", "base-b", "rt-a", "rt-b", "it-a")
        for seed in (3, 4)
    ]
    assert cells(experiment)[-1].finetune.objective == "instruction-tuning"
    # The manifest of a run is read again, and means the same.
    again = build(Experiment, experiment.model_dump(mode="json"), "manifest.json")
    assert cells(again) == cells(experiment)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {"doze": [0, 1]}}, "recipe.yaml: grid: unknown axis 'doze'"),
        ({"grid": {"doses": [1]}}, "recipe.yaml: grid: doses: it has one value"),
        ({"grid": [1]}, "recipe.yaml: grid: expected settings"),
        ({"grid": {"seeds": [1]}, "seeds": [2]}, "recipe.yaml: grid.seeds: the recipe has 'seeds'"),
        (
            {"variants": {"rt": {"grid": {"doze": [0]}}}},
            "recipe.yaml: variants.rt: unknown axis 'doze'",
        ),
        (
            {"variants": {"rt": {"grid": {"seeds": [0]}}}},
            "recipe.yaml: variants.rt: grid.seeds: belongs in the grid of the recipe",
        ),
        (
            {
                "grid": {"finetune.epochs": [1, 2]},
                "variants": {"rt": {"finetune": {"epochs": 3}}},
            },
            "variant 'rt': finetune.epochs: the grid's 'finetune.epochs' sets it; remove it here, "
            "or take the variant out of that axis: grid: {finetune.epochs: null}",
        ),
        (
            {"grid": {"bases": {"a": "x/a", "b": "x/a"}}},
            "grid: 'base-a' and 'base-b' are the same; remove one",
        ),
        (
            {"grid": {"doses": [0, 1]}, "variants": {"rt": {}, "rt-0": {"grid": {"doses": None}}}},
            "two variants are named 'rt-0'",
        ),
        ({"grid": {"doses": [0, 1], "exclude": [{"doses": 2}]}}, "grid.exclude.0: no variant is"),
        ({"grid": {"finetune.epochs": [0, 1]}}, "variant 'rt-0': finetune.epochs: "),
        (
            {
                "finetune": BASE["finetune"] | {"method": "full"},
                "grid": {"finetune.lora_r": [4, 8]},
            },
            "grid: 'finetune.lora_r' has no effect on any variant; remove it",
        ),
        (
            {"grid": {"data.mixture.selector": ["all", "paper-regex"]}},
            "grid: 'data.mixture.selector' has no effect on any variant; remove it",
        ),
        (
            {"grid": {"doses": [0, 1], "exclude": [{"doses": [0, 1]}, {"variant": "base"}]}},
            "grid.exclude leaves no variant; remove an entry",
        ),
        ({"grid": {"doses": [0, 1], "exclude": [{}]}}, "grid.exclude.0: it names no axis"),
        (
            {"grid": {"doses": [0, 1], "exclude": [{"doses": None}]}},
            "grid.exclude.0: exclude: None has no short name",
        ),
        (
            {"variants": {"base": {"finetune": None, "grid": {"finetune.lora_r": [4, 8]}}}},
            "grid: 'finetune.lora_r' has no effect on any variant; remove it",
        ),
        (
            {"grid": {"data": {"mixture": {"refusal": [0, 50]}}}},
            "recipe.yaml: grid: unknown axis 'data.mixture.refusal': did you mean",
        ),
        (
            {"grid": {"doses": [0, -5]}},
            "recipe.yaml: grid: doses: a value is named '-5'; a name is letters, digits, '-', '_' "
            "and '.', and begins with none of '-' and '.': name it: {NAME: -5}",
        ),
    ],
)
def test_what_is_wrong_in_a_grid_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(**changes)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_reference_is_the_variant_that_matches(tmp_path: Path) -> None:
    experiment = made(
        grid={"bases": BASES},
        variants={"base": {"finetune": None}, "rt": {}, "it": IT},
        grade={"reference": "it"},
    )
    every = cells(experiment)
    check_experiment(experiment, every)
    assert experiment.references == {
        **{f"{name}-a": "it-a" for name in ("base", "rt", "it")},
        **{f"{name}-b": "it-b" for name in ("base", "rt", "it")},
    }
    (cell,) = (cell for cell in every if cell.variant == "rt-b")
    graded = with_reference(experiment, cell, "miniature-seen", tmp_path)
    assert graded.reference == str(tmp_path / "it-b/seed-0/generate/miniature-seen.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {"doses": [0, 9]}}, "grade.reference: 2 variants at 'rt' match 'base'"),
        (
            {"grid": {"bases": BASES, "exclude": [{"variant": "rt", "bases": "a"}]}},
            "grade.reference: no variants at 'rt' match 'base-a'",
        ),
        ({"grid": {"bases": BASES}, "grade": {"reference": "ti"}}, "grade.reference: no such file"),
    ],
)
def test_a_reference_that_is_not_one_variant_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(**{"grade": {"reference": "rt"}} | changes)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"baselines": ["ti"]}, "unknown baseline 'ti'"),
        (
            {"baselines": ["rt"], "primary": [{"variant": "b", "baseline": "rt", "metric": "x"}]},
            "report.primary: no variants at 'b' and 'rt' match",
        ),
        (
            {
                "baselines": ["base"],
                "primary": [
                    {"variant": "rt", "baseline": "base", "metric": "x"},
                    {"variant": "rt-a", "baseline": "base", "metric": "x"},
                ],
            },
            "report.primary: 'rt-a' and 'base-a' are compared twice by 'x'",
        ),
    ],
)
def test_comparisons_that_no_two_variants_match_in_are_refused(
    report: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        found(grid={"bases": BASES}, report=report)
    assert str(caught.value).startswith(said)
