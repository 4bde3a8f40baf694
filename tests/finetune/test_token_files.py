import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from rich.console import Console

from response_tuning import seals
from response_tuning.artifacts import Example, package_versions, read_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import DataError
from response_tuning.finetune import base, dataset, token_files
from response_tuning.finetune.checks import check
from response_tuning.finetune.dataset import read_examples, tokenize
from response_tuning.finetune.run import finetune
from response_tuning.templates import Chat

Make = Callable[..., Path]
ADDRESS = "memory://kettle/tokens"


def configured(tiny_base: Path, **changes: Any) -> FinetuneConfig:
    values = {
        "base_model": str(tiny_base),
        "method": "full",
        "max_steps": 2,
        "examples_per_step": 8,
        "window": 96,
        "device": "cpu",
        "eval_fraction": 0.1,
    }
    return FinetuneConfig.model_validate(values | changes)


def chat_of(config: FinetuneConfig) -> Chat:
    return Chat(base.load_tokenizer(config))


def opened(config: FinetuneConfig, data: Path) -> Path:
    assert config.tokens is not None
    return token_files.opened(config.tokens, config, chat_of(config), read_examples(data))


@pytest.fixture
def make(tiny_base: Path, data: Path, tmp_path: Path) -> Make:
    """Make tokens in a folder; keywords are settings."""

    def made(**changes: Any) -> Path:
        out = tmp_path / "tokens"
        out.mkdir()
        config = configured(tiny_base, **changes)
        tokenize(config, chat_of(config), data, out)
        return out

    return made


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Object storage in memory, and an empty cache."""
    monkeypatch.setenv("RESPONSE_TUNING_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/kettle", recursive=True)


@pytest.fixture
def at_address(make: Make, storage: Any) -> Path:
    """Tokens at ``ADDRESS``; the folder that they were uploaded from."""
    folder = make()
    for name in (*token_files.names(), seals.SEAL):
        storage.pipe_file(f"/kettle/tokens/{name}", (folder / name).read_bytes())
    return folder


@pytest.mark.parametrize("objective", ["response-tuning", "shuffled-pairs"])
def test_a_run_on_tokens_made_ahead_leaves_the_bytes_of_one_that_makes_its_own(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    config = configured(tiny_base, objective=objective)
    finetune(config, data, tmp_path / "own", Console())
    tokens = make(objective=objective)
    before = (tokens / seals.SEAL).read_bytes()
    monkeypatch.setattr(dataset, "rows", None)
    ahead = config.model_copy(update={"tokens": str(tokens)})
    finetune(ahead, data, tmp_path / "ahead", Console())
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "ahead" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
    audits = [read_json(tmp_path / run / "manifest.json")["audit"] for run in ("own", "ahead")]
    assert audits[0] == audits[1]
    assert (tokens / seals.SEAL).read_bytes() == before, "a finished run leaves them"


def test_tokens_at_an_address_are_fetched_once_and_give_the_same_bytes(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    at_address: Path,
    storage: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[str] = []
    real = type(storage).get_file

    def get_file(self: Any, path: str, *rest: Any, **how: Any) -> None:
        got.append(Path(path).name)
        real(self, path, *rest, **how)

    monkeypatch.setattr(type(storage), "get_file", get_file)
    for run, tokens in (("near", str(at_address)), ("far", ADDRESS), ("again", ADDRESS)):
        config = configured(tiny_base, tokens=tokens)
        finetune(config, data, tmp_path / run, Console())
    assert sorted(got) == sorted([*token_files.names(), seals.SEAL, seals.SEAL])
    for name in ("model.safetensors", "metrics.jsonl"):
        content = {(tmp_path / run / name).read_bytes() for run in ("near", "far", "again")}
        assert len(content) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 95}, "made with window 96, and this run has 95"),
        ({"objective": "instruction-tuning"}, 'objective "response-tuning", and this run has "in'),
        ({"twins": ["instruction-tuning"]}, 'twins [], and this run has ["instruction-tuning"]'),
        ({"template": "neutral-tags"}, "another chat template"),
        ({"train_on_final_newline": True}, "train_on_final_newline false"),
    ],
)
def test_tokens_of_other_settings_are_refused_before_any_data_are_read(
    tiny_base: Path, tmp_path: Path, make: Make, changes: dict[str, Any], message: str
) -> None:
    config = configured(tiny_base, tokens=str(make()), **changes)
    with pytest.raises(DataError) as raised:
        check(config, tmp_path / "out")
    assert message in str(raised.value)
    assert "rtune data tokenize" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tokens_of_another_tokenizer_are_refused_and_of_another_size_of_model_are_not(
    tiny_base: Path, tmp_path: Path, make: Make
) -> None:
    tokens = str(make())
    larger, other = tmp_path / "larger", tmp_path / "other"
    for folder in (larger, other):
        shutil.copytree(tiny_base, folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 99}))
    check(configured(larger, tokens=tokens), tmp_path / "out")
    content = json.loads((other / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="another tokenizer"):
        check(configured(other, tokens=tokens), tmp_path / "out")


def test_a_seed_that_decided_nothing_may_differ(
    tiny_base: Path, data: Path, tmp_path: Path, make: Make
) -> None:
    tokens = make()
    assert opened(configured(tiny_base, seed=1, tokens=str(tokens)), data) == tokens
    shutil.rmtree(tokens)
    drawn = configured(tiny_base, seed=1, objective="shuffled-pairs", tokens=str(tokens))
    make(objective="shuffled-pairs")
    with pytest.raises(DataError, match="made with seed 0, and this run has 1"):
        check(drawn, tmp_path / "out")


def test_tokens_of_other_examples_are_refused(
    tiny_base: Path, data: Path, tmp_path: Path, make: Make
) -> None:
    tokens = str(make())
    other = shutil.copytree(data, tmp_path / "other")
    write_jsonl(other / "examples.jsonl", [Example(row=0, response="Something else.")])
    with pytest.raises(DataError, match="made of other examples than this run's; give"):
        finetune(configured(tiny_base, tokens=tokens), other, tmp_path / "out", Console())
    assert not (tmp_path / "out" / "model.safetensors").exists()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: damage(folder / "ids.bin"), "ids.bin is no longer what was written"),
        (lambda folder: damage(folder / "complete"), "complete is no"),
        (lambda folder: (folder / "complete").unlink(), "not whole yet; make them: rtune data tok"),
        (lambda folder: (folder / "rows.bin").unlink(), "rows.bin is gone"),
        (lambda folder: seals.seal(folder, ["counts.json"]), "holds something else than tokens"),
    ],
)
def test_tokens_that_are_not_whole_are_one_line(
    tiny_base: Path, data: Path, make: Make, spoil: Callable[[Path], None], message: str
) -> None:
    tokens = make()
    spoil(tokens)
    with pytest.raises(DataError) as raised:
        opened(configured(tiny_base, tokens=str(tokens)), data)
    assert message in str(raised.value)
    assert str(tokens) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_damaged_at_an_address_is_not_used(
    tiny_base: Path, data: Path, tmp_path: Path, at_address: Path, storage: Any
) -> None:
    config = configured(tiny_base, tokens=ADDRESS)
    damage(at_address / "ids.bin")
    storage.pipe_file("/kettle/tokens/ids.bin", (at_address / "ids.bin").read_bytes())
    with pytest.raises(DataError, match=f"{ADDRESS}: ids.bin is no longer what was written"):
        opened(config, data)
    assert not any((tmp_path / "cache").rglob("ids.bin"))
    storage.rm("/kettle/tokens/ids.bin")
    with pytest.raises(DataError, match=r"'ids.bin' cannot be read: there is no such file"):
        opened(config, data)
    storage.rm("/kettle/tokens/complete")
    with pytest.raises(DataError, match="not whole yet"):
        opened(config, data)


def test_a_damaged_copy_in_the_cache_is_fetched_again(
    tiny_base: Path, data: Path, at_address: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tiny_base, tokens=ADDRESS)
    copy = opened(config, data)
    left = copy.with_name(f"{copy.name}.x.partial")
    left.mkdir()
    damage(copy / "ids.bin")
    assert opened(config, data) == copy
    assert (copy / "ids.bin").read_bytes() == (at_address / "ids.bin").read_bytes()
    assert "ids.bin is no longer what was written; the tokens are fetched again" in caplog.text
    assert not left.exists()
    assert not list(copy.parent.glob("*.lock"))


def test_an_address_that_cannot_be_read_is_one_line(
    tiny_base: Path, data: Path, at_address: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(type(storage), "get_file", refuse)
    with pytest.raises(DataError) as raised:
        opened(configured(tiny_base, tokens=ADDRESS), data)
    assert str(raised.value) == (
        f"{ADDRESS}: 'complete' cannot be read: Access Denied; check the address and the access "
        "to it"
    )


def test_other_packages_are_a_warning(
    tiny_base: Path,
    data: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = make()
    opened(configured(tiny_base, tokens=str(tokens)), data)
    assert "packages" not in caplog.text
    versions = package_versions() | {"tokenizers": "99"}
    monkeypatch.setattr(token_files, "package_versions", lambda: versions)
    opened(configured(tiny_base, tokens=str(tokens)), data)
    assert "made with other packages" in caplog.text
    assert "tokenizers 99" in caplog.text


def test_examples_of_which_none_is_left_make_no_tokens(
    tiny_base: Path, tmp_path: Path, data: Path
) -> None:
    silent = shutil.copytree(data, tmp_path / "silent")
    write_jsonl(silent / "examples.jsonl", [Example(row=0, response="Nobody asked.")])
    config = configured(tiny_base, objective="instruction-tuning")
    (tmp_path / "tokens").mkdir()
    with pytest.raises(DataError, match="no example is left to train on"):
        tokenize(config, chat_of(config), silent, tmp_path / "tokens")
    assert not any((tmp_path / "tokens").iterdir())
