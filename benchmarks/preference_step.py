"""What a step of a preference or mixture loss takes on a CPU, beside a plain step and TRL's DPO.

``PYTHONPATH=PEERS python benchmarks/preference_step.py`` prints CPU seconds of the fastest of some
steps on the same documents: 16 pairs of 20 to 200 tokens on the shipped miniature, float32, one
thread. Systems take turns, so that a change of the machine's speed meets all of them.

- ``plain``: cross-entropy of all documents, which is what every other row is divided by;
- ``dpo``: the preference loss. The pass that computes the reference of each pair is apart: what
  comes before the first step, less what does without a reference;
- ``sftmix``: cross-entropy and mixtures;
- ``trl``: TRL's ``DPOTrainer`` on the same token ids, its reference precomputed; without TRL, left
  out.

Judges have documents of their own, 32 prompts that each end in a digit and the stop token:
``plain-judge`` is the cross-entropy of these, and what ``self-judge``, the loss with two branches,
is divided by.
"""

import argparse
import importlib.util
import random
import tempfile
import time
from typing import Any

import torch

PAIRS, STEPS, ROUNDS = 16, 3, 3
VOCABULARY = 384


def main() -> None:
    """Measure every system in turns, and print its fastest step."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, help="Measure these alone.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = [name for name in SYSTEMS if name != "trl" or importlib.util.find_spec("trl")]
    names = given.only or every
    fastest = dict.fromkeys(names, float("inf"))
    before = dict.fromkeys(names, float("inf"))
    for _ in range(given.rounds):
        for name in names:
            seconds, until_first = measured(name)
            fastest[name] = min(fastest[name], seconds)
            before[name] = min(before[name], until_first)
    print("CPU seconds of the fastest step, over plain")
    for name, seconds in fastest.items():
        of_judges = name.endswith("judge")
        tokens = sum(len(document.input_ids) for document in documents(of_judges))
        plain = fastest.get("plain-judge" if of_judges else "plain", float("nan"))
        print(f"{name:>11}  {tokens:,} tokens  {seconds:.3f}  {seconds / plain:.2f}")
    if "plain" in fastest:
        for name in [name for name in REFERENCED if name in before]:
            seconds = before[name] - before["plain"]
            print(f"the reference of {name}, of each pair once: {seconds:.3f}")


def documents(of_judges: bool = False) -> Any:  # noqa: ANN401 - a list that knows its pairs
    """Return the documents, pair after pair: prompts of 5 to 40 tokens, and long answers.

    Those ``of_judges`` have prompts of 30 to 80 tokens, a digit and a stop token.
    """
    from response_tuning.finetune.objectives import IGNORED
    from response_tuning.finetune.steps import Document

    class Pairs(list[Any]):
        def __init__(self) -> None:
            self.units = [[2 * place, 2 * place + 1] for place in range(PAIRS)]

    draw = random.Random(0)
    found = Pairs()
    for _ in range(PAIRS):
        asked = draw.randrange(30, 80) if of_judges else draw.randrange(5, 40)
        prompt = [draw.randrange(3, VOCABULARY) for _ in range(asked)]
        for _ in range(2):
            length = 2 if of_judges else draw.randrange(20, 160)
            answer = [draw.randrange(3, VOCABULARY) for _ in range(length)]
            found.append(Document(prompt + answer, [IGNORED] * len(prompt) + answer))
    return found


def measured(name: str) -> tuple[float, float]:
    """Return the CPU seconds of the fastest step, and of what comes before the first."""
    from transformers import AutoModelForCausalLM, TrainerCallback

    from response_tuning.miniature import BASE

    class Clock(TrainerCallback):
        """Reads the CPU clock around each step."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = self.before = 0.0

        def on_step_begin(self, *_: object, **__: object) -> None:
            """Start the clock of a step."""
            self.before = self.before or time.process_time() - started
            self.began = time.process_time()

        def on_step_end(self, *_: object, **__: object) -> None:
            """Stop it."""
            self.seconds.append(time.process_time() - self.began)

    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        trainer = SYSTEMS[name](model, folder)
        trainer.add_callback(clock)
        trainer.train()
    return min(clock.seconds), clock.before


def arguments(folder: str) -> dict[str, Any]:
    """Return what every trainer is given."""
    return {
        "output_dir": folder,
        "max_steps": STEPS,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def ours(
    model: Any,  # noqa: ANN401
    folder: str,
    loss: Any = None,  # noqa: ANN401
    of_judges: bool = False,
) -> Any:  # noqa: ANN401
    """Return this package's trainer; without a loss, of the tokens' cross-entropy."""
    from transformers import TrainingArguments

    from response_tuning import ResponseTrainer

    data = documents(of_judges)
    return ResponseTrainer(
        model,
        TrainingArguments(**arguments(folder)),
        train_dataset=data,
        examples_per_step=len(data),
        tokens_per_micro_batch=2048,
        loss=loss,
    )


def dpo(model: Any, folder: str) -> Any:  # noqa: ANN401
    """Return our trainer with the preference loss."""
    from response_tuning.finetune.preference_loss import preference_loss

    return ours(model, folder, preference_loss(0.1))


def sftmix(model: Any, folder: str) -> Any:  # noqa: ANN401
    """Return our trainer with mixtures."""
    from response_tuning.finetune.mixup_loss import mixup_loss, split_partners

    count = 2 * PAIRS
    partners = split_partners([float(n) for n in range(count)], [1] * count, "confidence", 0)
    return ours(model, folder, mixup_loss(0.2, 0.5, partners))


def plain_judge(model: Any, folder: str) -> Any:  # noqa: ANN401
    """Return our trainer of digits, with cross-entropy alone."""
    return ours(model, folder, of_judges=True)


def self_judge(model: Any, folder: str) -> Any:  # noqa: ANN401
    """Return our trainer with the loss of judges."""
    from response_tuning.finetune.judge_loss import judge_loss

    return ours(model, folder, judge_loss(1.0, 0.3, 2.0), of_judges=True)


def trl(model: Any, folder: str) -> Any:  # noqa: ANN401
    """Return TRL's trainer, which is handed our token ids in place of what it makes of a text."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from response_tuning.miniature import BASE

    rows = []
    every = documents()
    for chosen, rejected in zip(every[::2], every[1::2], strict=True):
        start = chosen.labels.count(-100)
        rows.append(
            {
                "prompt_ids": chosen.input_ids[:start],
                "chosen_ids": chosen.input_ids[start:],
                "rejected_ids": rejected.input_ids[start:],
            }
        )

    class Given(DPOTrainer):  # type: ignore[misc]
        """Takes token ids."""

        def _prepare_dataset(self, dataset: Any, *_: object, **__: object) -> Any:  # noqa: ANN401
            return dataset

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.pad_token = tokenizer.eos_token
    own = {"per_device_train_batch_size": PAIRS, "gradient_checkpointing": False}
    return Given(
        model,
        ref_model=AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32),
        args=DPOConfig(**arguments(folder), **own, max_length=None, precompute_ref_log_probs=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


REFERENCED = ("dpo", "trl")
SYSTEMS = {
    "plain": ours,
    "dpo": dpo,
    "sftmix": sftmix,
    "trl": trl,
    "plain-judge": plain_judge,
    "self-judge": self_judge,
}

if __name__ == "__main__":
    main()
