import ast
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


def run(*command: object, path: Path | None = None, cwd: Path | None = None) -> str:
    """Run a command without what the environment says of Python; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def normal(name: str) -> str:
    """The name of a distribution in a requirement, as package indexes compare names."""
    (found,) = re.findall(r"^[\w.-]+", name)
    return re.sub(r"[-_.]+", "-", found).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"response": f"It is {i}."}) + "\n" for i in range(8)))
    return path


def tuning(base: Path, answers: Path, out: Path) -> list[object]:
    """A command line of ``rtune`` that tunes an adapter in two steps."""
    flags: list[object] = ["finetune", "--base-model", base, "--data", answers]
    return [*flags, "--max-steps", 2, "--examples-per-step", 4, "--window", 64, "--out", out]


def test_the_wheel_holds_the_package_and_works_away_from_its_source(
    wheel: Path, tmp_path: Path, tiny_base: Path, answers: Path
) -> None:
    expected = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "response_tuning").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {
        f"response_tuning/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "recipes").rglob("*")
        if path.is_file()
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "response_tuning/templates/tulu.jinja" in names

    installed, out = tmp_path / "installed", tmp_path / "tuned"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--target", installed, wheel)
    code = "import response_tuning as package; print(package.__file__)"
    place = run(sys.executable, "-c", code, path=installed, cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed)
    command = tuning(tiny_base, answers, out)
    run(installed / "bin" / "rtune", *command, path=installed, cwd=tmp_path)
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    recipe = ("run", "recipes/questions/tags.yaml", "--dry-run", "--only", "rt-no-tags/seed-0")
    assert "1 cell" in run(installed / "bin" / "rtune", *recipe, path=installed, cwd=tmp_path)


def test_every_library_that_the_package_imports_is_declared() -> None:
    """Declared in pyproject.toml, or required by what is declared there, as NumPy by SciPy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [one for extra in project["optional-dependencies"].values() for one in extra]
    declared = {normal(one) for one in (*project["dependencies"], *optional)}
    installed = {normal(one) for found in packages_distributions().values() for one in found}
    required = {normal(one) for name in declared & installed for one in requires(name) or []}
    imported: dict[str, Path] = {}
    for path in (SOURCE / "response_tuning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported[node.module.split(".")[0]] = path
    foreign = imported.keys() - sys.stdlib_module_names - {"response_tuning"}
    homes = packages_distributions()
    undeclared = {
        name: imported[name]
        for name in foreign
        if not {normal(home) for home in homes.get(name, [name])} & (declared | required)
    }
    assert undeclared == {}


def test_the_example_script_trains_with_the_trainer_alone(
    tiny_base: Path,
    answers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = str(ROOT / "examples" / "own_script.py")
    monkeypatch.setattr(sys, "argv", [script, str(tiny_base), str(answers), str(tmp_path / "own")])
    runpy.run_path(script, run_name="__main__")
    assert "8 answers, 10 steps, flattened micro-batches" in capsys.readouterr().out
    assert (tmp_path / "own" / "model.safetensors").exists()


def test_the_workflow_for_users_runs(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtune: Callable[..., Any]
) -> None:
    """The commands of the file that users copy, with answers and a recipe in its places."""
    workflow = yaml.safe_load((ROOT / "examples" / "ci" / "response-tuning.yml").read_text())
    (job,) = workflow["jobs"].values()
    tuning = {"base_model": "miniature", "template": "roles", "max_steps": 1, "window": 32}
    recipe = {"data": {"source": str(answers)}, "finetune": tuning}
    where = {"ANSWERS": answers, "RECIPE": tmp_path / "recipe.yaml"}
    assert where.keys() < workflow["env"].keys()
    variants = {"benchmarks": ["miniature-seen-validation"], "variants": {"rt": {}}}
    where["RECIPE"].write_text(yaml.safe_dump(recipe | variants))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
    monkeypatch.chdir(tmp_path)
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("rtune ")]
    assert [command[1] for command in commands] == ["data", "run", "finetune", "generate"]
    for command in commands:
        words = [where.get(word.removeprefix("$"), word) for word in command[1:]]
        result = rtune(*words)
        assert result.code == 0, result.err
    assert (tmp_path / "completions.jsonl").stat().st_size > 0


def test_the_image_has_the_pins_of_what_the_package_needs() -> None:
    """As the Dockerfile cuts them out of the project's pins; Docker itself is not run here."""
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^RUN (sed .*) /src/requirements.txt >", recipe, flags=re.MULTILINE)
    kept = run(*shlex.split(command), ROOT / "requirements.txt").splitlines()
    pins = {normal(line) for line in kept if line and not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {normal(one) for one in project["dependencies"]} <= pins
    assert not {"pytest", "sphinx", "mypy"} & pins
    assert not [line for line in kept if "[" in line]  # pip takes no extras as constraints
    copied = re.findall(r"^COPY (.*) /src/?\S*$", recipe, flags=re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_release_fills_every_placeholder(tmp_path: Path) -> None:
    """The lines of ``.ci/release`` that fill them, run on copies."""
    script = (ROOT / ".ci" / "release").read_text(encoding="utf-8")
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    first = script.index('if [ -n "$REPOSITORY" ]; then')
    filling = script[first : script.index("rm -rf", first)]
    settings = "REPOSITORY=https://forge.example/me/response-tuning; DOI=10.5281/zenodo.1;"
    run("bash", "-euc", f"{settings} {filling}", cwd=tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Issues"] == "https://forge.example/me/response-tuning/issues"
    assert "invalid" not in " ".join(project["urls"].values())
    citation = yaml.safe_load((tmp_path / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["doi"] == "10.5281/zenodo.1"
    assert citation["repository-code"] == "https://forge.example/me/response-tuning"
    assert "make release" not in (tmp_path / "CITATION.cff").read_text(encoding="utf-8")
    assert citation["version"] == project["version"]


@pytest.mark.exhaustive
def test_the_example_script_trains_in_two_processes_and_not_under_accelerate_launch_cpu(
    tiny_base: Path, answers: Path, tmp_path: Path
) -> None:
    def launched(*launcher: str) -> subprocess.CompletedProcess[str]:
        words = (ROOT / "examples" / "own_script.py", tiny_base, answers, tmp_path / "own")
        command = [sys.executable, "-m", *launcher, *map(str, words)]
        settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        return subprocess.run(command, capture_output=True, text=True, env=settings)

    cpu = ("accelerate.commands.launch", "--cpu", "--num_processes", "2")
    refused = launched(*cpu)
    assert refused.returncode != 0
    assert "use: torchrun --nproc-per-node 2 " in refused.stderr
    assert not (tmp_path / "own" / "model.safetensors").exists()
    done = launched("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 answers, 10 steps, flattened micro-batches") == 1
    assert (tmp_path / "own" / "model.safetensors").exists()


@pytest.mark.exhaustive
@pytest.mark.network
def test_the_wheel_works_in_an_empty_environment(
    wheel: Path, tmp_path: Path, tiny_base: Path, answers: Path
) -> None:
    """As on a user's machine: a new environment, the wheel, and what the wheel asks for."""
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    pip = (binaries / "pip", "install", "--quiet", "--disable-pip-version-check")
    # torch first and alone: a plain one may bring gigabytes of CUDA.
    run(*pip, "torch==2.13.0")
    run(*pip, "--constraint", _constraints(tmp_path), wheel)
    assert "objectives: instruction-tuning" in run(binaries / "rtune", "list", cwd=tmp_path)
    out = tmp_path / "tuned"
    run(binaries / "rtune", *tuning(tiny_base, answers, out), "--merge", cwd=tmp_path)
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    script = ROOT / "examples" / "own_script.py"
    printed = run(binaries / "python", script, tiny_base, answers, tmp_path / "own", cwd=tmp_path)
    assert "8 answers, 10 steps, flattened micro-batches" in printed
    settings = (
        "grade.limit=4",  # variants name benchmarks, so the recipe's stay
        "seeds=[0]",
        "data.max_examples=64",
        "generate.max_new_tokens=4",
        "variants.rt-refusals.data.mixture.refusals=8",
        "variants.it-refusals.data.mixture.refusals=8",
    )
    demo = run(
        *(binaries / "rtune", "demo", *(part for text in settings for part in ("--set", text))),
        cwd=tmp_path,
    )
    assert "rt-random-init" in demo
    assert (tmp_path / "runs" / "demo" / "report" / "report.html").exists()


def _constraints(folder: Path) -> Path:
    """The project's pins, in the form that pip takes as constraints: without extras."""
    pins = re.sub(r"\[.*?\]", "", (ROOT / "requirements.txt").read_text())
    path = folder / "constraints.txt"
    path.write_text(pins)
    return path


KUBERNETES = {
    "Service": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "metadata": {"name"},
        "spec": {"clusterIP", "publishNotReadyAddresses", "selector"},
    },
    "Job": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "metadata": {"name"},
        "spec": {"completions", "parallelism", "completionMode", "backoffLimit", "template"},
        "spec.template": {"spec"},
        "spec.template.spec": {"subdomain", "restartPolicy", "terminationGracePeriodSeconds"}
        | {"containers", "volumes"},
        "spec.template.spec.containers": {"name", "image", "command", "args", "resources"}
        | {"volumeMounts"},
        "spec.template.spec.containers.resources": {"limits", "requests"},
        "spec.template.spec.containers.volumeMounts": {"name", "mountPath"},
        "spec.template.spec.volumes": {"name", "persistentVolumeClaim", "emptyDir"},
        "spec.template.spec.volumes.persistentVolumeClaim": {"claimName"},
        "spec.template.spec.volumes.emptyDir": {"medium"},
    },
}
"""Kind -> path of an object -> the keys that the API knows there, of those that are in use."""
SKYPILOT = {"name", "num_nodes", "resources", "envs", "secrets", "volumes", "setup", "run"}
CLUSTER = ROOT / "examples" / "cluster"


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a document with its path; lists add nothing to it."""
    if isinstance(value, dict):
        yield path, value
        for key, child in value.items():
            yield from objects(child, f"{path}.{key}".strip("."))
    elif isinstance(value, list):
        for child in value:
            yield from objects(child, path)


@pytest.mark.parametrize("name", ["kubernetes-shard", "kubernetes-grid"])
def test_the_files_for_kubernetes_have_only_keys_that_it_knows(name: str) -> None:
    documents = list(yaml.safe_load_all((CLUSTER / f"{name}.yaml").read_text()))
    for document in documents:
        known = KUBERNETES[document["kind"]]
        for path, found in objects(document):
            if path in known:
                assert found.keys() <= known[path], path
            else:
                assert path.endswith(("selector", "limits")), path
    job = documents[-1]
    pod = job["spec"]["template"]["spec"]
    assert job["apiVersion"] == "batch/v1"
    assert pod["restartPolicy"] in ("OnFailure", "Never")  # a Job takes no other
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for service in documents[:-1]:
        assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
        assert service["metadata"]["name"] == pod["subdomain"]
        first = f"{job['metadata']['name']}-0.{pod['subdomain']}"
        assert first in container["args"][0], "the first pod is where the others meet"


@pytest.mark.parametrize("name", ["skypilot-shard", "skypilot-grid"])
def test_the_files_for_skypilot_have_only_keys_that_it_knows(name: str) -> None:
    task = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    assert task.keys() <= SKYPILOT
    assert task["resources"].keys() <= {"accelerators", "disk_size", "memory", "cpus", "infra"}
    assert re.fullmatch(r"[A-Z0-9]+:\d+", task["resources"]["accelerators"])
    for script in (task["setup"], task["run"]):
        run("bash", "-nc", script)


def test_the_files_for_clusters_call_command_lines_that_exist() -> None:
    lines = []
    for file in sorted(CLUSTER.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind" if "kind" in document else "name"] == "Service":
                continue
            if "run" in document:
                lines.append(document["run"])
            else:
                (container,) = document["spec"]["template"]["spec"]["containers"]
                in_shell = "command" in container
                lines.append(
                    container["args"][0] if in_shell else shlex.join(["rtune", *container["args"]])
                )
    found = []
    for line in lines:
        words = shlex.split(line.replace("\\\n", " "), comments=True)
        start = words.index("response_tuning" if "torchrun" in words else "rtune") + 1
        found.append((words[start], "torchrun" in words))
        parse(words[start:])
    assert sorted(found) == [*[("finetune", True)] * 2, *[("run", False)] * 2]


def parse(words: list[str]) -> None:
    """Parse a command line of ``rtune`` and do not run it."""
    from typer.main import get_command

    from response_tuning.cli.main import app

    group: Any = get_command(app)
    with group.make_context("rtune", [words[0], "--help"], resilient_parsing=True) as context:
        command = group.get_command(context, words[0])
        assert command is not None, words[0]
        with command.make_context(words[0], list(words[1:]), parent=context) as parsed:
            assert parsed.params


@pytest.mark.parametrize("wrong", [["run", "a.yaml", "--launchr", "local"], ["rnu", "a.yaml"]])
def test_a_command_line_that_does_not_exist_would_be_found(wrong: list[str]) -> None:
    with pytest.raises(Exception, match=r"launchr|rnu"):
        parse(wrong)


INSTRUCTIONS = ("FROM", "ARG", "RUN", "COPY", "USER", "ENV", "WORKDIR", "ENTRYPOINT", "CMD")


def test_the_dockerfile_builds_for_cpus_and_for_cuda() -> None:
    """A linter's rules, where Docker is not run."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    joined = text.replace("\\\n", " ").splitlines()
    parts = [line.split(maxsplit=1) for line in joined if line and not line.startswith("#")]
    names = [name for name, _ in parts]
    assert {*names} <= {*INSTRUCTIONS}
    assert names[0] == "FROM"
    assert names.index("USER") < names.index("ENTRYPOINT"), "it would run as root"
    assert re.fullmatch(r"\w+:[\w.-]*\d[\w.-]*", parts[0][1]), "the base image has no version"
    for name, rest in parts:
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), "a shell would swallow SIGTERM"
        if name == "RUN":
            run("bash", "-nc", rest)
            assert "pip install" not in rest or "--no-cache-dir" in rest
    defaults = dict(rest.split("=", 1) for name, rest in parts if name == "ARG")
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    assert defaults["TORCH"] in pins
    used = {*re.findall(r"\$\{?([A-Z_]+)\}?", "\n".join(rest for _, rest in parts))}
    assert {*defaults} <= used | {"TORCH"}
    comment = " ".join(line.lstrip("# \\") for line in text.splitlines() if line.startswith("#"))
    cuda = dict(re.findall(r"--build-arg (\w+)=(\S+)", comment.replace("\\ ", "")))
    assert cuda.keys() <= defaults.keys()
    assert cuda["TORCH_INDEX"] != defaults["TORCH_INDEX"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in (defaults["EXTRAS"], cuda["EXTRAS"]):
        assert {*extras.split(",")} <= project["optional-dependencies"].keys()
    assert f"TORCH_INDEX={cuda['TORCH_INDEX']}" in (ROOT / "docs/reference/install.md").read_text()
