from typing import Any

import pytest

from response_tuning.errors import ConfigError
from response_tuning.grid import (
    Axis,
    check_exclude,
    differing_axis,
    is_excluded,
    matching,
    points,
    read_axes,
    value_name,
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("llama", "llama"),
        ("meta-llama/Llama-3.1-8B", "Llama-3.1-8B"),
        ("bases/answers-40/", "answers-40"),
        ("formats/roles.jinja", "roles"),
        ("2e-4", "2e-4"),
        (2e-4, "2e-4"),
        (0.05, "0.05"),
        (1e-05, "1e-5"),
        (1000, "1000"),
        (0, "0"),
    ],
)
def test_a_value_of_a_list_has_a_short_name(value: object, name: str) -> None:
    assert value_name(value, "axis") == name


@pytest.mark.parametrize("value", [True, None, {"engine": "hf"}, [1]])
def test_a_value_without_a_short_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^doses: .* name the values: \{NAME: VALUE\}$"):
        value_name(value, "doses")


def test_each_axis_sets_its_setting_and_a_value_may_set_sections() -> None:
    axes = read_axes(
        {
            "bases": {"llama": "x/llama", "olmo": {"finetune": {"base_model": "y", "window": 64}}},
            "doses": [0, 10],
            "finetune": {"learning_rate": ["1e-4", "2e-4"]},
            "data.curation": {"plain": {}, "short": {"max_tokens": 5}},
        }
    )
    assert axes == {
        "bases": {
            "llama": {"finetune": {"base_model": "x/llama"}},
            "olmo": {"finetune": {"base_model": "y", "window": 64}},
        },
        "doses": {
            "0": {"data": {"mixture": {"refusals": 0}}},
            "10": {"data": {"mixture": {"refusals": 10}}},
        },
        "finetune.learning_rate": {
            "1e-4": {"finetune": {"learning_rate": "1e-4"}},
            "2e-4": {"finetune": {"learning_rate": "2e-4"}},
        },
        "data.curation": {
            "plain": {"data": {"curation": {}}},
            "short": {"data": {"curation": {"max_tokens": 5}}},
        },
    }


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"doze": [0, 1]}, "unknown axis 'doze': did you mean 'doses'?"),
        ({"finetune.rank": [1, 2]}, "unknown axis 'finetune.rank': known are bases, "),
        ({"epochs": [1, 2]}, "unknown axis 'epochs': did you mean 'finetune.epochs'?"),
        ({"finetune": {"lora_rank": [1, 2]}}, "unknown axis 'finetune.lora_rank': did you mean"),
        ({"finetune": [1, 2]}, "unknown axis 'finetune': known are bases, "),
        ({"finetune.seed": [1, 2]}, "finetune.seed: the seed of a cell is"),
        ({"doses": [5]}, "doses: it has one value; give it 2 or more, or set data.mixture."),
        ({"doses": []}, "doses: it has no value; give it 2 or more"),
        ({"doses": 5}, "doses: expected a list of values, or names with values; found 5"),
        ({"doses": None}, "doses: expected a list"),
        ({"doses": [5, 5]}, "doses: two values have the same name"),
        ({"bases": ["a/x", "b/x"]}, "bases: two values have the same name"),
        ({"templates": ["a b", "c"]}, "templates: a value is named 'a b'; a name is letters"),
        (
            {
                "bases": {"a": {"finetune": {"template": "xml"}}, "b": "x/b"},
                "templates": ["xml", "roles"],
            },
            "'bases' and 'templates' both set finetune.template; remove one of them",
        ),
    ],
)
def test_what_is_wrong_with_an_axis_is_one_line(grid: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_axes(grid, fewest=2)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_points_are_crossed_in_the_order_of_the_recipe_and_the_last_axis_changes_fastest() -> None:
    axes = read_axes({"doses": [0, 5], "templates": ["xml", "roles"]})
    found = [*points({key: axis for key, axis in axes.items() if axis is not None})]
    assert [[*point.place.values()] for point in found] == [
        *(["0", "xml"], ["0", "roles"], ["5", "xml"], ["5", "roles"]),
    ]
    assert found[-1].settings == {
        "data": {"mixture": {"refusals": 5}},
        "finetune": {"template": "roles"},
    }


def test_a_value_that_tunes_nothing_wins_over_other_axes_of_the_section() -> None:
    axes: dict[str, Axis] = {
        "objectives": {"base": {"finetune": None}, "rt": {"finetune": {"objective": "rt"}}},
        "bases": {"a": {"finetune": {"base_model": "a"}}},
    }
    untuned, tuned = points(axes)
    assert (untuned.tuned, tuned.tuned) == (False, True)
    assert untuned.settings == {"finetune": {"base_model": "a"}}


PLACES = {
    "base-x": {"variant": "base", "bases": "x"},
    "rt-x-0": {"variant": "rt", "bases": "x", "doses": "0"},
    "rt-x-9": {"variant": "rt", "bases": "x", "doses": "9"},
    "rt-y-0": {"variant": "rt", "bases": "y", "doses": "0"},
    "it-x-0": {"variant": "it", "bases": "x", "doses": "0"},
    "it-y-9": {"variant": "it", "bases": "y", "doses": "9"},
}


def test_variants_match_that_differ_in_one_axis_of_those_that_both_have() -> None:
    assert differing_axis(PLACES["base-x"], PLACES["rt-x-9"]) == "variant"
    assert differing_axis(PLACES["rt-x-0"], PLACES["rt-x-9"]) == "doses"
    assert differing_axis(PLACES["rt-x-9"], PLACES["rt-y-0"]) is None
    assert differing_axis(PLACES["base-x"], PLACES["rt-y-0"]) is None
    assert matching("it", PLACES) == [("it-x-0", "base-x"), ("it-x-0", "rt-x-0")]
    assert matching("0", PLACES) == [("rt-x-0", "rt-x-9")]


def test_what_is_excluded_fits_all_that_an_entry_says() -> None:
    exclude: list[dict[str, Any]] = [{"bases": "x", "doses": [9]}, {"variant": ["it", "base"]}]
    assert [name for name, place in PLACES.items() if is_excluded(place, exclude)] == [
        *("base-x", "rt-x-9", "it-x-0", "it-y-9"),
    ]


@pytest.mark.parametrize(
    ("exclude", "said"),
    [
        ([{"basis": "x"}], "grid.exclude.0: unknown axis 'basis': did you mean 'bases'?"),
        ([{"bases": "x"}, {"bases": "z"}], "grid.exclude.1: no variant is at {'bases': 'z'}"),
        ([{"variant": "base", "doses": 0}], "grid.exclude.0: no variant is at"),
        ({"bases": "x"}, "grid.exclude: expected a list"),
        (["x"], "grid.exclude: expected a list"),
    ],
)
def test_what_excludes_nothing_is_refused(exclude: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_exclude(exclude, [*PLACES.values()])
    assert str(caught.value).startswith(said)
