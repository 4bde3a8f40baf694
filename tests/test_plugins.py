"""Names of a package outside the tree: installed, imported by name, or from a how-to page."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import response_tuning
from response_tuning import plugins
from response_tuning.errors import ConfigError
from response_tuning.registry import Registry
from response_tuning.workflows.names import registered

Run = Callable[..., Any]
Install = Callable[..., Path]
PAGES = Path(__file__).parents[1] / "docs" / "how-to"
KINDS = ("dataset", "objective", "benchmark", "engine", "template")
REGISTRIES = ("BENCHMARKS", "DATASETS", "ENGINES", "OBJECTIVES", "TEMPLATES")
TEA = (
    "from response_tuning import DATASETS, Dataset\n"
    "DATASETS.register('tea')(Dataset(made=lambda: iter([{'response': 'Rinse the pot first.'}])))\n"
)
OUTPUT = re.compile(r"^```console\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, and no trace of a plug-in afterwards."""
    registered()  # our own names first
    paths = [*sys.path]
    tables: list[Registry[Any]] = [getattr(response_tuning, name) for name in REGISTRIES]
    before = [dict(table._entries) for table in tables]
    monkeypatch.setattr(plugins, "_versions", {})
    monkeypatch.setattr(plugins, "_outcomes", {})
    plugins._installed.cache_clear()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    for table, entries in zip(tables, before, strict=True):
        table._entries = entries
    for name, loaded in [*sys.modules.items()]:
        if (getattr(loaded, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = paths
    importlib.invalidate_caches()
    plugins._installed.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package whose one module is announced as a plug-in."""
    site = tmp_path / "site"

    def installed(code: str, name: str = "tea", version: str = "1.2") -> Path:
        about = site / f"{name}_plugin-{version}.dist-info"
        about.mkdir(parents=True)
        (site / f"{name}_plugin.py").write_text(code)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: {version}\n"
        )
        (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {name}_plugin\n")
        (about / "top_level.txt").write_text(f"{name}_plugin\n")
        monkeypatch.syspath_prepend(site)
        plugins._installed.cache_clear()
        return site / f"{name}_plugin.py"

    return installed


def module(code: str, name: str = "tea_module") -> None:
    Path(f"{name}.py").write_text(code)
    importlib.invalidate_caches()


def test_an_installed_plug_in_loads_at_the_first_look_up(rtune: Run, install: Install) -> None:
    install(TEA)
    assert rtune("--help").code == rtune("finetune", "--help").code == 0
    assert "tea_plugin" not in sys.modules
    listed = rtune("list").out.splitlines()
    assert listed[0].startswith("datasets: ") and listed[0].endswith(", tea")
    assert listed[-1] == "plug-ins: tea (tea-plugin 1.2)"
    assert rtune("data", "prepare", "tea", "--out", "d").out.startswith("1 rows: 1 kept")


def test_list_json_holds_every_name_and_every_plug_in(rtune: Run, install: Install) -> None:
    install(TEA)
    names = json.loads(rtune("list", "--json").out)
    assert names.pop("plugins") == {"tea": "tea-plugin 1.2"}
    assert names == registered()
    assert "tea" in names["datasets"]


@pytest.mark.parametrize("command", ["--import tea_module list", "list --import tea_module"])
def test_a_module_of_the_working_directory_is_imported_by_name(rtune: Run, command: str) -> None:
    module(TEA)
    result = rtune(*command.split())
    assert result.code == 0
    assert re.search(r"^plug-ins: tea_module \(sha256 [0-9a-f]{64}\)$", result.out, re.MULTILINE)


def test_a_module_of_the_working_directory_never_hides_a_library(rtune: Run) -> None:
    module("raise SystemExit", "json")
    module("raise SystemExit", "mimetypes")
    assert rtune("list", "--import", "json").code == 0


def test_the_version_of_an_imported_module_is_that_of_its_package(install: Install) -> None:
    install(TEA)
    plugins.import_modules(["tea_plugin"], "--import")
    assert plugins.versions()["tea_plugin"] == "tea-plugin 1.2"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (TEA.replace("'tea'", "'alpaca'"), "dataset 'alpaca' is registered twice"),
        ("syntax error", "SyntaxError: invalid syntax"),
    ],
)
def test_a_broken_plug_in_is_one_line_at_every_look_up(
    rtune: Run, install: Install, code: str, cause: str
) -> None:
    install(code)
    for command in (["list"], ["data", "prepare", "alpaca", "--out", "d"], ["list", "--json"]):
        result = rtune(*command)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert result.err.startswith(f"rtune: plug-in 'tea' of tea-plugin 1.2: {cause}")
        assert result.err.endswith("; fix it, or uninstall its package\n")
    assert not Path("d").exists()
    assert rtune("--help").code == 0


def test_the_line_of_code_that_failed_is_named(rtune: Run, install: Install) -> None:
    path = install("x = 1\n\nx / 0\n")
    assert f"division by zero ({path}:3);" in rtune("list").err


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module", "plug-in 'no_such_module' (--import): ModuleNotFoundError: "),
        ("tea_module.py", "--import: 'tea_module.py' is not the name of a module; expected one "),
        ("../tea", "--import: '../tea' is not the name of a module"),
        ("", "--import: '' is not the name of a module"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(rtune: Run, name: str, cause: str) -> None:
    module(TEA)
    result = rtune("list", "--import", name)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"rtune: {cause}")


def test_a_plug_in_that_exits_is_one_line(rtune: Run) -> None:
    module("import sys\nsys.exit(0)")
    result = rtune("list", "--import", "tea_module")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "plug-in 'tea_module' (--import): SystemExit: 0 (" in result.err
    assert "tea_module.py:2)" in result.err


def test_a_plug_in_may_look_up_names_while_it_loads(install: Install) -> None:
    install(f"{TEA}assert 'tea' in DATASETS.names()\n")
    plugins.load_installed()
    assert plugins.versions() == {"tea": "tea-plugin 1.2"}


def test_a_recipe_imports_the_modules_that_it_lists(rtune: Run) -> None:
    module(TEA)
    recipe = Path("tea.yaml")
    settings = "data: {source: tea}\nfinetune: {base_model: miniature, method: full}\n"
    recipe.write_text(f"imports: [tea_module]\n{settings}")
    result = rtune("finetune", "--recipe", recipe, "--dry-run")
    assert (result.code, result.err.count("Error")) == (0, 0)
    assert "1 examples: 1 kept" in result.out


def test_a_recipe_that_another_one_extends_imports_its_modules_too(rtune: Run) -> None:
    module(TEA)
    Path("under.yaml").write_text("imports: [tea_module]\n")
    Path("over.yaml").write_text(
        "extends: under.yaml\nbenchmarks: [miniature-seen]\nvariants: {rt: {}}\n"
        "data: {source: tea}\nfinetune: {base_model: miniature, method: full}\n"
    )
    assert " on tea\n" in rtune("run", "over.yaml", "--dry-run").out


@pytest.mark.parametrize(
    ("imports", "cause"),
    [
        ("tea_module", "tea.yaml: imports: expected a list of modules, such as [tea_plugin]"),
        ("[5]", "tea.yaml: imports: expected a list of modules"),
        ("[no_such]", "plug-in 'no_such' (tea.yaml: imports): ModuleNotFoundError"),
        ("['./tea']", "tea.yaml: imports: './tea' is not the name of a module"),
    ],
)
def test_imports_of_a_recipe_that_cannot_be_used_are_one_line(
    rtune: Run, imports: str, cause: str
) -> None:
    Path("tea.yaml").write_text(f"imports: {imports}\n")
    for command in (["run", "tea.yaml"], ["finetune", "--recipe", "tea.yaml", "--out", "o"]):
        result = rtune(*command)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert result.err.startswith(f"rtune: {cause}")


def test_versions_of_a_manifest_name_the_plug_ins(install: Install) -> None:
    from response_tuning.artifacts import package_versions

    without = package_versions()
    install(TEA)
    plugins.load_installed()
    assert package_versions() == without | {"plug-in tea": "tea-plugin 1.2"}


def test_a_failure_keeps_its_cause_for_those_who_write_a_plug_in(install: Install) -> None:
    install("1 / 0")
    with pytest.raises(ConfigError) as error:
        plugins.load_installed()
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_script_outside_the_tree_finds_an_installed_plug_in(install: Install) -> None:
    """In a process of its own, as a user's."""
    site = install(TEA).parent
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import response_tuning as rt; "
        "prepared = rt.prepare('tea', 'd'); print(prepared.examples)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def code_of(page: str) -> str:
    return "\n\n".join(block.split("```")[0] for block in page.split("```python\n")[1:])


def shown_commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Every command of a page, with the lines that the page shows below it."""
    for block in OUTPUT.findall(page):
        for part in block.split("$ ")[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            yield command, lines


def matches(lines: list[str], output: str) -> bool:
    """Whether a page shows what was printed; ``...`` stands for any text."""
    wanted = "\n".join(lines)
    pattern = ".*".join(re.escape(part) for part in wanted.split("..."))
    return re.fullmatch(pattern, output.rstrip("\n"), flags=re.DOTALL) is not None


def test_scores_of_a_plug_in_are_graded_again_when_its_version_changes(
    rtune: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(code_of((PAGES / "plugins-benchmark.md").read_text(encoding="utf-8")))
    few = ("--template", "tulu", "--max-new-tokens", 2)
    scores = Path("runs/eval-miniature/model/seed-0/grade/tea-facts.jsonl")
    evaluate = ("eval", "miniature", "--suite", "tea-facts", *few)
    assert rtune(*evaluate).code == 0
    graded = json.loads(scores.with_name("manifest.json").read_text())["tea-facts"]
    assert graded["plugins"] == {"tea": "tea-plugin 1.2"}
    os.utime(scores, (0, 0))
    assert rtune(*evaluate).code == 0
    assert scores.stat().st_mtime == 0, "graded already"
    monkeypatch.setattr(plugins, "versions", lambda: {"tea": "tea-plugin 1.3"})
    assert rtune(*evaluate).code == 0
    assert scores.stat().st_mtime > 0


def test_the_loss_of_the_page_on_objectives_is_trained_and_its_terms_are_logged(
    rtune: Run, install: Install, tiny_base: Path
) -> None:
    install(code_of((PAGES / "plugins-objective.md").read_text(encoding="utf-8")), "objective")
    answers = ["Rinse the pot with hot water.", "Wait."]
    Path("answers.jsonl").write_text("".join(json.dumps({"response": a}) + "\n" for a in answers))
    few = ("--method", "full", "--max-steps", 1)
    source = ("--base-model", tiny_base, "--data", "answers.jsonl", *few)
    entropy = ("--objective", "length-fair", "--set", "finetune.objective_settings.entropy=0.5")
    assert rtune("finetune", *source, *entropy, "--out", "fair").code == 0
    [step] = [json.loads(line) for line in Path("fair/metrics.jsonl").read_text().splitlines()]
    assert step["loss"] == pytest.approx(step["term_mean"] - 0.5 * step["term_entropy"], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_each_kind_works_from_a_package_outside_the_tree(
    kind: str, rtune: Run, install: Install, tiny_base: Path
) -> None:
    page = (PAGES / f"plugins-{kind}.md").read_text(encoding="utf-8")
    install(code_of(page), kind)
    Path("answers.jsonl").write_text(
        '{"response": "Rinse the pot with hot water."}\n{"response": "Wait."}\n'
    )
    Path("prompts.jsonl").write_text('{"prompt": "How long?"}\n{"prompt": "Is it hot?"}\n')
    _, _, questions = page.partition("```json\n")
    Path("questions.jsonl").write_text(questions.partition("```")[0])
    for command, lines in shown_commands(page):
        words = command.replace("BASE", str(tiny_base)).replace("MODEL", "miniature")
        small = {"finetune": "--method full --max-steps 1", "eval": "--limit 1 --template tulu"}
        small["generate"] = "--template tulu --max-new-tokens 4" if "MODEL" in command else ""
        verb = command.split()[1]
        result = rtune(*shlex.split(f"{words} {small.get(verb, '')}")[1:])
        assert result.code == 0, (command, result.err)
        assert matches(lines, result.out), (command, result.out)


def test_the_first_page_shows_what_a_plug_in_is(rtune: Run) -> None:
    page = (PAGES / "plugins.md").read_text(encoding="utf-8")
    module(code_of(page), "tea_plugin")
    for command, lines in shown_commands(page):
        result = rtune(*shlex.split(command)[1:])
        assert result.code == 0, (command, result.err)
        assert matches(lines, result.out), (command, result.out)
    project = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    assert project["project"]["entry-points"] == {plugins.GROUP: {"tea": "tea_plugin"}}
    recipe = page.split("```yaml\n")[1].split("```")[0]
    Path("recipe.yaml").write_text(recipe)
    flags = ["--base-model", "miniature", "--method", "full", "--dry-run"]
    assert rtune("finetune", "--recipe", "recipe.yaml", *flags).code == 0
    for kind in KINDS:
        assert f"(plugins-{kind}.md)" in page
