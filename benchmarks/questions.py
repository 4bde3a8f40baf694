"""What the reports on recipes/questions do not say by themselves.

    python benchmarks/questions.py curve RUN [--svg FILE]    a learning curve over the responses
    python benchmarks/questions.py memorised RUN    what answers copy from the training responses
    python benchmarks/questions.py drift RUN [--texts JSONL]
                                                    how far tuning moved the base on general text

Each prints a table of the cells of a run that are whole.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import Completion, Example, Score, read_json, read_jsonl
from response_tuning.errors import DataError, ResponseTuningError
from response_tuning.pairing import words
from response_tuning.report.plots import COLOURS, STYLE, Drawing
from response_tuning.validation import build
from response_tuning.workflows.experiment import Cell, Experiment, cells

Array = npt.NDArray[np.float64]
METRIC = "strict"
RESAMPLES = 400
WORTH = 0.01
"""More responses are worth it while doubling them brings at least one point."""
DOCUMENTS = 100
TOKENS = 256
"""Longest part of a document; those of the miniature are shorter."""
DOCUMENT_SEED = 1000
"""Another seed than the base's corpus: no document of it was read."""


class Curve(NamedTuple):
    """score(n) = top n^slope / (half^slope + n^slope): a Hill curve of the number of responses."""

    top: float
    half: float
    slope: float

    def at(self, n: float) -> float:
        """Return the score after n responses."""
        grown = (n / self.half) ** self.slope
        return self.top * grown / (1 + grown)


class Point(NamedTuple):
    """The score of one model, tuned on so many responses."""

    count: int
    sums: Array
    """(clusters,): sums of the scores of the prompts that ask about one thing."""
    prompts: Array
    """(clusters,): how many prompts these are; the same for all models."""

    def score(self, weights: Array | float = 1.0) -> float:
        """Return the mean over prompts whose clusters have these weights."""
        return float((weights * self.sums).sum() / (weights * self.prompts).sum())


class Copied(NamedTuple):
    """What one answer has in common with the training responses."""

    run: int
    """Longest run of words that a training response has as well."""
    share: float
    """That run, as a share of the answer's words."""
    nearest: float
    """Largest Jaccard similarity of word triples to a training response."""


class Drift(NamedTuple):
    """How far a tuned model is from its base on documents."""

    sums: Array
    """(documents, 4): sums of KL(tuned || base), of both losses (tuned, base), and tokens."""

    @property
    def kl(self) -> float:
        """KL(tuned || base) in nats a token."""
        return self._a_token(0)

    @property
    def base(self) -> float:
        """The base's loss in nats a token."""
        return self._a_token(2)

    @property
    def more(self) -> float:
        """How much higher the tuned model's loss is."""
        return self._a_token(1) - self.base

    def interval(self) -> tuple[float, float]:
        """Return the 95 % percentile interval of ``more`` over documents."""
        draw = np.random.default_rng(0)
        count = len(self.sums)
        drawn = (Drift(self.sums[draw.integers(count, size=count)]) for _ in range(RESAMPLES))
        low, high = np.quantile([one.more for one in drawn], (0.025, 0.975))
        return float(low), float(high)

    def _a_token(self, column: int) -> float:
        return float(self.sums[:, column].sum() / self.sums[:, 3].sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="Measures for the open questions.")
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("run", type=Path)
    parser.add_argument("--svg", type=Path, help="draw the learning curves into this file")
    parser.add_argument("--texts", type=Path, help="drift on the column 'text' of this JSONL file")
    given = parser.parse_args(arguments)
    try:
        more = {"texts": given.texts} if given.what == "drift" else {}
        for line in COMMANDS[given.what](given.run, **more):
            print(line, flush=True)
        if given.svg is not None and given.what == "curve":
            given.svg.write_text(drawn(given.run).svg, encoding="utf-8")
    except ResponseTuningError as error:
        raise SystemExit(f"questions: {error}") from error


