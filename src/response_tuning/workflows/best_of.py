"""``rtune best-of``: a judge grades answers; the best one of each instruction, and a table.

    OUT/judged.jsonl  best.jsonl  best-of.json  (with --keep: kept.jsonl, --decline-below:
    answered.jsonl)

Where rows say which answers are good (column ``good``, 0 to 1), the table has the area under the
ROC curve and what the best of N is worth, beside an oracle, a random choice and the likelihood; and
what declining below a grade is worth: the area under the risk-coverage curve (AURC), and the grade
below which to decline so that a stated risk is kept.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from response_tuning.artifacts import file_digest, write_json, written_aside
from response_tuning.configs import Config, EngineConfig, EngineSettings
from response_tuning.errors import DataError, EngineError
from response_tuning.folders import locked
from response_tuning.judging import Form, Sees
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.workflows import judged_answers
from response_tuning.workflows.abstention import ABSTENTION
from response_tuning.workflows.judged_answers import Answer, View

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.grade.selection import Scored

GOOD = "good"


class BestOfConfig(Config):
    """Which answers are judged, and by whom."""

    source: Path
    """A JSONL, JSON, CSV or Parquet file with a response in each row, and its instruction."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """The judge."""
    likelihood: EngineSettings = Field(default_factory=EngineConfig)
    """The model of the likelihood; without a name, the judge itself."""
    sees: Sees = "both"
    """What the judge sees: instruction and response, or the ``response`` alone."""
    form: Form = "full"
    """Of the judge's prompt: as it was trained."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """Also write this share of all answers, those with the highest grades."""
    decline_below: float | None = None
    """Also write each row with its answer or, below this grade, an abstention in its place."""


def run_best_of(config: BestOfConfig, out: Path, console: "Console") -> None:
    """Grade the answers, choose the best of each instruction, and print how good the choice is.

    Raises:
        ConfigError: no judge is named.
        DataError: a row has no response or no instruction, or a ``good`` that is no number.
        EngineError: the judge, or the model of the likelihood, cannot take some answers.
    """
    judged_answers.check_judge_model(config.settings)
    # The likelihood, which stands beside the judge, needs the instruction in any case.
    answers = judged_answers.read_answers(config.source, ("instruction", "response"))
    good = _good(answers)
    with locked(out, config.source):
        engine = judged_answers.open_judge(config.settings)
        view = View(config.form, instruction=config.sees == "both")
        journal = out / judged_answers.JOURNAL
        scores = judged_answers.grades(engine, answers, view, journal, console)
        likelihoods = _likelihoods(config, answers)
        rows = [
            one.fields | {"grade": score, "likelihood": likelihood}
            for one, score, likelihood in zip(answers, scores, likelihoods, strict=True)
        ]
        _write(out / "judged.jsonl", rows)
        best = _best(answers, scores)
        _write(out / "best.jsonl", [rows[place] for place in best])
        if config.keep is not None:
            _write(out / "kept.jsonl", [rows[place] for place in _kept(scores, config.keep)])
        if config.decline_below is not None:
            _write(out / "answered.jsonl", [_answered(row, config.decline_below) for row in rows])
        names = {"judge": scores, "likelihood": likelihoods}
        table = [] if good is None else _table(answers, names, good)
        account = {
            "source": {"path": str(config.source.resolve()), "sha256": file_digest(config.source)},
            "settings": config.model_dump(mode="json"),
            "judge": engine.model,
            "answers": len(answers),
            "instructions": len(best),
            "table": table,
        }
        write_json(out / "best-of.json", account)
    _print(account, out, console)


def _good(answers: Sequence[Answer]) -> list[float] | None:
    """Return how good each answer is; None if no row says."""
    if all(GOOD not in one.fields for one in answers):
        return None
    found = []
    for one in answers:
        value = one.fields.get(GOOD)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"{one.where}: column '{GOOD}' is {value!r}; use a number from 0 to 1")
        found.append(float(value))
    return found


