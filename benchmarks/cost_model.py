"""What would training and answering cost on hardware that is not here? For docs/scaling.md.

    python benchmarks/cost_model.py

Parameters and bytes are those of ``response_tuning.finetune.memory``, which counts them on the
architecture; work is that of ``rtune finetune --dry-run``; lengths and the balance of LIMA were
measured. Figures of devices, and the share of them that training reaches, are PUBLISHED ones
(sources beside them) and were not measured by this project.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import memory, plan
from response_tuning.finetune.memory import Load, Size

# Shapes of Llama 3.2 1B, Llama 3.1 8B and 70B (their published config.json).
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, True),
    "8B": (4096, 14336, 32, 32, 8, False),
    "70B": (8192, 28672, 80, 64, 8, False),
}
VOCABULARY = 128_256
LOAD = Load(longest=2048, step=131_072, supervised=0.99)
"""LIMA for response tuning: the window is 2,048 and 0.99 of the tokens carry loss."""
STEP = 64 * 547
"""Tokens of a step of the paper's 64 examples: LIMA's mean, measured."""
EPOCH = 1000 * 547
BALANCE = {1: 1.0, 8: 0.992, 64: 0.266}
"""Tokens of the mean process over those of the fullest, over an epoch of LIMA, measured; one
example on each of 64 processes waits for the longest."""
NODE = 8


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

REACHED = {"full": 0.36, "lora": 0.41}
"""Share of the rate that training reaches: torchtitan, Llama 3.1 8B on 8 H100 (33 to 39 %); NeMo
Automodel, LoRA of Llama 3 8B on one H100 (402 TFLOP/s, 41 %)."""
READ = 0.6
"""Share of the memory's bandwidth that decoding reaches. Estimated."""


class Fit(NamedTuple):
    """How a model is trained on some devices."""

    tokens: int
    """Through each device at once."""
    checkpointing: bool
    used: float
    """Bytes on each device."""


def size_of(name: str, config: FinetuneConfig) -> Size:
    """Count the parameters of one of the shapes; no weights are made."""
    hidden, inner, layers, heads, keys, tied = SHAPES[name]
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
        (Path(folder) / "config.json").write_text(json.dumps(shape))
        return memory.measure(config.model_copy(update={"base_model": folder}))


def settings(method: str) -> FinetuneConfig:
    """Return how a GPU trains."""
    return FinetuneConfig(base_model="-", method=method, precision="bfloat16")  # type: ignore[arg-type]


def fitted(config: FinetuneConfig, size: Size, device: Device, devices: int) -> Fit | None:
    """Return what goes through each device at once, or None if not the longest document does.

    The state is spread over the devices (FSDP2); activations are kept if enough tokens fit.
    """
    state = memory.state_bytes(config, size) / devices
    room = memory.SHARE * (device.memory - memory.RESERVE - state)
    for twice, wanted in ((False, memory.ENOUGH_TOKENS), (True, LOAD.longest)):
        each = memory.token_bytes(config, size, LOAD, checkpointing=twice)
        tokens = min(memory.MOST_TOKENS, int(room // each))
        if tokens >= wanted:
            return Fit(tokens, twice, state + tokens * each)
    return None


def tokens_per_second(
    config: FinetuneConfig, size: Size, device: Device, devices: int, fit: Fit
) -> float:
    """Return tokens a second of all devices; what is sent overlaps with what is computed.

    A step is 64 examples however many devices there are, so that many have little to do.
    """
    tokens = min(fit.tokens, STEP / devices)
    work = plan._flops_per_token(config, size) + (2 * size.total if fit.checkpointing else 0)
    rate = device.rate * REACHED["full" if is_full(config) else "lora"]
    computing = tokens / BALANCE[devices] * work / rate
    return devices * tokens / max(computing, sending(config, size, device, devices))


def sending(config: FinetuneConfig, size: Size, device: Device, devices: int) -> float:
    """Return seconds that a micro-batch's communication takes under FSDP2.

    Weights are gathered twice in bfloat16 and gradients scattered once in float32, in a ring that
    is as fast as its slowest link.
    """
    if devices == 1:
        return 0.0
    volume = (2 * 2 * size.total + 4 * size.trainable) * (devices - 1) / devices
    return volume / (device.link if devices <= NODE else device.network)


def answering(size: Size, device: Device, rows: int) -> float:
    """Return tokens a second of ``rows`` replies at once, weights in bfloat16 on one device.

    A step reads all weights once, or is bound by its products. The cache is left out: at 500
    tokens a row and 64 rows it is a quarter of the weights of the 8B model.
    """
    reading = 2 * size.total / (device.bandwidth * READ)
    computing = rows * 2 * size.total / (device.rate * REACHED["lora"])
    return rows / max(reading, computing)


def is_full(config: FinetuneConfig) -> bool:
    """Whether all weights are trained."""
    return config.method == "full"


def training_table(device: Device) -> Iterator[str]:
    """Yield the lines of a Markdown table: every model, method and number of devices."""
    yield "| model | method | GPUs | GB each | fit at once | activations | tokens/s | s an epoch |"
    yield "|---|---|--:|--:|--:|---|--:|--:|"
    for name in SHAPES:
        for method in ("full", "lora"):
            config = settings(method)
            size = size_of(name, config)
            for devices in (1, NODE, 8 * NODE):
                fit = fitted(config, size, device, devices)
                cells = ["does not fit", "", "", "", ""]
                if fit:
                    speed = tokens_per_second(config, size, device, devices, fit)
                    how = "computed twice" if fit.checkpointing else "kept"
                    cells = [f"{fit.used / 1e9:.0f}", f"{fit.tokens:,}", how]
                    cells += [f"{speed:,.0f}", f"{EPOCH / speed:,.0f}"]
                yield f"| {name} | {method} | {devices} | {' | '.join(cells)} |"


def answering_table(device: Device) -> Iterator[str]:
    """Yield the lines of a Markdown table: tokens a second by model and rows at once."""
    rows = (1, 16, 64, 256)
    yield f"| model | {' | '.join(f'{count} rows' for count in rows)} |"
    yield f"|---|{'--:|' * len(rows)}"
    for name in ("1B", "8B"):
        size = size_of(name, settings("full"))
        cells = [f"{answering(size, device, count):,.0f}" for count in rows]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = {device.name: device for device in (H200, H100, A100)}
    parser.add_argument("--device", choices=known, default="H200")
    device = known[parser.parse_args().device]
    print(f"Predicted for {device.name}, not measured: training\n")
    print("\n".join(training_table(device)))
    print("\nAnswering, tokens a second on one device\n")
    print("\n".join(answering_table(device)))


if __name__ == "__main__":
    main()
