import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from response_tuning.artifacts import (
    Completion,
    Message,
    Request,
    Score,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.errors import DataError
from response_tuning.grade.judges.levels import LEVELS, Level
from response_tuning.grade.raters.scores import Summary, export_ratings
from response_tuning.grade.raters.study import Session, Side, TaskRating, make_study
from response_tuning.report.reading import read_scores

Judge = Callable[[str, str], Level]
"""(Item, variant) -> the level that a rater gives it."""


@pytest.fixture
def study(tmp_path: Path, completion: Callable[..., Completion]) -> Callable[..., Path]:
    """Make a study of variants that answer ``n`` prompts."""

    def make(*variants: str, n: int = 4) -> Path:
        files = {}
        for variant in variants:
            files[variant] = tmp_path / f"{variant}.jsonl"
            prompts = [(Message(role="user", content=f"Question {i}?"),) for i in range(n)]
            asked = [Request(item_id=f"i{i}", prompt=prompt) for i, prompt in enumerate(prompts)]
            write_jsonl(files[variant], [completion(one, variant) for one in asked])
        make_study(tmp_path / "study", files)
        return tmp_path / "study"

    return make


def rate(
    folder: Path,
    rater: str,
    level: Judge,
    better: Callable[[str], str] | None = None,
    items: tuple[str, ...] = ("i0", "i1", "i2", "i3"),
) -> None:
    """Rate as ``level`` and ``better`` (item -> variant or "tie") say, whatever the sides."""
    session = Session(folder, rater)
    for position, task in enumerate(session.tasks):
        item = task.item.item_id
        if item not in items:
            continue
        side: Side | None = None
        if better:
            sides: dict[str, Side] = dict(zip(task.variants, ("left", "right"), strict=True))
            side = (sides | {"tie": "tie"})[better(item)]
        levels = tuple(level(item, variant) for variant in task.variants)
        session.rate(position, TaskRating(levels=levels, more_helpful=side))


def scores(run: Path, variant: str) -> dict[str, dict[str, float]]:
    """Metric -> item -> value."""
    found: dict[str, dict[str, float]] = {}
    for score in read_jsonl(run / variant / "seed-0" / "grade" / "human-rating.jsonl", Score):
        found.setdefault(score.metric, {})[score.item_id] = score.value
    return found


def test_one_rater_gives_zeros_and_ones_wherever_the_answers_stood(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    folder = study("it", "rt", n=40)
    every = tuple(f"i{i}" for i in range(40))
    rate(
        folder,
        "ann",
        lambda item, variant: "excellent" if variant == "it" else "not acceptable",
        lambda item: "rt" if item == "i0" else "tie" if item == "i1" else "it",
        every,
    )
    export_ratings(folder, tmp_path / "run")
    it, rt = scores(tmp_path / "run", "it"), scores(tmp_path / "run", "rt")
    assert {*it["excellent"].values()} == {*it["acceptable"].values()} == {1.0}
    assert {*rt["not_acceptable"].values()} == {1.0}
    assert {*rt["excellent"].values()} == {*rt["acceptable"].values()} == {0.0}
    assert rt["win"] == {item: float(item == "i0") for item in every}
    assert rt["tie"] == {item: float(item == "i1") for item in every}
    assert rt["lose"] == {item: float(item not in {"i0", "i1"}) for item in every}
    assert rt["win_rate"] == {item: {"i0": 1.0, "i1": 0.5}.get(item, 0.0) for item in every}
    assert not {"win", "tie", "lose", "win_rate"} & it.keys(), "the reference plays no one"


def test_several_raters_give_shares(tmp_path: Path, study: Callable[..., Path]) -> None:
    folder = study("it", "rt")
    rate(folder, "ann", lambda *_: "excellent", lambda _: "rt")
    rate(folder, "ben", lambda *_: "sufficient", lambda _: "tie")
    rate(folder, "cat", lambda *_: "not acceptable", lambda _: "rt", ("i0",))
    export_ratings(folder, tmp_path / "run")
    rt = scores(tmp_path / "run", "rt")
    assert rt["excellent"] == pytest.approx({"i0": 1 / 3, "i1": 0.5, "i2": 0.5, "i3": 0.5})
    assert rt["acceptable"] == pytest.approx({"i0": 2 / 3, "i1": 1, "i2": 1, "i3": 1})
    assert rt["win_rate"] == pytest.approx({"i0": 2.5 / 3, "i1": 0.75, "i2": 0.75, "i3": 0.75})
    path = tmp_path / "run" / "rt" / "seed-0" / "grade" / "human-rating.jsonl"
    notes = {(s.item_id, s.explanation) for s in read_jsonl(path, Score)}
    assert notes >= {("i0", "3 ratings"), ("i1", "2 ratings")}


def test_what_nobody_rated_has_no_score_and_is_counted(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    folder = study("it", "rt")
    rate(folder, "ann", lambda *_: "excellent", lambda _: "tie", ("i1", "i2"))
    summary = export_ratings(folder, tmp_path / "run")
    assert [*scores(tmp_path / "run", "it")["excellent"]] == ["i1", "i2"]
    assert (summary.tasks, summary.rated) == (4, {"ann": 2})


def test_the_reference_of_two_comparisons_is_rated_in_both(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    folder = study("it", "rt", "base")
    session = Session(folder, "ann")
    for position, task in enumerate(session.tasks):
        level: Level = "excellent" if "rt" in task.variants else "sufficient"
        left: Side = "left" if task.variants[0] == "it" else "right"
        session.rate(position, TaskRating(levels=(level, level), more_helpful=left))
    summary = export_ratings(folder, tmp_path / "run")
    assert {*scores(tmp_path / "run", "it")["excellent"].values()} == {0.5}
    for variant in ("rt", "base"):
        assert {*scores(tmp_path / "run", variant)["lose"].values()} == {1.0}
    assert summary.tasks == 8


def test_agreement_compares_raters_on_the_same_answers(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    folder = study("it", "rt")

    def level(item: str, variant: str) -> Level:
        return "excellent" if variant == "it" or item == "i0" else "not acceptable"

    rate(folder, "ann", level, lambda item: "rt" if item == "i0" else "it")
    rate(folder, "ben", level, lambda item: "rt" if item == "i0" else "tie")
    summary = export_ratings(folder, tmp_path / "run")
    assert (summary.levels.items, summary.levels.raters) == (8, 2)
    assert summary.levels.percent == summary.levels.cohen_kappa == 1
    assert summary.more_helpful is not None
    assert (summary.more_helpful.items, summary.more_helpful.percent) == (4, 0.25)
    # Labels win and lose, lose, lose against win and tie, tie, tie: chance gives 1/4 x 1/4.
    assert summary.more_helpful.cohen_kappa == pytest.approx((1 / 4 - 1 / 16) / (1 - 1 / 16))


def test_levels_that_are_near_disagree_less(tmp_path: Path, study: Callable[..., Path]) -> None:
    folder = study("it")

    def ann(item: str, variant: str) -> Level:
        return {"i0": "excellent", "i1": "sufficient"}.get(item, "not acceptable")  # type: ignore[return-value]

    rate(folder, "ann", ann)
    rate(folder, "ben", lambda item, _: "sufficient" if item == "i0" else ann(item, ""))
    near = export_ratings(folder, tmp_path / "near").levels
    rate(folder, "ben", lambda item, _: "not acceptable" if item == "i0" else ann(item, ""))
    far = export_ratings(folder, tmp_path / "far").levels
    assert near.percent == far.percent
    assert near.alpha_nominal is not None
    assert near.alpha_ordinal is not None
    assert far.alpha_ordinal is not None
    assert far.alpha_ordinal < near.alpha_nominal < near.alpha_ordinal


def test_simulated_raters_give_the_shares_and_the_agreement_that_they_must(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    """One in ten levels is one of the two others, by chance; everybody prefers what is left."""
    folder = study("it", "rt", n=200)
    true: dict[str, Level] = {"it": "excellent", "rt": "sufficient"}
    for rater in ("ann", "ben", "cat"):
        session, rng = Session(folder, rater), random.Random(rater)
        for position, task in enumerate(session.tasks):
            levels = [
                true[name]
                if rng.random() < 0.9
                else rng.choice([level for level in LEVELS if level != true[name]])
                for name in task.variants
            ]
            session.rate(position, TaskRating(levels=tuple(levels), more_helpful="left"))
    summary = export_ratings(folder, tmp_path / "run")
    assert fmean(scores(tmp_path / "run", "it")["excellent"].values()) == pytest.approx(
        0.9, abs=0.03
    )
    rt = scores(tmp_path / "run", "rt")
    assert fmean(rt["sufficient"].values()) == pytest.approx(0.9, abs=0.03)
    assert fmean(rt["not_acceptable"].values()) == pytest.approx(0.05, abs=0.02)
    assert fmean(rt["win_rate"].values()) == pytest.approx(0.5, abs=0.05), "sides are drawn"
    # Two raters agree if both are right, or both err in the same way.
    assert summary.levels.percent == pytest.approx(0.9**2 + 2 * 0.05**2, abs=0.03)
    assert summary.levels.fleiss_kappa == pytest.approx(summary.levels.alpha_nominal, abs=1e-2)
    assert summary.more_helpful is not None
    assert summary.more_helpful.alpha_nominal == pytest.approx(0, abs=0.1)


def test_one_variant_has_levels_alone(tmp_path: Path, study: Callable[..., Path]) -> None:
    folder = study("rt")
    rate(folder, "ann", lambda *_: "sufficient")
    summary = export_ratings(folder, tmp_path / "run")
    assert summary.more_helpful is None
    assert [*scores(tmp_path / "run", "rt")] == [
        "excellent",
        "sufficient",
        "not_acceptable",
        "acceptable",
    ]


def test_the_summary_is_left_beside_the_scores(tmp_path: Path, study: Callable[..., Path]) -> None:
    folder = study("it", "rt")
    rate(folder, "ann", lambda *_: "sufficient", lambda _: "tie")
    summary = export_ratings(folder, tmp_path / "run")
    left = read_json(tmp_path / "run" / "human-rating.json")
    assert Summary.model_validate(left) == summary
    again = export_ratings(folder, tmp_path / "again")
    assert again == summary


def test_a_report_reads_the_scores_as_those_of_a_run(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    folder = study("it", "rt")
    rate(folder, "ann", lambda *_: "sufficient", lambda _: "rt")
    export_ratings(folder, tmp_path / "run")
    (found,), missing = read_scores(tmp_path / "run", ["it", "rt"])
    assert (found.name, found.items, missing) == ("human-rating", ("i0", "i1", "i2", "i3"), [])
    assert found.of("sufficient", "it").tolist() == [[1, 1, 1, 1]]
    assert found.of("win_rate", "rt").tolist() == [[1, 1, 1, 1]]


def test_a_study_without_ratings_has_no_scores(tmp_path: Path, study: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="nothing has been rated yet"):
        export_ratings(study("it", "rt"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
