"""The embedded default: a closed world, a corpus, a benchmark and a base model made of them.

Because its answers can be checked by rule, the claims of the paper can be tried in minutes,
without a judge, a network or a GPU.
"""

from pathlib import Path

NAME = "miniature"
BASE = Path(__file__).parent / "base"
"""The shipped base model, a Hugging Face folder."""
DEMO = Path(__file__).parent / "demo.yaml"
"""The recipe of ``rtune demo``."""


def resolved(model: str) -> str:
    """Return the folder of the shipped base model for ``miniature``; anything else as it is."""
    return str(BASE) if model == NAME else model
