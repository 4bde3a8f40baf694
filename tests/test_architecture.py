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
from response_tuning.grade import BENCHMARKS

SOURCE = Path(response_tuning.__file__).parent
TESTS = Path(__file__).parent
STAGES = ["data", "finetune", "generate", "grade", "report"]
# The plumbing that each of these may import; ``cli`` and ``pipeline`` import what they wire.
PLUMBING: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "artifacts": {"errors", "limits"},
    "configs": {"errors", "limits", "redaction", "registry", "yaml_text"},
    "experiments": {"errors", "registry", "configs", "recipe", "yaml_text"},
    "folders": {"artifacts", "errors"},
    "hub": {"errors", "readers"},
    "journals": {"artifacts", "errors"},
    "limits": set(),
    "pairs": {"artifacts"},
    "readers": {"errors"},
    "redaction": set(),
    "recipe": {"configs", "errors", "registry", "yaml_text"},
    "refusal_phrases": set(),
    "terminal": set(),
    "thoughts": {"artifacts"},
    "unread": {"artifacts"},
    "yaml_text": {"errors"},
    "templates": {"artifacts", "configs", "errors", "registry", "templates"},
    "miniature": {"artifacts", "configs", "errors", "miniature", "seals"},
    "models": {"artifacts", "errors", "models"},
}
WIRING = {
    "cli.py",
    "cli_data.py",
    "cli_evaluation.py",
    "core.py",
    "evaluation.py",
    "judge_check.py",
    "judges.py",
    "names.py",
    "pipeline.py",
    "probing.py",
    "ratings.py",
    "responses.py",
    "runs.py",
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
    shared = [*STAGES[:4], "miniature", "models", *STAGES[4:], "templates"]
    assert folders == shared == sorted(folders)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    others = tuple(f"response_tuning.{other}" for other in STAGES if other != stage)
    for path in (SOURCE / stage).rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(others)], path


def own(path: Path) -> set[str]:
    """The parts of the package that a module imports, such as ``configs`` or ``generate``."""
    names = {
        name.partition(".")[2] for name in imported(path) if name.startswith("response_tuning")
    }
    if "" in names:  # from response_tuning import miniature, templates
        names |= {
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module == "response_tuning"
            for alias in node.names
        }
    return {name.partition(".")[0] for name in names} - {""}


@pytest.mark.parametrize("part", PLUMBING)
def test_plumbing_imports_plumbing_beneath_it_and_no_stage(part: str) -> None:
    folder = SOURCE / part
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [SOURCE / f"{part}.py"]:
        assert own(path) <= PLUMBING[part], path


def test_stages_are_wired_in_files_that_the_command_line_calls() -> None:
    stages = {*STAGES}
    wiring = {
        path.name
        for path in SOURCE.glob("*.py")
        if own(path) & stages and path.name != "__init__.py"
    }
    assert wiring == WIRING
    assert own(SOURCE / "cli.py") & stages == {"generate"}, "chat is a stage's own command"
    assert own(SOURCE / "cli_data.py") & stages == {"data", "generate"}, "settings alone"
    assert own(SOURCE / "cli_evaluation.py") & stages == {"generate"}, "settings alone"


def test_what_the_miniature_is_for_is_known_to_few() -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in modules()
        if "miniature" in own(path) and path.parent != SOURCE / "miniature"
    }
    assert users == {
        "cli_experiments.py",
        "data/sources.py",
        "data/tokens.py",
        "finetune/base.py",
        "generate/loading.py",
        "grade/benchmarks/miniature.py",
        "pipeline.py",
    }


@pytest.mark.parametrize("module", ["response_tuning", "response_tuning.cli"])
def test_starting_loads_no_deep_learning_framework(module: str) -> None:
    heavy = HEAVY | {"rich", "pydantic", "numpy"}
    assert not heavy & loaded_after(f"import {module}")


def test_listing_what_is_registered_loads_no_deep_learning_framework() -> None:
    statement = "from response_tuning import pipeline; pipeline.registered()"
    assert not HEAVY & loaded_after(statement)


@pytest.mark.parametrize(
    "module", ["runs", "responses", "experiments", "miniature.build", "grade", "report"]
)
def test_importing_a_part_loads_no_deep_learning_framework(module: str) -> None:
    assert not HEAVY & loaded_after(f"import response_tuning.{module}")


def test_every_extension_point_is_one_place() -> None:
    places = {
        "data/sources.py",
        "finetune/objectives.py",
        "generate/engine.py",
        "grade/benchmark.py",
    }
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in modules()
        if ": Registry[" in path.read_text(encoding="utf-8")
    }
    assert found == places
    engines = {path.stem for path in (SOURCE / "generate/engines").glob("[!_]*.py")}
    assert engines == set(ENGINES.names())
    stems = [path.stem for path in (SOURCE / "grade/benchmarks").glob("[!_]*.py")]
    files = {stem.replace("_", "-") for stem in stems}
    known = {
        name: {file for file in files if f"{name}-".startswith(f"{file}-")}
        for name in BENCHMARKS.names()
    }
    assert all(len(homes) == 1 for homes in known.values()), known
    assert set().union(*known.values()) == files
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
    benchmarks = (TESTS.parent / "benchmarks").glob("*.py")
    sources |= {f"benchmarks/{path.stem}" for path in benchmarks}
    about_the_whole = {
        "architecture",
        "bad_command_lines",
        "crashes",
        "faulty_server",
        "keys",
        "packaging",
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
