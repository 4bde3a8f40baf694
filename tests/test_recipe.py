from pathlib import Path
from typing import Any

import pytest

from response_tuning import recipe
from response_tuning.configs import DataConfig, FinetuneConfig, MixtureConfig
from response_tuning.errors import ConfigError
from response_tuning.recipe import (
    PRESETS,
    Recipe,
    make_recipe,
    merged,
    read_layers,
    read_recipe,
    shipped,
)

FLAGS: dict[str, dict[str, Any]] = {
    "data": {"source": "answers.jsonl"},
    "finetune": {"base_model": "base"},
}


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def made(
    path: Path | None = None, preset: str | None = None, *settings: str, **finetune: Any
) -> Recipe:
    flags = FLAGS | {"finetune": FLAGS["finetune"] | finetune}
    return make_recipe(path, preset, flags, settings)


def refusal(path: Path | None = None, preset: str | None = None, *settings: str) -> str:
    with pytest.raises(ConfigError) as error:
        made(path, preset, *settings)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(path), "recipe.yaml") if path else message


@pytest.mark.parametrize("where", ["flags", "settings", "file"])
def test_settings_of_an_adapter_are_refused_where_the_whole_model_is_tuned(
    tmp_path: Path, where: str
) -> None:
    whole: dict[str, Any] = {"method": "full"} if where != "file" else {}
    if where == "flags":
        whole["lora_r"] = 8
    settings = ["finetune.lora_r=8"] if where == "settings" else []
    text = "finetune: {method: full, lora_r: 8}" if where == "file" else ""
    path = written(tmp_path, text) if text else None
    with pytest.raises(ConfigError, match="lora_r: has no effect with method 'full'"):
        made(path, None, *settings, **whole)


def test_a_recipe_for_an_adapter_may_be_tried_with_the_whole_model(tmp_path: Path) -> None:
    path = written(tmp_path, "preset: paper\nfinetune: {lora_r: 8}")
    assert made(path, None, method="full", merge=False).finetune.method == "full"


def test_a_preset_yields_to_the_file_the_file_to_flags_and_flags_to_set(tmp_path: Path) -> None:
    path = written(tmp_path, "finetune: {lora_alpha: 1, epochs: 1, window: 64}\n")
    tuned = made(path, "paper", "finetune.window=128", epochs=2, window=32).finetune
    assert (tuned.lora_r, tuned.lora_alpha, tuned.epochs, tuned.window) == (64, 1, 2, 128)
    assert made().finetune == FinetuneConfig(base_model="base")
    assert PRESETS["paper"]["epochs"] == 10, "laying settings over a preset changed it"


def test_the_last_set_counts_and_sections_do_not_disturb_each_other() -> None:
    recipe = made(None, None, "finetune.seed=1", "data.seed=2", "finetune.seed=3")
    assert (recipe.data.seed, recipe.finetune.seed) == (2, 3)


