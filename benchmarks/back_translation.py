"""How many prompts must be right before prompts that were written afterwards beat none?

    python benchmarks/back_translation.py FOLDER

Whoever has finished texts without prompts can tune on the texts alone, or have a model write the
prompts (back-translation, arXiv 2308.06259) and tune on pairs. This leaves in FOLDER the shipped
miniature's 2,700 responses with prompts of which 100, 90, 75, 50, 25 and 0 % belong to their
responses (the others are prompts of other responses), with prompts that a rule wrote from the
responses alone, and a recipe that tunes on each of them, and on the responses without any. It
prints the command that runs the recipe.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from response_tuning.artifacts import Example, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.workflows.data import run_data

RIGHT = (100, 90, 75, 50, 25, 0)
"""Percent of the prompts that belong to their responses."""
NAME = re.compile(r"(?<=\s)[A-Z]\w+|\d+")
"""A name, which is not the first word of a sentence, or a number."""
RT = "rt"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files and the recipe."""
    parser = argparse.ArgumentParser(description="Write data and a recipe on written prompts.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    run_data(DataConfig(source="miniature"), folder / "miniature")
    pairs = [
        (one.instruction or "", one.response)
        for one in read_jsonl(folder / "miniature" / "examples.jsonl", Example)
    ]
    prompts = {f"it-{share}": with_right(pairs, share / 100) for share in RIGHT}
    prompts["it-rule"] = [by_rule(response) for _, response in pairs]
    files = {name: (folder / f"{name}.jsonl").resolve() for name in prompts}
    for name, written in prompts.items():
        lines = (
            json.dumps({"instruction": prompt, "response": response}) + "\n"
            for (_, response), prompt in zip(pairs, written, strict=True)
        )
        files[name].write_text("".join(lines), encoding="utf-8")
    target = folder / "run.yaml"
    target.write_text(yaml.safe_dump(recipe(files), sort_keys=False), encoding="utf-8")
    print(f"rtune run {target} --out {folder / 'run'}")


def with_right(pairs: Sequence[tuple[str, str]], share: float) -> list[str]:
    """Return a prompt for each pair: its own for ``share`` of them, another one's for the rest.

    The sets are nested: what is right at one share is right at every larger one.
    """
    order = [*range(len(pairs))]
    Random(0).shuffle(order)
    wrong = order[round(share * len(pairs)) :]
    written = [prompt for prompt, _ in pairs]
    for place, other in zip(wrong, [*wrong[1:], *wrong[:1]], strict=True):
        written[place] = pairs[other][0]
    return written


def by_rule(response: str) -> str:
    """Return a prompt that needs no model: it names the last name, number or word."""
    found = NAME.findall(response) or re.findall(r"\w+", response)
    return f"Tell me about {found[-1]}."


def recipe(files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the recipe: the demo's base and settings, an arm for each file, and one without."""
    paired = {
        name: {"data": {"source": str(path)}, "finetune": {"objective": "instruction-tuning"}}
        for name, path in files.items()
    }
    alone = {
        "data": {"source": str(files["it-100"])},
        "finetune": {"objective": "response-tuning"},
    }
    return {
        "seeds": [0, 1, 2],
        "threads": 1,
        "data": {"max_examples": 1000},
        "finetune": {
            "base_model": "miniature",
            "device": "cpu",
            "method": "full",
            "template": "roles",
            "learning_rate": 4e-4,
            "scheduler": "linear",
            "warmup_steps": 4,
            "epochs": 1,
            "examples_per_step": 32,
            "window": 128,
            "tokens_per_micro_batch": 2048,
            "save_steps": 1000,
        },
        "generate": {"max_new_tokens": 48},
        "benchmarks": ["miniature-seen", "miniature-unseen", "miniature-orders"],
        "variants": {RT: alone, **paired},
        "report": {
            "baselines": [RT],
            "primary": [{"variant": name, "baseline": RT, "metric": "strict"} for name in paired],
        },
    }


if __name__ == "__main__":
    main()
