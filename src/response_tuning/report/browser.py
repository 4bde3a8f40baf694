"""What the page's browser of prompts shows: every prompt with the answers of all variants."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Completion, read_jsonl
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.reading import seed_folders

FINISH = {"stop": "s", "length": "l", "filtered": "f", "other": "o", None: "e"}
"""How an answer ended, in one letter; "-" stands for no answer."""


class _Answer(NamedTuple):
    text: str
    finish: str


class _Asked(NamedTuple):
    """What a benchmark asked, and what each variant said in its first seed."""

    benchmark: BenchmarkScores
    prompts: dict[str, Any]
    """Item id -> the user's text, or the [role, text] of every message; in the file's order."""
    answers: dict[str, dict[str, _Answer]]
    """Variant -> item id -> answer."""
    seeds: dict[str, int]
    """Variant -> the seed whose answers these are."""


def browser_json(
    run: Path, benchmarks: Sequence[BenchmarkScores], room: int
) -> tuple[str, list[str]]:
    """Return JSON that is safe inside a script element and sentences on what is not in it.

    If it would be longer than ``room`` bytes, it holds the first prompts of each benchmark only,
    as many as there is room for.
    """
    asked = [_read(run, benchmark) for benchmark in benchmarks]
    items = [list(_items(place, one)) for place, one in enumerate(asked)]
    shell = _safe(
        {
            "variants": benchmarks[0].variants,
            "benchmarks": [{"name": b.name, "metrics": _marks(b)} for b in benchmarks],
            "items": [],
        }
    )
    room -= len(shell.encode())
    kept: list[list[str]] = [[] for _ in items]
    for row in zip_longest(*items):  # the first prompt of every benchmark, then the second
        room -= sum(len(item.encode()) + 1 for item in row if item)
        if room < 0:
            break
        for place, item in enumerate(row):
            if item:
                kept[place].append(item)
    joined = ",".join(item for part in kept for item in part)
    cut = {
        one.benchmark.name: f"{len(shown)} of {len(all_)}"
        for one, shown, all_ in zip(asked, kept, items, strict=True)
        if len(shown) < len(all_)
    }
    return f"{shell[:-2]}{joined}]}}", [*_cut(cut), *_other_seeds(asked)]


def _read(run: Path, benchmark: BenchmarkScores) -> _Asked:
    asked = _Asked(benchmark, {}, {}, {})
    for variant in benchmark.variants:
        graded = benchmark.seeds_of(variant)
        folders = [found for found in seed_folders(run, variant) if found[0] in graded]
        for seed, folder in folders[:1]:
            path = folder / "generate" / f"{benchmark.name}.jsonl"
            asked.seeds[variant] = seed
            answers = asked.answers.setdefault(variant, {})
            for said in read_jsonl(path, Completion) if path.exists() else ():
                turns = [[message.role, message.content] for message in said.prompt]
                alone = len(turns) == 1 and turns[0][0] == "user"
                asked.prompts.setdefault(said.item_id, turns[0][1] if alone else turns)
                text = said.response if said.response is not None else said.error
                answers[said.item_id] = _Answer(text or said.detail, FINISH[said.finish_reason])
    return asked


def _items(place: int, asked: _Asked) -> Iterator[str]:
    """Yield each prompt as JSON; an answer that several variants gave is there once."""
    benchmark = asked.benchmark
    positions = {item: position for position, item in enumerate(benchmark.items)}
    for item, prompt in asked.prompts.items():
        texts: dict[str, int] = {}
        which: list[int] = []
        marks: list[str] = []
        position = positions.get(item)
        for variant in benchmark.variants:
            said = asked.answers.get(variant, {}).get(item)
            which.append(texts.setdefault(said.text, len(texts)) if said else -1)
            marks.append((said.finish if said else "-") + _scored(asked, variant, position))
        yield _safe(
            {
                "benchmark": place,
                "group": "" if position is None else benchmark.groups[position],
                "id": item,
                "prompt": prompt,
                "texts": list(texts),
                "which": which,
                "marks": marks,
            }
        )


def _marks(benchmark: BenchmarkScores) -> list[str]:
    """Return the metrics that are shown as a tick or a cross."""
    return [metric for metric in benchmark.headline if metric in benchmark.binary]


def _scored(asked: _Asked, variant: str, position: int | None) -> str:
    """Return "1", "0" or, where there is no score, "-" for each of the marks."""
    benchmark = asked.benchmark
    if position is None or asked.seeds.get(variant) not in benchmark.seeds:
        return "-" * len(_marks(benchmark))
    row = benchmark.seeds.index(asked.seeds[variant])
    values = (benchmark.of(metric, variant)[row, position] for metric in _marks(benchmark))
    return "".join({0.0: "0", 1.0: "1"}.get(float(value), "-") for value in values)


def _cut(shown: Mapping[str, str]) -> Iterator[str]:
    """Say how many prompts are shown of the benchmarks of which not all are."""
    if len(shown) > 3:
        counts = ", ".join(f"{count} of {name}" for name, count in shown.items())
        yield f"To keep this page small, only the first prompts are shown: {counts}."
        return
    for name, count in shown.items():
        yield f"{name}: the first {count} prompts are shown, to keep this page small."


def _other_seeds(asked: Sequence[_Asked]) -> Iterator[str]:
    """Say whose answers are of another seed than the lowest."""
    seeds: dict[str, int] = {}
    for one in asked:
        seeds |= one.seeds
    for variant, seed in seeds.items():
        if seed != min(seeds.values()):
            yield f"The answers of {variant} are of seed {seed}."


def _safe(value: Mapping[str, Any]) -> str:
    """Write JSON in which nothing can close, or open, an element of the page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
