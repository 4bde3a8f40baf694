"""Fine-tuning on a CPU: this package's trainer beside the reference recipe and TRL.

    python benchmarks/finetune_cpu.py --data FOLDER

``--data`` holds ``alpaca/alpaca_random_9k.json``, ``dolly/dolly_filtered.json``,
``lima/lima_train.jsonl`` and a tokenizer in ``tokenizers/gpt_neox_20b``; without it only the
miniature is tuned. ``--base`` adds a base model of your own, tuned whole and with LoRA of rank 16.
Every system is a ``transformers.Trainer`` that starts from the same weights in float32, with the
AdamW that it defaults to, and its step is the same set of examples, tokenized and labelled here: so
a response without an instruction keeps its exact mask in TRL too.
They differ in how the set goes through the model:

- ``rtune``: flattened, at most ``--tokens`` at once, logits at supervised positions;
- ``reference``: ``--rows`` padded rows at once, all logits; 8 as in the paper's recipe;
- ``trl-padded``: the same rows in TRL's trainer, with its chunked head;
- ``trl-packed``: TRL's best-fit packing into rows of ``--tokens``, as many of them accumulated as
  hold the step. Packing the data set as a whole would change which examples are a step.

Gradient checkpointing and bfloat16, on by default in TRL, are off, as both are slower here. Each
measurement is a process of its own, in turn; each repetition draws other examples. Every workload
is measured once, and again in the same order as long as ``--minutes`` allow.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune_step import SYSTEMS, Result, run
from table import LATEST, Row, markdown, write

MINIATURE = "miniature"
SAME_LOSS = 1e-4
SMALL: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""A Llama of 50M parameters. Its weights are random: speed does not depend on them."""


class Workload(NamedTuple):
    """Examples, and what they are for."""

    source: str
    file: str | None
    """Below ``--data``; None for what the package makes, which goes with its own base model."""
    objective: str
    examples: int
    """Of a step."""
    steps: int = 1
    """Timed, after one that warms up; the miniature's take half a second."""
    method: str = "full"
    own_base: bool = False
    """Whether it tunes the model that ``--base`` names."""


