"""Fine-tuning on a GPU: this package's trainer beside TRL, in at most nine minutes.

    python benchmarks/gpu_finetune.py

needs one NVIDIA GPU of 80 GB or more, this package, and for the comparison ``pip install
trl==1.16.0``; nothing is downloaded. Weights are random, examples have the lengths of Alpaca, Dolly
and LIMA (``lengths.json``), a step is so many of them as make some 16,000 tokens. Systems:

- ``rtune``: this package; tokens at once and checkpointing are its own choice by free memory;
- ``trl-default``: TRL as it comes, 8 padded rows at once, gradient checkpointing;
- ``trl-best``: packed without padding, no checkpointing, and as many tokens at once as fit: from
  16,384 down with ``flash_attention_2``, which needs the package ``flash_attn``; without it from
  4,096 down, because its attention then computes the scores of all tokens with each other.

Each measurement is a process of its own with a limit of time, and its numbers are in the table as
soon as it ends: one that fails costs its own row alone. The most telling come first. Tokens are
those of examples: padding does not count. MFU is 4 (adapter) or 6 (full) FLOPs a parameter and
token, over the dense bfloat16 peak of the GPU's data sheet; recomputed activations do not count.

``--toy`` runs the same on a CPU in tiny shapes, which measures nothing but shows that all works.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from table import LATEST, Row, markdown, write

SYSTEMS = ("rtune", "trl-default", "trl-best")
PEAK_TFLOPS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "B200": 2250.0, "A100": 312.0}
"""Dense bfloat16, by what the device's name contains; the first that fits."""


class Case(NamedTuple):
    """A model, how it is tuned, and on what."""

    model: str
    data: str
    examples: int
    """In a step."""
    window: int = 2048
    method: str = "lora"
    rank: int = 16
    dropout: float = 0.0


CASES = {
    "8b-lora16-lima": Case("llama-3.1-8b", "lima-rt", 32),
    "8b-lora16-alpaca": Case("llama-3.1-8b", "alpaca-rt", 256),
    "8b-lora64-dropout-alpaca": Case("llama-3.1-8b", "alpaca-rt", 256, rank=64, dropout=0.1),
    "8b-full-lima": Case("llama-3.1-8b", "lima-rt", 32, method="full"),
    "gemma2-2b-lora16-alpaca": Case("gemma-2-2b", "alpaca-rt", 256),
    "qwen-0.5b-full-dolly": Case("qwen-2.5-0.5b", "dolly-rt", 160, method="full"),
    "8b-lora16-lima-it-8192": Case("llama-3.1-8b", "lima-it", 32, window=8192),
}
"""The third has the paper's adapter; its alpha of 16 is everybody's here."""


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield case, system, and what to do."""
    settings: dict[str, Any] = {"toy": options.toy, "seconds": options.seconds}
    for name in options.only:
        case = CASES[name]._replace(window=128, examples=8) if options.toy else CASES[name]
        for system in options.systems:
            yield name, system, case._asdict() | settings | {"system": system}


def run(job: dict[str, Any], limit: float) -> dict[str, Any]:
    """Measure in a process of its own; return its result, or ``error`` with the reason."""
    if job["system"].startswith("trl") and not importlib.util.find_spec("trl"):
        return {"error": "trl is not installed"}
    if limit <= 0:
        return {"error": "no time was left"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job | {"folder": folder}), encoding="utf-8")
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        }
        if job["toy"]:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        script = str(Path(__file__).with_name("gpu_finetune_case.py"))
        try:
            done = subprocess.run(
                [sys.executable, script, str(path)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than {limit:.0f} s"}
        if done.returncode:
            return {"error": (done.stderr.strip() or "killed").splitlines()[-1]}
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def rows_of(case: str, system: str, result: dict[str, Any], peak: float | None) -> Iterator[Row]:
    """Yield the numbers of one measurement; ``peak`` is the GPU's, in TFLOP/s."""
    speed = result["tokens"] / result["seconds"]
    values = {
        "tokens_per_s": speed,
        "supervised_tokens_per_s": result["supervised_tokens"] / result["seconds"],
        "steps": result["steps"],
    }
    if peak is not None:
        flops = (6 if CASES[case].method == "full" else 4) * result["parameters"]
        values["mfu"] = speed * flops / (peak * 1e12)
    if result["device"] != "cpu":
        values["peak_gb"] = result["peak_gb"]
    if "backed_off" in result:
        values["tokens_at_once"] = result["tokens_per_micro_batch"]
        values["checkpointing"] = float(result["gradient_checkpointing"])
        values["backed_off"] = len(result["backed_off"])
    for metric, value in values.items():
        yield Row("finetune-gpu", case, system, metric, value)


def ratios(rows: list[Row]) -> Iterator[Row]:
    """Yield how many times faster than each other system ``rtune`` is."""
    speeds = {(row.workload, row.system): row.value for row in rows if row.metric == "tokens_per_s"}
    for (case, system), speed in speeds.items():
        if system != "rtune" and (case, "rtune") in speeds:
            yield Row("finetune-gpu", case, system, "times_slower", speeds[case, "rtune"] / speed)


def peak_of(device: str, given: float | None) -> float | None:
    """Return the TFLOP/s that a device could reach, if that is known."""
    return given or next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    parser.add_argument("--minutes", type=float, default=9, help="for all of it")
    parser.add_argument("--limit", type=float, default=90, help="seconds for one measurement")
    parser.add_argument("--seconds", type=float, default=5, help="timed, after two steps")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU; else by its name")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, on the CPU")
    parser.add_argument("--out", type=Path, help=f"rows as CSV; {LATEST.name} unless --toy")
    return parser.parse_args()


def main() -> None:
    """Measure what there is time for, and print a table."""
    options = parsed()
    out = options.out or (None if options.toy else LATEST)
    end = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    missing: list[str] = []
    device = "no device"
    for case, system, job in jobs(options):
        result = run(job, min(options.limit, end - time.monotonic()))
        print(f"{case} {system}: {result}", file=sys.stderr)
        if "error" in result:
            missing.append(f"- {case}, {system}: {result['error']}")
            continue
        device = result["device"]
        rows += rows_of(case, system, result, peak_of(device, options.peak_tflops))
        if out is not None:
            write([*rows, *ratios(rows)], out)
    rows += ratios(rows)
    print(f"{markdown(rows)}\n\nDevice: {device}")
    if missing:
        print("\nNot measured:\n" + "\n".join(missing))


if __name__ == "__main__":
    main()
