import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import response_tuning
from response_tuning.data import DATASETS
from response_tuning.finetune.objectives import OBJECTIVES
from response_tuning.generate import ENGINES

SOURCE = Path(response_tuning.__file__).parent
TESTS = Path(__file__).parent
STAGES = ["data", "finetune", "generate"]


def modules() -> Iterator[Path]:
    return (path for path in sorted(SOURCE.rglob("*.py")))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def loaded_after(statement: str) -> set[str]:
    probe = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return set(json.loads(out.stdout))


def test_the_listing_of_the_package_is_the_pipeline() -> None:
    folders = [p.name for p in sorted(SOURCE.iterdir()) if (p / "__init__.py").exists()]
    assert folders == [*STAGES, "templates"]


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    others = tuple(f"response_tuning.{other}" for other in STAGES if other != stage)
    for path in (SOURCE / stage).rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(others)], path


def test_plumbing_imports_no_stage() -> None:
    stages = tuple(f"response_tuning.{stage}" for stage in STAGES)
    for name in ("artifacts", "configs", "errors", "registry", "templates/__init__"):
        assert not [m for m in imported(SOURCE / f"{name}.py") if m.startswith(stages)], name


@pytest.mark.parametrize("module", ["response_tuning", "response_tuning.cli"])
def test_starting_loads_no_deep_learning_framework(module: str) -> None:
    heavy = {"torch", "transformers", "datasets", "pyarrow", "openai", "rich", "pydantic"}
    assert not heavy & loaded_after(f"import {module}")


def test_listing_what_is_registered_loads_no_deep_learning_framework() -> None:
    statement = "from response_tuning import pipeline; pipeline.registered()"
    assert not {"torch", "transformers", "datasets", "openai"} & loaded_after(statement)


def test_every_extension_point_is_one_place() -> None:
    places = {"data/sources.py", "finetune/objectives.py", "generate/engine.py"}
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in modules()
        if ": Registry[" in path.read_text(encoding="utf-8")
    }
    assert found == places
    engines = {path.stem for path in (SOURCE / "generate/engines").glob("[!_]*.py")}
    assert engines == set(ENGINES.names())
    assert DATASETS.names()
    assert OBJECTIVES.names()


def test_the_public_names_are_sorted_documented_and_there() -> None:
    names = response_tuning.__all__
    assert names == sorted(names)
    homes = [name for module in response_tuning._HOMES.values() for name in module]
    assert sorted(homes) == names
    for name in names:
        assert getattr(response_tuning, name).__doc__, name


@pytest.mark.parametrize(
    "path", list(modules()), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_a_module_says_what_it_is_and_can_be_read_in_a_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


def test_tests_mirror_the_source_tree() -> None:
    sources = {path.relative_to(SOURCE).with_suffix("").as_posix() for path in modules()}
    about_the_whole = {"architecture", "packaging", "readme"}
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