# 64 examples are the paper's step. The others have fewer, so that there is time for all:
# the optimizer weighs more in them, on every system alike.
WORKLOADS = {
    "alpaca-rt": Workload("alpaca", "alpaca/alpaca_random_9k.json", "response-tuning", 64),
    "alpaca-it": Workload("alpaca", "alpaca/alpaca_random_9k.json", "instruction-tuning", 16),
    "dolly-rt": Workload("dolly", "dolly/dolly_filtered.json", "response-tuning", 8),
    "lima-rt": Workload("lima", "lima/lima_train.jsonl", "response-tuning", 4),
    **{
        f"base-{kind}-{method}": Workload(
            "alpaca", "alpaca/alpaca_random_9k.json", objective, 8, method=method, own_base=True
        )
        for kind, objective in (("rt", "response-tuning"), ("it", "instruction-tuning"))
        for method in ("full", "lora")
    },
    "miniature-rt": Workload(MINIATURE, None, "response-tuning", 64, steps=9),
    "miniature-it": Workload(MINIATURE, None, "instruction-tuning", 64, steps=9),
}


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Write the base, and for every workload and repetition its step: a base and documents."""
    from transformers import AutoTokenizer, LlamaConfig

    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.finetune import base
    from response_tuning.finetune.dataset import read_examples, rows
    from response_tuning.miniature import resolved
    from response_tuning.templates import Chat
    from response_tuning.workflows.data import run_data

    data, small = Path(options.data or ""), folder / "small"
    if options.data:
        LlamaConfig(**SMALL).save_pretrained(small)
        AutoTokenizer.from_pretrained(data / "tokenizers/gpt_neox_20b").save_pretrained(small)
    for name in options.workloads:
        workload = WORKLOADS[name]
        fresh = workload.file is not None and not workload.own_base
        model = str(small) if fresh else options.base if workload.own_base else resolved(MINIATURE)
        config = base.fitted(
            FinetuneConfig(
                base_model=model,
                objective=workload.objective,
                window=options.tokens,
                method=workload.method,
                device="cpu",
            )
        )
        chat = Chat(base.load_tokenizer(config))
        for seed in range(options.repetitions):
            out = folder / f"{name}-{seed}"
            source = DataConfig(
                source=workload.source,
                path=data / workload.file if workload.file else None,
                max_examples=options.examples or workload.examples,
                seed=seed,
            )
            run_data(source, out)
            encoded = rows(config, chat, read_examples(out))
            # The tokenizer has 50k tokens; what stands for the last of them costs the same.
            vocabulary = base.architecture(config).vocab_size
            documents = [
                {
                    "input_ids": [token % vocabulary for token in row.input_ids],
                    "labels": [t % vocabulary if t >= 0 else t for t in row.labels],
                }
                for row in encoded
                if row.trained
            ]
            settings = config.model_copy(update={"random_init": fresh})
            step = {"config": settings.model_dump(mode="json"), "documents": documents}
            (out / "step.json").write_text(json.dumps(step), encoding="utf-8")


def processes(threads: int) -> Any:  # noqa: ANN401
    """Return where processes come from: a server that has loaded the libraries, and is forked.

    That spares each of them ten seconds. It has done nothing else, so that the peak is their own.
    """
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        # TRL's own use of transformers, which nobody here can mend.
        "PYTHONWARNINGS": "ignore",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["response_tuning.finetune.trainer"])
    return server


def in_a_process(server: Any, task: Callable[..., None], *arguments: object) -> None:  # noqa: ANN401
    """Run ``task`` in a process of its own, and wait; one that fails has said why."""
    process = server.Process(target=task, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{task.__name__} failed")


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[Result]]]:
    """Return the results by workload and system, one a repetition."""
    server = processes(options.threads)
    in_a_process(server, prepare, options, folder)
    has_trl = importlib.util.find_spec("trl") is not None
    systems = [name for name in options.systems if has_trl or not name.startswith("trl")]
    found: dict[str, dict[str, list[Result]]] = {}
    path = folder / "job.json"
    same = {name: getattr(options, name) for name in ("tokens", "rows", "clock")}
    for repetition, workload in turns(options.workloads, options.repetitions, options.minutes):
        for place in range(len(systems)):
            system = systems[(place + repetition) % len(systems)]
            job = same | {
                "system": system,
                "steps": options.steps or WORKLOADS[workload].steps,
                "step": str(folder / f"{workload}-{repetition}" / "step.json"),
                "folder": str(folder),
            }
            path.write_text(json.dumps(job), encoding="utf-8")
            in_a_process(server, run, path)
            result = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(workload, {s: [] for s in systems})[system].append(result)
            print(f"{workload} {repetition} {system}: {result}", file=sys.stderr)
    return found


def turns(
    workloads: Sequence[str],
    repetitions: int,
    minutes: float,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, str]]:
    """Yield each workload once, and again while what it took last still fits into ``minutes``."""
    began, took = now(), dict.fromkeys(workloads, 0.0)
    for repetition in range(repetitions):
        for workload in workloads:
            start = now()
            if repetition and start - began + took[workload] > 60 * minutes:
                continue
            yield repetition, workload
            took[workload] = now() - start


def rows_of(workload: str, found: dict[str, list[Result]]) -> Iterator[Row]:
    """Yield medians over the repetitions of a workload.

    ``times_slower`` is than ``rtune`` with the same examples; ``loss_difference`` is from its loss,
    the largest of any step and repetition.
    """
    ours = found["rtune"]
    for system, results in found.items():
        measured: dict[str, list[float]] = {}
        for one, beside in zip(results, ours, strict=True):
            seconds = statistics.median(one["seconds"])
            values = {f"{key}_per_s": one[key] / seconds for key in ("tokens", "supervised_tokens")}
            values |= {"peak_rss_mb": one["peak_rss_mb"], "loss": one["losses"][-1]}
            if system == "rtune":
                values["gemm_fraction"] = statistics.median(one["gemm_fraction"])
            else:
                values["times_slower"] = seconds / statistics.median(beside["seconds"])
            for metric, value in values.items():
                measured.setdefault(metric, []).append(value)
        for metric, repeated in measured.items():
            yield Row("finetune-cpu", workload, system, metric, statistics.median(repeated))
        if system != "rtune":
            worst = max(
                abs(a - b)
                for one, beside in zip(results, ours, strict=True)
                for a, b in zip(one["losses"], beside["losses"], strict=True)
            )
            yield Row("finetune-cpu", workload, system, "loss_difference", worst)


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="the folder of the public files")
    parser.add_argument("--base", help="a base model; adds the workloads that tune it")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=11, help="for what is repeated to end in")
    parser.add_argument("--steps", type=int, help="timed, after one that warms up; else each's own")
    parser.add_argument("--examples", type=int, help="of a step; else each workload's own")
    parser.add_argument("--tokens", type=int, default=1024, help="of a micro-batch, and the window")
    parser.add_argument("--rows", type=int, default=8, help="of a padded micro-batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: what the process was given, for --threads 1 on a busy machine",
    )
    parser.add_argument("--out", type=Path, default=LATEST)
    return parser.parse_args()


def main() -> None:
    """Measure, write the rows and print them; fail if not all systems trained the same."""
    options = parsed()
    if not options.base:
        options.workloads = [name for name in options.workloads if not WORKLOADS[name].own_base]
    if "rtune" not in options.systems:
        options.systems = ["rtune", *options.systems]  # every ratio is to it
    if not options.data:
        options.workloads = [name for name in options.workloads if WORKLOADS[name].file is None]
        print("without --data, only the miniature's workloads are run", file=sys.stderr)
    if not importlib.util.find_spec("trl"):
        print("TRL is not installed and left out: see requirements-bench.txt", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        found = measure_all(options, Path(folder))
    rows = [row for workload, results in found.items() for row in rows_of(workload, results)]
    write(rows, options.out)
    print(markdown(rows))
    wrong = [r for r in rows if r.metric == "loss_difference" and r.value > SAME_LOSS]
    if wrong:
        sys.exit(f"losses differ by more than {SAME_LOSS}: {wrong}")


if __name__ == "__main__":
    main()
