"""``ResponseTrainer``: a ``transformers.Trainer`` whose batch is a step's examples, unpadded.

It fits into any training script. Its data are items with ``input_ids``, unshifted ``labels`` (-100
where a token carries no loss) and, optionally, ``weights``; LoRA, FSDP2, trackers, checkpoints and
exact resume are Trainer's. What differs: the dataloader's batch is the whole step, which is split
into micro-batches inside ``training_step``; logits are computed at supervised positions only;
attention stays inside each document.

The loss of a step is the weighted mean of the cross-entropy over its supervised tokens, on all
processes: the sum of weight x loss, divided by the sum of the weights. ``examples_per_mean`` makes
it a mean of means; ``losses`` has others.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from transformers.training_args import ParallelMode

from response_tuning.errors import ModelError
from response_tuning.finetune import loader, malloc, memory, reference
from response_tuning.finetune.checks import check_step
from response_tuning.finetune.cross_entropy import in_place, is_usual
from response_tuning.finetune.loader import StepLoader, collate, lengths_of
from response_tuning.finetune.losses import DocumentLoss, MicroBatchLoss
from response_tuning.finetune.selftest import arguments, attending, choose_layout
from response_tuning.finetune.sharding import ShardedTrainer
from response_tuning.finetune.steps import (
    NOTHING,
    BatchLayout,
    Document,
    Means,
    StepSampler,
    as_document,
    gathered,
    shifted_weights,
    size_of,
)
from response_tuning.models.head import deferred, has_plain_head, is_deferrable
from response_tuning.seals import saving

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments
    from transformers.trainer_utils import TrainOutput


logger = logging.getLogger(__name__)


class MicroBatch(NamedTuple):
    """What goes through the model at once: its arguments, and what its loss has to know."""

    inputs: dict[str, Any]
    documents: list[Document]
    weights: Tensor | None


class ResponseTrainer(ShardedTrainer):
    """Trains on documents without padding; see the module's first lines.

    ``tokens_per_micro_batch`` bounds the tokens that go through the model at once. It is a memory
    knob: any split of a step gives the same loss and weights, up to rounding. When the device runs
    out of memory, the trainer halves it, repeats the step and logs a warning.
    ``examples_per_step`` counts over all processes and defaults to
    ``per_device_train_batch_size x processes``. The start-up self-test chooses ``layout`` unless
    you do. ``loss`` replaces the tokens' cross-entropy in training; evaluation keeps measuring it.

    Raises:
        ConfigError: a training argument would change what a step is.
        ModelError: the model fails the self-test in both layouts, or does not fit into memory.
    """

    def __init__(
        self,
        model: Any = None,  # noqa: ANN401 - as Trainer's
        args: "TrainingArguments | None" = None,
        *,
        tokens_per_micro_batch: int = 4096,
        examples_per_step: int | None = None,
        layout: BatchLayout | None = None,
        loss: DocumentLoss | None = None,
        **trainer: Any,  # noqa: ANN401 - Trainer's other arguments
    ) -> None:
        with memory.explained():
            super().__init__(model, args, data_collator=collate, **trainer)
        check_step(self)
        self.tokens_per_micro_batch = tokens_per_micro_batch
        self.examples_per_step = examples_per_step or (
            self.args.per_device_train_batch_size * self.args.world_size
        )
        self._document_loss = loss
        self._has_usual_loss = is_usual(self._base)
        if loss is not None:
            self._refuse_its_own_loss()
        self._loss = MicroBatchLoss(loss.terms if loss else ())
        self.reference = reference.attached(self, self._loss, loss)
        """What ``loss`` compares the model with, if it does."""
        self.layout_reason = ""
        if layout is None:
            longest, hides = loader.outline(self.train_dataset)
            # The self-test compares logits in the precision that the steps will use.
            with self.accelerator.autocast():
                layout, self.layout_reason = choose_layout(self._base, longest, hides_text=hides)
        self.layout = layout
        with self.accelerator.autocast():
            # Terms of a loss see all logits of a micro-batch.
            self._defers_head = loss is None and self._has_usual_loss and is_deferrable(self._base)
        self.examples_per_mean: int | None = None
        """If set, average the loss over so many examples each, then over these means."""
        self.step_tokens = 0
        """Tokens of the latest step, over all processes, prefixes included."""
        self.step_supervised = 0
        """Tokens of the latest step that carry loss, over all processes."""
        self.step_terms: dict[str, float] = {}
        """The terms of ``loss`` in the latest step, over all processes."""
        self._extra_weight = 0.0
        """By how much the weights of a step add up to more than its supervised tokens."""
        self.may_checkpoint = False
        """Whether to compute activations twice if a document does not fit by itself."""
        self.backed_off: list[dict[str, int | bool]] = []
        """What was changed when memory ran out, and in which step."""

    def train(self, *args: Any, **kwargs: Any) -> "TrainOutput":  # noqa: ANN401
        """Train as ``Trainer.train`` does, with the layout's attention.

        Raises:
            ModelError: memory runs out, and smaller micro-batches are no help.
        """
        with (
            attending(self._base, self.layout),
            in_place(self._base, self._loss),
            self._cast_once(),
            malloc.kept(self.args.device),
            memory.explained(),
        ):
            return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> StepLoader:
        """Return the loader of steps. Accelerate does not prepare it: it shares steps by itself."""
        dataset: Any = self.train_dataset
        sampler = StepSampler(
            lengths_of(dataset),
            self.examples_per_step,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            partners=loader.partners_of(dataset, self._document_loss),
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        if self.examples_per_mean is not None:
            sampler.means = Means(self.examples_per_mean, loader.weights_of(dataset))
        return StepLoader(dataset, sampler, self.args.dataloader_num_workers)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's
        """Take no step after the last: Trainer checks only after a step, one too late on resuming.

        After a kill between the last checkpoint and the end, a run that ``max_steps`` or a fraction
        of an epoch ends resumes in the middle of an epoch with no step left.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's
        """Save as Trainer does; if the disk is full, leave nothing and raise a one-line error."""
        folder = Path(self.args.output_dir or ".")  # Trainer's default is set when it begins
        with saving(folder / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(*args, **kwargs)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Run a step's micro-batches; gradients are exchanged with the last one."""
        self.step_supervised = int(num_items_in_batch or 0)
        # Trainer's own step runs the forward and the backward pass of one micro-batch.
        run_forward_and_backward = super().training_step

        def run_micro_batch(batch: MicroBatch, *, last: bool) -> Tensor:
            divisor: Any = num_items_in_batch
            if self._extra_weight:
                # Trainer counts tokens; a weighted mean is divided by the sum of the weights.
                divisor = float(num_items_in_batch or 0) + self._extra_weight
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss: Tensor = run_forward_and_backward(model, batch.inputs, divisor)
            return loss

        loss = self.summed(inputs["documents"], run_micro_batch)
        self.step_terms = self._gathered_terms()
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - Trainer's
        """Compute the loss as Trainer does; in ``train`` and ``evaluate`` without all logits."""
        base: Any = self._base  # to find it takes a walk over all modules
        defers = self._defers_head and base.loss_function is self._loss and not return_outputs
        # Asked again for each micro-batch: hooks and wrappers may have come since.
        if not (defers and has_plain_head(base)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with deferred(base) as self._loss.head:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self._loss.head = None
        return loss

    def _gathered_terms(self) -> dict[str, float]:
        """Return the terms of the step that has ended, summed over processes."""
        names = [term.name for term in self._loss.terms]
        if not names:
            return {}
        zero = torch.zeros((), device=self.args.device)
        values = torch.stack([self._loss.values.get(name, zero) for name in names])
        total: Tensor = self.accelerator.reduce(values)
        return dict(zip(names, total.tolist(), strict=True))

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ANN401 - as Trainer's
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return the weighted mean loss over supervised tokens, however they fall into batches.

        It leaves out the terms of ``loss``: a validation loss compares runs with different ones.
        """
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        mine = range(self.args.process_index, len(dataset), self.args.world_size)
        documents = [as_document(dataset[index]) for index in mine]
        model = self.model_wrapped

        def measure(batch: MicroBatch, **_: object) -> Tensor:
            count = torch.tensor(batch.inputs["labels"].numel(), device=self.args.device)
            size = count if batch.weights is None else batch.weights.sum()
            with self.compute_loss_context_manager():
                # With a divisor of 1 the loss is a sum; Trainer scales it by the processes.
                loss = self.compute_loss(model, batch.inputs, num_items_in_batch=1)
            return torch.stack([loss / self.args.world_size, size]).double()

        was_training = model.training
        model.train(False)
        with attending(self._base, self.layout), in_place(self._base, self._loss):
            total = self.summed(documents, measure)
        model.train(was_training)
        summed, count = self.accelerator.reduce(total).tolist()
        metrics = {f"{metric_key_prefix}_loss": summed / (count or 1)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @property
    def memory(self) -> dict[str, Any]:
        """What went through the model at once in the end, and every change made to save memory."""
        return {
            "tokens_per_micro_batch": self.tokens_per_micro_batch,
            "gradient_checkpointing": self._base.is_activation_checkpointing,
            "backed_off": self.backed_off,
        }

    def summed(self, documents: Sequence[Document], part: Callable[..., Tensor]) -> Tensor:
        """Sum ``part`` over micro-batches; if memory runs out, again over smaller ones."""
        device = self.args.device
        drawn = memory.generator_states(device)
        while True:
            batches = self._micro_batches(documents)
            parts: list[Tensor] = []
            self._loss.values = {}
            try:
                for batch in batches:
                    self._loss.documents, self._loss.weights = batch.documents, batch.weights
                    parts.append(part(batch, last=len(parts) == len(batches) - 1))
            except torch.OutOfMemoryError:
                failed = batches[len(parts)]
            else:
                return torch.stack(parts).sum(0)
            # Not in the handler: there, the traceback still holds the tensors that must go.
            del parts
            self._back_off(failed)
            self._base.zero_grad()
            clear_device_cache(garbage_collection=True)
            memory.set_generator_states(drawn, device)

    def _back_off(self, failed: MicroBatch) -> None:
        """Arrange for less memory than ``failed`` took.

        Raises:
            ModelError: nothing is left to try.
        """
        tokens, _ = size_of(failed.inputs)
        units = len(gathered(failed.documents, lambda document: document.group))
        step = self.state.global_step + 1
        checkpointing = self._base.is_activation_checkpointing
        less = "" if checkpointing else "--set finetune.gradient_checkpointing=true, "
        if self.args.parallel_mode == ParallelMode.DISTRIBUTED:
            # DDP and FSDP track what a step has exchanged, even with a single process.
            smaller = f"--tokens-per-micro-batch {tokens // 2}"
            if units == 1:  # one example by itself
                smaller = f"{less}{memory.more_devices()}or a smaller --window"
            raise ModelError(
                f"out of memory in step {step}, in a micro-batch of {tokens:,} tokens on process "
                f"{self.args.process_index}: launched processes cannot take a step again; go on "
                f"with the same command and {smaller}"
            )
        if units > 1:
            self.tokens_per_micro_batch = tokens // 2
            change: dict[str, int | bool] = {"tokens_per_micro_batch": tokens // 2}
            remedy = f"at most {tokens // 2:,} tokens at once"
        elif self.may_checkpoint and not checkpointing:
            self._base.activation_checkpointing_enable()
            change = {"gradient_checkpointing": True}
            remedy = "gradient checkpointing"
        else:
            raise ModelError(
                f"out of memory in step {step}: one example of {tokens:,} tokens does not fit by "
                f"itself; use {less}a smaller --window, or --method lora or qlora"
            )
        logger.warning(
            "step %d: no memory for %s tokens at once; it is taken again with %s",
            step,
            f"{tokens:,}",
            remedy,
        )
        self.backed_off.append({"step": step, **change})

    def _micro_batches(self, documents: Sequence[Document]) -> list[MicroBatch]:
        """Split this process's documents into micro-batches, all on the device.

        All before the first forward pass: to copy from the host, or to count supervised positions
        on the device, waits until the device is done, and it would idle before each micro-batch.
        Every process gets the same number of micro-batches: FSDP2 waits forever if one process
        runs a forward that another does not. What divides the loss is summed over processes here.
        """
        groups = self.layout.groups(documents, self.tokens_per_micro_batch) or [[]]
        tokens = sum(len(document.input_ids) for document in documents or [NOTHING])
        extra = sum(document.extra_weight for document in documents)
        sizes = [term.size(documents) for term in self._loss.terms]
        # In float64, which holds every count exactly.
        counts = torch.tensor([[len(groups), tokens, extra, *sizes]], dtype=torch.float64)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.to(self.args.device))
        self.step_tokens = int(counts[:, 1].sum())
        self._extra_weight = float(counts[:, 2].sum())
        self._loss.sizes = counts[:, 3:].sum(0).tolist()
        missing = int(counts[:, 0].max()) - len(groups)
        return [self._micro_batch(group) for group in groups + [[]] * missing]

    def _micro_batch(self, documents: list[Document]) -> MicroBatch:
        inputs = self._prepare_inputs(arguments(self.layout.build(documents or [NOTHING])))
        weights = shifted_weights(documents)
        if weights is not None:
            self._refuse_its_own_loss()
            weights = weights.to(self.args.device)
        return MicroBatch(inputs, documents, weights)

    def _cast_once(self) -> AbstractContextManager[None]:
        """Keep PEFT from casting each layer's input to an adapter's float32, and back at once.

        The numbers are the same, because every bfloat16 number is a float32 number; only dropout's
        gradients are scaled in bfloat16, as they always are with QLoRA. It saves time on the device
        and a copy of each linear layer's input until the backward pass.
        """
        model: Any = self.model
        if not hasattr(model, "peft_config") or self.accelerator.mixed_precision == "no":
            return nullcontext()
        from peft.helpers import disable_input_dtype_casting

        casting: AbstractContextManager[None] = disable_input_dtype_casting(model)
        return casting

    @property
    def _base(self) -> "PreTrainedModel":
        """The transformers model itself, under any adapter or wrapper."""
        model: Any = self.accelerator.unwrap_model(self.model)
        base: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model
        return base

    def _refuse_its_own_loss(self) -> None:
        """Refuse a model whose own loss function would ignore weights and terms.

        Raises:
            ModelError: its loss is not transformers' usual one.
        """
        if not self._has_usual_loss:
            raise ModelError(
                f"{type(self._base).__name__} computes a loss of its own, without the weights and "
                "terms of this objective; use --objective instruction-tuning, or another base"
            )
