"""The data of the page's prompt browser: every prompt with the answers of all variants."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from response_tuning.metrics import BAD_IF_1, GOOD_IF_1
from response_tuning.report.answers import BenchmarkAnswers


def browser_json(
    answered: Sequence[BenchmarkAnswers], compared: Sequence[str], room: int
) -> tuple[str, list[str]]:
    """Return JSON that is safe inside a script element, and sentences on what it leaves out.

    If the JSON would be longer than ``room`` bytes, it has the first prompts of each benchmark, as
    many as fit. Answers of the ``compared`` variants come first, and decide how far a prompt's
    answers disagree.
    """
    items = [list(_items(place, one)) for place, one in enumerate(answered)]
    shell = _safe(
        {
            "variants": answered[0].benchmark.variants,
            "compared": compared,
            "benchmarks": [{"name": one.benchmark.name, "metrics": one.marks} for one in answered],
            "meaning": {
                mark: 1 if mark in GOOD_IF_1 else -1 if mark in BAD_IF_1 else 0
                for one in answered
                for mark in one.marks
            },
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


def _items(place: int, answered: BenchmarkAnswers) -> Iterator[str]:
    """Yield each prompt as JSON; equal answers and equal reasons are stored once."""
    benchmark = answered.benchmark
    positions = {item: position for position, item in enumerate(benchmark.items)}
    for item, prompt in answered.prompts.items():
        # Equal answers are common (refusals, short facts): each text is stored once, by index.
        texts: dict[str, int] = {}
        reasons: dict[str, int] = {}
        which: list[int] = []
        why: list[int] = []
        marks: list[str] = []
        position = positions.get(item)
        for variant in benchmark.variants:
            answer = answered.answers.get(variant, {}).get(item)
            reason = answered.reasons.get(variant, {}).get(item)
            which.append(texts.setdefault(answer.text, len(texts)) if answer else -1)
            why.append(reasons.setdefault(reason, len(reasons)) if reason else -1)
            marks.append((answer.finish if answer else "-") + answered.scored(variant, item))
        yield _safe(
            {
                "benchmark": place,
                "group": "" if position is None else benchmark.groups[position],
                "id": item,
                "prompt": prompt,
                "texts": list(texts),
                "which": which,
                "marks": marks,
                **({"reasons": list(reasons), "why": why} if reasons else {}),
            }
        )


def _cut(shown: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each benchmark of which the page shows only a part."""
    if len(shown) > 3:
        counts = ", ".join(f"{count} of {name}" for name, count in shown.items())
        yield f"To keep this page small, only the first prompts are shown: {counts}."
        return
    for name, count in shown.items():
        yield f"{name}: the first {count} prompts are shown, to keep this page small."


def _other_seeds(answered: Sequence[BenchmarkAnswers]) -> Iterator[str]:
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
