"""What does `rtune data prepare` take on a million rows: processor time, memory, after a kill?

    python benchmarks/prepare_million.py --rows 1000000 --tokenizer FOLDER --data FOLDER

Rows are those of ``data_size.py``. Every line of the table is a command of its own, all with the
same settings: exact duplicates are dropped and, with ``--tokenizer``, so are responses of more than
512 tokens: so every response is tokenized. Processor time counts the command and its workers;
of a killed command, without its workers. The yardstick is ``Tokenizer.encode_batch_fast`` on the
same texts: in the last line, each batch is first given to a tokenizer of the yardstick's own, whose
time is subtracted.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_size import Watch, build
from table import hardware

MOST_TOKENS = 512
SHARD_ROWS, GROUP_ROWS = 100_000, 1_000
ASK_S = 0.5
LINES = ("one", "several", "killed", "shards", "raw")
OUTPUTS = ("examples.jsonl", "dropped.jsonl")


class Took(NamedTuple):
    """What a command took, and a digest of what it left."""

    seconds: float
    cpu: float
    peak: float
    """MiB of its largest process."""
    together: float
    """MiB of all its processes at once: the sum of their proportional set sizes (PSS), in which
    memory that several share counts once; asked twice a second."""
    digest: str


def command(source: str, out: Path, tokenizer: str | None, processes: int) -> list[str]:
    """Return the command line that every line of the table runs."""
    words = ["data", "prepare", source, "--out", str(out), "--processes", str(processes)]
    words += ["--tokenizer", tokenizer, "--max-tokens", str(MOST_TOKENS)] if tokenizer else []
    return [sys.executable, "-m", "response_tuning", *words]


def ran(words: list[str], out: Path, kill_at: int | None = None) -> Took:
    """Run a command; with ``kill_at``, kill its first process once so many pieces are done."""
    began = time.perf_counter()
    environment = os.environ | {
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen(words, env=environment, stdout=sys.stderr)
    together = 0.0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        together = max(together, sum(map(proportional, family(process.pid))))
        if kill_at is not None and len(list(out.glob(".pieces/*/*/*.tsv"))) >= kill_at:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(ASK_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and kill_at is None:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    seconds = time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    return Took(seconds, cpu, usage.ru_maxrss / 2**10, together, digest(out))


def family(pid: int) -> Iterator[int]:
    """Yield a process and all below it (Linux)."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def proportional(pid: int) -> float:
    """Return the MiB of memory that a process holds now, its share of shared memory; 0 if ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10


def digest(out: Path) -> str:
    """Return a digest of the examples and of what was dropped; empty if there are none."""
    found = hashlib.sha256()
    for name in OUTPUTS:
        if not (out / name).exists():
            return ""
        with (out / name).open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()[:12]


def shards(folder: Path) -> Path:
    """Write the rows as Parquet shards, as the hub has them."""
    import pyarrow.json
    import pyarrow.parquet

    target = folder / "shards"
    target.mkdir()
    with pyarrow.json.open_json(folder / "input.jsonl") as batches:
        writer, written, number = None, 0, 0
        for batch in batches:
            if writer is None or written >= SHARD_ROWS:
                if writer:
                    writer.close()
                name = target / f"train-{number:05}.parquet"
                writer, written = pyarrow.parquet.ParquetWriter(name, batch.schema), 0
                number += 1
            writer.write_batch(batch, row_group_size=GROUP_ROWS)
            written += batch.num_rows
        if writer:
            writer.close()
    return target


def beside_raw(folder: Path, tokenizer: str) -> dict[str, float]:
    """Prepare in this process, with the yardstick before each batch."""
    from tokenizers import Tokenizer

    from response_tuning.configs import DataConfig
    from response_tuning.data.steps import curation
    from response_tuning.workflows.data import run_data

    yardstick = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    raw, whole, setup = Watch(), Watch(), Watch()
    real = curation.token_counter

    def counter(name: str) -> Callable[[list[str]], list[int]]:
        with setup:
            count = real(name)

        def both(texts: list[str]) -> list[int]:
            with raw:
                yardstick.encode_batch_fast(texts, add_special_tokens=False)
            return count(texts)

        return both

    curation.token_counter = counter
    bounds = {"tokenizer": tokenizer, "max_tokens": MOST_TOKENS}
    config = DataConfig.model_validate({"source": str(folder / "input.jsonl"), "curation": bounds})
    with whole:
        run_data(config, folder / "beside")
    own = whole.cpu - raw.cpu - setup.cpu
    return {"raw": raw.cpu, "own": own, "setup": setup.cpu, "of_raw": raw.cpu / own}


def line(what: str, rows: int, took: Took) -> str:
    """Return a line of the table."""
    return (
        f"| {what} | {took.seconds:,.0f} | {took.cpu:,.1f} | {rows / took.cpu:,.0f} "
        f"| {took.peak:,.0f} | {took.together:,.0f} | {took.digest} |"
    )


def measure(
    folder: Path, rows: int, tokenizer: str | None, processes: int, chosen: Sequence[str]
) -> Iterator[str]:
    """Yield the lines of the table, one command each."""
    from response_tuning.data.pieces import PIECE_BYTES

    source = str(folder / "input.jsonl")
    if "one" in chosen:
        out = folder / "one"
        yield line("1 process", rows, ran(command(source, out, tokenizer, 1), out))
    if "several" in chosen:
        out = folder / "several"
        took = ran(command(source, out, tokenizer, processes), out)
        yield line(f"{processes} processes", rows, took)
    if "killed" in chosen:
        out = folder / "killed"
        words = command(source, out, tokenizer, processes)
        half = (folder / "input.jsonl").stat().st_size // PIECE_BYTES // 2
        took = ran(words, out, kill_at=half)
        yield line(f"{processes} processes, killed with {half} pieces done", rows, took)
        yield line("the same command again", rows, ran(words, out))
    if "shards" in chosen:
        out = folder / "remote"
        words = command(f"file://{shards(folder)}", out, tokenizer, processes)
        yield line(f"{processes} processes, Parquet shards at an address", rows, ran(words, out))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokenizer", help="a folder with a tokenizer.json; else no text is cut")
    parser.add_argument("--only", choices=LINES, nargs="+", default=LINES)
    parser.add_argument("--data", required=True, help="the folder of the public files")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    parser.add_argument("--beside-raw", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.beside_raw:
        print(json.dumps(beside_raw(arguments.folder, arguments.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "input.jsonl").exists():
            folder.mkdir(parents=True, exist_ok=True)
            build(folder, arguments.rows, arguments)
        print(f"{time.strftime('%Y-%m-%d')}, {hardware()}; {arguments.rows:,} rows\n")
        print("| command | seconds | CPU seconds | rows/CPU s | peak MiB | all, PSS MiB | output |")
        print("|---|--:|--:|--:|--:|--:|---|")
        rows, processes = arguments.rows, arguments.processes
        for each in measure(folder, rows, arguments.tokenizer, processes, arguments.only):
            print(each, flush=True)
        if arguments.tokenizer is None or "raw" not in arguments.only:
            return
        words = [sys.executable, __file__, "--beside-raw", "--folder", str(folder), "--data", "-"]
        environment = os.environ | {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        words += ["--tokenizer", arguments.tokenizer]
        done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        print(
            f"\nBeside the raw tokenizer: {found['own']:,.1f} CPU seconds in all, set-up of "
            f"{found['setup']:.1f} apart, and {found['raw']:,.1f} for encode_batch_fast alone: "
            f"{found['of_raw']:.2f} of its speed."
        )


if __name__ == "__main__":
    main()
