"""Does memory grow with the number of responses, and what does all of it cost beside tokenizing?

    python benchmarks/data_size.py --rows 100000 1000000 --tokenizer FOLDER --data FOLDER

Rows are made of Alpaca, Dolly and LIMA (``--data`` holds ``alpaca/alpaca_5000.json``,
``alpaca/alpaca_random_9k.json``, ``dolly/dolly_filtered.json`` and ``lima/lima_train.jsonl``),
repeated with three words of each response replaced; one in twenty is an exact repetition. Every
stage of every size is a process of its own, whose largest resident set is read at its end. The
yardstick is ``Tokenizer.encode_batch_fast`` on the same texts: inside the encoding stage, each
chunk is first given to a tokenizer of the yardstick's own, which does nothing else with it.

Last comes how evenly a step's tokens lie on several processes, for these rows and for LIMA alone,
whose lengths ``lengths.json`` keeps.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from table import Row, write

FILES = (
    "alpaca/alpaca_5000.json",
    "alpaca/alpaca_random_9k.json",
    "dolly/dolly_filtered.json",
    "lima/lima_train.jsonl",
)
REPEATED = 0.05
STEP = 64
"""Examples of an optimizer step, as in the paper."""
WORLDS = (2, 4, 8)
"""Numbers of processes that share a step."""
WINDOW = 2048

Result = dict[str, Any]


def pairs(data: Path) -> Iterator[tuple[str, str]]:
    """Yield (instruction, response) of the public files."""
    for name in FILES:
        text = (data / name).read_text(encoding="utf-8")
        if name.endswith(".jsonl"):
            for line in text.rstrip("\n").split("\n"):
                asked, said, *_ = json.loads(line)["messages"]
                yield asked["content"], said["content"]
        else:
            for row in json.loads(text):
                parts = (row["instruction"], row["input"])
                yield "\n\n".join(part for part in parts if part), row["output"]


def build(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Write the input file."""
    lots = random.Random(0)
    found = list(pairs(Path(arguments.data)))
    words = " ".join(response for _, response in found).split()
    with (folder / "input.jsonl").open("w", encoding="utf-8") as out:
        for number in range(rows):
            asked, said = found[number % len(found)]
            if number >= len(found) and lots.random() >= REPEATED:
                changed = said.split(" ")
                for _ in range(3):
                    changed[lots.randrange(len(changed))] = lots.choice(words)
                said = " ".join(changed)
            line = {"instruction": asked, "response": said}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    return {"bytes": (folder / "input.jsonl").stat().st_size}


