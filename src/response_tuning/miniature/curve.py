"""A plot of the loss of a pre-training run."""

from collections.abc import Sequence
from pathlib import Path

from response_tuning.artifacts import written_aside

POINTS = 250
"""Most points in the plot; each is the mean of an equal number of steps."""


def draw_losses(losses: Sequence[float], tokens_per_step: int, path: Path) -> None:
    """Plot the loss in nats a token over the tokens seen, as SVG."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = np.array_split(np.asarray(losses), min(POINTS, len(losses)))
    seen = np.cumsum([len(part) for part in parts]) * tokens_per_step / 1e6
    # Same losses, same bytes: without a salt and with a date, no two SVG files would be equal.
    with rc_context({"svg.hashsalt": "response-tuning", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(seen, [part.mean() for part in parts], color="#3f7fbf")
        axes.set_xlabel("million tokens")
        axes.set_ylabel("loss, nats a token")
        axes.grid(color="#e3e6ea")
        axes.spines[["top", "right"]].set_visible(False)
        with written_aside(path) as out:
            figure.savefig(out, format="svg", metadata={"Date": None})
