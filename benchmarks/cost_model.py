"""What would training and answering cost on hardware that is not here? For docs/scaling.md.

    python benchmarks/cost_model.py [--device H200] [--examples-per-step 64]

prints, in this order: what of LIMA was measured; PREDICTIONS for 1B to 70B parameters, one GPU to
many nodes; and what the same formulas say of runs that others have published. Parameters and bytes
are those of ``response_tuning.finetune.memory``, which counts them on the architecture; work is
that of ``rtune finetune --dry-run``; lengths and balance are those of ``lengths.json``. Devices are
as their makers describe them, and the share of them that training reaches is published too.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from data_size import shared
from lengths import HISTOGRAMS

from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import memory
from response_tuning.finetune.memory import Load, Size

# Shapes of Llama 3.2 1B and 3B, Llama 3.1 8B and 70B (their published config.json).
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, True),
    "3B": (3072, 8192, 28, 24, 8, True),
    "8B": (4096, 14336, 32, 32, 8, False),
    "70B": (8192, 28672, 80, 64, 8, False),
}
VOCABULARY = 128_256
WINDOW = 2048
NODE = 8
REACHED = {"full": 0.36, "lora": 0.48}
"""Share of a device's rate that training reaches, by ``work``: torchtitan's for full tuning, Llama
3.1 8B on 8 H100, 33 to 39 %; NeMo Automodel's for LoRA, Llama 3 8B on one H100, which is 41 % where
attention is not counted. ``published_table`` has both."""
READ = 0.6
"""Share of the memory's bandwidth that decoding reaches. Estimated."""