def prepare(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Run the data stage: reading, exact duplicates, writing."""
    from response_tuning.configs import DataConfig
    from response_tuning.workflows.data import run_data

    run_data(DataConfig(source=str(folder / "input.jsonl")), folder / "data")
    return {"examples": json.loads((folder / "data" / "audit.json").read_text())["examples"]}


def encode(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Encode everything, with the yardstick in between; its time is not counted.

    ``setup_cpu`` is part of the time, and does not grow: the tokenizer is read once more.
    """
    from response_tuning.configs import FinetuneConfig
    from response_tuning.finetune import base, dataset, store
    from response_tuning.finetune.encoding import CHUNK, Encoder
    from response_tuning.finetune.example_file import ExampleFile
    from response_tuning.templates import Chat
    from response_tuning.templates.continuation import continuation_tokenizer

    config = FinetuneConfig(
        base_model=arguments.tokenizer, objective=arguments.objective, window=WINDOW
    )
    chat = Chat(base.load_tokenizer(config))
    yardstick = continuation_tokenizer(chat.tokenizer)
    away, raw, setup = Watch(), Watch(), Watch()
    with setup:
        encoder = Encoder(chat, arguments.objective, config.window)

    class Interrupted(ExampleFile):
        """Lets the yardstick go first with every chunk."""

        def __iter__(self) -> Iterator[Any]:
            examples = super().__iter__()
            while chunk := list(islice(examples, CHUNK)):
                with away:
                    texts = [example.response for example in chunk]
                    arms = [
                        encoder.arms(example, partial(chunk.__getitem__, place - 1))
                        for place, example in enumerate(chunk)
                    ]
                    texts += dict.fromkeys(
                        piece.text
                        for found in arms
                        if isinstance(found, list)
                        for piece in found[0]
                        if piece.rendered
                    )
                    with raw:
                        yardstick.encode_batch_fast(texts, add_special_tokens=False)
                yield from chunk

    whole = Watch()
    with whole:
        examples = Interrupted(folder / "data" / "examples.jsonl")
        # As run.encode, which also asks a model, of which there is none here, for its vocabulary.
        store.write(dataset.rows(config, chat, examples), folder / "tokens")
        _, counts = store.read(folder / "tokens")
    return {
        "seconds": whole.seconds - away.seconds,
        "cpu": whole.cpu - away.cpu,
        "raw_seconds": raw.seconds,
        "raw_cpu": raw.cpu,
        "setup_cpu": setup.cpu,
        "tokens": counts["tokens"],
    }


def plan(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Lay out the steps of an epoch from the lengths."""
    from response_tuning.finetune.steps import StepSampler
    from response_tuning.finetune.store import read

    with Watch() as watch:
        documents, _ = read(folder / "tokens")
        steps = sum(1 for _ in StepSampler(documents.lengths, STEP, seed=0))
    return {"seconds": watch.seconds, "cpu": watch.cpu, "steps": steps}


def balance(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Say how evenly the tokens of a step lie on the processes that share it."""
    from lengths import HISTOGRAMS

    from response_tuning.finetune.store import read

    lima = json.loads(HISTOGRAMS.read_text(encoding="utf-8"))["lima-rt"]
    documents, _ = read(folder / "tokens")
    found = {
        f"{rows:,} rows": documents.lengths,
        "LIMA": [min(tokens, WINDOW) for tokens, examples, _ in lima for _ in range(examples)],
    }
    return {name: {str(w): shared(lengths, w) for w in WORLDS} for name, lengths in found.items()}


def shared(lengths: Sequence[int], world: int, size: int = STEP) -> dict[str, float]:
    """Share the steps of an epoch, ``size`` examples each, out to ``world`` processes.

    Of a step, that is the tokens of the emptiest process over the mean; ``epoch`` is the share of
    an epoch in which the mean process has work, if a step takes as long as its fullest one. The
    last step of an epoch, which may have few examples, counts in ``epoch`` alone.
    """
    from response_tuning.finetune.steps import StepSampler

    samplers = [StepSampler(lengths, size, seed=0, rank=rank, world=world) for rank in range(world)]
    steps = [
        [sum(lengths[place.document] for place in share) for share in shares]
        for shares in zip(*samplers, strict=True)
    ]
    whole = [min(step) * world / sum(step) for step in steps[: len(lengths) // size] or steps]
    return {
        "least": min(whole),
        "median": median(whole),
        "epoch": sum(map(sum, steps)) / world / sum(map(max, steps)),
    }


def epoch(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Read the documents of an epoch, in the order of its steps."""
    from response_tuning.finetune.steps import StepSampler
    from response_tuning.finetune.store import read

    documents, _ = read(folder / "tokens")
    with Watch() as watch:
        for step in StepSampler(documents.lengths, STEP, seed=0):
            for place in step:
                documents[place.document]
    return {"seconds": watch.seconds, "cpu": watch.cpu}


STAGES: dict[str, Callable[[Path, int, argparse.Namespace], Result]] = {
    "build": build,
    "prepare": prepare,
    "encode": encode,
    "plan": plan,
    "epoch": epoch,
    "balance": balance,
}
LABELS = {
    "prepare": "read, drop exact duplicates, write",
    "encode": "tokenize",
    "plan": "plan the steps of an epoch",
    "epoch": "read an epoch of them",
}


class Watch:
    """Adds up the time inside its block, on the wall and of this process's threads."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> "Watch":
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def run_stage(folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Run one stage in this process, and say what it took."""
    with Watch() as watch:
        result = STAGES[arguments.stage](folder, rows, arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": watch.seconds, "cpu": watch.cpu, **result, "peak": megabytes}


def in_a_process(stage: str, folder: Path, rows: int, arguments: argparse.Namespace) -> Result:
    """Run one stage in a process of its own: this one stays small, as children inherit its peak."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    for name in ("data", "tokenizer", "objective"):
        command += [f"--{name}", str(getattr(arguments, name))]
    threads = str(arguments.threads)
    environment = os.environ | {
        "RAYON_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "true" if arguments.threads > 1 else "false",
        "OMP_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [*command, "--rows", str(rows)], env=environment, check=True, stdout=subprocess.PIPE
    )
    result: Result = json.loads(done.stdout)
    return result


def table(rows: int, found: dict[str, Result]) -> Iterator[str]:
    """Yield the lines of one size."""
    chain = [found[stage] for stage in ("prepare", "encode", "plan")]
    whole = {key: sum(took[key] for took in chain) for key in ("seconds", "cpu")}
    whole["peak"] = max(took["peak"] for took in chain)
    lines = {label: found[stage] for stage, label in LABELS.items()}
    for label, took in (lines | {"**all of it, up to the plan**": whole}).items():
        speed = share = ""
        if took in (found["encode"], whole):
            speed = f"{found['encode']['tokens'] / took['cpu']:,.0f}"
            share = f"{found['encode']['raw_cpu'] / took['cpu']:.2f}"
        yield (
            f"| {rows:,} | {label} | {took['peak']:,.0f} | {took['seconds']:,.1f} "
            f"| {took['cpu']:,.1f} | {rows / took['cpu']:,.0f} | {speed} | {share} |"
        )


def balance_table(found: Result) -> Iterator[str]:
    """Yield the lines of one size."""
    for name, worlds in found.items():
        if name in ("seconds", "cpu", "peak"):
            continue
        for world, shares in worlds.items():
            cells = " | ".join(f"{shares[key]:.3f}" for key in ("least", "median", "epoch"))
            yield f"| {name} | {world} | {cells} |"


def csv_rows(rows: int, found: dict[str, Result]) -> Iterator[Row]:
    """Yield what ``--out`` keeps of one size; rates beside the raw one are without the set-up."""
    encoding, chain = found["encode"], ("prepare", "encode", "plan")
    whole = sum(found[stage]["cpu"] for stage in chain) - encoding["setup_cpu"]
    figures = {
        "tokens_per_s": encoding["tokens"] / encoding["cpu"],
        "setup_seconds": encoding["setup_cpu"],
        "of_raw_speed": encoding["raw_cpu"] / (encoding["cpu"] - encoding["setup_cpu"]),
        "of_raw_speed_read_to_plan": encoding["raw_cpu"] / whole,
        "plan_seconds": found["plan"]["cpu"],
        "peak_rss_mb": max(found[stage]["peak"] for stage in chain),
    }
    for name, value in figures.items():
        yield Row("data", f"{rows:,} rows", "rtune", name, value)
    for world, shares in found["balance"]["LIMA"].items():
        yield Row("data", "LIMA", "rtune", f"balance_{world}", shares["least"])


def main() -> None:
    """Run every size, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--tokenizer", required=True, help="a folder with a tokenizer.json")
    parser.add_argument("--data", required=True, help="the folder of the public files")
    parser.add_argument("--objective", default="response-tuning")
    parser.add_argument("--threads", type=int, default=1, help="of the tokenizer, on both sides")
    parser.add_argument("--folder", type=Path, help="kept, and must be new; else a temporary one")
    parser.add_argument("--out", type=Path, help="CSV file to add the rows to")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(run_stage(arguments.folder, arguments.rows[0], arguments)))
        return
    lines: list[str] = []
    balances = ["", "| examples | processes | least of a whole step | median | of an epoch |"]
    balances += ["|---|--:|--:|--:|--:|"]
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        for rows in arguments.rows:
            folder = (arguments.folder or Path(temporary)) / str(rows)
            folder.mkdir(parents=True)
            found = {}
            for stage in STAGES:
                found[stage] = in_a_process(stage, folder, rows, arguments)
                print(f"{rows:,} {stage}: {found[stage]}", file=sys.stderr)
            lines += table(rows, found)
            balances += balance_table(found["balance"])
            if arguments.out:
                write(csv_rows(rows, found), arguments.out)
            peaks.append({stage: found[stage]["peak"] for stage in LABELS})
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{arguments.threads} for the tokenizer; {Path(arguments.tokenizer).name}, "
        f"{arguments.objective}\n\n"
        "| rows | stage | peak MiB | seconds | CPU seconds | rows/s | tokens/s | of raw speed |\n"
        "|--:|---|--:|--:|--:|--:|--:|--:|"
    )
    print("\n".join(lines))
    growth = [
        f"{label} x{peaks[-1][stage] / peaks[0][stage]:.2f}" for stage, label in LABELS.items()
    ]
    print("\n".join(balances))
    print(f"\nPeak of the last size over that of the first: {', '.join(growth)}.")


if __name__ == "__main__":
    main()
