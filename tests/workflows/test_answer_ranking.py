import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import (
    Completion,
    Message,
    Sampling,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import EngineConfig
from response_tuning.errors import DataError
from response_tuning.journals import Journal
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models import likelihood
from response_tuning.workflows import answer_ranking
from response_tuning.workflows.answer_ranking import (
    AnswerLikelihoods,
    AnswerRankingConfig,
    first_words,
    run_answer_ranking,
)
from response_tuning.workflows.probe import Probed

MINIATURE = EngineConfig(model="miniature", template="tulu", device="cpu", tokens_per_batch=512)
CAPITALS = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Peru": "Lima"}
Ask = Callable[..., dict[str, Any]]


def completion(item: str, question: str, response: str | None, **how: Any) -> Completion:
    return Completion(
        item_id=item,
        prompt=(Message(role="user", content=question),),
        response=response,
        finish_reason=None if response is None else "stop",
        key=item,
        model="m",
        template="t",
        sampling=Sampling(),
        **how,
    )


def written(path: Path, answers: dict[str, str]) -> Path:
    rows = [completion(c, f"Name the capital city of {c}.", text) for c, text in answers.items()]
    write_jsonl(path, rows)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """Replace the model: an answer is likely under a prompt that names its country."""
    seen: list[Pair] = []

    def score(_: Any, pairs: list[Pair], __: int) -> list[Likelihood | Unscored]:
        seen.extend(pairs)
        found: list[Likelihood | Unscored] = []
        for pair in pairs:
            if pair.response == "too long":
                found.append(Unscored("longer than the model"))
                continue
            countries = [c for c, capital in CAPITALS.items() if capital in pair.response]
            fits = any(c in pair.prompt[-1].content for c in countries)
            found.append(Likelihood(-2.0 if fits else -10.0, 4, -1.0, 0.1))
        return found

    monkeypatch.setattr(likelihood, "log_likelihoods", score)
    return seen


@pytest.fixture
def rank(tmp_path: Path) -> Ask:
    def run(*files: Path, **settings: Any) -> dict[str, Any]:
        console = Console(file=io.StringIO())
        config = AnswerRankingConfig(**settings)
        run_answer_ranking(files, MINIATURE, config, tmp_path / "out", console)
        return read_json(tmp_path / "out" / "answer-ranking.json")

    return run


def values(out: Path, metric: str) -> dict[tuple[str, str], float]:
    lines = read_jsonl(out / "out" / "answer-ranking.jsonl", Probed)
    return {(Path(n.model).stem, n.item_id): n.value for n in lines if n.metric == metric}


def test_relevant_answers_rank_first_and_others_by_chance(
    asked: list[Pair], rank: Ask, tmp_path: Path
) -> None:
    right = written(tmp_path / "right.jsonl", {c: f"It is {v}." for c, v in CAPITALS.items()})
    other = {"France": "Rome.", "Spain": "", "Italy": "I do not know.", "Peru": "Lima"}
    other["Peru"] = "Name the capital city of Peru. Name the capital city of Peru. Lima"
    wrong = written(tmp_path / "wrong.jsonl", other)
    report = rank(right, wrong, others=3)
    ranked = values(tmp_path, "answer_ranked")
    assert {item: ranked["right", item] for item in CAPITALS} == dict.fromkeys(CAPITALS, 1.0)
    # Rome is likelier under one of three other prompts, and ties with the rest.
    assert ranked["wrong", "France"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert [ranked["wrong", item] for item in ("Spain", "Italy", "Peru")] == [0.5, 0.5, 0.5]
    assert values(tmp_path, "echo")["wrong", "Peru"] == 1
    assert values(tmp_path, "answer_gain")["right", "Peru"] == 2.0
    (delta,) = [c for c in report["comparisons"] if c["metric"] == "answer_ranked"]
    assert delta["model"] == str(wrong)
    assert delta["delta"] < 0


def test_an_answer_is_scored_once_and_a_killed_run_goes_on(
    asked: list[Pair], rank: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = written(tmp_path / "a.jsonl", {c: f"It is {v}." for c, v in CAPITALS.items()})
    monkeypatch.setattr(answer_ranking, "ANSWERS_AT_ONCE", 1)
    real, calls = likelihood.log_likelihoods, 0

    def killed(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(likelihood, "log_likelihoods", killed)
    with pytest.raises(KeyboardInterrupt):
        rank(answers, others=2)
    assert len(Journal(tmp_path / "out" / "answer-ranking.journal", AnswerLikelihoods)) == 2
    rank(answers, others=2)
    assert len(asked) == len(CAPITALS) * 3
    first = (tmp_path / "out" / "answer-ranking.jsonl").read_bytes()
    rank(answers, others=2)
    assert len(asked) == len(CAPITALS) * 3
    assert (tmp_path / "out" / "answer-ranking.jsonl").read_bytes() == first
    rank(answers, others=2, seed=1)
    assert len(asked) > len(CAPITALS) * 3, "other draws are other questions"


def test_an_answer_that_cannot_be_scored_is_counted(
    asked: list[Pair], rank: Ask, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.jsonl", {"France": "Paris", "Spain": "too long"})
    report = rank(path, others=1)
    assert report["left_out"] == {str(path): {"answers: longer than the model": 1}}
    with pytest.raises(DataError, match="no answer can be ranked: 2 answers: longer than"):
        rank(written(tmp_path / "b.jsonl", dict.fromkeys(("France", "Peru"), "too long")))


def test_files_that_cannot_be_ranked_together_are_refused(
    asked: list[Pair], rank: Ask, tmp_path: Path
) -> None:
    one = written(tmp_path / "one.jsonl", {"France": "Paris", "Spain": "Madrid"})
    two = written(tmp_path / "two.jsonl", {"France": "Paris", "Peru": "Lima"})
    with pytest.raises(DataError, match=r"two\.jsonl: has other prompts than .*one\.jsonl"):
        rank(one, two)
    with pytest.raises(DataError, match="at least two different texts"):
        rank(written(tmp_path / "three.jsonl", {"France": "Paris"}))
    failed = tmp_path / "failed.jsonl"
    write_jsonl(failed, [completion("a", "Why?", None, error="no server")])
    with pytest.raises(DataError, match=r"failed\.jsonl:1: item a has no answer \(no server\)"):
        rank(failed)
    twice = tmp_path / "twice.jsonl"
    write_jsonl(twice, [completion("a", "Why?", "So.")] * 2)
    with pytest.raises(DataError, match="item a is answered twice"):
        rank(twice)
    assert not asked


def test_the_miniature_finds_its_own_answers_relevant(rank: Ask, tmp_path: Path) -> None:
    questions = {
        "a": ("What is the capital of Norland?", "The capital is in Norland."),
        "b": ("How do I bake bread?", "Bake the bread in the oven."),
        "c": ("Tell me a story about a cat.", "Once there was a cat."),
    }
    path = tmp_path / "answers.jsonl"
    write_jsonl(path, [completion(name, *both) for name, both in questions.items()])
    report = rank(path, others=2)
    (mean,) = [one for one in report["results"] if one["metric"] == "answer_ranked"]
    assert mean["n"] == 3
    assert mean["value"] > 0.5
    assert report["scorer"]["identity"]


@pytest.mark.parametrize(
    ("text", "count", "cut"),
    [
        ("one two  three\n four", 3, "one two  three"),
        ("one two  three\n four", 4, "one two  three\n four"),
        (" one two ", 9, " one two "),
        ("", 3, ""),
    ],
)
def test_a_text_is_cut_after_words_and_keeps_its_white_space(
    text: str, count: int, cut: str
) -> None:
    assert first_words(text, count) == cut
