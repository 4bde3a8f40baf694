"""The prompts and answers of a run, and those on which its variants disagree most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Completion, Score, read_jsonl
from response_tuning.metrics import BAD_IF_1, GOOD_IF_1
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.reading import seed_folders

FINISH = {"stop": "s", "length": "l", "filtered": "f", "other": "o", None: "e"}
"""Finish reason as one letter; "-" is no answer."""
EXAMPLES_SHOWN = 3
EXAMPLE_CHARACTERS = 600
"""Most characters of a prompt or an answer at the top of the page."""


class Answer(NamedTuple):
    """What a model said, or the error in its place."""

    text: str
    finish: str
    """See ``FINISH``."""


@dataclass(frozen=True)
class BenchmarkAnswers:
    """The prompts of a benchmark, and the answers of each variant's first seed."""

    benchmark: BenchmarkScores
    prompts: dict[str, Any] = field(default_factory=dict)
    """Item id -> the user's text, or the [role, text] of every message; in the file's order."""
    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    """Variant -> item id -> answer."""
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    """Variant -> item id -> what the judge or the rules say about the answer."""
    seeds: dict[str, int] = field(default_factory=dict)
    """Variant -> seed of its answers."""

    @cached_property
    def marks(self) -> list[str]:
        """The metrics of the headline that are 0 or 1 for every answer."""
        return [name for name in self.benchmark.headline if name in self.benchmark.binary]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {item: position for position, item in enumerate(self.benchmark.items)}

    def scored(self, variant: str, item: str) -> str:
        """Return "1", "0" or, without a score, "-" for each of the marks."""
        position = self._positions.get(item)
        if position is None or self.seeds.get(variant) not in self.benchmark.seeds:
            return "-" * len(self.marks)
        row = self.benchmark.seeds.index(self.seeds[variant])
        values = (self.benchmark.of(metric, variant)[row, position] for metric in self.marks)
        return "".join({0.0: "0", 1.0: "1"}.get(float(value), "-") for value in values)


class Mark(NamedTuple):
    """A score of 0 or 1 in words."""

    sign: str
    """A tick for what one wants, a cross for its opposite, and nothing where neither is good."""
    text: str


class Said(NamedTuple):
    """An answer as the top of the page shows it."""

    variant: str
    text: str
    marks: tuple[Mark, ...]


class Disagreement(NamedTuple):
    """A prompt whose answers differ."""

    benchmark: str
    prompt: str
    answers: tuple[Said, ...]


def read_answers(run: Path, benchmarks: Sequence[BenchmarkScores]) -> list[BenchmarkAnswers]:
    """Read the answers of each variant's first graded seed, and the reasons for their scores."""
    return [_read(run, benchmark) for benchmark in benchmarks]


def mark(metric: str, value: str) -> Mark:
    """Return a score of "0" or "1" in words; a cross never marks what one wants."""
    is_so = value == "1"
    text = f"{metric.replace('_', ' ')}: {'yes' if is_so else 'no'}"
    if metric not in GOOD_IF_1 | BAD_IF_1:
        return Mark("", text)
    return Mark("\u2713" if is_so == (metric in GOOD_IF_1) else "\u2717", text)


def disagreements(
    answered: Sequence[BenchmarkAnswers], compared: Sequence[str], metric: str
) -> list[Disagreement]:
    """Return the prompts on which the ``compared`` variants disagree most, one per benchmark first.

    The first of the variants disagrees with each of the others in turn. Unlike scores by ``metric``
    come before unlike texts; the order of the file decides between equals. Prompts on which all
    agree are never shown.
    """
    ranked = [
        _ranked(one, compared, metric, compared[1 + place % (len(compared) - 1)])
        for place, one in enumerate(answered)
    ]
    in_turn = chain.from_iterable(zip_longest(*ranked))
    return [one for one in in_turn if one is not None][:EXAMPLES_SHOWN]


def _ranked(
    answered: BenchmarkAnswers, compared: Sequence[str], metric: str, other: str
) -> Iterator[Disagreement]:
    """Yield the prompts on which the first variant and ``other`` disagree most."""
    place = answered.marks.index(metric) if metric in answered.marks else None

    def rank(item: str) -> tuple[bool, int, int]:
        texts = {answered.answers[name][item].text for name in compared}
        if place is None:
            return False, 0, len(texts)
        scores = {name: answered.scored(name, item)[place] for name in compared}
        unlike = {scores[compared[0]], scores[other]} == {"0", "1"}
        every = [*scores.values()]
        return unlike, every.count("0") * every.count("1"), len(texts)

    everywhere = [
        item
        for item in answered.prompts
        if all(item in answered.answers.get(name, {}) for name in compared)
    ]
    ranks = {item: rank(item) for item in everywhere}
    for item in sorted(everywhere, key=lambda item: ranks[item], reverse=True)[:EXAMPLES_SHOWN]:
        # A score may differ by how the answer ends alone, so equal texts can disagree.
        if ranks[item] > (False, 0, 1):
            yield _shown(answered, compared, item)


def _shown(answered: BenchmarkAnswers, compared: Sequence[str], item: str) -> Disagreement:
    prompt = answered.prompts[item]
    turns = [("", prompt)] if isinstance(prompt, str) else prompt
    text = "\n".join(f"{who}: {said}" if who else said for who, said in turns)
    answers = (
        Said(
            name,
            _shortened(answered.answers[name][item].text),
            tuple(
                mark(metric, value)
                for metric, value in zip(answered.marks, answered.scored(name, item), strict=True)
                if value != "-" and metric != "stopped"
            ),
        )
        for name in compared
    )
    return Disagreement(answered.benchmark.name, _shortened(text), tuple(answers))


def _shortened(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[: EXAMPLE_CHARACTERS - 1]}\u2026"


def _read(run: Path, benchmark: BenchmarkScores) -> BenchmarkAnswers:
    answered = BenchmarkAnswers(benchmark)
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
                answers[completion.item_id] = Answer(
                    text or completion.detail, FINISH[completion.finish_reason]
                )
            answered.reasons[variant] = _reasons(folder / "grade" / f"{benchmark.name}.jsonl")
    return answered


def _reasons(path: Path) -> dict[str, str]:
    """Return item id -> the explanations of its scores, each once with the metrics it is about."""
    by_item: dict[str, dict[str, list[str]]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if '"explanation":""' in line:  # most lines: skipping them unread halves the time
                continue
            score = Score.model_validate_json(line)
            if score.explanation:
                metrics = by_item.setdefault(score.item_id, {}).setdefault(score.explanation, [])
                metrics.append(score.metric.replace("_", " "))
    return {
        item: "\n".join(f"{', '.join(metrics)}: {why}" for why, metrics in of_item.items())
        for item, of_item in by_item.items()
    }
