"""What would three large jobs cost: 70B on 4 nodes, 200 cells on 32 GPUs, a million responses?

    python benchmarks/cost_scenarios.py [--gpu-hour 2.5] [--price-in 2.5] [--price-out 10]

Everything that is printed is an ESTIMATE by the formulas of ``cost_model.py``, none of which has
been compared with a run of this package on a GPU. Prices are what you type, not anybody's offer.
"""

import argparse
import math
from collections.abc import Iterator
from typing import NamedTuple

from cost_model import H200, NODE, Data, Run, answering, fitted, lima, run, tokens_per_second

MILLION = 1_000_000
PROMPTS = 805
"""Of AlpacaEval, the largest benchmark of the paper."""
EPOCHS = 3
LARGE_STEP = 512
"""Examples of a step on many GPUs: 64 leave most of 32 GPUs without work."""
ROWS = 64
"""Replies at once of the engine ``hf``; ESTIMATED: by memory."""
SERVED = 256
"""Replies at once of a vLLM server; ESTIMATED."""
DISK = 1e9
"""Bytes a second at which a node reads weights; ESTIMATED."""
BEGIN_S = 60
"""Seconds for imports, the self-test and the export of a model; ESTIMATED."""
JUDGED = (700, 200)
"""Tokens of a question to a judge, besides the answer, and of its reply; ESTIMATED."""


class Prices(NamedTuple):
    """Dollars."""

    gpu_hour: float
    price_in: float
    """For a million tokens that a judge reads."""
    price_out: float


class Estimate(NamedTuple):
    """What a job takes."""

    what: str
    hours: float
    """On the wall."""
    gpu_hours: float
    dollars: float

    def line(self) -> str:
        """Return its line of the table."""
        dollars = f"{self.dollars:,.0f}" if self.dollars >= 10 else f"{self.dollars:,.2f}"
        return f"| {self.what} | {_time(self.hours)} | {self.gpu_hours:,.1f} | {dollars} |"


def _time(hours: float) -> str:
    if math.isnan(hours):
        return "-"
    minutes = hours * 60
    return f"{hours:,.1f} h" if hours >= 2 else f"{minutes:,.0f} min"


def on_gpus(what: str, hours: float, gpus: int, prices: Prices) -> Estimate:
    """Return the estimate of a job that holds so many GPUs all the time."""
    return Estimate(what, hours, hours * gpus, hours * gpus * prices.gpu_hour)


def starting(job: Run) -> float:
    """Return seconds until the first step, and after the last: weights once from disk, and more."""
    return 2 * job.size.total / DISK + BEGIN_S


def training(job: Run, data: Data, tokens: float) -> float:
    """Return hours for so many tokens of training, start included.

    Raises:
        ValueError: the model does not fit.
    """
    fit = fitted(job, data)
    if fit is None:
        raise ValueError(f"{job.size.total:,} parameters do not fit {job.devices} devices")
    return (starting(job) + tokens / tokens_per_second(job, data, fit)) / 3600


def large_model(prices: Prices) -> Iterator[Estimate]:
    """Yield a 70B model on 4 nodes: LIMA, and a million examples of its lengths."""
    gpus, data = 4 * NODE, lima(LARGE_STEP)
    epoch = sum(data.lengths)
    million = MILLION * epoch / len(data.lengths)
    for method in ("lora", "full"):
        job = run("70B", method, H200, gpus)
        for what, tokens in (
            (f"{EPOCHS} epochs of LIMA", EPOCHS * epoch),
            ("1 epoch of a million examples", million),
        ):
            hours = training(job, data, tokens)
            yield on_gpus(f"70B, {method}, 4 nodes of 8: {what}", hours, gpus, prices)


def cell() -> float:
    """Return hours of a cell: 8B, LoRA, LIMA, then the answers to one benchmark."""
    data, job = lima(64), run("8B", "lora", H200)
    answer = sum(data.lengths) / len(data.lengths)
    saying = PROMPTS * answer / answering(job.size, H200, ROWS)
    return training(job, data, EPOCHS * sum(data.lengths)) + saying / 3600


def grid(prices: Prices, cells: int = 200, gpus: int = 32) -> Iterator[Estimate]:
    """Yield a grid of cells, a GPU each, and its judge."""
    waves = math.ceil(cells / gpus)
    hours = cell()
    yield Estimate(
        f"{cells} cells of 8B, LoRA, on {gpus} GPUs",
        waves * hours,
        cells * hours,
        waves * hours * gpus * prices.gpu_hour,
    )
    yield judged(f"a hosted judge of {cells} x {PROMPTS} answers", cells * PROMPTS, prices)


def judged(what: str, answers: int, prices: Prices) -> Estimate:
    """Return what a hosted judge costs; its time is that of its rate limit, which is unknown."""
    data = lima(64)
    read = JUDGED[0] + sum(data.lengths) / len(data.lengths)
    each = (read * prices.price_in + JUDGED[1] * prices.price_out) / MILLION
    return Estimate(what, math.nan, 0.0, answers * each)


def million_responses(prices: Prices) -> Iterator[Estimate]:
    """Yield what a million responses cost: to learn from, to generate, to judge."""
    data = lima(LARGE_STEP)
    tokens = MILLION * sum(data.lengths) / len(data.lengths)
    job = run("8B", "lora", H200, NODE)
    hours = training(job, data, tokens)
    yield on_gpus("8B, LoRA, one node: 1 epoch of a million examples", hours, NODE, prices)
    hours = (starting(job) + tokens / (NODE * answering(job.size, H200, SERVED))) / 3600
    yield on_gpus("8B: generate a million answers, 8 servers of a GPU", hours, NODE, prices)
    yield judged("a hosted judge of a million answers", MILLION, prices)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu-hour", type=float, default=2.5, help="dollars, an assumption")
    parser.add_argument("--price-in", type=float, default=2.5, help="dollars a million tokens")
    parser.add_argument("--price-out", type=float, default=10.0, help="dollars a million tokens")
    prices = Prices(**vars(parser.parse_args()))
    print(
        f"ESTIMATED, not measured: H200 at {prices.gpu_hour:.2f} dollars an hour, a judge at "
        f"{prices.price_in:.2f} and {prices.price_out:.2f} dollars a million tokens\n"
    )
    print("| job | time | GPU hours | dollars |\n|---|--:|--:|--:|")
    for jobs in (large_model, grid, million_responses):
        for estimate in jobs(prices):
            print(estimate.line())


if __name__ == "__main__":
    main()
