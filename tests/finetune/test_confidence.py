import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Example, read_jsonl, write_json, write_jsonl
from response_tuning.errors import DataError
from response_tuning.finetune.confidence import (
    Confidence,
    measured_after,
    perplexities,
    read_confidence,
)
from response_tuning.finetune.run import finetune
from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune.test_run import configured, in_a_process, metrics
from tests.finetune.test_trainer import arguments, drawn, load

ROWS = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("rows") / "data")


def written(folder: Path) -> Path:
    examples = [
        Example(row=n, instruction=f"What is {n}?", response=f"It is {n}. " * (1 + n % 4))
        for n in range(ROWS)
    ]
    write_jsonl(folder / "examples.jsonl", examples)
    audit = {"rows": ROWS, "rows_kept": ROWS, "examples": ROWS, "dropped": {}}
    write_json(folder / "audit.json", audit | {"source": {"name": "rows.jsonl"}})
    return folder


def reference(base: Path, data: Path, out: Path, **changes: Any) -> list[Confidence]:
    settings = {"epochs": 3, "max_steps": None, "examples_per_step": 4, "learning_rate": 1e-3}
    config = configured(base, record_confidence=True, **(settings | changes))
    finetune(config, data, out, Console(quiet=True))
    return [*read_jsonl(out / "confidence.jsonl", Confidence)]


def test_a_perplexity_is_the_exponential_of_the_loss_on_that_row_alone(
    tiny_base: Path, tmp_path: Path
) -> None:
    documents = drawn(9)
    trainer = ResponseTrainer(load(tiny_base), arguments(tmp_path), train_dataset=documents)
    found = perplexities(trainer)
    for place in range(9):
        alone = trainer.evaluate([documents[place]])["eval_loss"]
        assert found[place] == pytest.approx(math.exp(alone), rel=1e-5)


@pytest.mark.parametrize(
    ("steps", "epochs", "after"),
    [(9, 3, [3, 6, 9]), (10, 1, [2, 4, 6, 8, 10]), (3, 1, [1, 2, 3]), (5, 2, [2, 5])],
)
def test_rows_are_measured_after_each_epoch_or_five_times_in_one(
    steps: int, epochs: int, after: list[int]
) -> None:
    assert measured_after(steps, epochs) == after


def test_a_run_leaves_the_confidence_of_every_row_and_trains_as_without_it(
    tiny_base: Path, tmp_path: Path, data: Path
) -> None:
    found = reference(tiny_base, data, tmp_path / "with")
    assert [(line.row, line.turn) for line in found] == [(n, 0) for n in range(ROWS)]
    assert all(line.confidence < -1 for line in found)
    assert len({line.confidence for line in found}) == ROWS
    plain = configured(tiny_base, epochs=3, max_steps=None, examples_per_step=4, learning_rate=1e-3)
    finetune(plain, data, tmp_path / "without", Console(quiet=True))
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert not (tmp_path / "without" / "confidence.jsonl").exists()


def test_a_killed_run_leaves_the_same_confidence(
    tiny_base: Path, tmp_path: Path, data: Path
) -> None:
    changes: dict[str, Any] = {"epochs": 3, "max_steps": None, "examples_per_step": 4}
    changes |= {"learning_rate": 1e-3, "record_confidence": True, "save_steps": 2}
    config = configured(tiny_base, **changes)
    own = written(tmp_path / "killed" / "data")
    assert in_a_process(config, own, tmp_path / "killed" / "model", ("step", 7)) == -9
    finetune(config, own, tmp_path / "killed" / "model", Console(quiet=True))
    finetune(config, data, tmp_path / "whole", Console(quiet=True))
    ours, theirs = (tmp_path / name / "confidence.jsonl" for name in ("killed/model", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_mixture_is_tuned_from_the_confidence_of_a_reference(
    tiny_base: Path, tmp_path: Path, data: Path
) -> None:
    reference(tiny_base, data, tmp_path / "plain")
    file = str(tmp_path / "plain" / "confidence.jsonl")
    runs = {}
    for mu in (0.0, 0.5):
        settings = {"confidence": file, "mu": mu}
        config = configured(
            tiny_base, objective="rt-sftmix", objective_settings=settings, max_steps=3
        )
        runs[mu] = metrics(finetune(config, data, tmp_path / f"mix{mu}", Console(quiet=True)))
    assert runs[0.5][0]["term_tokens"] == pytest.approx(runs[0.0][0]["term_tokens"], rel=1e-6)
    assert runs[0.5][0]["loss"] > runs[0.0][0]["loss"] + 0.1
    assert 0 < runs[0.5][0]["term_mixed_share"] <= 1


def test_confidence_of_other_rows_is_refused(tmp_path: Path) -> None:
    lines = [Confidence(row=n, turn=0, confidence=-1.5, tokens=n) for n in (0, 7)]
    write_jsonl(tmp_path / "confidence.jsonl", lines)
    examples = [Example(row=n, response="x") for n in range(2)]
    with pytest.raises(DataError, match=r"has row 7, turn 0, which is no example of this run"):
        read_confidence(tmp_path / "confidence.jsonl", examples)
    write_jsonl(tmp_path / "confidence.jsonl", lines[:1])
    scores, lengths = read_confidence(tmp_path / "confidence.jsonl", examples)
    assert (scores[0], lengths[0]) == (-1.5, 0)
    assert math.isnan(scores[1])
    assert json.loads((tmp_path / "confidence.jsonl").read_text().splitlines()[0])["row"] == 0
