"""The loss of a pre-training run, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from response_tuning.artifacts import written_aside

POINTS = 250
"""Most points that are drawn, each the mean of as many steps."""


def draw_losses(losses: Sequence[float], tokens_per_step: int, path: Path) -> None:
    """Draw the loss in nats a token over the tokens seen, as an SVG; same losses, same bytes."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = np.array_split(np.asarray(losses), min(POINTS, len(losses)))
    seen = np.cumsum([len(part) for part in parts]) * tokens_per_step / 1e6
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
