"""The rule of the layout, as CONTRIBUTING.md has it:

A file at the root is vocabulary for all; ``models/``, ``templates/`` and ``miniature/`` are what
stages share; a folder holds the whole of its subject and imports no other stage; only
``workflows/`` joins stages; only ``cli/`` speaks to the shell: it reads arguments and
standard input, and sets exit codes.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import response_tuning
from response_tuning.data import DATASETS
from response_tuning.finetune.objectives import OBJECTIVES
from response_tuning.generate import ENGINES
from response_tuning.grade import BENCHMARKS

SOURCE = Path(response_tuning.__file__).parent
TESTS = Path(__file__).parent
STAGES = {"data", "finetune", "generate", "grade", "probe", "report", "serve"}
SHARED = {"models", "templates", "miniature"}
JOINING = {"workflows", "cli"}
LIBRARY = {"__init__", "__main__"}
"""What the package is to others: its public names, and ``python -m response_tuning``."""
PACKAGE = "response_tuning"
OURS = re.compile(r"response_tuning(\.(\w+|\*))+")
IMPORTS_BY_NAME = {"import_module", "__import__", "runpy"}
BY_NAME = {"__init__.py", "plugins.py", "registry.py"}
"""Files that import what they are given by name: public names, plug-ins, a folder of engines."""
SHELL = {"typer", "argparse", "click"}
SHELL_WORDS = {"argv", "stdin", "_exit", "SystemExit"}
SHELL_ELSEWHERE = {
    "terminal.py": {"stdin"},  # makes closed streams usable
    "plugins.py": {"SystemExit"},  # catches what a plug-in raises
    "finetune/checkpoints.py": {"SystemExit"},  # ends training as SIGTERM would
    "finetune/processes.py": {"argv"},  # an error repeats the command under another launcher
}
HEAVY = {"torch", "transformers", "datasets", "pyarrow", "openai", "scipy", "matplotlib"} | {
    "krippendorff",
    "lm_eval",
    "sklearn",
    "starlette",
    "statsmodels",
    "uvicorn",
}


def modules() -> Iterator[Path]:
    return (path for path in sorted(SOURCE.rglob("*.py")))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imported(path: Path) -> set[str]:
    """The full names of what a module takes from other modules, wherever and however it does.

    A public name of the package counts as the module that it comes from.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} if OURS.fullmatch(node.value) else set()
    names |= taken_from_the_package(tree)
    return names.union(*(homes_of(name.split(".")[1:2]) for name in names if OURS.fullmatch(name)))


def taken_from_the_package(tree: ast.Module) -> set[str]:
    """What is reached as an attribute: ``import response_tuning as rt``, then ``rt.finetune``."""
    bound = {
        alias.asname or PACKAGE
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == PACKAGE or (alias.name.startswith(f"{PACKAGE}.") and not alias.asname)
    }
    reached = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in bound
    ]
    plain = {id(node.value) for node in reached}
    handed_on = any(  # such as getattr(rt, name): that may be anything
        isinstance(node, ast.Name) and node.id in bound and id(node) not in plain
        for node in ast.walk(tree)
    )
    return {f"{PACKAGE}.{node.attr}" for node in reached} | (
        {f"{PACKAGE}.*"} if handed_on else set()
    )


def homes_of(names: list[str]) -> set[str]:
    """The modules that public names of the package come from; ``*`` stands for all names.

    Names that folders share, such as ``finetune``, count as the folder.
    """
    names = [name for name in names if not (SOURCE / name).is_dir()]
    return {
        f"{PACKAGE}.{home}"
        for home, public in response_tuning._HOMES.items()
        if "*" in names or set(names) & set(public)
    }


def rooms(path: Path) -> set[str]:
    """The folders of the package that a module imports from, such as ``models``."""
    parts = [name.split(".") for name in imported(path)]
    return {
        names[1]
        for names in parts
        if names[0] == "response_tuning" and len(names) > 1 and (SOURCE / names[1]).is_dir()
    }


