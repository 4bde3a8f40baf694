"""One measurement of ``finetune_cpu.py``: a system takes a step some times.

A job's documents are the examples of the step, tokenized and labelled; every system's epoch is that
one step.
"""

import json
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Documents = list[dict[str, list[int]]]
"""Items with ``input_ids`` and ``labels``."""


def rtune(model: Any, job: Result, common: Result) -> Any:  # noqa: ANN401
    """Build this package's trainer."""
    from transformers import TrainingArguments

    from response_tuning import ResponseTrainer
    from response_tuning.configs import FinetuneConfig

    optimizer = FinetuneConfig.model_fields["optimizer"].default
    return ResponseTrainer(
        model,
        TrainingArguments(**common, optim=optimizer),
        train_dataset=job["documents"],
        examples_per_step=len(job["documents"]),
        tokens_per_micro_batch=job["tokens"],
    )


def reference(model: Any, job: Result, common: Result) -> Any:  # noqa: ANN401
    """Build the stock trainer on padded rows."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    return Trainer(
        model,
        TrainingArguments(**common, **padded(job)),
        train_dataset=job["documents"],
        data_collator=DataCollatorForSeq2Seq(job["tokenizer"]),
    )


def trl_padded(model: Any, job: Result, common: Result) -> Any:  # noqa: ANN401
    """Build TRL's trainer on padded rows."""
    return trl(model, job, common | padded(job))


def trl_packed(model: Any, job: Result, common: Result) -> Any:  # noqa: ANN401
    """Build TRL's trainer on packed rows; one step is all of them."""
    from datasets import Dataset
    from trl import pack_dataset

    rows = len(pack_dataset(Dataset.from_list(job["documents"]), job["tokens"], "bfd"))
    accumulated = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": rows}
    return trl(model, job, common | accumulated | {"packing": True})


def trl(model: Any, job: Result, settings: Result) -> Any:  # noqa: ANN401
    """Build TRL's trainer."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    own = {"max_length": job["tokens"], "gradient_checkpointing": False}
    return SFTTrainer(
        model,
        SFTConfig(**settings, **own),
        train_dataset=Dataset.from_list(job["documents"]),
        processing_class=job["tokenizer"],
    )


SYSTEMS: dict[str, Callable[[Any, Result, Result], Any]] = {
    "rtune": rtune,
    "trl-packed": trl_packed,
    "trl-padded": trl_padded,
    "reference": reference,
}


def padded(job: Result) -> Result:
    """Return the arguments that make one step of all documents, some rows at once."""
    accumulated = math.ceil(len(job["documents"]) / job["rows"])
    return {"per_device_train_batch_size": job["rows"], "gradient_accumulation_steps": accumulated}


def tokenizer(job: Result) -> Any:  # noqa: ANN401
    """Return the base's tokenizer, with EOS for padding: it is masked, so any token will do."""
    from response_tuning.finetune import base

    found = base.load_tokenizer(config(job))
    found.pad_token = found.eos_token
    return found


def config(job: Result) -> Any:  # noqa: ANN401
    """Return what is tuned, and how."""
    from response_tuning.configs import FinetuneConfig

    return FinetuneConfig.model_validate(job["config"])


def loaded(job: Result) -> Any:  # noqa: ANN401
    """Return the model, under its adapter if it gets one; the same for every system."""
    from response_tuning.finetune import base

    model = base.load_model(config(job))
    return model if config(job).method == "full" else base.with_adapter(model, config(job))


