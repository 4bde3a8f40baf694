"""Checks before anything costly: names, extras, the base model's files, Trainer's arguments."""

from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune import base, token_files
from response_tuning.finetune.objectives import build_objective, loss_of
from response_tuning.finetune.processes import check_launcher, world_size
from response_tuning.finetune.progress import check_tracker
from response_tuning.registry import unknown
from response_tuning.templates import Chat, install

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from response_tuning.finetune.trainer import ResponseTrainer


def check(config: FinetuneConfig, out: Path) -> None:
    """Refuse a base, a tracker, an optimizer or a method that cannot be used; writes nothing.

    Raises:
        ConfigError: a setting is impossible here.
        DataError: ``config.tokens`` were made with other settings, or are not there.
        ModelError: the base has no configuration or no tokenizer that can be used.
        TemplateError: its tokenizer and the template do not go together.
    """
    from response_tuning.finetune import sharding
    from response_tuning.finetune.dataset import rows
    from response_tuning.finetune.run import training_arguments

    check_launcher()
    sharding.check(config)
    check_trainer(config)
    _check_average(config)
    if config.method == "qlora":
        base.check_quantization()
    base.architecture(config)
    tokenizer = base.read_tokenizer(config)
    install(tokenizer, config.template)
    rows(config, Chat(tokenizer), [])  # an encoder checks what every row has in common
    if config.tokens is not None:
        token_files.check(config.tokens, config, Chat(base.read_back(tokenizer, config)))
    _check_installed(training_arguments(config, out))


def check_trainer(config: FinetuneConfig) -> None:
    """Refuse an optimizer or a tracker that Trainer does not know, or that is not installed.

    Raises:
        ConfigError: one line that names it.
    """
    check_optimizer(config.optimizer)
    check_tracker(config.report_to)


def _check_average(config: FinetuneConfig) -> None:
    """Refuse to average the tokens' loss where the objective has another one."""
    loss = loss_of(build_objective(config.objective, config.objective_settings))
    if loss is not None and config.examples_per_mean is not None:
        raise ConfigError(
            "examples_per_mean averages the tokens' cross-entropy, and the objective "
            f"'{config.objective}' has a loss of its own; remove finetune.examples_per_mean"
        )


def check_optimizer(name: str) -> None:
    """Refuse an optimizer that Trainer does not know.

    Raises:
        ConfigError: Trainer does not know it.
    """
    from transformers.training_args import OptimizerNames

    known = sorted(optimizer.value for optimizer in OptimizerNames)
    if name not in known:
        raise unknown("optimizer", name, known)


def _check_installed(arguments: "TrainingArguments") -> None:
    """Refuse an optimizer that needs a package that is not installed, or settings that we lack."""
    from torch import nn
    from transformers import Trainer

    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments, nn.Linear(1, 1))  # type: ignore[arg-type]
    except (ImportError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        name = getattr(arguments.optim, "value", arguments.optim)
        raise ConfigError(f"optimizer '{name}' cannot be used here: {reason}") from error


def check_step(trainer: "ResponseTrainer") -> None:
    """Refuse Trainer's arguments that would change which examples form a step, or its mean.

    Raises:
        ConfigError: one line that names the argument.
    """
    args = trainer.args
    check_launcher()
    launched = world_size()
    if launched != args.world_size:
        raise ConfigError(
            f"{launched} launched processes of which Trainer sees {args.world_size}: each "
            "would run all of it; without GPUs, pass use_cpu=True to TrainingArguments"
        )
    refused = {
        "gradient_accumulation_steps": args.gradient_accumulation_steps != 1,
        "label_smoothing_factor": args.label_smoothing_factor != 0,
        "average_tokens_across_devices": not args.average_tokens_across_devices,
        "train_sampling_strategy": args.train_sampling_strategy != "random",
        "DataParallel (launch with torchrun)": args.n_gpu > 1,
        "DeepSpeed (use FSDP2)": trainer.is_deepspeed_enabled,
        "compute_loss_func": trainer.compute_loss_func is not None,
        "a model whose loss takes no num_items_in_batch": not trainer.model_accepts_loss_kwargs,
    }
    for name, is_set in refused.items():
        if is_set:
            raise ConfigError(
                f"{name}: a step here is a fixed set of examples with one mean over its "
                "supervised tokens; leave this at its default"
            )
