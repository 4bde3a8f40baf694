"""Can responses be chosen without their instructions? Response tuning on what a judge keeps.

    rtune run recipes/neighbours/self-judge.yaml --out JUDGES
    python benchmarks/select_responses.py JUDGES OUT

The pool is four answers to each validation question of the seen families, of which 30 % are sound
and the others spoilt in form. Two judges of ``JUDGES`` keep 30 % of it: ``response``, which sees
the answer alone, and ``self-judge``, which sees the question too. Beside them: the answers that the
base finds likeliest under their questions, a random 30 %, the sound ones (an oracle), and the whole
pool. Response tuning on each is asked the test questions. A seed is one of the judge, of the random
choice and of the tuning.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning.miniature.judging import candidates

KEEP = 0.3
SEEDS = (0, 1, 2)
JUDGES = {"response": "response", "self-judge": "both"}
"""Variants of the recipe, and what they see."""
Rows = list[dict[str, Any]]


def pool() -> Iterator[dict[str, Any]]:
    """Yield the answers with their questions, and 1 where they are sound."""
    for _, answers in candidates("form", "seen", "validation"):
        for one in answers:
            yield {
                "instruction": one.instruction,
                "response": one.response,
                "good": float(one.good),
            }


def chosen(rows: Rows, judged: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """Return what each way to choose keeps; ``judged`` has the rows with grades, by judge."""
    count = round(KEEP * len(rows))
    kept = {name: best(found, "grade", count) for name, found in judged.items()}
    return kept | {
        "likelihood": best(judged["self-judge"], "likelihood", count),
        "random": random.Random(f"pool {seed}").sample(rows, count),
        "oracle": [row for row in rows if row["good"]],
        "all": rows,
    }


def best(rows: Rows, column: str, count: int) -> Rows:
    """Return the rows with the highest values, in their order."""
    places = sorted(range(len(rows)), key=lambda place: -rows[place][column])[:count]
    return [rows[place] for place in sorted(places)]


def recipe(files: Mapping[str, Path], seed: int) -> dict[str, Any]:
    """Return the recipe that tunes on each file: the demo's settings, and as many steps."""
    return {
        "seeds": [seed],
        "threads": 1,
        "finetune": {
            "base_model": "miniature",
            "objective": "response-tuning",
            "device": "cpu",
            "method": "full",
            "template": "roles",
            "learning_rate": 8e-4,
            "scheduler": "linear",
            "warmup_steps": 4,
            "max_steps": 32,
            "examples_per_step": 32,
            "window": 128,
            "tokens_per_micro_batch": 2048,
            "save_steps": 1000,
        },
        "generate": {"max_new_tokens": 48},
        "benchmarks": ["miniature-seen", "miniature-unseen"],
        "grade": {"limit": 140},
        "variants": {
            name: {"data": {"source": str(path), "response_column": "response"}}
            for name, path in files.items()
        },
        "report": {"baselines": ["random"]},
    }


def rtune(*words: object) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "response_tuning", *map(str, words)], check=True)


def run(judges: Path, out: Path, seed: int) -> dict[str, Any]:
    """Choose, tune and ask with one seed; return the figures by way to choose."""
    rows, folder = list(pool()), (out / f"seed-{seed}").resolve()
    answers = folder / "pool.jsonl"
    write(answers, rows)
    judged = {}
    for variant, sees in JUDGES.items():
        model, found = judges / variant / f"seed-{seed}" / "finetune", folder / variant
        flags = ["--form", "brief", "--sees", sees, "--device", "cpu"]
        flags += ["--likelihood", "miniature", "--likelihood-template", "roles"]
        rtune("best-of", answers, "--model", model, *flags, "--out", found)
        judged[variant] = read(found / "judged.jsonl")
    kept = chosen(rows, judged, seed)
    for name, of_name in kept.items():
        write(folder / f"{name}.jsonl", of_name)
    files = {name: folder / f"{name}.jsonl" for name in kept}
    plan = folder / "recipe.yaml"
    plan.write_text(json.dumps(recipe(files, seed)))  # YAML reads JSON
    rtune("run", plan, "--out", folder / "run")
    return {
        name: {
            "responses": len(of_name),
            "sound": sum(row["good"] for row in of_name) / len(of_name),
            **{
                bench: strict(folder / f"run/{name}/seed-{seed}/grade/miniature-{bench}.jsonl")
                for bench in ("seen", "unseen")
            },
        }
        for name, of_name in kept.items()
    }


def strict(scores: Path) -> float:
    """Return the mean of the metric ``strict``."""
    values = [row["value"] for row in read(scores) if row["metric"] == "strict"]
    return float(sum(values) / len(values))


def read(path: Path) -> Rows:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table, a number a seed."""
    yield "| chosen by | responses | sound, % | strict, seen | strict, unseen |"
    yield "|---|--:|--:|--:|--:|"
    for name in found[0]:
        cells = [
            ", ".join(f"{100 * one[name][key]:.1f}" for one in found)
            for key in ("sound", "seen", "unseen")
        ]
        yield f"| {name} | {found[0][name]['responses']} | {' | '.join(cells)} |"


def main() -> None:
    """Run every seed and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("judges", type=Path, help="the folder of the run that trained the judges")
    parser.add_argument("out", type=Path, help="write pools, choices and runs here")
    arguments = parser.parse_args()
    found = [run(arguments.judges, arguments.out, seed) for seed in SEEDS]
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
