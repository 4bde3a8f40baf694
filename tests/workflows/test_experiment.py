from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from response_tuning.configs import MixtureConfig
from response_tuning.errors import ConfigError
from response_tuning.miniature import DEMO
from response_tuning.recipe import PAPER, read_layers
from response_tuning.validation import build
from response_tuning.workflows.experiment import (
    Cell,
    Experiment,
    cells,
    check_experiment,
    read_experiment,
    series,
)
from response_tuning.workflows.names import check_names

Make = Callable[..., list[Cell]]
BASE: dict[str, Any] = {
    "data": {"source": "miniature", "max_examples": 100},
    "finetune": {"base_model": "miniature", "epochs": 2},
    "benchmarks": ["miniature-seen"],
    "variants": {"rt": {}},
}
MIXED: dict[str, Any] = {"mixture": {"refusals": 50}}


def made(**changes: Any) -> list[Cell]:
    return cells(build(Experiment, BASE | changes, "recipe.yaml"))


def by_name(found: list[Cell]) -> dict[str, Cell]:
    return {cell.variant: cell for cell in found}


def test_a_variant_takes_from_the_recipe_what_it_does_not_say_itself() -> None:
    found = by_name(
        made(
            generate={"max_new_tokens": 9},
            variants={
                "rt": {},
                "it": {
                    "label": "with instructions",
                    "data": {"max_examples": 50},
                    "finetune": {"objective": "instruction-tuning", "epochs": 3},
                    "generate": {"temperature": 1},
                },
            },
        )
    )
    rt, it = found["rt"], found["it"]
    assert rt.data is not None and it.data is not None
    assert (rt.data.max_examples, it.data.max_examples) == (100, 50)
    assert (rt.finetune.objective, it.finetune.objective) == (
        "response-tuning",
        "instruction-tuning",
    )
    assert (rt.finetune.epochs, it.finetune.epochs) == (2, 3)
    assert {cell.finetune.base_model for cell in (rt, it)} == {"miniature"}
    assert (rt.generate.max_new_tokens, it.generate.max_new_tokens) == (9, 9)
    assert (rt.generate.temperature, it.generate.temperature) == (0, 1)
    assert (rt.label, it.label) == ("", "with instructions")


def test_the_recipe_overrides_its_preset_and_a_variant_overrides_the_recipe() -> None:
    (cell,) = made(preset="paper", variants={"rt": {"finetune": {"lora_r": 8}}})
    assert cell.finetune.epochs == 2
    assert cell.finetune.lora_r == 8
    assert cell.finetune.lora_alpha == PAPER["lora_alpha"]


def test_every_seed_of_a_variant_is_a_cell_with_a_folder_of_its_own(tmp_path: Path) -> None:
    found = made(seeds=[3, 5], variants={"base": {"finetune": None}, "rt": {}})
    folders = [cell.folder(tmp_path).relative_to(tmp_path).as_posix() for cell in found]
    assert folders == ["base/seed-3", "base/seed-5", "rt/seed-3", "rt/seed-5"]
    assert [cell.finetune.seed for cell in found] == [3, 5, 3, 5]
    assert [cell.data.seed for cell in found if cell.data] == [3, 5]


def test_a_variant_that_is_not_tuned_has_no_data_and_keeps_base_and_template() -> None:
    (cell,) = made(variants={"base": {"finetune": None}})
    assert not cell.tuned
    assert (cell.finetune.base_model, cell.finetune.template) == ("miniature", "tulu")


def test_doses_make_a_variant_each() -> None:
    found = made(variants={"rt": {"doses": [0, 20], "data": {"max_examples": 9}}, "it": {}})
    assert [cell.variant for cell in found] == ["rt-0", "rt-20", "it"]
    sizes = [(cell.data.mixture.refusals, cell.data.max_examples) for cell in found if cell.data]
    assert sizes == [(0, 9), (20, 9), (0, 100)]


def test_a_variant_keeps_what_it_does_not_say_of_a_section_inside_a_section() -> None:
    mixture = {"source": "miniature-refusals", "selector": "all", "refusals": 10}
    data = {**BASE["data"], "mixture": mixture, "curation": {"personal_data": "flag"}}
    variants = {
        "rt": {},
        "more": {"data": {"mixture": {"refusals": 20}}},
        "dosed": {"doses": [30], "data": {"mixture": {"selector": "phrases"}}},
    }
    found = by_name(made(data=data, variants=variants))
    mixed = {name: cell.data.mixture.model_dump() for name, cell in found.items() if cell.data}
    plain = MixtureConfig.model_validate(mixture).model_dump()
    assert mixed == {
        "rt": plain,
        "more": {**plain, "refusals": 20},
        "dosed-30": {**plain, "refusals": 30, "selector": "phrases"},
    }
    assert {c.data.curation.personal_data for c in found.values() if c.data} == {"flag"}
    assert data["mixture"] == mixture, "a variant changed the recipe"