def measure(job: Result) -> Result:
    """Train; return each timed step's seconds, every step's loss, and the peak memory."""
    from transformers import PrinterCallback

    # Each system's process holds the tokenizer, as each run does; TRL asks for it.
    job["tokenizer"] = tokenizer(job)
    model = loaded(job)
    common = {
        "output_dir": job["folder"],
        "num_train_epochs": 1 + job["steps"],
        "learning_rate": 2e-5,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer = SYSTEMS[job["system"]](model, job, common)
    trainer.remove_callback(PrinterCallback)
    clock = step_clock(trainer, job)
    trainer.add_callback(clock)
    trainer.train()
    return {
        "seconds": clock.seconds,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_rss_mb": clock.peak,
        "gemm_fraction": clock.fractions,
        "tokens": sum(lengths(job["documents"])),
        "supervised_tokens": supervised(job["documents"]),
    }


def step_clock(trainer: Any, job: Result) -> Any:  # noqa: ANN401
    """Return a callback that times steps, from the end of one to the end of the next.

    With ``rtune`` the yardstick goes between them; the peak is read before it first does.
    """
    from transformers import TrainerCallback

    now = time.process_time if job["clock"] == "cpu" else time.perf_counter

    class Clock(TrainerCallback):
        """Keeps what it reads."""

        seconds: list[float]
        fractions: list[float]
        peak = began = 0.0

        def on_train_begin(self, *_: object, **__: object) -> None:
            """Start with nothing."""
            self.seconds, self.fractions = [], []

        def on_step_end(self, args: Any, state: Any, *_: object, **__: object) -> None:  # noqa: ANN401
            """Read the clock; the first step warms up."""
            if state.global_step > 1:
                self.seconds.append(now() - self.began)
                self.peak = self.peak or peak()
                if job["system"] == "rtune":
                    rate = work(trainer.model, job["documents"]) / self.seconds[-1]
                    self.fractions.append(rate / yardstick(trainer, job["documents"], now))
            self.began = now()

    return Clock()


def peak() -> float:
    """Return the largest resident set of this process so far, in MB of 2**20 bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (2**20 if sys.platform == "darwin" else 2**10)


def lengths(documents: Documents) -> list[int]:
    """Return the tokens of each document."""
    return [len(one["input_ids"]) for one in documents]


def supervised(documents: Documents) -> int:
    """Return the number of tokens that carry loss."""
    return sum(label >= 0 for one in documents for label in one["labels"])


def work(model: Any, documents: Documents) -> float:  # noqa: ANN401
    """Return the FLOPs that a step needs: products and causal attention, with their gradients.

    A product of n rows costs 2 x n x inputs x outputs, and that thrice: the result, and the
    gradients of both factors; twice, where the weight is frozen. Attention is two products over
    half the square of a document.
    """
    shape = model.config
    width = shape.num_attention_heads * shape.head_dim
    squares = sum(length**2 for length in lengths(documents))
    shapes = products(model, sum(lengths(documents)), supervised(documents))
    linear = sum(2 * times * count * math.prod(one) for (*one, times), count in shapes.items())
    return float(linear + 6 * shape.num_hidden_layers * width * squares)


def products(model: Any, tokens: int, scored: int) -> Counter[tuple[int, int, int, int]]:  # noqa: ANN401
    """Count the model's matrix products: (rows, inputs, outputs, how often with gradients)."""
    from torch import nn

    head = model.get_output_embeddings()
    return Counter(
        (
            scored if layer is head else tokens,
            layer.in_features,
            layer.out_features,
            3 if layer.weight.requires_grad else 2,
        )
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    )


def yardstick(trainer: Any, documents: Documents, now: Callable[[], float]) -> float:  # noqa: ANN401
    """Return the FLOP/s of bare matrix products, of the shapes of the mean micro-batch."""
    import torch

    parts = len(
        trainer.layout.pack([[n] for n in lengths(documents)], trainer.tokens_per_micro_batch)
    )
    tokens, scored = sum(lengths(documents)) // parts, supervised(documents) // parts
    flops = seconds = 0.0
    shapes = products(trainer.model, tokens, scored)
    for (rows, inputs, outputs, times), count in shapes.items():
        x, weight, y = (
            torch.ones(size) for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        began = now()
        torch.mm(x, weight.T, out=y)
        torch.mm(y, weight, out=x)
        if times == 3:
            torch.mm(y.T, x, out=weight)
        seconds += count * (now() - began)
        flops += 2 * times * count * rows * inputs * outputs
    return flops / seconds


def run(path: Path) -> None:
    """Do the job of the JSON file at ``path``, and put what was measured in its place."""
    job = json.loads(path.read_text(encoding="utf-8"))
    job |= json.loads(Path(job["step"]).read_text(encoding="utf-8"))
    path.write_text(json.dumps(measure(job)), encoding="utf-8")
