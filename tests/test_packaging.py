import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, **how: object) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        **how,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_templates_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "response_tuning").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "response_tuning/templates/tulu.jinja" in names


def test_the_wheel_works_in_an_empty_environment(
    wheel: Path, tmp_path: Path, tiny_base: Path
) -> None:
    """As a user's machine: a new environment, the wheel, and what the wheel asks for."""
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    pip = (binaries / "pip", "install", "--quiet", "--disable-pip-version-check")
    # torch first and alone: a plain one may bring gigabytes of CUDA.
    run(*pip, "torch==2.13.0")
    run(*pip, "--constraint", _constraints(tmp_path), wheel)
    assert "objectives: instruction-tuning" in run(binaries / "rtune", "list", cwd=tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"response": f"It is {i}."}) + "\n" for i in range(8)))
    out = tmp_path / "tuned"
    run(
        *(binaries / "rtune", "finetune", "--base-model", tiny_base, "--data", answers),
        *("--max-steps", 2, "--examples-per-step", 4, "--window", 64, "--merge", "--out", out),
        cwd=tmp_path,
    )
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    script = ROOT / "examples" / "own_script.py"
    said = run(binaries / "python", script, tiny_base, answers, tmp_path / "own", cwd=tmp_path)
    assert "8 answers, 10 steps, flattened micro-batches" in said
    settings = (
        "benchmarks=[miniature-unseen-validation]",
        "data.max_examples=64",
        "generate.max_new_tokens=4",
        "variants.rt-refusals.data.mixture.refusals=8",
        "variants.it-refusals.data.mixture.refusals=8",
        "report.resamples=100",
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
