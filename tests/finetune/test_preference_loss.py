import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from transformers import AutoTokenizer

from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.errors import DataError, ModelError
from response_tuning.finetune import reference
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.preference_loss import preference_loss
from response_tuning.finetune.run import finetune
from response_tuning.finetune.steps import PADDED, Document
from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune.test_losses import BETA, Data, one_by_one, pair_data
from tests.finetune.test_run import configured, in_a_process, metrics, weights
from tests.finetune.test_trainer import arguments, furthest, load, losses

PAIRS, STEPS = 8, 4
PEERS = Path(__file__).parents[2] / "build" / "bench"
"""Where `make test` installs TRL, beside the environment: nothing else may find it."""
LOGGED = ("margin", "chosen_log_ratio", "rejected_log_ratio")
TERMS = {f"term_{name}" for name in ("preference", "accuracy", *LOGGED)}


def trained(base: Path, out: Path, data: Data, *, nll_weight: float = 0.0, **how: Any) -> Any:
    """A trainer that has taken ``STEPS`` steps of all pairs each."""
    trainer = ResponseTrainer(
        load(base),
        arguments(out, max_steps=STEPS, learning_rate=1e-3),
        train_dataset=data,
        loss=preference_loss(BETA, nll_weight),
        **{"examples_per_step": len(data), **how},
    )
    trainer.train()
    return trainer


def terms(trainer: Any) -> dict[str, float]:
    found: dict[str, float] = trainer.step_terms
    return found


def few_pairs() -> Data:
    every = pair_data()
    chosen = (every[index] for place in range(PAIRS) for index in (place, place + 20))
    data = Data(document._replace(example=-1) for document in chosen)
    data.units = [[2 * place, 2 * place + 1] for place in range(PAIRS)]
    return data


