"""What does the likelihood alone tell on the questions of ``miniature-judge``? It needs no judge.

    python benchmarks/judge_likelihood.py [RUN]

The score of an answer is the mean log-likelihood of its tokens and its end under the untuned base.
A row is what stands before the answer: its question, another one, or the opening alone. Columns
are the AUROC on seen and on unseen families, and the share of questions whose likeliest answer of
four is sound, each with a 95 % bootstrap over questions.

With a run of ``recipes/neighbours/self-judge.yaml``, also differences of the AUROC between its
judges, and between the likelihood and them: means over its seeds, with a bootstrap over questions
and seeds.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import Message, Score, read_jsonl
from response_tuning.errors import EngineError
from response_tuning.grade import selection
from response_tuning.grade.sources import spread
from response_tuning.likelihoods import Likelihood, Pair
from response_tuning.miniature.families import FamilyRole
from response_tuning.miniature.judging import JudgedAnswer, candidates
from response_tuning.models.inference import load
from response_tuning.models.likelihood import log_likelihoods
from response_tuning.models.local import LocalModel

QUESTIONS = 60
"""Of seen and of unseen families together, as ``recipes/neighbours/self-judge.yaml`` asks."""
VIEWS = ("question", "another question", "nothing")
GROUPS: tuple[FamilyRole, ...] = ("seen", "unseen")
TOKENS_PER_BATCH = 4096
RESAMPLES = 600
Array = npt.NDArray[np.float64]
JUDGES = {
    "self-judge": ("self-judge", "miniature-judge"),
    "another question": ("self-judge", "miniature-judge-shuffled"),
    "score(y)": ("response", "miniature-judge-response"),
    "no divergence": ("without-kl", "miniature-judge"),
    "plain": ("digits", "miniature-judge"),
}
"""Name -> variant of the recipe, and the benchmark that shows it what it was trained to see."""
PAIRS = (
    *((name, "self-judge") for name in ("another question", "score(y)", "no divergence", "plain")),
    *(("likelihood", name) for name in ("self-judge", "plain", "likelihood alone")),
)
Asked = list[tuple[FamilyRole, list[JudgedAnswer], str]]


def questions(limit: int = QUESTIONS) -> Asked:
    """Return the benchmark's questions: group, four answers, and another question."""
    every: Asked = []
    for group in GROUPS:
        of_group = [answers for _, answers in candidates("form", group, "test")]
        others = [*of_group[1:], of_group[0]]
        every.extend(
            (group, answers, other[0].instruction)
            for answers, other in zip(of_group, others, strict=True)
        )
    return spread(every, limit)


def scored(local: LocalModel, asked: Asked, view: str) -> list[float]:
    """Return the score of every answer, in their order."""
    pairs = []
    for _, answers, other in asked:
        for one in answers:
            shown = other if view == "another question" else one.instruction
            before = () if view == "nothing" else (Message(role="user", content=shown),)
            pairs.append(Pair(before, one.response))
    return [_mean(one) for one in log_likelihoods(local, pairs, TOKENS_PER_BATCH)]


def _mean(found: object) -> float:
    if not isinstance(found, Likelihood):
        raise EngineError(f"an answer has no likelihood: {found}")
    return (found.total + found.ending) / (found.tokens + 1)


def judged(run: Path, variant: str, benchmark: str) -> Array:
    """Return the grades of every answer, (seeds, answers), in the order of the questions."""
    files = sorted((run / variant).glob(f"seed-*/grade/{benchmark}.jsonl"))
    return np.array(
        [[one.value for one in read_jsonl(file, Score) if one.metric == "digit"] for file in files]
    )


def differences(scores: Mapping[str, Array], answers: selection.Scored, rows: Array) -> None:
    """Print the difference of the AUROC in each of ``PAIRS``, among the answers of ``rows``."""
    seeds = np.arange(len(scores["self-judge"]))
    members = [
        np.flatnonzero(rows & (answers.questions == one)) for one in np.unique(answers.questions)
    ]
    members = [places for places in members if len(places)]

    def areas(places: npt.NDArray[np.int_], of: npt.NDArray[np.int_]) -> dict[str, float]:
        return {
            judge: float(
                np.mean([selection.auroc(_of(answers._replace(scores=by[s]), places)) for s in of])
            )
            for judge, by in scores.items()
        }

    whole = areas(np.flatnonzero(rows), seeds)
    draw = np.random.default_rng(0)
    resampled = []
    for _ in range(RESAMPLES):
        drawn = draw.integers(len(members), size=len(members))
        of = draw.integers(len(seeds), size=len(seeds))
        resampled.append(areas(np.concatenate([members[one] for one in drawn]), of))
    for first, second in PAIRS:
        found = whole[first] - whole[second]
        values = [one[first] - one[second] for one in resampled]
        low, high = np.nanpercentile(values, [2.5, 97.5])
        sys.stdout.write(f"  {first} - {second}: {found:+.3f} [{low:+.3f}, {high:+.3f}]\n")


def main() -> None:
    """Print the tables."""
    local = load("miniature", "roles", None, "cpu", "float32")
    asked = questions()
    groups = np.repeat([group for group, _, _ in asked], [len(a) for _, a, _ in asked])
    numbers = np.repeat(np.arange(len(asked)), [len(a) for _, a, _ in asked])
    good = np.array([float(one.good) for _, answers, _ in asked for one in answers])
    found = {view: np.array(scored(local, asked, view)) for view in VIEWS}
    for view, scores in found.items():
        answers = selection.Scored(numbers, scores, good)
        cells = [_shown(selection.area(_of(answers, groups == group))) for group in GROUPS]
        best = _shown(selection.mean(selection.best_of(answers)))
        sys.stdout.write(f"{view:16}  {'  '.join(cells)}  {best}\n")
    if sys.argv[1:]:
        every = {name: judged(Path(sys.argv[1]), *of) for name, of in JUDGES.items()}
        seeds = len(every["self-judge"])
        every["likelihood"] = np.tile(found["question"], (seeds, 1))
        every["likelihood alone"] = np.tile(found["nothing"], (seeds, 1))
        for group in GROUPS:
            sys.stdout.write(f"{group} families\n")
            differences(every, answers, groups == group)


def _of(answers: selection.Scored, rows: npt.NDArray[np.int_]) -> selection.Scored:
    return selection.Scored(*(column[rows] for column in answers))


def _shown(found: selection.Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