def tuned_cells(run: Path) -> list[Cell]:
    """Return the tuned cells of a run that have answers.

    Raises:
        DataError: there are none.
    """
    content = read_json(run / "manifest.json", "experiment")["experiment"]
    every = cells(build(Experiment, content, str(run / "manifest.json")))
    found = [c for c in every if c.tuned and (c.folder(run) / "generate/manifest.json").exists()]
    if not found:
        raise DataError(f"{run}: no tuned cell has answers; run the recipe first")
    return found


def curve(run: Path) -> Iterator[str]:
    """Yield a fitted learning curve for each arm and benchmark, and what more responses bring."""
    for arm, mine in _arms(run).items():
        for benchmark in mine[0].benchmarks:
            yield from _curve(arm, benchmark, [*_points(run, mine, benchmark)])


def _arms(run: Path) -> dict[str, list[Cell]]:
    arms: dict[str, list[Cell]] = {}
    for cell in tuned_cells(run):
        arms.setdefault(cell.place.get("variant", cell.variant), []).append(cell)
    return arms


def drawn(run: Path) -> Drawing:
    """Draw the scores of each arm over the number of responses, with the fitted curves."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    arms = _arms(run)
    benchmarks = next(iter(arms.values()))[0].benchmarks
    with rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 3.2 * len(benchmarks), 3.6), layout="constrained")
        grid = figure.subplots(1, len(benchmarks), sharey=True, squeeze=False)[0]
        for axes, benchmark in zip(grid, benchmarks, strict=True):
            for colour, (arm, mine) in zip(COLOURS, arms.items(), strict=False):
                points = [(one.count, one.score()) for one in _points(run, mine, benchmark)]
                axes.scatter(*zip(*points, strict=True), s=14, color=colour, alpha=0.6, label=arm)
                fitted = fit_curve(points)
                if fitted is not None:
                    counts = np.geomspace(min(n for n, _ in points), max(n for n, _ in points))
                    axes.plot(counts, [fitted.at(n) for n in counts], color=colour)
            axes.set(xscale="log", ylim=(0, 1.03), title=benchmark, xlabel="responses")
            axes.set_xticks([8, 32, 125, 500], ["8", "32", "125", "500"], minor=False)
            axes.yaxis.set_major_formatter("{x:.0%}")
        grid[0].set_ylabel(METRIC)
        grid[0].legend(loc="lower right")
    return Drawing(figure)


def _points(run: Path, mine: Sequence[Cell], benchmark: str) -> Iterator[Point]:
    """Yield the scores of each cell that is graded."""
    for cell in mine:
        path = cell.folder(run) / "grade" / f"{benchmark}.jsonl"
        if path.exists():
            audit = read_json(cell.folder(run) / "finetune/manifest.json", "audit")["audit"]
            scores = [one for one in read_jsonl(path, Score) if one.metric == METRIC]
            names = [one.cluster or one.item_id for one in scores]
            _, of_prompt = np.unique(names, return_inverse=True)
            sums = np.bincount(of_prompt, [one.value for one in scores])
            yield Point(audit["kept"], sums, np.bincount(of_prompt).astype(float))


def _curve(arm: str, benchmark: str, points: Sequence[Point]) -> Iterator[str]:
    by_count: dict[int, list[Point]] = {}
    for one in sorted(points, key=lambda one: (one.count, one.score())):
        by_count.setdefault(one.count, []).append(one)
    yield f"{arm}, {benchmark}, {METRIC} in percent"
    for count, models in by_count.items():
        each = ", ".join(f"{100 * one.score():.1f}" for one in models)
        yield f"  {count:6,} responses: {each}"
    fitted = fit_curve([(one.count, one.score()) for one in points])
    if fitted is None:
        yield "  no curve fits: four numbers of responses are needed, and a rise"
        return
    drawn = [*_resampled(by_count)]
    most = max(by_count)
    for n in (*by_count, 2 * most):
        low, high = np.quantile([one.at(n) for one in drawn], (0.025, 0.975))
        beyond = " (extrapolated)" if n > most else ""
        ends = f"[{100 * low:.1f}, {100 * high:.1f}]"
        yield f"  fitted at {n:,}: {100 * fitted.at(n):.1f} {ends}{beyond}"
    gains = [100 * (one.at(2 * most) - one.at(most)) for one in drawn]
    low, high = np.quantile(gains, (0.025, 0.975))
    gain = fitted.at(2 * most) - fitted.at(most)
    worth = "worth it" if gain >= WORTH else "not worth it"
    ends_of = np.quantile([_enough(one) for one in drawn], (0.025, 0.975), method="nearest")
    yield (
        f"  twice {most:,} would bring {100 * gain:.1f} points [{low:.1f}, {high:.1f}]: {worth} at "
        f"{100 * WORTH:.0f} point a doubling; it ends being so at about {_shown(_enough(fitted))} "
        f"[{', '.join(map(_shown, ends_of))}]"
    )


def _enough(fitted: Curve) -> float:
    """Return the number of responses, a power of 2, from which on a doubling is not worth it."""
    counts = (float(2**power) for power in range(3, 21))
    worth = (n for n in counts if n > fitted.half and fitted.at(2 * n) - fitted.at(n) < WORTH)
    return next(worth, math.inf)


def _shown(count: float) -> str:
    return "over a million" if math.isinf(count) else f"{count:,.0f}"


def fit_curve(points: Sequence[tuple[int, float]]) -> Curve | None:
    """Fit the curve to (responses, score); None if it cannot be told from these."""
    from scipy.optimize import curve_fit

    counts, scores = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    if len(set(counts)) < 4 or scores.max() <= 0:
        return None

    def hill(n: Array, top: float, log_half: float, slope: float) -> Array:
        grown: Array = (n / np.exp(log_half)) ** slope
        return top * grown / (1 + grown)

    start = (float(scores.max()), math.log(float(np.median(counts))), 1.0)
    bounds = ([0, 0, 0.1], [1, math.log(1e7), 10])
    try:
        found, _ = curve_fit(hill, counts, scores, p0=start, bounds=bounds, maxfev=20_000)
    except RuntimeError:
        return None
    top, log_half, slope = map(float, found)
    return Curve(top, math.exp(log_half), slope)


def _resampled(by_count: Mapping[int, Sequence[Point]]) -> Iterator[Curve]:
    """Yield curves of resampled clusters of prompts, and seeds resampled at each number."""
    draw = np.random.default_rng(0)
    clusters = len(next(iter(by_count.values()))[0].sums)
    for _ in range(RESAMPLES):
        weights = np.bincount(draw.integers(clusters, size=clusters), minlength=clusters)
        points = [
            (count, models[place].score(weights))
            for count, models in by_count.items()
            for place in draw.integers(len(models), size=len(models))
        ]
        fitted = fit_curve(points)
        if fitted is not None:
            yield fitted


def memorised(run: Path) -> Iterator[str]:
    """Yield, for each variant and benchmark, what answers copy from the training responses.

    Beside it stands the same for the training responses of another seed, which this model did not
    see: responses of one kind are alike by themselves.
    """
    yield f"{'variant':24}{'benchmark':20}{'copied run':>11}{'whole':>8}{'nearest':>9}{'unseen':>8}"
    every = tuned_cells(run)
    for variant in dict.fromkeys(cell.variant for cell in every):
        mine = [cell for cell in every if cell.variant == variant]
        for benchmark in mine[0].benchmarks:
            found = [one for cell in mine for one in _copied(run, cell, benchmark, mine)]
            own = [one for one, _ in found]
            whole = fmean(one.share == 1 for one in own)
            others = fmean(other for _, other in found)
            yield (
                f"{variant:24}{benchmark:20}{median(one.run for one in own):11.0f}"
                f"{100 * whole:7.1f}%{fmean(one.nearest for one in own):9.2f}{others:8.2f}"
            )


def _copied(
    run: Path, cell: Cell, benchmark: str, mine: Sequence[Cell]
) -> Iterator[tuple[Copied, float]]:
    own = _responses(run, cell)
    seen = set(own)
    other = next((one for one in mine if one.seed != cell.seed), cell)
    unseen = [text for text in _responses(run, other) if text not in seen]
    for completion in read_jsonl(cell.folder(run) / "generate" / f"{benchmark}.jsonl", Completion):
        answer = words(completion.response or "")
        if answer:
            yield copied(answer, own), _nearest(answer, unseen)


def _responses(run: Path, cell: Cell) -> list[tuple[str, ...]]:
    path = cell.folder(run) / "data" / "examples.jsonl"
    return [*dict.fromkeys(tuple(words(one.response)) for one in read_jsonl(path, Example))]


def copied(answer: Sequence[str], responses: Sequence[Sequence[str]]) -> Copied:
    """Return what the words of an answer have in common with training responses."""
    from difflib import SequenceMatcher

    longest = 0
    matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
    matcher.set_seq2(list(answer))
    for response in responses:
        matcher.set_seq1(list(response))
        longest = max(longest, matcher.find_longest_match().size)
        if longest == len(answer):
            break
    return Copied(longest, longest / len(answer), _nearest(answer, responses))


def _nearest(answer: Sequence[str], responses: Sequence[Sequence[str]]) -> float:
    own = _triples(answer)
    return max(
        (len(own & other) / len(own | other) for other in map(_triples, responses)), default=0.0
    )


def _triples(sequence: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the runs of three words, or the whole of a shorter text."""
    size = min(3, len(sequence))
    return {tuple(sequence[at : at + size]) for at in range(len(sequence) - size + 1)}


