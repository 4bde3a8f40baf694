import json
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import file_digest
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune import manifest as manifests
from response_tuning.finetune.manifest import (
    check_manifest,
    is_finished,
    known_as,
    read_manifest,
    run_of,
)
from response_tuning.models.location import ModelFolder


def described(**changes: Any) -> dict[str, Any]:
    settings = FinetuneConfig(base_model="base").model_dump(mode="json")
    found = {"status": "running", "settings": settings, "base": "b", "examples_sha256": "e"}
    return found | {"packages": {"torch": "2.0", "peft": "0.1"}} | changes


def left(out: Path, **changes: Any) -> Path:
    (out / "manifest.json").write_text(json.dumps(described(**changes)))
    return out


def test_a_manifest_that_holds_something_else_is_one_line(tmp_path: Path) -> None:
    for content, said in {
        "": "cannot be read as JSON",
        "[]": "expected a JSON object",
        "{}": "holds no 'status'",
        '{"status": "finished", "answers": {}}': "holds no 'settings'",
        '{"status": "finished", "settings": 3}': "holds no 'settings'",
        '{"status": "finished", "settings": {}, "base": "b"}': "holds no 'examples_sha256'",
    }.items():
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=said) as refused:
            read_manifest(tmp_path)
        assert "manifest.json" in str(refused.value)
        assert "delete it, and the same command goes on" in str(refused.value)


def test_a_run_of_a_recipe_is_named_and_its_manifest_is_not_to_be_deleted(tmp_path: Path) -> None:
    check_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"status": "finished", "experiment": {}}')
    with pytest.raises(
        ConfigError, match="holds a run of a recipe; choose another --out"
    ) as caught:
        check_manifest(tmp_path)
    assert "delete" not in str(caught.value)


def test_packages_that_differ_at_a_resume_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(tmp_path, packages={"torch": "1.9", "peft": "0.1", "accelerate": "1.0"})
    now = described()
    assert not is_finished(tmp_path, now)
    (record,) = caplog.records
    assert record.message.endswith(": torch 1.9 -> 2.0, accelerate 1.0 -> not installed")
    assert now["began_with"] == {"torch": "1.9", "peft": "0.1", "accelerate": "1.0"}
    caplog.clear()
    assert not is_finished(left(tmp_path), described())
    assert not caplog.records


def test_of_a_manifest_without_packages_every_version_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(tmp_path, packages=None)
    assert not is_finished(tmp_path, described())
    assert "torch unknown -> 2.0" in caplog.text


def test_a_finished_run_of_an_older_version_counts_if_it_has_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(tmp_path, status="finished")
    with pytest.raises(DataError, match="has finished, but there are no weights"):
        is_finished(tmp_path, described())
    (tmp_path / "model.safetensors").touch()
    assert is_finished(tmp_path, described())
    assert "without digests; the model is not verified" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "c"}, "base was 'c', now 'b'"),
        ({"examples_sha256": "f"}, "examples_sha256 was 'f'"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        is_finished(left(tmp_path, **changes), described())


def test_checkpoints_are_known_by_what_decides_the_weights() -> None:
    def run(**settings: Any) -> str:
        return run_of(described(settings=described()["settings"] | settings))

    assert run(save_steps=3, merge=True, report_to="wandb") == run()
    assert len({run(), run(seed=1), run(learning_rate=1.0), run_of(described(base="c"))}) == 4


def test_a_model_is_all_files_but_the_card(tmp_path: Path) -> None:
    for name in ("model.safetensors", "README.md", "config.json"):
        (tmp_path / name).write_text(name)
    assert [*manifests.model_files(tmp_path)] == ["config.json", "model.safetensors"]


def test_a_run_that_an_earlier_version_began_keeps_the_identity_of_its_base(tmp_path: Path) -> None:
    folder, out = tmp_path / "base", tmp_path / "out"
    for each in (folder, out):
        each.mkdir()
    (folder / "config.json").write_text("{}")
    base = ModelFolder("base", folder)
    assert known_as(base, out) == base.identity
    recorded = f"sha256:{file_digest(folder)}"
    left(out, base=recorded)
    assert known_as(base, out) == recorded
    (folder / "config.json").write_text('{"vocab_size": 3}')
    assert known_as(base, out) == base.identity