class Device(NamedTuple):
    """A GPU as its maker describes it."""

    name: str
    rate: float
    """Dense bfloat16, FLOP/s."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """To the others of a node, bytes/s in one direction."""
    network: float
    """To other nodes, bytes/s in one direction and of one device."""


H200 = Device("H200", 989e12, 141e9, 4.8e12, 450e9, 50e9)
H100 = Device("H100", 989e12, 80e9, 3.35e12, 450e9, 50e9)
A100 = Device("A100", 312e12, 80e9, 2.04e12, 300e9, 25e9)


class Data(NamedTuple):
    """What is trained on."""

    lengths: tuple[int, ...]
    """Tokens of each example."""
    supervised: float
    """Share of the tokens that carry loss."""
    examples_per_step: int

    @property
    def step(self) -> float:
        """Tokens of a step."""
        return sum(self.lengths) / len(self.lengths) * self.examples_per_step

    @property
    def attended(self) -> float:
        """Length of the example that a token is in, on average."""
        return sum(length**2 for length in self.lengths) / sum(self.lengths)

    def balance(self, devices: int) -> float:
        """Return tokens of the mean process over those of the fullest, in an epoch."""
        return _balance(self.lengths, devices, self.examples_per_step) if devices > 1 else 1.0


@cache  # a table asks for the same balance once for each model
def _balance(lengths: tuple[int, ...], devices: int, examples_per_step: int) -> float:
    return float(shared(lengths, devices, examples_per_step)["epoch"])


class Run(NamedTuple):
    """A model that is tuned on some devices."""

    config: FinetuneConfig
    size: Size
    device: Device
    devices: int


class Fit(NamedTuple):
    """What goes through each device at once."""

    tokens: int
    checkpointing: bool
    used: float
    """Bytes on each device."""


def lima(examples_per_step: int) -> Data:
    """Return LIMA as response tuning sees it."""
    rows = json.loads(HISTOGRAMS.read_text(encoding="utf-8"))["lima-rt"]
    lengths = tuple(min(tokens, WINDOW) for tokens, examples, _ in rows for _ in range(examples))
    tokens = sum(tokens * examples for tokens, examples, _ in rows)
    return Data(lengths, sum(row[2] for row in rows) / tokens, examples_per_step)


def run(model: str, method: str, device: Device, devices: int = 1) -> Run:
    """Describe a run in bfloat16; parameters are counted, and no weights are made."""
    config, size = _measured(model, method)
    return Run(config, size, device, devices)


@cache  # counting 70B parameters builds 80 layers, on the meta device
def _measured(model: str, method: str) -> tuple[FinetuneConfig, Size]:
    hidden, inner, layers, heads, keys, tied = SHAPES[model]
    shape = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape), encoding="utf-8")
        values = {"base_model": folder, "method": method, "precision": "bfloat16"}
        config = FinetuneConfig.model_validate(values)
        return config, memory.measure(config)


def fitted(run: Run, data: Data) -> Fit | None:
    """Return what goes through each device at once, or None if not the longest example does.

    The state is spread over the devices (FSDP2); activations are kept if enough tokens fit.
    """
    load = Load(max(data.lengths), round(data.step / run.devices), data.supervised)
    state = memory.state_bytes(run.config, run.size) / run.devices
    state += memory.head_bytes(run.config, run.size, load)
    room = memory.SHARE * (run.device.memory - memory.RESERVE - state)
    most = min(memory.MOST_TOKENS, max(load.step, load.longest))
    for twice, wanted in ((False, memory.ENOUGH_TOKENS), (True, load.longest)):
        each = memory.token_bytes(run.config, run.size, load, checkpointing=twice)
        tokens = min(most, int(room // each))
        if tokens >= min(wanted, most):
            return Fit(tokens, twice, state + tokens * each)
    return None


def tokens_per_second(run: Run, data: Data, fit: Fit) -> float:
    """Return tokens a second of all devices; what is sent overlaps with what is computed.

    A step is so many examples however many devices there are: many of them have little to do.
    """
    tokens = min(fit.tokens, data.step / run.devices)
    computing = tokens / data.balance(run.devices) * work(run, data, fit) / rate(run)
    return run.devices * tokens / max(computing, sending(run))


def work(run: Run, data: Data, fit: Fit) -> float:
    """Return FLOPs of a token: of weights, and of attention, all pairs of an example counted."""
    weights = memory.flops_per_token(run.config, run.size)
    attention = 4 * run.size.layers * run.size.attention * data.attended
    again = 2 * run.size.total + attention if fit.checkpointing else 0
    return weights + 3 * attention + again


def rate(run: Run) -> float:
    """Return FLOP/s that training reaches on one device."""
    return run.device.rate * REACHED["full" if run.config.method == "full" else "lora"]


def sending(run: Run) -> float:
    """Return seconds that a micro-batch's communication takes under FSDP2.

    Weights are gathered twice in bfloat16 and gradients scattered once in float32, in a ring that
    is as fast as its slowest link.
    """
    if run.devices == 1:
        return 0.0
    share = (run.devices - 1) / run.devices
    volume = (2 * 2 * run.size.total + 4 * run.size.trainable) * share
    return volume / (run.device.link if run.devices <= NODE else run.device.network)


def answering(size: Size, device: Device, rows: int) -> float:
    """Return tokens a second of ``rows`` replies at once, weights in bfloat16 on one device.

    A step reads all weights once, or is bound by its products. The cache is left out: at 500
    tokens a row and 64 rows it is a quarter of the weights of the 8B model.
    """
    reading = 2 * size.total / (device.bandwidth * READ)
    computing = rows * 2 * size.total / (device.rate * REACHED["lora"])
    return rows / max(reading, computing)


def training_table(device: Device, data: Data) -> Iterator[str]:
    """Yield the lines of a table: every model, method and number of devices."""
    yield "| model | method | GPUs | GB each | at once | activations | tokens/s | s an epoch |"
    yield "|---|---|--:|--:|--:|---|--:|--:|"
    for name in ("1B", "8B", "70B"):
        for method in ("full", "lora"):
            for devices in (1, NODE, 8 * NODE):
                one = run(name, method, device, devices)
                fit = fitted(one, data)
                cells = ["does not fit", "", "", "", ""]
                if fit:
                    speed = tokens_per_second(one, data, fit)
                    how = "computed twice" if fit.checkpointing else "kept"
                    cells = [f"{fit.used / 1e9:.0f}", f"{fit.tokens:,}", how]
                    cells += [f"{speed:,.0f}", f"{sum(data.lengths) / speed:,.0f}"]
                yield f"| {name} | {method} | {devices} | {' | '.join(cells)} |"


def answering_table(device: Device) -> Iterator[str]:
    """Yield the lines of a table: tokens a second by model and rows at once."""
    rows = (1, 16, 64, 256)
    yield f"| rows at once | {' | '.join(map(str, rows))} |"
    yield f"|---|{'--:|' * len(rows)}"
    for name in ("1B", "8B"):
        size = run(name, "full", device).size
        cells = [f"{answering(size, device, count):,.0f}" for count in rows]
        yield f"| {name} | {' | '.join(cells)} |"


class Point(NamedTuple):
    """A published run: full batches of one length, on so many devices."""

    who: str
    run: Run
    window: int
    checkpointing: bool
    tokens_per_second: float
    """Of one device."""


def published() -> Iterator[Point]:
    """Yield runs that others have published; the first two are where ``REACHED`` is from."""
    automodel = "NeMo Automodel, LoRA of rank 16"
    yield Point(automodel, run("8B", "lora", H100), 4096, False, 12_473)
    yield Point("torchtitan, pre-training", run("8B", "full", H100), 8192, False, 5_762)
    yield Point("torchtune, packed", run("3B", "full", A100), 2048, False, 7_075)
    yield Point("torchtune, + compile, checkpointing", run("3B", "full", A100), 2048, True, 7_210)


def published_table() -> Iterator[str]:
    """Yield the lines of a table: what was published, and what the formulas say of it."""
    yield "| who | model | device | window | published | formula | formula / published |"
    yield "|---|---|---|--:|--:|--:|--:|"
    for point in published():
        data = Data((point.window,), 1.0, 64)
        fit = Fit(point.window, point.checkpointing, 0)
        speed = tokens_per_second(point.run, data, fit)
        name = next(name for name, shape in SHAPES.items() if shape[2] == point.run.size.layers)
        yield (
            f"| {point.who} | {name} | {point.run.device.name} | {point.window:,} "
            f"| {point.tokens_per_second:,.0f} | {speed:,.0f} "
            f"| {speed / point.tokens_per_second:.2f} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = {device.name: device for device in (H200, H100, A100)}
    parser.add_argument("--device", choices=known, default="H200")
    parser.add_argument("--examples-per-step", type=int, default=64)
    options = parser.parse_args()
    device, data = known[options.device], lima(options.examples_per_step)
    mean = sum(data.lengths) / len(data.lengths)
    print(
        f"LIMA, response tuning, measured: {len(data.lengths):,} examples of {mean:.0f} tokens, "
        f"{data.supervised:.3f} of them with loss; a token's own example has {data.attended:,.0f}"
    )
    shares = [f"{devices}: {data.balance(devices):.3f}" for devices in (2, 4, 8, 16, 64)]
    print(f"Mean over fullest process, {data.examples_per_step} a step: {', '.join(shares)}")
    print(f"\nPREDICTED for {device.name}, not measured: training\n")
    print("\n".join(training_table(device, data)))
    print("\nPREDICTED, not measured: answering, tokens a second on one device\n")
    print("\n".join(answering_table(device)))
    print("\nPublished by others, tokens a second of one device\n")
    print("\n".join(published_table()))


if __name__ == "__main__":
    main()