def words(path: Path) -> set[str]:
    """Every name, attribute and imported name in a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
    return found


def called(path: Path) -> set[str]:
    """The plain names that a module calls, and what it calls of ``sys``."""
    calls = [
        node.func
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    return {func.id for func in calls if isinstance(func, ast.Name)} | {
        func.attr
        for func in calls
        if isinstance(func, ast.Attribute) and ast.unparse(func.value) == "sys"
    }


def loaded_after(statement: str) -> set[str]:
    probe = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return set(json.loads(out.stdout))


def test_the_listing_of_the_package_is_the_rule() -> None:
    folders = {p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()}
    assert folders == STAGES | SHARED | JOINING


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=name_of)
def test_a_file_at_the_root_is_vocabulary_and_imports_no_folder(path: Path) -> None:
    if path.stem not in LIBRARY:
        assert not rooms(path)


@pytest.mark.parametrize("folder", sorted(SHARED))
def test_what_stages_share_imports_no_stage(folder: str) -> None:
    for path in (SOURCE / folder).rglob("*.py"):
        assert rooms(path) <= SHARED, path


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    for path in (SOURCE / stage).rglob("*.py"):
        assert rooms(path) <= SHARED | {stage}, path


def test_only_workflows_join_stages() -> None:
    for path in (SOURCE / "workflows").rglob("*.py"):
        assert "cli" not in rooms(path), path
    for path in (SOURCE / "cli").rglob("*.py"):
        assert not rooms(path) & STAGES, path


def test_only_what_serves_plug_ins_and_public_names_imports_by_a_computed_name() -> None:
    users = {name_of(path) for path in modules() if IMPORTS_BY_NAME & words(path)}
    assert users == BY_NAME


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("from response_tuning.finetune import trainer", {"finetune"}),
        ("from response_tuning import finetune", {"finetune"}),
        ("from response_tuning import prepare, ResponseTrainer", {"workflows", "finetune"}),
        ("from response_tuning import OBJECTIVES as known", {"finetune"}),
        ("from response_tuning import Sampling, errors", set()),
        ("from response_tuning import *", {"workflows", *STAGES} - {"probe", "report", "serve"}),
        ("import response_tuning as rt\nrt.finetune.trainer", {"finetune"}),
        ("import response_tuning\nresponse_tuning.ResponseTrainer", {"finetune"}),
        ("import response_tuning.errors\nresponse_tuning.grade", {"grade"}),
        ("import response_tuning\nresponse_tuning.__version__", set()),
        ("import response_tuning as rt\ngetattr(rt, name)", {"data", "finetune", "workflows"}),
        ("import importlib\nimportlib.import_module('response_tuning.finetune.x')", {"finetune"}),
        ("__import__('response_tuning.finetune.trainer')", {"finetune"}),
        ("import sys\nsys.modules['response_tuning.finetune']", {"finetune"}),
    ],
)
def test_every_way_to_reach_a_folder_counts(code: str, reached: set[str], tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(code, encoding="utf-8")
    found = rooms(path)
    assert reached <= found
    assert reached or not found


@pytest.mark.parametrize("code", ["from .. import finetune", "from ..finetune import trainer"])
def test_a_relative_import_is_refused(code: str, tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(code, encoding="utf-8")
    with pytest.raises(AssertionError, match="relative import"):
        imported(path)


def test_only_the_command_line_speaks_to_the_shell() -> None:
    """Arguments, standard input and exit codes, but for what ``SHELL_ELSEWHERE`` lists."""
    for path in modules():
        if SOURCE / "cli" in path.parents:
            continue
        assert not SHELL & {name.split(".")[0] for name in imported(path)}, path
        found = words(path) & SHELL_WORDS | called(path) & {"input", "exit", "quit"}
        assert found <= SHELL_ELSEWHERE.get(name_of(path), set()), path


def test_imports_at_the_top_of_the_root_form_no_circle() -> None:
    above: dict[str, set[str]] = {}
    for path in SOURCE.glob("*.py"):
        found = {name.split(".")[1] for name in imported(path) if name.count(".") > 0}
        above[path.stem] = {name for name in found if (SOURCE / f"{name}.py").exists()}
    left = {name for name in above if name not in LIBRARY}
    while left:
        free = {name for name in left if not above[name] & left - {name}}
        assert free, f"these import each other: {sorted(left)}"
        left -= free


def test_what_the_miniature_is_for_is_known_to_few() -> None:
    users = {
        name_of(path)
        for path in modules()
        if "miniature" in rooms(path) and SOURCE / "miniature" not in path.parents
    }
    assert users == {
        "cli/experiments.py",
        "data/sources.py",
        "generate/engines/miniature.py",
        "grade/benchmarks/miniature.py",
        "grade/benchmarks/miniature_judge.py",
        "grade/benchmarks/miniature_orders.py",
        "grade/benchmarks/miniature_rules.py",
        "grade/benchmarks/miniature_style.py",
        "models/location.py",
        "workflows/miniature.py",
        "workflows/names.py",
        "workflows/playground.py",
    }


@pytest.mark.parametrize("module", ["response_tuning", "response_tuning.cli.main"])
def test_starting_loads_no_deep_learning_framework(module: str) -> None:
    heavy = HEAVY | {"rich", "pydantic", "numpy"}
    assert not heavy & loaded_after(f"import {module}")


def test_listing_what_is_registered_loads_no_deep_learning_framework() -> None:
    statement = "from response_tuning.workflows import names; names.registered()"
    assert not HEAVY & loaded_after(statement)


@pytest.mark.parametrize(
    "module",
    [
        "grade",
        "miniature.build",
        "report",
        "workflows.experiment",
        "workflows.refine",
        "workflows.run",
    ],
)
def test_importing_a_part_loads_no_deep_learning_framework(module: str) -> None:
    assert not HEAVY & loaded_after(f"import response_tuning.{module}")


def test_every_extension_point_is_one_place() -> None:
    places = {
        "data/sources.py",
        "finetune/objectives.py",
        "generate/engine.py",
        "grade/benchmark.py",
        "templates/__init__.py",
    }
    found = {
        name_of(path) for path in modules() if ": Registry[" in path.read_text(encoding="utf-8")
    }
    assert found == places
    engines = {
        path.stem.replace("_", "-") for path in (SOURCE / "generate/engines").glob("[!_]*.py")
    }
    assert engines == set(ENGINES.names())
    stems = [path.stem for path in (SOURCE / "grade/benchmarks").glob("[!_]*.py")]
    files = {stem.replace("_", "-") for stem in stems}
    # A benchmark is in the file of its name, or of the longest name that its own begins with.
    known = {
        name: max((file for file in files if f"{name}-".startswith(f"{file}-")), key=len)
        for name in BENCHMARKS.names()
    }
    assert {*known.values()} == files
    assert DATASETS.names()
    assert OBJECTIVES.names()


def test_the_public_names_are_documented_and_dir_lists_them() -> None:
    names = response_tuning.__all__  # sorted, which ruff checks
    homes = [name for module in response_tuning._HOMES.values() for name in module]
    assert sorted(homes) == sorted(names)
    assert dir(response_tuning) == sorted([*names, "__version__"])
    for name in names:
        assert getattr(response_tuning, name).__doc__, name


@pytest.mark.parametrize("path", list(modules()), ids=name_of)
def test_a_module_says_what_it_is_and_can_be_read_in_a_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


def test_tests_mirror_the_source_tree() -> None:
    sources = {path.relative_to(SOURCE).with_suffix("").as_posix() for path in modules()}
    benchmarks = (TESTS.parent / "benchmarks").glob("*.py")
    sources |= {f"benchmarks/{path.stem}" for path in benchmarks}
    examples = (TESTS.parent / "examples").glob("*.py")
    sources |= {f"examples/{path.stem}" for path in examples} | {"examples/notebooks"}
    docs = TESTS.parent / "docs"
    pages = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.*")}
    sources |= {f"docs/{page.replace('coming-from', 'coming_from')}" for page in pages}
    about_the_whole = {
        "architecture",
        "bad_command_lines",
        "crashes",
        "faulty_server",
        "keys",
        "lab_log",
        "neighbour_recipes",
        "packaging",
        "pages_fit",
        "paper_recipes",
        "question_recipes",
        "readme",
    }
    for path in TESTS.rglob("test_*.py"):
        mirrored = path.relative_to(TESTS).with_name(path.stem.removeprefix("test_")).as_posix()
        package = f"{Path(mirrored).parent.as_posix()}/__init__"
        named_for_its_folder = Path(mirrored).name in {Path(mirrored).parent.name, "public_data"}
        assert (
            mirrored in sources
            or mirrored in about_the_whole
            or (package in sources and named_for_its_folder)
        ), path


def test_nothing_runs_code_from_a_model_repository_or_reads_pickles() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "torch.load(" not in text
        assert "pickle" not in imported(path)


def test_collecting_tests_of_pure_code_loads_no_deep_learning_framework() -> None:
    folders = [str(TESTS / name) for name in ("data", "report", "grade/judges", "test_recipe.py")]
    arguments = ["-q", "--collect-only", "-p", "no:cacheprovider", *folders]
    quietly = "with contextlib.redirect_stdout(io.StringIO()):"
    statement = f"import contextlib, io, pytest\n{quietly}\n  assert not pytest.main({arguments})"
    assert not {"torch", "transformers", "datasets"} & loaded_after(statement)
