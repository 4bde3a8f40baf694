"""Stage 2: examples and a base model become a Hugging Face model folder.

The folder holds the weights or the adapter, the tokenizer with the chat template inside, a
generation config with the stop token, a model card, ``metrics.jsonl`` and ``manifest.json``. The
manifest's status is ``running`` until everything else is in place. The same command again resumes a
killed run from its newest whole checkpoint and does not touch a finished run.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.artifacts import write_json, written_aside
from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import base, continuation, memory
from response_tuning.finetune.dataset import (
    LONG_WAIT,
    EncodedExamples,
    encode,
    read_examples,
    store_folder,
)
from response_tuning.finetune.manifest import (
    FINISHED,
    is_finished,
    manifest_of,
    matched,
    model_files,
    run_of,
)
from response_tuning.finetune.memory import load_of
from response_tuning.finetune.model_card import model_card
from response_tuning.finetune.objectives import build_objective, loss_on
from response_tuning.finetune.processes import is_first
from response_tuning.finetune.run_folder import (
    CARD,
    CHECKPOINTS,
    MANIFEST,
    METRICS_FILE,
    PARTIAL,
    move_into,
    remove_other_weights,
    tidy,
)
from response_tuning.finetune.summary import summary
from response_tuning.models.checks import check_converged
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import TrainingArguments

    from response_tuning.finetune.trainer import ResponseTrainer


logger = logging.getLogger(__name__)


def finetune(config: FinetuneConfig, data: Path, out: Path, console: "Console") -> Path:
    """Tune ``config.base_model`` on ``data/examples.jsonl`` and return the model's folder.

    Raises:
        ConfigError: ``out`` holds another run, or a setting is impossible here.
        DataError: no example is left to train on.
        ModelError: the base cannot be loaded or trained exactly.
    """
    config = base.fitted(config)
    manifest = manifest_of(config, continuation.start_of(config, out), data)
    manifest["rows_in_clear"] = data.is_relative_to(out)
    if is_finished(out, manifest):
        if is_first():
            tidy(out, data)
        console.print(f"{out}: already finished, nothing to do", highlight=False, soft_wrap=True)
    else:
        _train(config, data, out, manifest, console)
    if is_first():
        # A finished run may still have to merge: a kill can fall between training and merging.
        from response_tuning.finetune.merge import is_merging, merge_adapter

        if config.merge or is_merging(out):
            merge_adapter(out, console, config.merge_into)
    if manifest["rows_in_clear"]:
        private = (
            f"{out}: before you share it, delete {data}: it holds the training rows in clear text"
        )
        console.print(private, highlight=False, soft_wrap=True)
    return out


def _train(
    config: FinetuneConfig, data: Path, out: Path, manifest: dict[str, Any], console: "Console"
) -> None:
    """Train, measure and write the model folder; each process of a launcher runs all of this."""
    from response_tuning.finetune import memorisation
    from response_tuning.finetune.confidence import RecordConfidence

    arguments = training_arguments(config, out)
    chat = Chat(base.load_tokenizer(config))
    store = store_folder(config, chat, manifest, data)
    # The others wait, and then read the store. Tokens at an address are fetched once on each node.
    with arguments.main_process_first(local=config.tokens is not None):
        is_long = manifest["data"]["examples"] >= LONG_WAIT
        if is_long and config.tokens is None and not store.exists():
            console.print(f"encoding {manifest['data']['examples']:,} examples", highlight=False)
        encoded = encode(config, chat, read_examples(data), store)
    manifest |= {"template": chat.digest, "audit": encoded.audit}
    manifest["matched"] = matched(config, encoded.audit["remarks"])
    # Before the weights are loaded: the estimate divides the memory that is free now.
    fit = memory.fit(config, load_of(config, encoded), memory.free_memory(arguments))
    trainer = _trainer(config, fit, encoded, arguments, chat, out)
    _print(trainer, console, [*summary(config, trainer, encoded), fit.reason])
    if trainer.is_world_process_zero():
        write_json(out / MANIFEST, manifest)  # from here on, the same command resumes
    if trainer.reference is not None:
        trainer.reference.file = store.with_name(f"reference-{run_of(manifest)}.jsonl")
    recorder = RecordConfidence(trainer, store.with_name(f"confidence-{run_of(manifest)}"))
    if config.record_confidence:
        trainer.add_callback(recorder)
    cost = _take_steps(trainer, manifest, out, console)
    # Before anything is written: a run that diverged in its last step leaves no model.
    check_converged(trainer.model)
    manifest |= {"layout": trainer.layout.name, "steps": trainer.state.global_step}
    if len(encoded.held_out):
        found, lines = memorisation.measured(trainer, encoded.train, encoded.held_out)
        manifest |= found
        _print(trainer, console, lines)
    manifest |= {"memory": trainer.memory, "cost": cost}
    if config.record_confidence and trainer.is_world_process_zero():
        recorder.write(out, encoded.examples)
    _save(trainer, chat, config, out, manifest)
    if trainer.is_world_process_zero():
        tidy(out, data)


def _take_steps(
    trainer: "ResponseTrainer", manifest: dict[str, Any], out: Path, console: "Console"
) -> dict[str, Any]:
    """Train from the newest whole checkpoint to the last step, and return what that cost."""
    from response_tuning.finetune import memorisation
    from response_tuning.finetune.checkpoints import Checkpoints
    from response_tuning.finetune.progress import Metrics, ProgressDisplay

    display = ProgressDisplay(trainer, console)
    checkpoints = Checkpoints(trainer, run_of(manifest))
    # Metrics first: a checkpoint is sealed only after the lines that it counts are on the disk.
    losses = memorisation.HeldOutLoss(console)
    for callback in (Metrics(out / METRICS_FILE, trainer), display, losses, checkpoints):
        trainer.add_callback(callback)
    checkpoint = _checkpoint(trainer, manifest, out)
    if checkpoint is not None:
        console.print(f"resuming from {Path(checkpoint).name}", highlight=False, soft_wrap=True)
    try:
        with checkpoints.on_signals():
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        display.close()
    return display.cost | {"device": str(trainer.args.device)}


def _checkpoint(trainer: "ResponseTrainer", manifest: dict[str, Any], out: Path) -> str | None:
    """Return the checkpoint to resume from; the first process verifies it for all."""
    from accelerate.utils import broadcast_object_list

    newest: list[str | None] = [None]
    if trainer.is_world_process_zero():
        checkpoint = seals.newest_checkpoint(out / CHECKPOINTS, run_of(manifest))
        newest = [str(checkpoint) if checkpoint else None]
    broadcast_object_list(newest)
    return newest[0]


def _trainer(
    config: FinetuneConfig,
    fit: memory.MemoryFit,
    encoded: EncodedExamples,
    arguments: "TrainingArguments",
    chat: Chat,
    out: Path,
) -> "ResponseTrainer":
    from transformers import PrinterCallback

    from response_tuning.finetune.progress import tracker
    from response_tuning.finetune.trainer import ResponseTrainer

    callbacks = tracker(config.report_to, out)
    objective = build_objective(config.objective, config.objective_settings)
    loss = loss_on(objective, encoded.examples, config.seed)
    arguments.activation_checkpointing = fit.checkpointing
    with memory.explained():  # QLoRA loads onto the device
        model: Any = base.load_model(config)
    base.check_stop(model, chat, config)
    base.check_space(model, config, out)
    if config.method != "full":
        settled = config.model_copy(update={"gradient_checkpointing": fit.checkpointing})
        model = base.with_adapter(model, settled)
        continuation.load_continued(model, config)
    trainer = ResponseTrainer(
        model,
        arguments,
        train_dataset=encoded.train,
        eval_dataset=encoded.held_out if len(encoded.held_out) else None,
        examples_per_step=config.examples_per_step,
        tokens_per_micro_batch=fit.tokens,
        loss=loss,
        callbacks=callbacks,
    )
    trainer.examples_per_mean = config.examples_per_mean
    trainer.may_checkpoint = config.gradient_checkpointing == "auto"
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(config: FinetuneConfig, out: Path) -> "TrainingArguments":
    """Return Trainer's arguments for ``config``; checkpoints go below ``out``.

    Raises:
        ConfigError: Trainer knows no such optimizer.
    """
    import torch
    from transformers import TrainingArguments

    from response_tuning.finetune import sharding
    from response_tuning.finetune.checks import check_optimizer

    check_optimizer(config.optimizer)
    constant = "constant_with_warmup" if config.warmup_steps else "constant"
    return TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=constant if config.scheduler == "constant" else config.scheduler,
        warmup_steps=config.warmup_steps,
        optim=config.optimizer,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        bf16=base.computes_in_bfloat16(config),
        activation_checkpointing=config.gradient_checkpointing is True,
        # Explicit: otherwise each of several processes on CPUs would run the whole step.
        use_cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        report_to="none",  # progress.tracker adds the callback, so that its files are in ``out``
        eval_strategy="epoch" if config.eval_fraction else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=None,  # checkpoints.Checkpoints deletes old ones, once a new one is whole
        disable_tqdm=True,
        # Trainer would write False into the saved config; each forward pass passes False itself.
        use_cache=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **sharding.training_arguments(config),
    )


def _print(trainer: "ResponseTrainer", console: "Console", lines: Iterable[str]) -> None:
    """Print lines that are not empty, in the first process alone."""
    if trainer.is_world_process_zero():
        for line in filter(None, lines):
            console.print(line, highlight=False, soft_wrap=True)


def _save(
    trainer: "ResponseTrainer",
    chat: Chat,
    config: FinetuneConfig,
    out: Path,
    manifest: dict[str, Any],
) -> None:
    """Write the model folder aside, move it into place, and only then set ``finished``."""
    partial = out / PARTIAL
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    with seals.saving(partial):
        trainer.save_model(str(partial))
        if not trainer.is_world_process_zero():
            return
        # A pickle of Trainer's arguments; the manifest holds the same settings as text.
        (partial / "training_args.bin").unlink(missing_ok=True)
        chat.tokenizer.save_pretrained(partial)
        generation: Any = trainer.accelerator.unwrap_model(trainer.model).generation_config
        manifest["stop"] = base.stop_at(chat, generation, config)
        generation.save_pretrained(partial)
        with written_aside(partial / CARD) as card:
            card.write(model_card(config, manifest))
        manifest |= {"status": FINISHED, "files": model_files(partial)}
    remove_other_weights(partial, out)
    move_into(partial, out)
    write_json(out / MANIFEST, manifest)
