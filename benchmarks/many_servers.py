"""Many requests over several servers of which most misbehave: is one lost, or paid twice?

Five servers on this machine, each a process: one is sound, one takes three times as long, one fails
three requests in ten, one is killed on the way, and one answers as another model. The client is
killed too, and started again. Each server writes down every answer that it has computed, so that
what was paid is counted at the servers.

A server computes an answer by sleeping, so many at once. The sum of what the servers can give is
arithmetic, and the processor's time is not the limit. How busy each one was is counted where it
computes; ``server_balance.py`` has the same in virtual time.

    python benchmarks/many_servers.py                    # 20,000 requests, 15 to 20 minutes
    python benchmarks/many_servers.py --requests 6000    # 5 minutes
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SLOTS, LARGE = 16, 32
"""Requests that a server computes at once, and those of a larger one."""
SLOW, FAULTS = 3, 0.3
SERVER_DIES, CLIENT_DIES = 0.2, 0.5
"""Share of the answers at which a server and the client are killed."""
SETTLES_S = 15.0
"""Left out of a rate: connections are made, and a server rests."""


class Kind(NamedTuple):
    """How a server behaves."""

    slots: int = SLOTS
    slowness: int = 1
    faults: float = 0.0
    name: str = "judge"

    def rate(self, latency: float) -> float:
        """Return the answers a second that it can give."""
        return self.slots * (1 - self.faults) / (latency * self.slowness)


KINDS = {
    "sound": Kind(slots=LARGE),
    "slow": Kind(slowness=SLOW),
    "faulty": Kind(faults=FAULTS),
    "killed": Kind(),
    "other model": Kind(name="other"),
}
CLIENT = """
import json, sys, time
from pathlib import Path
from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.generate import EngineConfig, generate, open_engine
journal, count, concurrency, first, *others = sys.argv[1:]
engine = open_engine("openai", EngineConfig(model="judge", base_url=first, replicas=tuple(others),
                                            concurrency=int(concurrency)))
asked = (Request(item_id=str(n), prompt=(Message(role="user", content=f"question {n}"),))
         for n in range(int(count)))
done = generate(engine, asked, Path(journal), Sampling(max_new_tokens=64))
seconds = time.process_time()
print(json.dumps([sum(one.error is not None for one in done), seconds]))
"""


async def serve(kind: Kind, latency: float, paid: Path, port: int) -> None:
    """Answer chat completions as ``kind`` does.

    Each answer that was computed is a line of ``paid``, and so is, beside it, the time at which
    each computation ended.
    """
    slots, draw = asyncio.Semaphore(kind.slots), random.Random(0)
    ledger = paid.open("ab", buffering=0)
    ends = paid.with_suffix(".ends").open("ab", buffering=0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            prompt = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
            async with slots:
                await asyncio.sleep(latency * kind.slowness)
                ends.write(f"{time.monotonic()}\n".encode())
                if draw.random() < kind.faults:
                    fault = draw.choice([b"HTTP/1.1 500 X", b"HTTP/1.1 503 X", b""])
                    writer.write(fault + b"\r\nContent-Length: 0\r\n\r\n" if fault else b"")
                else:
                    ledger.write(f"{prompt}\n".encode())
                    writer.write(_reply(kind, prompt))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client was killed
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


def _reply(kind: Kind, prompt: str) -> bytes:
    message = {"role": "assistant", "content": f"the answer to {prompt}. " * 40}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"model": kind.name, "choices": [choice]}).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Watch(threading.Thread):
    """Counts the journal's lines, and the client's memory, once a second."""

    def __init__(self, journal: Path) -> None:
        super().__init__(daemon=True)
        self.journal = journal
        self.pid = 0
        self.seen: list[tuple[float, int, int]] = []
        """(seconds, answers, resident KiB of the client)"""
        self._lines, self._at = 0, 0
        self.start()

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            if self.journal.exists():
                with self.journal.open("rb") as lines:
                    lines.seek(self._at)
                    new = lines.read()
                self._at += len(new)
                self._lines += new.count(b"\n")
                self.seen.append((time.monotonic(), max(0, self._lines - 1), _resident(self.pid)))
            time.sleep(1)

    def wait_for(self, answers: int, client: "subprocess.Popen[str]") -> float:
        """Return the time at which the journal has so many, or the client has ended."""
        while client.poll() is None and (not self.seen or self.seen[-1][1] < answers):
            time.sleep(0.2)
        return time.monotonic()

    def rate(self, begin: float, end: float) -> float:
        """Return the answers a second between two times, without the first seconds."""
        inside = [one for one in self.seen if begin + SETTLES_S <= one[0] <= end]
        if len(inside) < 3:
            return float("nan")
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmRSS:")[1].split()[0]) if "VmRSS:" in status else 0


def main() -> None:
    """Run the trial, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds of one answer")
    parser.add_argument("--concurrency", type=int, default=128, help="requests in flight")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, latency, paid, port = given.serve
        asyncio.run(serve(KINDS[kind], float(latency), Path(paid), int(port)))
    with tempfile.TemporaryDirectory() as scratch:
        trial(Path(scratch), given.requests, given.latency, given.concurrency)