def by_hand(base: Path, data: Data, nll_weight: float = 0.0) -> list[float]:
    """Losses of DPO with a second model as the reference, document by document."""
    model, fixed = load(base), load(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    history: list[float] = []

    def sums(of: Any) -> Tensor:
        rows = one_by_one(of, data)
        return torch.stack([-F.cross_entropy(x, y, reduction="sum") for x, y, _ in rows])

    for _ in range(STEPS):
        found = sums(model)
        with torch.no_grad():
            start = sums(fixed)
        chosen, rejected = (found - start).view(-1, 2).unbind(1)
        loss = -F.logsigmoid(BETA * (chosen - rejected)).mean()
        tokens = sum(document.supervised for document in data[::2])
        loss = loss - nll_weight * found[::2].sum() / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        history.append(float(loss.detach()))
    return history


@pytest.mark.parametrize("nll_weight", [0.0, 0.3])
def test_steps_equal_dpo_with_a_second_model(
    tiny_base: Path, tmp_path: Path, nll_weight: float
) -> None:
    expected = by_hand(tiny_base, few_pairs(), nll_weight)
    trainer = trained(tiny_base, tmp_path, few_pairs(), nll_weight=nll_weight)
    assert losses(trainer) == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 0.05


def test_the_first_step_is_log_2_and_every_log_ratio_is_0(tiny_base: Path, tmp_path: Path) -> None:
    trainer = ResponseTrainer(
        load(tiny_base),
        arguments(tmp_path, max_steps=1),
        train_dataset=pair_data(),
        loss=preference_loss(BETA),
    )
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert terms(trainer)["preference"] == losses(trainer)[0]
    for name in LOGGED:
        assert terms(trainer)[name] == pytest.approx(0, abs=1e-4), name


def test_the_token_budget_and_the_layout_change_nothing(tiny_base: Path, tmp_path: Path) -> None:
    one = trained(tiny_base, tmp_path, few_pairs())
    for how in ({"tokens_per_micro_batch": 64}, {"layout": PADDED, "tokens_per_micro_batch": 200}):
        other = trained(tiny_base, tmp_path, few_pairs(), **how)
        assert losses(other) == pytest.approx(losses(one), rel=1e-6)
        assert [*other._loss.reference] == pytest.approx([*one._loss.reference], abs=1e-4)
        ours, theirs = (dict(each.model.named_parameters()) for each in (other, one))
        assert furthest(ours, theirs) < 1e-5


def test_reversed_labels_reverse_what_is_learnt(tiny_base: Path, tmp_path: Path) -> None:
    data = few_pairs()
    turned = Data(data[place ^ 1] for place in range(len(data)))
    turned.units = data.units
    ours, theirs = (trained(tiny_base, tmp_path, each) for each in (data, turned))
    assert terms(ours)["accuracy"] == terms(theirs)["accuracy"] == 1.0
    assert terms(ours)["margin"] > 0.2
    first, second = (each._loss.reference for each in (ours, theirs))
    assert [first[place ^ 1] for place in range(len(data))] == pytest.approx([*second], abs=1e-5)
    moved = terms(ours)["chosen_log_ratio"] - terms(ours)["rejected_log_ratio"]
    against = terms(theirs)["rejected_log_ratio"] - terms(theirs)["chosen_log_ratio"]
    assert moved > 0 > against


def test_what_the_model_was_is_computed_once_without_a_second_model(
    tiny_base: Path, tmp_path: Path
) -> None:
    model = load(tiny_base)
    passes: list[tuple[bool, int]] = []
    model.register_forward_pre_hook(
        lambda _, __, given: passes.append((torch.is_grad_enabled(), given["input_ids"].numel())),
        with_kwargs=True,
    )
    data = few_pairs()
    trainer = ResponseTrainer(
        model,
        arguments(tmp_path, max_steps=3),
        train_dataset=data,
        loss=preference_loss(BETA),
        examples_per_step=8,
        tokens_per_micro_batch=100,
    )
    passes.clear()  # those of the self-test
    trainer.train()
    without_gradient = [tokens for has_gradient, tokens in passes if not has_gradient]
    assert sum(without_gradient) == sum(len(document.input_ids) for document in data)


def test_dropout_is_off_while_the_reference_is_computed(tiny_base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def reference_with(dropout: float) -> list[float]:
        torch.manual_seed(0)
        lora = LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear")
        trainer = ResponseTrainer(
            get_peft_model(load(tiny_base), lora),
            arguments(tmp_path, max_steps=1),
            train_dataset=few_pairs(),
            loss=preference_loss(BETA),
        )
        trainer.train()
        assert trainer.model is not None
        return [*trainer._loss.reference]

    assert reference_with(0.5) == reference_with(0.0)


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """TRL, which is gone afterwards."""
    if PEERS.is_dir():
        monkeypatch.syspath_prepend(PEERS)
    yield pytest.importorskip("trl", reason="TRL is not installed; make test installs it")
    for name in [name for name in sys.modules if name.partition(".")[0] == "trl"]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore")
def test_losses_equal_those_of_trl_on_the_same_pairs(
    trl: Any, tiny_base: Path, tmp_path: Path
) -> None:
    from datasets import Dataset

    texts = [
        {
            "prompt": f"How many is {number}? ",
            "chosen": f"It is {number}, of course. " * (1 + number % 3),
            "rejected": "No idea! " * (1 + number % 4),
        }
        for number in range(PAIRS)
    ]
    common = {"max_steps": STEPS, "learning_rate": 1e-3, "weight_decay": 0.0}
    peer = trl.DPOTrainer(
        load(tiny_base),
        ref_model=load(tiny_base),
        args=trl.DPOConfig(
            **vars_of(arguments(tmp_path / "trl", per_device_train_batch_size=PAIRS, **common)),
            beta=BETA,
            max_length=None,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=AutoTokenizer.from_pretrained(tiny_base),
    )
    peer.train()
    expected = [entry["loss"] for entry in peer.state.log_history if "loss" in entry]
    data = Data(of_trl(row, side) for row in peer.train_dataset for side in ("chosen", "rejected"))
    data.units = [[2 * place, 2 * place + 1] for place in range(PAIRS)]
    ours = losses(trained(tiny_base, tmp_path / "ours", data))
    assert expected[0] == pytest.approx(math.log(2), abs=1e-6)
    assert ours == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 0.05


def vars_of(args: Any) -> dict[str, Any]:
    """What was set of training arguments that another class takes too."""
    names: tuple[str, ...] = (
        "output_dir",
        "max_steps",
        "learning_rate",
        "lr_scheduler_type",
        "logging_steps",
    )
    names += ("save_strategy", "seed", "report_to", "disable_tqdm", "use_cpu", "weight_decay")
    return {name: getattr(args, name) for name in (*names, "per_device_train_batch_size")}


def of_trl(row: dict[str, Sequence[int]], side: str) -> Document:
    prompt, answer = [*row["prompt_ids"]], [*row[f"{side}_ids"]]
    return Document(prompt + answer, [IGNORED] * len(prompt) + answer)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the data stage leaves of 12 pairs."""
    return written(tmp_path_factory.mktemp("pairs") / "data", range(12))


def written(folder: Path, rows: Sequence[int], answers: int = 2) -> Path:
    texts = ("It is {}, of course.", "Who can know that of {}?")
    examples = [
        Example(row=n, turn=turn, instruction=f"Secret {n}?", response=texts[turn].format(n))
        for n in rows
        for turn in range(answers)
    ]
    write_jsonl(folder / "examples.jsonl", examples)
    audit = {"rows": len(rows), "rows_kept": len(rows), "examples": len(examples), "dropped": {}}
    write_json(folder / "audit.json", audit | {"source": {"name": "pairs.jsonl"}})
    return folder


def test_a_run_logs_every_term_and_prompts_are_trained_on_in_dpo_alone(
    tiny_base: Path, tmp_path: Path, pairs: Path
) -> None:
    tokens = {}
    for objective in ("dpo", "rt-dpo"):
        config = configured(tiny_base, objective=objective, max_steps=2)
        out = finetune(config, pairs, tmp_path / objective, Console(quiet=True))
        first, second = metrics(out)
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert {name for name in first if name.startswith("term_")} == TERMS
        assert second["loss"] < first["loss"]
        tokens[objective] = first["tokens"], first["supervised_tokens"]
    assert tokens["dpo"][1] == tokens["rt-dpo"][1]
    assert tokens["dpo"][0] > tokens["rt-dpo"][0]


def test_a_killed_run_goes_on_with_the_log_probabilities_that_it_began_with(
    tiny_base: Path, tmp_path: Path, pairs: Path
) -> None:
    config = configured(tiny_base, objective="dpo", max_steps=6, save_steps=2)
    whole = finetune(config, pairs, tmp_path / "whole", Console(quiet=True))
    data = written(tmp_path / "killed" / "data", range(12))
    out = tmp_path / "killed" / "model"
    assert in_a_process(config, data, out, ("step", 5)) == -9
    (side,) = (data.parent / "tokens").glob("reference-*.jsonl")
    known = side.read_bytes()
    assert len(known.splitlines()) == 24
    # As a hard failure would show: without the file, nothing tells what the model was.
    side.unlink()
    with pytest.raises(
        ModelError, match="lacks the log-probabilities of the model before training"
    ):
        finetune(config, data, out, Console(quiet=True))
    side.write_bytes(b"\n".join(known.splitlines()[:-1]) + b"\n")
    with pytest.raises(DataError, match="lacks some of the examples"):
        finetune(config, data, out, Console(quiet=True))
    side.write_bytes(known)
    finetune(config, data, out, Console(quiet=True))
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    ours, theirs = weights(out), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_row_with_one_answer_is_one_line_before_the_model_is_loaded(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(tmp_path / "data", range(3), answers=1)
    monkeypatch.setattr("response_tuning.finetune.base.load_model", lambda _: pytest.fail("loaded"))
    with pytest.raises(DataError, match=r"row 0: 'dpo' learns from 2 examples of a row, .* has 1"):
        finetune(
            configured(tiny_base, objective="dpo"), data, tmp_path / "out", Console(quiet=True)
        )


def test_a_held_out_share_is_whole_pairs(tiny_base: Path, tmp_path: Path, pairs: Path) -> None:
    config = configured(tiny_base, objective="dpo", max_steps=2, eval_fraction=0.25)
    out = finetune(config, pairs, tmp_path / "out", Console(quiet=True))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["audit"]["held_out"] == 6
    assert manifest["held_out_loss"] > 0


def test_a_side_file_of_other_examples_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ResponseTrainer(
        load(tiny_base),
        arguments(tmp_path, max_steps=1),
        train_dataset=few_pairs(),
        loss=preference_loss(BETA),
    )
    assert trainer.reference is not None
    trainer.reference.file = tmp_path / "side.jsonl"
    line = reference.LogProbability(example=99, log_probability=-1.0)
    write_jsonl(trainer.reference.file, [line])
    with pytest.raises(DataError, match="is of other examples"):
        trainer.train()