def drift(run: Path, texts: Path | None = None) -> Iterator[str]:
    """Yield how far tuning moved the base, and what it forgot, on documents that neither read.

    Of the corpus: on its own mixture, and on each of its registers, to see what is forgotten.
    """
    kinds = {"texts": _texts(texts)} if texts is not None else _of_the_corpus()
    yield f"{'cell':32}{'text':14}{'KL, nats':>10}{'base':>8}{'loss, more':>12}"
    for cell in tuned_cells(run):
        for kind, shown in kinds.items():
            found = drifted(cell.folder(run) / "finetune", cell.finetune.base_model, shown)
            yield f"{cell.name:32}{kind:14}{found.kl:10.4f}{found.base:8.3f}{_more(found)}"


def _more(found: Drift) -> str:
    low, high = found.interval()
    return f"{found.more:8.3f} [{low:.3f}, {high:.3f}]"


def drifted(tuned: Path, base: str, texts: Sequence[str]) -> Drift:
    """Return how far a tuned model is from its base on texts, without any template."""
    import torch

    from response_tuning.models.inference import load

    both = [load(str(tuned), device="cpu"), load(base, "tulu", device="cpu")]
    sums = []
    longest = min(both[1].context or TOKENS, TOKENS)
    for text in texts:
        ids = both[1].chat.encode(text)[:longest]
        if len(ids) < 2:
            continue
        row = torch.tensor([ids])
        with torch.inference_mode():
            p, q = (
                torch.log_softmax(one.model(input_ids=row, use_cache=False).logits[0, :-1], -1)
                for one in both
            )
        target = row[0, 1:, None]
        losses = [-float(one.gather(1, target).sum()) for one in (p, q)]
        sums.append([float((p.exp() * (p - q)).sum()), *losses, len(ids) - 1])
    return Drift(np.array(sums))


def _of_the_corpus() -> dict[str, list[str]]:
    from itertools import islice

    from response_tuning.miniature.corpus import documents
    from response_tuning.miniature.writer import Mixture, Registers

    alone = {
        name: Mixture(
            registers=Registers(**{other: float(other == name) for other, _ in Registers()})
        )
        for name, _ in Registers()
    }
    mixtures = {"all": Mixture(), **alone}
    return {
        name: [*islice(documents(DOCUMENT_SEED, mixture), DOCUMENTS)]
        for name, mixture in mixtures.items()
    }


def _texts(path: Path) -> list[str]:
    """Return the first documents of a JSONL file."""
    rows = path.read_text("utf-8").splitlines()[:DOCUMENTS]
    return [json.loads(row)["text"] for row in rows]


COMMANDS: dict[str, Any] = {"curve": curve, "memorised": memorised, "drift": drift}

if __name__ == "__main__":
    main()
