import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainingArguments
from transformers.training_args import ParallelMode

from response_tuning.errors import ConfigError, ModelError
from response_tuning.finetune import cross_entropy
from response_tuning.finetune.loader import collate
from response_tuning.finetune.losses import DocumentLoss, token_term
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.steps import (
    PADDED,
    Document,
    Documents,
    StepSampler,
    as_document,
    flattened,
    size_of,
)
from response_tuning.finetune.trainer import MicroBatch, ResponseTrainer
from tests.fixtures.processes import run_in_processes

EXAMPLES, STEPS, RATE = 16, 20, 1e-4


def drawn(count: int = 100) -> Documents:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(count):
        length = int(torch.randint(4, 60, (1,), generator=generator))
        ids = torch.randint(3, 384, (length,), generator=generator).tolist()
        free = int(torch.randint(1, length, (1,), generator=generator))
        rows.append((ids, [IGNORED] * free + ids[free:]))
    return Documents(rows)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def arguments(out: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(
        **{
            "output_dir": str(out),
            "max_steps": STEPS,
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": 0,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "per_device_train_batch_size": EXAMPLES,
            **changes,
        }
    )


def losses(trainer: ResponseTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train(base: Path, out: Path, **how: Any) -> tuple[list[float], dict[str, Tensor]]:
    trainer = ResponseTrainer(
        load(base), arguments(out, **how.pop("arguments", {})), train_dataset=drawn(), **how
    )
    trainer.train()
    model: Any = trainer.model
    return losses(trainer), dict(model.named_parameters())


def plain_loop(base: Path) -> tuple[list[float], dict[str, Tensor]]:
    """The same steps as a person would write them: padded, all logits, one mean a step."""
    model, documents = load(base), drawn()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    sampler = StepSampler(documents.lengths, EXAMPLES, seed=0)
    history: list[float] = []
    epoch = 0
    while len(history) < STEPS:
        sampler.set_epoch(epoch)
        for step in list(sampler)[: STEPS - len(history)]:
            rows = [documents[place.document] for place in step]
            longest = max(len(row.input_ids) for row in rows)
            ids = torch.tensor([r.input_ids + [0] * (longest - len(r.input_ids)) for r in rows])
            labels = torch.tensor([r.labels + [IGNORED] * (longest - len(r.labels)) for r in rows])
            mask = torch.tensor(
                [[1] * len(r.input_ids) + [0] * (longest - len(r.input_ids)) for r in rows]
            )
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            history.append(float(loss.detach()))
        epoch += 1
    return history, dict(model.named_parameters())


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)


@pytest.fixture(scope="module")
def plain(tiny_base: Path) -> tuple[list[float], dict[str, Tensor]]:
    return plain_loop(tiny_base)


@pytest.mark.parametrize("budget", [64, 300, 10_000])
def test_twenty_steps_equal_a_plain_padded_loop_whatever_the_token_budget(
    tiny_base: Path, tmp_path: Path, plain: tuple[list[float], dict[str, Tensor]], budget: int
) -> None:
    history, weights = train(tiny_base, tmp_path, tokens_per_micro_batch=budget)
    assert history == pytest.approx(plain[0], abs=5e-6)
    assert furthest(weights, plain[1]) < 1e-5


def test_padded_micro_batches_take_the_same_steps(
    tiny_base: Path, tmp_path: Path, plain: tuple[list[float], dict[str, Tensor]]
) -> None:
    history, weights = train(tiny_base, tmp_path, tokens_per_micro_batch=300, layout=PADDED)
    assert history == pytest.approx(plain[0], abs=5e-6)
    assert furthest(weights, plain[1]) < 1e-5


def test_checkpointing_activations_changes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    once = train(tiny_base, tmp_path)
    twice = train(tiny_base, tmp_path, arguments={"activation_checkpointing": True})
    assert once[0] == twice[0]
    assert furthest(once[1], twice[1]) == 0.0


def test_two_runs_of_one_seed_are_identical_and_of_two_seeds_are_not(
    tiny_base: Path, tmp_path: Path
) -> None:
    first, second = train(tiny_base, tmp_path)[0], train(tiny_base, tmp_path)[0]
    assert first == second != train(tiny_base, tmp_path, arguments={"seed": 1})[0]


def test_two_processes_take_the_same_steps_as_one(
    tiny_base: Path, tmp_path: Path, plain: tuple[list[float], dict[str, Tensor]]
) -> None:
    from tests.finetune.two_processes import train_and_evaluate

    assert run_in_processes(train_and_evaluate, tiny_base, tmp_path, count=2) == [0, 0]
    found = json.loads((tmp_path / "losses.json").read_text())
    assert found["losses"] == pytest.approx(plain[0], abs=5e-6)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert furthest(weights, plain[1]) < 1e-5
    model = load(tiny_base)
    model.load_state_dict(weights)
    one = ResponseTrainer(model, arguments(tmp_path), train_dataset=drawn())
    assert found["held_out"] == pytest.approx(one.evaluate(drawn(9))["eval_loss"], abs=1e-6)

    from tests.finetune import test_losses

    for case in test_losses.CASES:
        history, weights = torch.load(tmp_path / f"{case}.pt", weights_only=True)
        expected = test_losses.tuned(tiny_base, tmp_path, case)
        assert history == pytest.approx(expected[0], rel=1e-6), case
        assert furthest(weights, expected[1]) < 1e-5, case


def test_held_out_loss_is_a_mean_over_tokens_not_over_batches(
    tiny_base: Path, tmp_path: Path
) -> None:
    trainer = ResponseTrainer(
        load(tiny_base), arguments(tmp_path), train_dataset=drawn(), tokens_per_micro_batch=64
    )
    total, count = 0.0, 0
    for row in (drawn(9)[i] for i in range(9)):
        output = load(tiny_base)(
            input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])
        )
        tokens = sum(label != IGNORED for label in row.labels[1:])
        total, count = total + float(output.loss.detach()) * tokens, count + tokens
    assert trainer.evaluate(drawn(9))["eval_loss"] == pytest.approx(total / count, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
    ],
)
def test_an_argument_that_would_change_what_a_step_is_is_refused(
    tiny_base: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        ResponseTrainer(load(tiny_base), arguments(tmp_path, **change), train_dataset=drawn())


def test_processes_that_trainer_does_not_see_are_told_what_to_set(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "2 launched processes of which Trainer sees 1: .* pass use_cpu=True to TrainingArguments"
    with pytest.raises(ConfigError, match=said):
        ResponseTrainer(load(tiny_base), given, train_dataset=drawn(), layout=PADDED)


def test_plain_dictionaries_are_data_too(tiny_base: Path, tmp_path: Path) -> None:
    documents = drawn(20)
    dictionaries: Any = [documents[i]._asdict() for i in range(20)]
    histories = []
    for data in (documents, dictionaries):
        trainer = ResponseTrainer(
            load(tiny_base), arguments(tmp_path, max_steps=2), train_dataset=data
        )
        trainer.train()
        histories.append(losses(trainer))
    assert histories[0] == histories[1]
    assert as_document(dictionaries[0]) == documents[0]


def test_a_share_without_examples_is_a_step_without_supervised_tokens() -> None:
    batch = collate([])
    assert batch["documents"] == []
    assert (batch["shift_labels"] == IGNORED).all()
    assert collate([Document([1, 2], [IGNORED, 2])])["labels"].tolist() == [[2, IGNORED]]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_an_adapter_in_mixed_precision_trains_the_same_without_casts_to_and_fro(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    seen: set[torch.dtype] = set()

    def adapted() -> tuple[list[float], dict[str, Tensor]]:
        seen.clear()
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
        lora = LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear")
        model: Any = get_peft_model(base, lora)
        for name, module in model.named_modules():
            if name.endswith("lora_A.default"):
                module.register_forward_pre_hook(lambda _, given: seen.add(given[0].dtype))
        settings = arguments(tmp_path, max_steps=4, learning_rate=1e-2, bf16=True)
        trainer = ResponseTrainer(model, settings, train_dataset=drawn())
        torch.manual_seed(0)
        seen.clear()
        trainer.train()
        return losses(trainer), {n: p for n, p in model.named_parameters() if p.requires_grad}

    history, weights = adapted()
    assert seen == {torch.bfloat16}
    monkeypatch.setattr(ResponseTrainer, "_cast_once", lambda _: nullcontext())
    cast_history, cast_weights = adapted()
    assert seen == {torch.float32}
    # The first step says that dropout drew the same; its gradients are scaled in less precision.
    assert history[0] == cast_history[0]
    assert history == pytest.approx(cast_history, rel=1e-4 if dropout else 0)
    assert dropout or furthest(weights, cast_weights) == 0.0


class Cramped(ResponseTrainer):
    """Has no memory for more tokens, or more documents, at once than it may."""

    tokens, documents, unless_checkpointing = 10**6, 10**6, False

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        # After the forward pass, so that dropout has drawn.
        loss = super().compute_loss(model, inputs, *rest, **more)
        tokens, documents = size_of(inputs)
        spared = self.unless_checkpointing and self.memory["gradient_checkpointing"]
        if (tokens > self.tokens or documents > self.documents) and not spared:
            raise torch.OutOfMemoryError
        return loss


def cramped(base: Path, out: Path, budget: int, **limits: Any) -> Cramped:
    """A trainer of an adapter with dropout, whose weights say whether the draws were the same."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear")
    model = get_peft_model(load(base), lora)
    settings = arguments(out, max_steps=4, learning_rate=1e-2)
    trainer = Cramped(model, settings, train_dataset=drawn(), tokens_per_micro_batch=budget)
    for name, limit in limits.items():
        setattr(trainer, name, limit)
    return trainer


def trained(trainer: ResponseTrainer) -> dict[str, Tensor]:
    torch.manual_seed(0)
    trainer.train()
    model: Any = trainer.model
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        (10_000, {"tokens": 90}),
        # The first micro-batch holds few, long documents: it is through when another fails.
        (300, {"documents": 8}),
    ],
    ids=["from the first micro-batch", "from a later one"],
)
def test_a_step_without_memory_is_taken_again_as_if_it_had_begun_with_less(
    tiny_base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    budget: int,
    limits: dict[str, int],
) -> None:
    trainer = cramped(tiny_base, tmp_path, budget, **limits)
    weights = trained(trainer)
    assert {change["step"] for change in trainer.backed_off} == {1}
    found = trainer.tokens_per_micro_batch
    assert found == trainer.backed_off[-1]["tokens_per_micro_batch"] < budget
    assert len([r for r in caplog.records if "no memory" in r.message]) == len(trainer.backed_off)
    assert f"it is taken again with at most {found} tokens at once" in caplog.records[-1].message
    smaller = cramped(tiny_base, tmp_path, found)
    assert furthest(trained(smaller), weights) == 0.0
    assert losses(smaller) == losses(trainer)
    assert not smaller.backed_off


def test_a_document_that_does_not_fit_alone_is_one_line_with_a_next_step(
    tiny_base: Path, tmp_path: Path
) -> None:
    trainer = cramped(tiny_base, tmp_path, 10_000, tokens=30)
    with pytest.raises(ModelError) as refusal:
        trainer.train()
    message = str(refusal.value)
    assert re.match(r"out of memory in step 1: one example of \d\d tokens does not fit", message)
    assert "gradient_checkpointing=true, a smaller --window" in message
    assert "\n" not in message
    assert trainer.tokens_per_micro_batch < 60


def test_activations_are_computed_twice_where_one_document_does_not_fit_and_that_is_allowed(
    tiny_base: Path, tmp_path: Path
) -> None:
    trainer = cramped(tiny_base, tmp_path, 100, tokens=30, unless_checkpointing=True)
    trainer.may_checkpoint = True
    weights = trained(trainer)
    assert trainer.backed_off[-1] == {"step": 1, "gradient_checkpointing": True}
    assert trainer.memory["gradient_checkpointing"]
    plain = cramped(tiny_base, tmp_path, trainer.tokens_per_micro_batch)
    assert furthest(trained(plain), weights) == 0.0
    hopeless = cramped(tiny_base, tmp_path, 100, tokens=30)
    hopeless.may_checkpoint = True
    with pytest.raises(ModelError, match="itself; use a smaller --window"):
        hopeless.train()


def test_one_of_several_processes_that_runs_out_of_memory_says_how_to_go_on(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = cramped(tiny_base, tmp_path, 100)
    monkeypatch.setattr(TrainingArguments, "parallel_mode", ParallelMode.DISTRIBUTED)
    with pytest.raises(ModelError, match=r"on process 0: .* --tokens-per-micro-batch 40$"):
        many = [drawn()[0]] * (80 // drawn().lengths[0])
        trainer._back_off(MicroBatch(dict(flattened(many)), many, None))


@pytest.mark.parametrize(
    ("shards", "remedy"), [("false", "torchrun with --shard full, "), ("true", "more processes, ")]
)
def test_one_example_too_long_for_one_of_several_processes_names_what_can_be_typed(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: str,
    remedy: str,
) -> None:
    trainer = cramped(tiny_base, tmp_path, 100)
    monkeypatch.setattr(TrainingArguments, "parallel_mode", ParallelMode.DISTRIBUTED)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", shards)
    typed = f"--set finetune.gradient_checkpointing=true, {remedy}or a smaller --window"
    with pytest.raises(
        ModelError, match=f"on process 0: .* go on with the same command and {typed}$"
    ):
        trainer._back_off(MicroBatch(dict(flattened([drawn()[0]])), [drawn()[0]], None))


def test_held_out_loss_backs_off_too(tiny_base: Path, tmp_path: Path) -> None:
    roomy = cramped(tiny_base, tmp_path, 10_000)
    trainer = cramped(tiny_base, tmp_path, 10_000, tokens=90)
    expected = roomy.evaluate(drawn(9))["eval_loss"]
    assert trainer.evaluate(drawn(9))["eval_loss"] == pytest.approx(expected, abs=1e-6)
    assert trainer.backed_off


def test_an_optimizer_without_memory_is_one_line(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(ModelError, match="optimizer's state"):
        cramped(tiny_base, tmp_path, 10_000).train()


def test_a_step_computes_no_padding_and_logits_of_supervised_positions_alone(
    tiny_base: Path, tmp_path: Path
) -> None:
    documents, model = drawn(EXAMPLES), load(tiny_base)
    settings = arguments(tmp_path, max_steps=1)
    trainer = ResponseTrainer(model, settings, train_dataset=documents, tokens_per_micro_batch=100)
    read: list[int] = []
    scored: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, given, __: read.append(given[0].numel())
    )
    model.get_output_embeddings().register_forward_hook(
        lambda *given: scored.append(given[2].shape[:-1].numel())
    )
    trainer.train()
    supervised = [
        sum(label != IGNORED for label in documents[index].labels) for index in range(EXAMPLES)
    ]
    assert len(read) > 1
    assert max(read) <= 100
    assert sum(read) == sum(documents.lengths)
    assert sum(scored) == sum(supervised) < sum(read)


def test_the_gradient_of_the_logits_takes_their_place(tiny_base: Path, tmp_path: Path) -> None:
    model = load(tiny_base)
    trainer = ResponseTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=drawn())
    logits: list[Tensor] = []
    model.get_output_embeddings().register_forward_hook(lambda *given: logits.append(given[2]))
    trainer.train()
    # Probabilities less the one that is right: a row's sum is 0.
    assert logits[0].abs().max() > 0
    assert logits[0].sum(-1).abs().max() < 1e-6


def test_chunks_of_the_head_take_the_same_steps_and_the_same_validation_loss(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tuned() -> tuple[list[float], float]:
        settings = arguments(tmp_path, max_steps=3)
        trainer = ResponseTrainer(load(tiny_base), settings, train_dataset=drawn())
        assert trainer._defers_head
        trainer.train()
        return losses(trainer), trainer.evaluate(drawn(9))["eval_loss"]

    expected, held_out = tuned()
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": 5 * 384})
    found, ours = tuned()
    assert found == pytest.approx(expected, rel=1e-5)
    assert ours == pytest.approx(held_out, rel=1e-5)


def test_a_loss_of_an_objectives_own_sees_all_logits(tiny_base: Path, tmp_path: Path) -> None:
    loss = DocumentLoss((token_term(),))
    trainer = ResponseTrainer(
        load(tiny_base), arguments(tmp_path), train_dataset=drawn(), loss=loss
    )
    assert not trainer._defers_head
