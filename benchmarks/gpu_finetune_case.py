"""One measurement of ``gpu_finetune.py``, in this process: a system tunes one model for a while.

    python benchmarks/gpu_finetune_case.py JOB

JOB is a JSON file: what to do, replaced by what was measured. Weights are random and made on the
device; speed does not depend on them. Documents are random tokens of real lengths.
"""

import importlib.util
import json
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lengths import draw

Job = dict[str, Any]
Documents = list[dict[str, list[int]]]
"""Items with ``input_ids`` and ``labels``."""

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.1-8b": (
        "LlamaConfig",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
        },
    ),
    "gemma-2-2b": (
        "Gemma2Config",
        {
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    ),
    "qwen-2.5-0.5b": (
        "Qwen2Config",
        {
            "vocab_size": 151_936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": True,
        },
    ),
}
TOY = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
ROWS = 8
"""Of a padded micro-batch: TRL's default, and the paper's."""
PACKED_TOKENS = {True: 16_384, False: 4096}
"""At once in TRL's best settings, with and without flash attention; fewer where memory runs out."""
WARM_UP = 2
"""Steps before the clock starts."""


def documents(job: Job, vocabulary: int) -> Documents:
    """Return enough examples for 20 steps, in tokens drawn at random."""
    lots = random.Random(0)
    found = []
    for tokens, supervised in draw(job["data"], job["window"], 20 * job["examples"]):
        ids = lots.choices(range(3, vocabulary), k=tokens)
        found.append(
            {"input_ids": ids, "labels": [-100] * (tokens - supervised) + ids[-supervised:]}
        )
    return found


def new_model(job: Job, folder: Path) -> Any:  # noqa: ANN401
    """Return the model with random weights, made where they will be; ``folder`` has its shape."""
    import torch
    import transformers

    kind, values = SHAPES[job["model"]]
    shape = getattr(transformers, kind)(**values | (TOY if job["toy"] else {}))
    shape.save_pretrained(folder)
    flash = has_flash() and job["system"] == "trl-best"
    torch.manual_seed(0)
    with torch.device(device()):
        return transformers.AutoModelForCausalLM.from_config(
            shape,
            dtype=torch.bfloat16 if on_gpu() else torch.float32,
            attn_implementation="flash_attention_2" if flash else None,
        )


def rtune(model: Any, job: Job, data: Documents, common: Job) -> Any:  # noqa: ANN401
    """Build this package's trainer, with what its own choice puts through the model at once."""
    import torch
    from peft import get_peft_model
    from transformers import TrainingArguments

    from response_tuning import ResponseTrainer
    from response_tuning.configs import FinetuneConfig
    from response_tuning.finetune import memory

    adapter = lora(job)
    if adapter is not None:
        model = get_peft_model(model, adapter)
    config = FinetuneConfig(
        base_model=job["folder"],
        method=job["method"],
        lora_r=job["rank"],
        lora_dropout=job["dropout"],
        optimizer=common["optim"],
        precision="bfloat16" if on_gpu() else "float32",
    )
    lengths = [len(one["input_ids"]) for one in data]
    carrying = sum(label >= 0 for one in data for label in one["labels"])
    longest = max(lengths)
    load = memory.Load(longest, longest * job["examples"], carrying / sum(lengths))
    free = None
    if on_gpu():
        # The model is there already, in bfloat16 whatever the method: what is left to come is
        # gradients, and the moments of an adapter. The choice takes off what a run would have.
        trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        to_come = trained * (3 if adapter is not None else 1)
        state = memory.state_bytes(config, memory.measure(config))
        free = int(torch.cuda.mem_get_info()[0] - to_come + state)
    fit = memory.fit(config, load, free)
    print(fit.reason, file=sys.stderr)
    trainer = ResponseTrainer(
        model,
        TrainingArguments(**common, activation_checkpointing=fit.checkpointing),
        train_dataset=data,
        examples_per_step=job["examples"],
        tokens_per_micro_batch=fit.tokens,
    )
    trainer.may_checkpoint = True
    return trainer


def trl_default(model: Any, job: Job, data: Documents, common: Job) -> Any:  # noqa: ANN401
    """Build TRL's trainer as it comes, on 8 padded rows at once."""
    accumulated = math.ceil(job["examples"] / ROWS)
    rows = {"per_device_train_batch_size": ROWS, "gradient_accumulation_steps": accumulated}
    return trl(model, job, data, common | rows)