def test_layers_are_merged_inside_sections_of_a_section(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {source: a, mixture: {source: b, selector: all, refusals: 1}}")
    flags = {"finetune": FLAGS["finetune"], "data": {"mixture": {"path": Path("c")}}}
    settings = ["data.mixture.refusals=200", "data.curation={personal_data: flag}"]
    data = make_recipe(path, None, flags, [*settings, "data.curation.restatements=strip"]).data
    assert data.mixture == MixtureConfig(refusals=200, source="b", path=Path("c"), selector="all")
    assert (data.curation.personal_data, data.curation.restatements) == ("flag", "strip")


def test_a_value_in_a_section_of_a_section_is_reported_of_where_it_comes_from(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "data: {mixture: {refusals: -1}}")
    later = "data.mixture.selector=all"
    assert refusal(path, None, later).startswith("recipe.yaml: data.mixture.refusals: ")
    assert refusal(path, None, "data.mixture.refusals=-2").startswith(
        "--set: data.mixture.refusals: "
    )
    fine = written(tmp_path, "data: {mixture: {refusals: 1}}")
    assert refusal(fine, None, "data.curation.min_tokens=3").startswith("--set: data.curation: ")
    assert refusal(fine, None, "data.mixture=3").startswith("--set: data.mixture: ")
    assert refusal(fine, None, "data.source.deeper=3").startswith(
        "--set data.source.deeper: 'source' is a value "
    )
    assert refusal(fine, None, "finetune.twins=[1]").startswith("--set: finetune.twins.0: ")


def test_merging_changes_neither_of_the_two() -> None:
    under, over = {"a": {"b": 1, "c": 2}, "d": {"e": 3}, "f": 4}, {"a": {"b": 5}, "d": 6, "g": {}}
    before = repr((under, over))
    assert merged(under, over) == {"a": {"b": 5, "c": 2}, "d": 6, "f": 4, "g": {}}
    assert repr((under, over)) == before


def test_a_recipe_may_name_its_preset_and_the_flag_overrides_it(tmp_path: Path) -> None:
    path = written(tmp_path, "preset: paper\n")
    assert made(path).finetune.lora_r == 64
    assert made(path, "small").finetune == made().finetune


def test_a_recipe_alone_is_enough(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {source: a.jsonl, path: b}\nfinetune: {base_model: base}\n")
    assert make_recipe(path, None, {}, []) == Recipe(
        data=DataConfig(source="a.jsonl", path=Path("b")),
        finetune=FinetuneConfig(base_model="base"),
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate=1e-4", 1e-4),  # a text in YAML 1.1
        ("merge=true", True),
        ("twins=[instruction-tuning]", ("instruction-tuning",)),
        ("max_steps=null", None),
        ("base_model=a=b", "a=b"),
        ("base_revision='1234567'", "1234567"),
    ],
)
def test_the_value_of_set_is_yaml(setting: str, value: object) -> None:
    tuned = made(None, None, f"finetune.{setting}").finetune
    assert getattr(tuned, setting.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("finetune: {lora_r: 0}", "finetune.lora_r: Input should be greater .* (got 0)"),
        ("finetune: {lora_rank: 8}", "finetune: unknown key 'lora_rank': did you mean 'lora_r'?"),
        ("finetune: {twins: [1]}", "finetune.twins.0: Input should be a valid string (got 1)"),
        ("finetune: {1: 2}", "finetune.1: Keys should be strings (got 1)"),
        ("finetun: {}", "unknown key 'finetun': did you mean 'finetune'? known are "),
        ("1: {}", "1: Keys should be strings (got 1)"),
        ("finetune: 3", "finetune: expected settings, found a value"),
        ("preset: papr", "unknown preset 'papr': did you mean 'paper'? known are paper, small"),
        ("preset: [paper]", "unknown preset '['paper']': did you mean 'paper'? known are"),
        ("", "expected sections such as 'data:' and 'finetune:'"),
        ("- data", "expected sections such as 'data:' and 'finetune:'"),
        ("data: [", "not YAML: while parsing a flow node: "),
        ("data: {\n\tsource: a}", "not YAML: .* line 2, column 1"),
        ("day: 2026-13-45", "not YAML: month must be in 1..12"),
        (b"data: \xe9", "not YAML: "),
    ],
)
def test_a_fault_in_a_recipe_is_one_line_with_file_key_and_value(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    message = refusal(written(tmp_path, text))
    for part in f"recipe.yaml: {said}".split(".*"):
        assert part in message


def test_what_a_recipe_lacks_is_said_of_the_recipe(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {source: a}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: finetune\.base_model: not given"):
        make_recipe(path, None, {}, [])


def test_a_recipe_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lora_r=8", "--set lora_r: expected SECTION.KEY=VALUE, such as finetune.lora_r=8"),
        ("finetune.lora_r", "--set finetune.lora_r: expected SECTION.KEY=VALUE"),
        ("finetune.=8", "--set finetune.: expected SECTION.KEY=VALUE"),
        ("data.mixture.=8", "--set data.mixture.: expected SECTION.KEY=VALUE"),
        ("data..refusals=8", "--set data..refusals: expected SECTION.KEY=VALUE"),
        ("finetune.twins=[a", "--set finetune.twins: not YAML: while parsing a flow sequence"),
        ("finetune.lora_r=0", "--set: finetune.lora_r: Input should be greater than or equal"),
        ("finetune.lora_r=", "--set: finetune.lora_r: Input should be a valid integer (got None)"),
        (
            "finetune.lora_rank=8",
            "--set: finetune: unknown key 'lora_rank': did you mean 'lora_r'?",
        ),
        ("tune.lora_r=8", "--set: unknown key 'tune': did you mean 'finetune'?"),
    ],
)
def test_a_fault_in_a_setting_is_one_line_with_key_and_value(setting: str, said: str) -> None:
    assert refusal(None, None, setting).startswith(said)


def test_a_value_is_reported_of_where_it_comes_from_last(tmp_path: Path) -> None:
    path = written(tmp_path, "finetune: {lora_r: 0}\n")
    with pytest.raises(ConfigError, match=r"^finetune\.lora_r: .* \(got -1\)$"):
        made(path, lora_r=-1)
    assert made(path, lora_r=1).finetune.lora_r == 1