def test_a_series_is_the_variants_that_differ_in_refusals_alone() -> None:
    it = {"objective": "instruction-tuning"}
    found = made(
        seeds=[0, 1],
        variants={
            "base": {"finetune": None},
            "rt-more": {"data": MIXED, "label": "more"},
            "rt": {"label": "none"},
            "it": {"finetune": it},
            "it-some": {"finetune": it, "data": MIXED},
            "rt-longer": {"finetune": {"epochs": 9}},
            "rt-fewer": {"data": {**MIXED, "max_examples": 10}},
        },
    )
    assert series(found) == {
        "rt": ("rt", 0),
        "rt-more": ("rt", 50),
        "it": ("it", 0),
        "it-some": ("it", 50),
    }


def test_doses_are_a_series_under_the_name_of_the_smallest() -> None:
    assert series(made(variants={"rt": {"doses": [100, 5, 20]}})) == {
        f"rt-{dose}": ("rt-5", dose) for dose in (5, 20, 100)
    }


def test_two_variants_of_one_dose_are_not_both_in_a_series() -> None:
    found = made(variants={"a": {}, "b": {}, "c": {"data": {"mixture": {"refusals": 3}}}})
    assert series(found) == {"a": ("a", 0), "c": ("a", 3)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"variants": {"rt": {"finetune": {"lora_rank": 8}}}},
            "variant 'rt': finetune: unknown key 'lora_rank': did you mean 'lora_r'?",
        ),
        (
            {"variants": {"rt": {"data": {"sauce": 8}}}},
            "variant 'rt': data: unknown key 'sauce': did you mean 'source'?",
        ),
        (
            {"variants": {"rt": {"generate": {"top_q": 1}}}},
            "variant 'rt': generate: unknown key 'top_q'",
        ),
        ({"variants": {"rt": {"doses": [-5]}}}, "recipe.yaml: variants.rt.doses.0: "),
        ({"variants": {"rt": {"finetune": {"epochs": 0}}}}, "variant 'rt': finetune.epochs"),
        ({"data": {}}, "variant 'rt': data.source: not given"),
        ({"finetune": {}}, "variant 'rt': finetune.base_model: not given"),
        (
            {"variants": {"rt": {"finetunes": {}}}},
            "recipe.yaml: variants.rt: unknown key 'finetunes': did you mean 'finetune'?",
        ),
        ({"variants": {}}, "recipe.yaml: variants: "),
        ({"variants": {"rt": None}}, "recipe.yaml: variants.rt: "),
        ({"benchmarks": []}, "recipe.yaml: benchmarks: "),
        ({"seeds": []}, "recipe.yaml: seeds: "),
        ({"seeds": [-1]}, "recipe.yaml: seeds.0: "),
        ({"seeds": [0, 1, 0]}, "recipe.yaml: seeds: each may appear only once"),
        ({"benchmarks": ["a", "a"]}, "recipe.yaml: benchmarks: each may appear only once"),
        ({"nots": ["x"]}, "recipe.yaml: unknown key 'nots': did you mean 'notes'?"),
        ({"preset": "papr"}, "unknown preset 'papr': did you mean 'paper'"),
        ({"report": {"baselines": ["rd"]}}, "unknown baseline 'rd': known are rt"),
        ({"report": {"confidence": 2}}, "recipe.yaml: report.confidence: "),
        ({"variants": {"rt": {"doses": [5, 5]}}}, "recipe.yaml: variants.rt: doses: two values"),
        ({"variants": {"rt-5": {}, "rt": {"doses": [5]}}}, "two variants are named 'rt-5'"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["a/b", "/tmp", "..", ".", "", ".hidden", "-rf", "report", "manifest.json", "a b", "a\n"],
)
def test_a_name_that_is_no_folder_of_the_run_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is letters, digits") as caught:
        made(variants={name: {}})
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rt", "rt-lr_2e-4", "v1.5", "réponses", "_"])
def test_a_name_of_letters_digits_and_signs_is_a_folder(name: str, tmp_path: Path) -> None:
    (cell,) = made(variants={name: {}})
    cell.folder(tmp_path).mkdir(parents=True)
    assert (tmp_path / name / "seed-0").is_dir()


