"""The data of the page's prompt browser: every prompt with the answers of all variants."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Completion, read_jsonl
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.reading import seed_folders

FINISH = {"stop": "s", "length": "l", "filtered": "f", "other": "o", None: "e"}
"""Finish reason as one letter; "-" is no answer."""


class _Answer(NamedTuple):
    text: str
    finish: str


class _BenchmarkAnswers(NamedTuple):
    """The prompts of a benchmark, and the answers of each variant's first seed."""

    benchmark: BenchmarkScores
    prompts: dict[str, Any]
    """Item id -> the user's text, or the [role, text] of every message; in the file's order."""
    answers: dict[str, dict[str, _Answer]]
    """Variant -> item id -> answer."""
    seeds: dict[str, int]
    """Variant -> seed of its answers."""


def browser_json(
    run: Path, benchmarks: Sequence[BenchmarkScores], room: int
) -> tuple[str, list[str]]:
    """Return JSON that is safe inside a script element, and sentences on what it leaves out.

    If the JSON would be longer than ``room`` bytes, it has the first prompts of each benchmark, as
    many as fit.
    """
    answered = [_read(run, benchmark) for benchmark in benchmarks]
    items = [list(_items(place, one)) for place, one in enumerate(answered)]
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
        for one, shown, all_ in zip(answered, kept, items, strict=True)
        if len(shown) < len(all_)
    }
    return f"{shell[:-2]}{joined}]}}", [*_cut(cut), *_other_seeds(answered)]


def _read(run: Path, benchmark: BenchmarkScores) -> _BenchmarkAnswers:
    answered = _BenchmarkAnswers(benchmark, {}, {}, {})
    for variant in benchmark.variants:
        graded = benchmark.seeds_of(variant)
        folders = [one for one in seed_folders(run, variant) if one[0] in graded]
        for seed, folder in folders[:1]:
            path = folder / "generate" / f"{benchmark.name}.jsonl"
            answered.seeds[variant] = seed
            answers = answered.answers.setdefault(variant, {})
            for completion in read_jsonl(path, Completion) if path.exists() else ():
                turns = [[message.role, message.content] for message in completion.prompt]
                # Most prompts are one user turn, which takes half the bytes as plain text.
                alone = len(turns) == 1 and turns[0][0] == "user"
                answered.prompts.setdefault(completion.item_id, turns[0][1] if alone else turns)
                text = completion.response if completion.response is not None else completion.error
                answers[completion.item_id] = _Answer(
                    text or completion.detail, FINISH[completion.finish_reason]
                )
    return answered


def _items(place: int, answered: _BenchmarkAnswers) -> Iterator[str]:
    """Yield each prompt as JSON; equal answers of several variants are stored once."""
    benchmark = answered.benchmark
    positions = {item: position for position, item in enumerate(benchmark.items)}
    for item, prompt in answered.prompts.items():
        # Equal answers are common (refusals, short facts): each text is stored once, by index.
        texts: dict[str, int] = {}
        which: list[int] = []
        marks: list[str] = []
        position = positions.get(item)
        for variant in benchmark.variants:
            answer = answered.answers.get(variant, {}).get(item)
            which.append(texts.setdefault(answer.text, len(texts)) if answer else -1)
            marks.append((answer.finish if answer else "-") + _scored(answered, variant, position))
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
    """Return the metrics that the page shows as a tick or a cross."""
    return [metric for metric in benchmark.headline if metric in benchmark.binary]


def _scored(answered: _BenchmarkAnswers, variant: str, position: int | None) -> str:
    """Return "1", "0" or, without a score, "-" for each of the marks."""
    benchmark = answered.benchmark
    if position is None or answered.seeds.get(variant) not in benchmark.seeds:
        return "-" * len(_marks(benchmark))
    row = benchmark.seeds.index(answered.seeds[variant])
    values = (benchmark.of(metric, variant)[row, position] for metric in _marks(benchmark))
    return "".join({0.0: "0", 1.0: "1"}.get(float(value), "-") for value in values)


def _cut(shown: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each benchmark of which the page shows only a part."""
    if len(shown) > 3:
        counts = ", ".join(f"{count} of {name}" for name, count in shown.items())
        yield f"To keep this page small, only the first prompts are shown: {counts}."
        return
    for name, count in shown.items():
        yield f"{name}: the first {count} prompts are shown, to keep this page small."


def _other_seeds(answered: Sequence[_BenchmarkAnswers]) -> Iterator[str]:
    """Yield a sentence for each variant whose answers are not of the lowest seed."""
    seeds: dict[str, int] = {}
    for one in answered:
        seeds |= one.seeds
    for variant, seed in seeds.items():
        if seed != min(seeds.values()):
            yield f"The answers of {variant} are of seed {seed}."


def _safe(value: Mapping[str, Any]) -> str:
    """Return JSON in which no text can close or open an element of the page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
