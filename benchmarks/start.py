"""How long does a command take to start?

    python benchmarks/start.py [--repeats 9] [--model NAME --template NAME]

Every start is a process of its own, and they take turns. Beside the time on the wall stands that of
the processor, which others on the machine hardly change; both are medians, and so are their ratios
to ``python -c pass``, the least that any of them can take, and to ``import typer``. Modules are
compiled beforehand, as an installer does. ``rtune chat`` is the time to the first words of an
answer of ``--model``, the miniature's base unless said otherwise.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import Row, markdown, write

RTUNE = ["-m", "response_tuning"]
STARTS = {
    "python": ["-c", "pass"],
    "typer": ["-c", "import typer"],
    "rtune --help": [*RTUNE, "--help"],
    "rtune list": [*RTUNE, "list"],
    "rtune finetune --help": [*RTUNE, "finetune", "--help"],
    "import finetune": ["-c", "import response_tuning.finetune"],
    "import generate": ["-c", "import response_tuning.generate"],
    "import grade": ["-c", "from response_tuning.grade import BENCHMARKS; BENCHMARKS.names()"],
    "import report": ["-c", "import response_tuning.report"],
}


def start(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command to its end; return seconds on the wall and of the processor."""
    before, began = _children(), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began, _children() - before


def _children() -> float:
    """Return seconds of the processor that ended processes took, to the microsecond."""
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


def first_words(model: str, template: str, environment: dict[str, str]) -> float:
    """Return seconds from the start of ``rtune chat`` to the first bytes of an answer."""
    command = [sys.executable, *RTUNE, "chat", model, "--max-new-tokens", "8"]
    command += ["--template", template]
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"What is the capital of Lorenia?\n")
        chat.stdin.close()
        chat.stdout.read(1)
        seconds = time.perf_counter() - began
        chat.stdout.read()
    if chat.returncode:
        raise SystemExit(f"rtune chat {model}: exit code {chat.returncode}")
    return seconds


def measure(starts: dict[str, list[str]], repeats: int, environment: dict[str, str]) -> list[Row]:
    """Let the commands take turns, and return their rows."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in starts}
    for arguments in starts.values():  # compiles, and fills the page cache
        start(arguments, environment)
    for _ in range(repeats):
        for name, arguments in starts.items():
            taken[name].append(start(arguments, environment))
    rows = []
    for name, times in taken.items():
        figures = {
            "wall_s": statistics.median(wall for wall, _ in times),
            "cpu_s": statistics.median(cpu for _, cpu in times),
        }
        for yardstick in ("python", "typer"):
            ratios = [own / of for (_, own), (_, of) in zip(times, taken[yardstick], strict=True)]
            figures[f"times_{yardstick}"] = statistics.median(ratios)
        rows += [Row("start", name, "rtune", metric, value) for metric, value in figures.items()]
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--model", default="miniature", help="that 'rtune chat' speaks with")
    parser.add_argument("--template", default="tulu")
    parser.add_argument("--toy", action="store_true", help="one turn of four commands, and no chat")
    parser.add_argument("--out", type=Path, help="CSV file to add the rows to")
    arguments = parser.parse_args()
    starts, repeats = STARTS, arguments.repeats
    if arguments.toy:
        starts, repeats = dict(list(STARTS.items())[:4]), 1
    with tempfile.TemporaryDirectory() as compiled:
        environment = dict(os.environ)
        if not arguments.toy:  # compiling all of torch takes longer than all that a toy measures
            environment["PYTHONPYCACHEPREFIX"] = compiled
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rows = measure(starts, repeats, environment)
        if not arguments.toy:
            turns = min(repeats, 3) + 1
            waits = [
                first_words(arguments.model, arguments.template, environment) for _ in range(turns)
            ]
            seconds = statistics.median(waits[1:])  # the first compiles, and fills the page cache
            chat = f"rtune chat {arguments.model}"
            rows.append(Row("start", chat, "rtune", "first_words_s", seconds))
    if arguments.out:
        write(rows, arguments.out)
    print(markdown(rows))


if __name__ == "__main__":
    main()
