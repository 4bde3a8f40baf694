"""Response tuning inside your own training script: masks and steps come from this package.

    python examples/own_script.py BASE_MODEL ANSWERS.jsonl OUT
    torchrun --nproc-per-node 2 examples/own_script.py BASE_MODEL ANSWERS.jsonl OUT

ANSWERS.jsonl has one object a line with a "response". Everything else is plain transformers.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from response_tuning import Chat, Documents, Encoder, Example, ResponseTrainer, install

base, answers, out = sys.argv[1:]

tokenizer = AutoTokenizer.from_pretrained(base)
install(tokenizer, "tulu")

lines = Path(answers).read_text(encoding="utf-8").rstrip("\n").split("\n")
examples = [
    Example(row=number, response=json.loads(line)["response"]) for number, line in enumerate(lines)
]
encoder = Encoder(Chat(tokenizer), "response-tuning", window=512)
rows = [row for row in encoder.rows(examples) if row.trained]

trainer = ResponseTrainer(
    AutoModelForCausalLM.from_pretrained(base),
    TrainingArguments(
        output_dir=out,
        per_device_train_batch_size=8,
        max_steps=10,
        learning_rate=1e-4,
        logging_steps=5,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),  # or torchrun on CPUs has no process group
    ),
    train_dataset=Documents((row.input_ids, row.labels) for row in rows),
)
trainer.train()
trainer.save_model(out)
if trainer.is_world_process_zero():
    tokenizer.save_pretrained(out)
    print(
        f"{len(rows)} answers, {trainer.state.global_step} steps, "
        f"{trainer.layout.name} micro-batches"
    )
