"""How long real examples are: histograms of tokens, without the texts, and draws from them.

    python benchmarks/lengths.py --data FOLDER --tokenizer FOLDER

writes ``lengths.json``: for ``alpaca``, ``dolly`` and ``lima``, as response tuning (``-rt``) and
instruction tuning (``-it``) see them under the chat template ``tulu``, rows of (tokens of an
example, examples of that length, tokens of these that carry loss). ``--data`` holds the public
files, ``--tokenizer`` is Llama 3's. What is longer than 8,192 tokens is cut to them.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HISTOGRAMS = Path(__file__).with_name("lengths.json")
FILES = {
    "alpaca": "alpaca/alpaca_random_9k.json",
    "dolly": "dolly/dolly_filtered.json",
    "lima": "lima/lima_train.jsonl",
}
OBJECTIVES = {"rt": "response-tuning", "it": "instruction-tuning"}
WINDOW = 8192


class Length(NamedTuple):
    """An example's."""

    tokens: int
    supervised: int
    """Those at the end, which carry loss."""


def draw(workload: str, window: int, count: int, seed: int = 0) -> list[Length]:
    """Draw ``count`` examples of a workload such as ``alpaca-rt``, cut to ``window`` tokens."""
    rows = json.loads(HISTOGRAMS.read_text(encoding="utf-8"))[workload]
    lengths = [Length(tokens, round(carrying / examples)) for tokens, examples, carrying in rows]
    drawn = random.Random(seed).choices(lengths, [examples for _, examples, _ in rows], k=count)
    return [cut(length, window) for length in drawn]


def cut(length: Length, window: int) -> Length:
    """Cut an example at its end; one token at least carries loss."""
    over = max(length.tokens - window, 0)
    return Length(length.tokens - over, max(length.supervised - over, 1))


def histogram(source: str, objective: str, data: Path, tokenizer: Path) -> list[list[int]]:
    """Return the rows of one workload."""
    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.finetune import base, dataset
    from response_tuning.templates import Chat
    from response_tuning.workflows.data import run_data

    config = FinetuneConfig(base_model=str(tokenizer), objective=objective, window=WINDOW)
    chat = Chat(base.load_tokenizer(config))
    examples, supervised = Counter[int](), Counter[int]()
    with tempfile.TemporaryDirectory() as folder:
        run_data(DataConfig(source=source, path=data / FILES[source]), Path(folder))
        for row in dataset.rows(config, chat, dataset.read_examples(Path(folder))):
            if row.trained:
                examples[len(row.input_ids)] += 1
                supervised[len(row.input_ids)] += row.supervised
    return [[tokens, examples[tokens], supervised[tokens]] for tokens in sorted(examples)]


def main() -> None:
    """Write all histograms, one a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the public files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with one")
    options = parser.parse_args()
    lines = []
    for source in FILES:
        for name, objective in OBJECTIVES.items():
            rows = histogram(source, objective, options.data, options.tokenizer)
            lines.append(f'"{source}-{name}": {json.dumps(rows, separators=(",", ":"))}')
            examples, tokens = sum(n for _, n, _ in rows), sum(n * t for t, n, _ in rows)
            share = sum(carrying for *_, carrying in rows) / tokens
            print(
                f"{source}-{name}: {examples} examples, {tokens / examples:.0f} tokens, {share:.3f}"
            )
    HISTOGRAMS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