def test_a_setting_is_laid_over_however_deep_it_is_and_the_original_stays() -> None:
    content: dict[str, Any] = {"a": {"b": {"c": 0, "d": 1}}, "e": [1]}
    settings = ["a.b.c=1", "x.y.z={k: [2, 3]}", "e=null", "a.b.c=5", "s='1'"]
    whole = read_layers(None, content, settings).content
    assert whole == {
        "a": {"b": {"c": 5, "d": 1}},
        "e": None,
        "x": {"y": {"z": {"k": [2, 3]}}},
        "s": "1",
    }
    assert content == {"a": {"b": {"c": 0, "d": 1}}, "e": [1]}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seeds", "--set seeds: expected KEY=VALUE"),
        ("=1", "--set : expected KEY=VALUE"),
        ("a.=1", "--set a.: expected KEY=VALUE"),
        ("n.deeper=1", "--set n.deeper: 'n' is a value and holds no settings"),
        ("null.a=1", "--set null.a: 'null' is a value and holds no settings"),
        ("a=[1", "--set a: not YAML"),
        ("a=2024-13-45", "--set a: not YAML"),
    ],
)
def test_a_setting_that_is_none_is_refused_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_layers(None, {"n": 1, "null": None}, [setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_are_laid_over_the_recipe_and_then_checked(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "data: {source: miniature}\nfinetune: {base_model: miniature, epochs: 2}\n"
        "benchmarks: [miniature-seen]\nvariants: {rt: {finetune: {epochs: 3}}, it: {}}\n"
    )
    settings = ["finetune.epochs=4", "variants.it.finetune.lora_r=8", "seeds=[1]"]
    found = by_name(cells(read_experiment(path, settings)))
    assert (found["rt"].finetune.epochs, found["it"].finetune.epochs) == (3, 4)
    assert (found["it"].finetune.lora_r, found["it"].seed) == (8, 1)
    with pytest.raises(ConfigError, match=r"^--set: unknown key 'epochs': known are"):
        read_experiment(path, ["epochs=4"])


@pytest.mark.parametrize(
    ("content", "said"),
    [("variants: [", "not YAML"), ("- a\n", "expected sections"), ("a: 1\n", "recipe.yaml: ")],
)
def test_a_recipe_that_is_none_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"recipe\.yaml") as caught:
        read_experiment(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["file", "section", "set"])
def test_null_removes_a_variant_of_the_extended_recipe(tmp_path: Path, where: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("extends: demo\n" + "variants: {rt-refusals: null}\n" * (where == "file"))
    settings = {
        "file": [],
        "section": ["variants={rt: {}, it: {}, rt-refusals: {}}", "variants.rt-refusals=null"],
        "set": ["variants.rt-refusals=null"],
    }[where]
    names = [*read_experiment(file, ["report.baselines=[]", *settings]).variants]
    every = [*read_experiment(DEMO).variants] if where != "section" else ["rt", "it"]
    assert names == [name for name in every if name != "rt-refusals"]


def test_null_removes_settings_of_the_report() -> None:
    axis = read_experiment(DEMO, ["report.axis.xml=null"]).report.axis
    assert [*axis] == ["roles", "instruction", "capital-roles", "chatml-text"]
    bare = read_experiment(DEMO, ["report.axis=null", "report.equivalence.strict=null"]).report
    assert (bare.axis, bare.equivalence) == ({}, {})
    with pytest.raises(ConfigError, match=r"report\.axis\.xm1: "):
        read_experiment(DEMO, ["report.axis.xm1=null"])


def test_a_removed_variant_can_come_back(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("extends: demo\nvariants: {rt: null}\n")
    (tmp_path / "top.yaml").write_text("extends: low.yaml\nvariants: {rt: {label: new}}\n")
    assert read_experiment(tmp_path / "top.yaml").variants["rt"].label == "new"


@pytest.mark.parametrize("setting", ["variants.rt-refusal=null", "variants.rt=null"])
def test_null_for_no_variant_is_refused(setting: str) -> None:
    said = (
        r"^--set: variants\.rt(-refusal)?: null removes a variant, and there is none of this name; "
        "known are it$"
    )
    with pytest.raises(ConfigError, match=said):
        read_experiment(DEMO, ["variants={it: {}}", setting])


def test_null_for_a_variant_that_templates_multiply_names_its_entry() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'it-in'\? known are base, "):
        read_experiment(DEMO, ["variants.it-in-xml=null"])


def test_a_recipe_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        read_experiment(tmp_path / "absent.yaml")


@pytest.fixture(scope="module")
def demo() -> dict[str, Cell]:
    return by_name(cells(read_experiment(DEMO)))


def test_the_demo_is_the_arms_and_controls_of_the_paper(demo: dict[str, Cell]) -> None:
    experiment = read_experiment(DEMO)
    assert list(demo) == [
        *("base", "base-stop", "base-stop-turn", "rt", "it", "it-shuffled"),
        *("rt-refusals", "it-refusals", "rt-random-init"),
        *(f"{arm}-{template}" for arm in ("stop", "rt-in", "it-in") for template in FORMATS),
    ]
    assert experiment.benchmarks == (
        *("miniature-seen", "miniature-unseen", "miniature-orders", "miniature-refusal"),
    )
    assert set(experiment.report.baselines) <= set(demo)
    for cell in demo.values():
        check_names(cell.finetune)
        assert (cell.finetune.base_model, cell.finetune.device) == ("miniature", "cpu")
        assert cell.label


FORMATS = ("instruction", "capital-roles", "chatml-text", "xml")


def test_the_arms_of_the_demo_in_other_formats_differ_in_the_template_alone() -> None:
    first = {cell.variant: cell for cell in cells(read_experiment(DEMO)) if cell.seed == 0}
    for arm, plain in (("stop", "base-stop"), ("rt-in", "rt"), ("it-in", "it")):
        for template in FORMATS:
            mine, its = first[f"{arm}-{template}"], first[plain]
            section = "finetune" if its.tuned else "generate"
            other = getattr(its, section).model_copy(update={"template": template})
            assert replace(its, **{section: other}).finetune == mine.finetune
            assert replace(its, **{section: other}).generate == mine.generate
            assert mine.data == its.data
            assert mine.benchmarks == ("miniature-seen",)


def test_the_arms_of_the_demo_differ_in_what_they_are_there_to_show_alone(
    demo: dict[str, Cell],
) -> None:
    def changed(name: str) -> dict[str, Any]:
        mine, plain = (demo[n].finetune.model_dump() for n in (name, "rt"))
        twins = {
            "response-tuning": ("instruction-tuning",),
            "instruction-tuning": ("response-tuning",),
        }
        assert mine.pop("twins") in ((), twins.get(mine["objective"], ()))
        return {key: value for key, value in mine.items() if value != plain[key]}

    assert demo["rt"].finetune.twins == ("instruction-tuning",)
    assert demo["it"].finetune.twins == ("response-tuning",)
    main = [name for name in demo if not name.endswith(FORMATS)]
    assert {name: changed(name) for name in main if name != "rt"} == {
        "base": {},
        "base-stop": {},
        "base-stop-turn": {},
        "it": {"objective": "instruction-tuning"},
        "it-shuffled": {"objective": "shuffled-pairs"},
        "rt-refusals": {},
        "it-refusals": {"objective": "instruction-tuning"},
        "rt-random-init": {"random_init": True},
    }
    untuned = [name for name in main if not demo[name].tuned]
    assert untuned == ["base", "base-stop", "base-stop-turn"]
    stops = [demo[name].generate.stop for name in untuned]
    assert stops == [(), ("\n",), ("\nuser", "\nassistant")]
    assert demo["rt-refusals"].data == demo["it-refusals"].data
    plain = {name: demo[name].data for name in ("rt", "it", "it-shuffled", "rt-random-init")}
    assert len({data.model_dump_json() for data in plain.values() if data}) == 1
    refusals = demo["rt-refusals"].data
    assert refusals is not None
    assert refusals.mixture == MixtureConfig(
        refusals=200, source="miniature-refusals", selector="all"
    )
    assert series([demo[name] for name in main]) == {
        "rt": ("rt", 0),
        "rt-refusals": ("rt", 200),
        "it": ("it", 0),
        "it-refusals": ("it", 200),
    }


RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_demo_is_a_part_of_the_recipe_with_its_arms_as_they_are_there() -> None:
    demo, whole = (cells(read_experiment(path)) for path in (DEMO, RECIPES / "miniature.yaml"))
    there = {f"{cell.variant}/{cell.seed}": cell for cell in whole}
    for cell in demo:
        name = f"{cell.variant}-200" if cell.variant.endswith("refusals") else cell.variant
        other = there[f"{name}/{cell.seed}"]
        assert (cell.data, cell.finetune, cell.generate) == (
            other.data,
            other.finetune,
            other.generate,
        )
    doses = {dose for name, (_, dose) in series(whole).items() if name.startswith("rt")}
    assert doses == {0, 20, 50, 100, 200}
    assert {cell.seed for cell in whole} == {0, 1, 2}


def test_a_manifest_holds_the_resolved_recipe() -> None:
    recorded = read_experiment(RECIPES / "miniature.yaml").model_dump(mode="json")
    assert recorded["data"] == read_experiment(DEMO).model_dump(mode="json")["data"]
    assert recorded["variants"]["rt-refusals"]["doses"] == [20, 50, 100, 200]
    assert "extends" not in recorded


def test_the_search_gives_both_arms_the_same_budget_on_validation_questions_alone() -> None:
    search = read_experiment(RECIPES / "miniature-search.yaml")
    assert all(name.endswith("-validation") for name in search.benchmarks)
    tried: dict[str, list[tuple[float, float]]] = {}
    for cell in cells(search):
        setting = (cell.finetune.learning_rate, cell.finetune.epochs)
        tried.setdefault(cell.finetune.objective, []).append(setting)
    assert tried["response-tuning"] == tried["instruction-tuning"]
    assert len({*tried["response-tuning"]}) == 9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune": {"base_model": "miniature", "seed": 3}}, "'seeds' sets it"),
        ({"variants": {"rt": {"data": {"seed": 3}}}}, "'seeds' sets it"),
        ({"variants": {"rt": {"generate": {"template": "tulu"}}}}, "set finetune.template"),
        ({"variants": {"base": {"finetune": None, "data": MIXED}}}, "not tuned"),
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(**changes)


def arms(**changes: Any) -> dict[str, Cell]:
    return {cell.name: cell for cell in made(**changes)}


def test_templates_make_an_arm_each_and_doses_do_so_for_each_of_them() -> None:
    found = arms(
        variants={
            "stop": {"finetune": None, "templates": ["tulu", "xml"]},
            "rt": {"templates": ["tulu", "xml"], "doses": [1, 2]},
        }
    )
    assert [*found] == [
        *("stop-tulu/seed-0", "stop-xml/seed-0"),
        *("rt-tulu-1/seed-0", "rt-tulu-2/seed-0", "rt-xml-1/seed-0", "rt-xml-2/seed-0"),
    ]
    assert found["stop-xml/seed-0"].generate.template == "xml"
    assert found["rt-xml-2/seed-0"].finetune.template == "xml"
    data = found["rt-xml-2/seed-0"].data
    assert data is not None
    assert data.mixture.refusals == 2


def test_a_variant_may_take_some_of_the_seeds_and_benchmarks() -> None:
    variants = {"rt": {}, "it": {"seeds": [1], "benchmarks": ["miniature-seen"]}}
    found = arms(seeds=[0, 1], benchmarks=["miniature-seen", "miniature-unseen"], variants=variants)
    assert [*found] == ["rt/seed-0", "rt/seed-1", "it/seed-1"]
    assert found["it/seed-1"].benchmarks == ("miniature-seen",)
    assert found["rt/seed-1"].benchmarks == ("miniature-seen", "miniature-unseen")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"rt": {"seeds": [7]}}}, "variant 'rt': seeds: 7 is none of the recipe's"),
        (
            {"variants": {"rt": {"benchmarks": ["xstest"]}}},
            "variant 'rt': benchmarks: xstest is none of the recipe's",
        ),
        (
            {"variants": {"rt": {"seeds": [0]}}, "grade": {"reference": "rt"}},
            "variant 'rt': seeds: it is the reference",
        ),
        (
            {
                "variants": {"rt": {"seeds": [0]}, "it": {"reference": "rt"}},
                "grade": {"reference": "it"},
            },
            "variant 'rt': seeds: it is the reference",
        ),
        (
            {"variants": {"rt": {}, "it": {"reference": "rd"}}, "grade": {"reference": "rt"}},
            "variant 'it': reference: no such file, and unknown variant 'rd'",
        ),
        (
            {"variants": {"rt": {}, "it": {"reference": "rt"}}},
            "variant 'it': reference: has no effect without grade.reference",
        ),
    ],
)
def test_seeds_and_benchmarks_that_the_run_or_its_reference_lacks_are_refused(
    changes: dict[str, Any], said: str
) -> None:
    experiment = build(Experiment, BASE | changes, "recipe.yaml")
    with pytest.raises(ConfigError, match=said):
        check_experiment(experiment, cells(experiment))


def test_a_seed_that_a_variant_names_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="each may appear only once"):
        made(variants={"rt": {"seeds": [0, 0]}})