def trial(folder: Path, count: int, latency: float, concurrency: int) -> None:
    """Run the servers and the client twice."""
    from response_tuning.serve.server.backend import free_port

    ports = {kind: free_port() for kind in KINDS}
    paid = {kind: folder / f"{kind}.txt" for kind in KINDS}
    own = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    servers = {
        kind: subprocess.Popen([*own, kind, str(latency), str(paid[kind]), str(ports[kind])])
        for kind in KINDS
    }
    journal = folder / "journal.jsonl"
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports.values()]
    command = [sys.executable, "-c", CLIENT, str(journal), str(count), str(concurrency), *urls]
    watch = Watch(journal)
    time.sleep(3)
    try:
        begun = time.monotonic()
        client = subprocess.Popen(command, text=True)
        watch.pid = client.pid
        server_died = watch.wait_for(round(count * SERVER_DIES), client)
        servers["killed"].send_signal(signal.SIGKILL)
        client_died = watch.wait_for(round(count * CLIENT_DIES), client)
        client.send_signal(signal.SIGKILL)
        client.wait()
        again, before = time.monotonic(), watch.seen[-1][1]
        client = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        watch.pid = client.pid
        nearly = watch.wait_for(round(count * 0.98), client)
        errors, seconds = json.loads(client.communicate()[0])
        ended = time.monotonic()
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    _print_counts(journal, count, paid, errors)
    each = seconds / (count - before)
    print(f"processor time of the client, its start included: {each * 1000:.1f} ms an answer")
    print(f"in flight at the two kills: at most {2 * concurrency}")
    _print_rates(
        watch,
        latency,
        paid,
        {
            "four servers": (begun, server_died),
            "three servers": (server_died, client_died),
            "three servers, after the restart": (again, nearly),
        },
    )
    print(f"seconds in all: {ended - begun:.0f}; load of the machine: {os.getloadavg()[1]:.1f}")
    for share in (0.1, 0.3, 0.6, 0.97):
        seen = next((one for one in watch.seen if one[1] >= count * share), None)
        if seen:
            print(f"memory of the client at {seen[1]:,} answers: {seen[2] / 1024:.0f} MiB")


def _print_rates(
    watch: Watch, latency: float, paid: dict[str, Path], times: dict[str, tuple[float, float]]
) -> None:
    """Print what was answered between times, of what the servers can give, and who was busy."""
    for what, (begin, end) in times.items():
        kinds = [kind for kind in KINDS if kind != "other model"]
        if what != "four servers":
            kinds.remove("killed")
        sum_, rate = sum(KINDS[kind].rate(latency) for kind in kinds), watch.rate(begin, end)
        print(
            f"{what}: {rate:.2f} answers a second of {sum_:.2f}: {rate / sum_:.1%}; busy:", end=""
        )
        for kind in kinds:
            print(f" {kind} {_busy(KINDS[kind], latency, paid[kind], begin, end):.1%}", end="")
        print()


def _busy(kind: Kind, latency: float, paid: Path, begin: float, end: float) -> float:
    """Return the share of a server's slots that computed between two times."""
    begin += SETTLES_S
    ends = map(float, paid.with_suffix(".ends").read_text().split())
    seconds = sum(begin < one <= end for one in ends) * latency * kind.slowness
    return seconds / (kind.slots * (end - begin))


def _print_counts(journal: Path, count: int, paid: dict[str, Path], errors: int) -> None:
    """Compare the journal with what the servers computed."""
    from response_tuning.artifacts import Completion
    from response_tuning.journals import Journal

    answered: Counter[str] = Counter()
    wrong = 0
    for one in Journal(journal, Completion):
        prompt = one.prompt[-1].content
        answered[prompt] += one.error is None
        wrong += one.error is None and not str(one.response).startswith(f"the answer to {prompt}.")
    computed: Counter[str] = Counter()
    for kind, ledger in paid.items():
        if kind != "other model" and ledger.exists():
            computed.update(ledger.read_text().split("\n")[:-1])
    other = paid["other model"].read_text().count("\n") if paid["other model"].exists() else 0
    print(f"requests {count:,}; answered {len(+answered):,}; lost {count - len(+answered):,}")
    print(f"errors {errors}; answers to another question {wrong}")
    print(f"in the journal twice: {sum(n > 1 for n in answered.values())}")
    twice = sum(n - 1 for n in computed.values() if n > 1)
    print(f"computed twice: {twice}")
    print(f"answers under another model's name, refused: {other}")


if __name__ == "__main__":
    main()
