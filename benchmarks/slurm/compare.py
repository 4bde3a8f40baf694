"""How far the losses and the weights of cells are from those of the first one.

python benchmarks/slurm/compare.py CELL CELL ...     # exit code 1: more than 1e-5
"""

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file

LIMIT = 1e-5


def losses(cell: Path) -> list[float]:
    """Return the loss of each step."""
    lines = map(json.loads, (cell / "finetune" / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def main() -> None:
    """Print the largest differences."""
    first, *others = map(Path, sys.argv[1:])
    one, weights = losses(first), load_file(first / "finetune" / "model.safetensors")
    far = 0.0
    for cell in others:
        theirs, tuned = losses(cell), load_file(cell / "finetune" / "model.safetensors")
        if len(theirs) != len(one) or tuned.keys() != weights.keys():
            sys.exit(f"{cell}: other steps or other tensors than {first}")
        loss = max(abs(a - b) for a, b in zip(one, theirs, strict=True))
        weight = max(float(abs(weights[name] - tuned[name]).max()) for name in weights)
        print(f"{cell.parent.name}: {len(one)} losses within {loss:.1e}", end=", ")
        print(f"{len(weights)} tensors within {weight:.1e} of one process")
        far = max(far, loss, weight)
    sys.exit(far > LIMIT)


if __name__ == "__main__":
    main()