def trl_best(model: Any, job: Job, data: Documents, common: Job) -> Any:  # noqa: ANN401
    """Build TRL's trainer on best-fit packed rows without padding, keeping activations."""
    rows = 2 if job["toy"] else max(PACKED_TOKENS[has_flash()] // job["window"], 1)
    step = sum(len(one["input_ids"]) for one in data) / len(data) * job["examples"]
    best = {
        "packing": True,
        "gradient_checkpointing": False,
        "auto_find_batch_size": True,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": max(round(step / (rows * job["window"])), 1),
    }
    return trl(model, job, data, common | best)


def trl(model: Any, job: Job, data: Documents, settings: Job) -> Any:  # noqa: ANN401
    """Build TRL's trainer on examples that are tokenized and labelled."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="</s>"))
    return SFTTrainer(
        model,
        SFTConfig(**settings, max_length=job["window"]),
        train_dataset=Dataset.from_list(data),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, eos_token="</s>", pad_token="<pad>"
        ),
        peft_config=lora(job),
    )


SYSTEMS: dict[str, Callable[[Any, Job, Documents, Job], Any]] = {
    "rtune": rtune,
    "trl-default": trl_default,
    "trl-best": trl_best,
}


def lora(job: Job) -> Any:  # noqa: ANN401
    """Return the adapter, or None for full tuning."""
    from peft import LoraConfig

    if job["method"] == "full":
        return None
    settings = {"r": job["rank"], "lora_alpha": 16, "lora_dropout": job["dropout"]}
    return LoraConfig(**settings, target_modules="all-linear", task_type="CAUSAL_LM")


def has_flash() -> bool:
    """Whether transformers' flash attention can be had."""
    return on_gpu() and importlib.util.find_spec("flash_attn") is not None


def on_gpu() -> bool:
    """Whether there is one."""
    import torch

    return torch.cuda.is_available()


def device() -> str:
    """Return where the model is."""
    return "cuda" if on_gpu() else "cpu"


def clock(trainer: Any, seconds: float) -> Any:  # noqa: ANN401
    """Return a callback that counts tokens, warms up, and stops the run after ``seconds``.

    Tokens are summed on the device, so that counting waits for nothing.
    """
    import torch
    from transformers import TrainerCallback

    take = trainer.training_step

    class Clock(TrainerCallback):
        """Keeps what it reads."""

        began = elapsed = 0.0
        steps = 0
        tokens: list[Any]
        supervised: list[Any]

        def on_train_begin(self, *_: object, **__: object) -> None:
            """Start with nothing, also where TRL starts again with a smaller batch."""
            self.steps, self.tokens, self.supervised = 0, [], []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401
            """Read the clock when the device is done."""
            if on_gpu():
                torch.cuda.synchronize()
            self.steps += 1
            now = time.perf_counter()
            if self.steps == WARM_UP:
                if on_gpu():
                    torch.cuda.reset_peak_memory_stats()
                self.began, self.tokens, self.supervised = now, [], []
            self.elapsed = now - self.began
            control.should_training_stop = self.steps > WARM_UP and self.elapsed >= seconds

    found = Clock()

    def counted(model: Any, inputs: Job, *rest: object) -> Any:  # noqa: ANN401
        # Padding is 0, which no example has; packed rows are filled up with it to a round number.
        found.tokens.append((inputs["input_ids"] != 0).sum())
        found.supervised.append((inputs["labels"] != -100).sum())
        return take(model, inputs, *rest)

    trainer.training_step = counted
    return found


def measure(job: Job) -> Job:
    """Tune until the time is over; return tokens, seconds, parameters and peak memory."""
    import torch
    from transformers import PrinterCallback

    folder = Path(job["folder"])
    model = new_model(job, folder)
    parameters = sum(p.numel() for p in model.parameters())
    common = {
        "output_dir": str(folder / "out"),
        "max_steps": 10_000,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        # Adafactor keeps a row and a column for each matrix where AdamW keeps two of its size.
        "optim": "adafactor" if job["method"] == "full" else "adamw_torch_fused",
        "bf16": on_gpu(),
        "use_cpu": not on_gpu(),
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    data = documents(job, model.config.vocab_size)
    trainer = SYSTEMS[job["system"]](model, job, data, common)
    trainer.remove_callback(PrinterCallback)
    read = clock(trainer, job["seconds"])
    trainer.add_callback(read)
    trainer.train()
    result = {
        "seconds": read.elapsed,
        "steps": read.steps - WARM_UP,
        "tokens": int(sum(read.tokens)),
        "supervised_tokens": int(sum(read.supervised)),
        "parameters": parameters,
        "device": torch.cuda.get_device_name() if on_gpu() else "cpu",
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu() else 0.0,
    }
    if job["system"] != "rtune":
        return result
    return result | trainer.memory | {"layout": trainer.layout.name}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(
        json.dumps(measure(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8"
    )
