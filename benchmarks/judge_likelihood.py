"""What does the likelihood alone tell on the questions of ``miniature-judge``? It needs no judge.

    python benchmarks/judge_likelihood.py

The score of an answer is the mean log-likelihood of its tokens and its end under the untuned base.
A row is what stands before the answer: its question, another one, or the opening alone. Columns
are the AUROC on seen and on unseen families, and the share of questions whose likeliest answer of
four is sound, each with a 95 % bootstrap over questions.
"""

import sys

import numpy as np

from response_tuning.artifacts import Message
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


def main() -> None:
    """Print the table."""
    local = load("miniature", "roles", None, "cpu", "float32")
    asked = questions()
    groups = np.repeat([group for group, _, _ in asked], [len(a) for _, a, _ in asked])
    numbers = np.repeat(np.arange(len(asked)), [len(a) for _, a, _ in asked])
    good = np.array([float(one.good) for _, answers, _ in asked for one in answers])
    for view in VIEWS:
        answers = selection.Scored(numbers, np.array(scored(local, asked, view)), good)
        cells = [_shown(selection.area(_of(answers, groups == group))) for group in GROUPS]
        best = _shown(selection.mean(selection.best_of(answers)))
        sys.stdout.write(f"{view:16}  {'  '.join(cells)}  {best}\n")


def _of(answers: selection.Scored, rows: np.ndarray) -> selection.Scored:
    return selection.Scored(*(column[rows] for column in answers))


def _shown(found: selection.Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