def test_an_unknown_preset_flag_names_the_known_ones() -> None:
    assert refusal(None, "papr") == (
        "unknown preset 'papr': did you mean 'paper'? known are paper, small"
    )


def test_the_preset_paper_is_what_the_paper_published() -> None:
    # Section 4.1 and the released training_configs/qlora.yaml and peft/qlora*.yaml.
    assert made(None, "paper").finetune.model_dump() == {
        **FinetuneConfig(base_model="base").model_dump(),
        "method": "qlora",  # 4-bit NF4, double quantisation: base._quantization
        "lora_r": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "optimizer": "paged_adamw_32bit",
        "learning_rate": 1e-4,
        "scheduler": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.3,
        "weight_decay": 0.0,
        "examples_per_step": 8 * 8,
        "epochs": 10,
        "max_steps": None,
        "window": 2048,
        "tokens_per_micro_batch": 8 * 2048,  # the memory of its 8 padded rows
        "gradient_checkpointing": True,
        "precision": "bfloat16",
        "seed": 0,
        "objective": "response-tuning",
        "template": "tulu",
        "merge": True,
    }


MODELS = Path(__file__).parents[1] / "recipes" / "paper" / "models"
RECIPES = sorted(MODELS.glob("lima*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_ships_is_a_recipe(path: Path) -> None:
    recipe = make_recipe(path, None, {}, [])
    assert recipe.finetune.objective in path.stem or recipe.data.mixture.refusals
    assert recipe.finetune.method == "qlora"


def test_the_recipe_of_the_papers_refusals_is_one_of_its_cells_and_can_be_made_any() -> None:
    (path,) = (path for path in RECIPES if path.stem == "lima-refusals-200")
    plain = make_recipe(path, None, {}, ["data.mixture.path=copy.json"])
    assert plain.data.mixture == MixtureConfig(
        refusals=200, path=Path("copy.json"), selector="paper-regex"
    )
    assert plain.finetune.twins == ("instruction-tuning",)
    more = make_recipe(path, None, {}, ["data.mixture.refusals=500"])
    assert more.data.mixture == plain.data.mixture.model_copy(
        update={"refusals": 500, "path": None}
    )
    assert more.finetune == plain.finetune


def write(folder: Path, **files: str) -> Path:
    """Write ``NAME.yaml`` for each name, and return the first."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def extends_error(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_layers(path, {})
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path.parent), "DIR")


def test_the_extending_recipe_wins_key_by_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        top="extends: middle.yaml\nfinetune: {epochs: 3}\n",
        middle="extends: bottom.yaml\nfinetune: {epochs: 2, window: 64}\ndata: {seed: 1}\n",
        bottom="preset: paper\ndata: {source: a, seed: 0}\nfinetune: {base_model: b, window: 32}\n",
    )
    recipe = make_recipe(path, None, {}, [])
    assert (recipe.data.source, recipe.data.seed) == ("a", 1)
    tuned = recipe.finetune
    assert (tuned.epochs, tuned.window, tuned.base_model, tuned.lora_r) == (3, 64, "b", 64)


def test_a_list_of_the_extending_recipe_replaces_the_list(tmp_path: Path) -> None:
    path = write(tmp_path, top="extends: low.yaml\nseeds: [5]\n", low="seeds: [0, 1]\n")
    assert read_layers(path, {}).content == {"seeds": [5]}


def test_a_recipe_is_found_relative_to_the_one_that_extends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "below", low="data: {source: a}\n")
    path = write(tmp_path, top="extends: below/low.yaml\n")
    monkeypatch.chdir("/")
    assert read_layers(path, {}).content == {"data": {"source": "a"}}


def test_a_recipe_can_extend_the_packaged_demo(tmp_path: Path) -> None:
    path = write(tmp_path, top="extends: demo\nseeds: [7]\n")
    layers = read_layers(path, {})
    assert layers.content["seeds"] == [7]
    assert layers.content["data"]["source"] == "miniature"


@pytest.mark.parametrize(("named", "meant"), [("demoo", "demo"), ("lower.yaml", "low.yaml")])
def test_a_misspelt_recipe_to_extend_gets_a_suggestion(
    tmp_path: Path, named: str, meant: str
) -> None:
    path = write(tmp_path, top=f"extends: {named}\n", low="seeds: [0]\n")
    assert extends_error(path) == (
        f"DIR/top.yaml: extends: DIR/{named}: no such file; did you mean '{meant}'? give a path "
        "relative to top.yaml, or one of demo"
    )


@pytest.mark.parametrize("key", ["extends", "imports"])
def test_a_setting_that_only_a_file_can_have_is_sent_there(key: str) -> None:
    said = f"--set {key}: it belongs in the recipe file, as a line that begins with '{key}:'"
    assert refusal(None, None, f"{key}=[demo]") == said
    with pytest.raises(ConfigError) as error:
        read_layers(None, {}, [f"{key}=[demo]"])
    assert str(error.value) == said


def test_an_error_names_the_file_that_the_value_comes_from(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        top="extends: low.yaml\nfinetune: {base_model: b}\n",
        low="data: {source: a}\nfinetune: {lora_r: 0}\n",
    )
    low = path.with_name("low.yaml")
    assert refusal(path).startswith(f"{low}: finetune.lora_r: Input should be greater")
    low.write_text("data: {source: a}\nfinetune: {lora_rank: 8}\n")
    assert refusal(path).startswith(f"{low}: finetune: unknown key 'lora_rank': did you mean")
    low.write_text("data: [a\n")
    assert extends_error(path).startswith("DIR/low.yaml: not YAML: while parsing a flow sequence")


def test_a_circle_of_recipes_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, a="extends: b.yaml\n", b="extends: ./a.yaml\n")
    assert extends_error(path) == (
        "DIR/b.yaml: extends: a circle: DIR/a.yaml extends DIR/b.yaml extends DIR/a.yaml; "
        "remove one of them"
    )
    alone = write(tmp_path, alone="extends: alone.yaml\n")
    assert "a circle: DIR/alone.yaml extends DIR/alone.yaml" in extends_error(alone)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("none.yaml", "no such file; give a path relative to "),
        (
            "[a.yaml, b.yaml]",
            "expected one recipe, such as 'other.yaml', found ['a.yaml', 'b",
        ),
        ("", "expected one recipe, such as 'other.yaml', found None"),
        ("3", "expected one recipe, such as 'other.yaml', found 3"),
    ],
)
def test_what_cannot_be_extended_is_one_line(tmp_path: Path, value: str, message: str) -> None:
    path = write(tmp_path, top=f"extends: {value}\n")
    error = extends_error(path)
    assert error.startswith("DIR/top.yaml: extends: ")
    assert message in error


def test_extends_is_no_setting(tmp_path: Path) -> None:
    path = write(tmp_path, top="data: {source: a, extends: b.yaml}\n")
    assert "recipe.yaml: data: unknown key 'extends'" in refusal(path)


def test_set_replaces_the_section_that_it_names(tmp_path: Path) -> None:
    path = write(tmp_path, top="variants: {a: {doses: [1]}, b: {}}\ngrade: {limit: 3}\n")
    content = read_layers(path, {}, ["variants={c: {}}", "grade={}", "grade.limit=5"]).content
    assert content == {"variants": {"c": {}}, "grade": {"limit": 5}}


@pytest.mark.parametrize("text", ["data.source=[sk-planted012345678", "sk-planted012345678"])
def test_the_value_of_a_setting_is_never_repeated(text: str) -> None:
    message = refusal(None, None, text)
    assert "planted" not in message


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that was installed from a wheel, with one recipe, and a folder without any."""
    package, here = tmp_path / "package", tmp_path / "here"
    for folder in (package / "recipes", here):
        folder.mkdir(parents=True)
    (package / "recipes/ours.yaml").write_text("finetune: {epochs: 5}")
    monkeypatch.setattr(recipe, "_PACKAGE", package)
    monkeypatch.chdir(here)
    return package


def test_a_recipe_that_is_not_in_this_folder_is_the_installed_one(installed: Path) -> None:
    ours = Path("recipes/ours.yaml")
    assert read_layers(ours, {}).content == {"finetune": {"epochs": 5}}
    assert shipped(ours) == installed / ours
    ours.parent.mkdir()
    ours.write_text("finetune: {epochs: 7}")
    assert read_layers(ours, {}).content == {"finetune": {"epochs": 7}}


def test_a_recipe_extends_an_installed_one(installed: Path) -> None:
    own = Path("own.yaml")
    own.write_text("extends: recipes/ours.yaml\nfinetune: {window: 64}")
    assert read_layers(own, {}).content == {"finetune": {"epochs": 5, "window": 64}}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["ours.yaml", "recipes/other.yaml"])
def test_other_names_mean_this_folder(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: cannot be read: No such file"):
        read_layers(Path(name), {})