def _likelihoods(config: BestOfConfig, answers: Sequence[Answer]) -> list[float]:
    """Return the mean log-likelihood of the tokens of each answer, its end included."""
    from response_tuning.artifacts import Message
    from response_tuning.models.inference import load
    from response_tuning.models.likelihood import log_likelihoods

    one = config.likelihood if config.likelihood.model is not None else config.settings
    local = load(str(one.model), one.template, one.revision, one.device, one.precision)
    pairs = [
        Pair((Message(role="user", content=str(answer.instruction)),), answer.response)
        for answer in answers
    ]
    found = []
    scored = log_likelihoods(local, pairs, one.tokens_per_batch)
    for answer, likelihood in zip(answers, scored, strict=True):
        if isinstance(likelihood, Unscored):
            raise EngineError(
                f"{answer.where}: it has no likelihood ({likelihood.reason}); remove or shorten it"
            )
        found.append(_mean(likelihood))
    return found


def _mean(likelihood: Likelihood) -> float:
    return (likelihood.total + likelihood.ending) / (likelihood.tokens + 1)


def _best(answers: Sequence[Answer], scores: Sequence[float]) -> list[int]:
    """Return the place of the best answer to each instruction; of equal ones, the first."""
    best: dict[str | None, int] = {}
    for place, answer in enumerate(answers):
        known = best.setdefault(answer.instruction, place)
        if scores[place] > scores[known]:
            best[answer.instruction] = place
    return [*best.values()]


def _kept(scores: Sequence[float], share: float) -> list[int]:
    """Return the places of the ``share`` of answers with the highest scores, in their order."""
    number = max(1, round(share * len(scores)))
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return sorted(ranked[:number])


def _answered(row: dict[str, Any], least: float) -> dict[str, Any]:
    return row if row["grade"] >= least else row | {"response": ABSTENTION}


def _table(
    answers: Sequence[Answer], names: dict[str, list[float]], good: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a line for each way to choose: what it is worth, and how its score orders answers."""
    import numpy as np

    from response_tuning.grade.selection import (
        Scored,
        area,
        at_random,
        best_of,
        mean,
        oracle,
    )

    _, questions = np.unique([str(one.instruction) for one in answers], return_inverse=True)
    scores = {name: Scored(questions, np.array(of), np.array(good)) for name, of in names.items()}
    lines: list[dict[str, Any]] = []
    for name, scored in scores.items():
        ranked = area(scored)
        known = None if np.isnan(ranked.value) else ranked._asdict()
        worth = mean(best_of(scored))._asdict()
        lines.append({"choice": name, **worth, "auroc": known, **_declining(scored)})
    some = scores["judge"]  # whichever: these depend on no score
    error = {"aurc": float(1 - some.good.mean())}
    bounds = {"oracle": _declining(some._replace(scores=some.good)), "random": error}
    for name, choose in {"oracle": oracle, "random": at_random}.items():
        lines.append(
            {"choice": name, **mean(choose(some))._asdict(), "auroc": None, **bounds[name]}
        )
    return lines


def _declining(scored: "Scored") -> dict[str, Any]:
    """Return what declining below a score is worth: the AURC, and coverages at stated risks."""
    import numpy as np

    from response_tuning.report.selective import RISKS, Answers, aurc, threshold

    every = np.arange(len(scored.scores))
    answers = Answers(scored.scores, scored.good, every, scored.questions)
    found = {risk: threshold(answers, risk) for risk in RISKS}
    return {
        "aurc": aurc(answers),
        "abstention": [
            {"stated_risk": risk, "threshold": one and one[0], "coverage": one[1] if one else 0.0}
            for risk, one in found.items()
        ],
    }


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with written_aside(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _risks(table: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield at which grade the judge has to decline, and which share of the answers is left."""
    for one in table[0]["abstention"] if table else ():
        risk, at = one["stated_risk"], one["threshold"]
        then = "no grade keeps it" if at is None else f"below {at:.3f}, {one['coverage']:.0%} left"
        yield f"declining at a stated risk of {risk:.0%}: {then}"


def _print(account: dict[str, Any], out: Path, console: "Console") -> None:
    lines = [f"{account['answers']:,} answers to {account['instructions']:,} instructions"]
    if account["table"]:
        lines.append(f"{'choice':<12}{'good':>8}  {'95 % CI':<18}{'AUROC':<24}AURC")
    for line in account["table"]:
        area = line["auroc"]
        interval = f"[{line['low']:.3f}, {line['high']:.3f}]"
        shown = f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]" if area else "-"
        worth = f"{line['choice']:<12}{line['value']:>8.3f}  {interval:<18}"
        lines.append(f"{worth}{shown:<24}{line['aurc']:.3f}")
    lines += _risks(account["table"])
    for text in [*lines, f"wrote {out}"]:
        console.print(text, highlight=False, soft_wrap=True, markup=False)
