"""``rtune answer-ranking``: how relevant finished answers are to their prompts, without a judge."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from response_tuning.artifacts import (
    Completion,
    Message,
    Record,
    Score,
    digest,
    package_versions,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import Config
from response_tuning.errors import DataError
from response_tuning.journals import Journal
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.limits import Seed
from response_tuning.pairing import draws, shared_words, text_of
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.thoughts import answer
from response_tuning.workflows.probe import Probed, estimates, left_out_sentences, print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.models.local import LocalModel


JOURNAL = "answer-ranking.journal"
ANSWERS_AT_ONCE = 8
"""Answers that are scored between two records of the journal: what a crash can cost."""


class AnswerRankingConfig(Config):
    """Settings of an answer ranking."""

    others: int = Field(default=16, ge=1)
    """Other prompts that each answer is scored under."""
    seed: Seed = 0
    """Seed of the draw of other prompts."""
    words: int = Field(default=200, ge=1)
    """Words of an answer that are scored; the rest is cut, which bounds the cost."""


class AnswerLikelihoods(Record):
    """A line of the journal: the log-probabilities of one answer under several prompts."""

    key: str
    """Digest of the scoring model, the answer and the prompts."""
    own: float = 0.0
    others: tuple[float, ...] = ()
    """Without prompts under which the answer cannot be scored."""
    tokens: int = 0
    reason: str = ""
    """Why it cannot be scored under its own prompt."""


class Answers(NamedTuple):
    """The answers of one file, by the item."""

    prompts: dict[str, tuple[Message, ...]]
    answers: dict[str, str]
    """Without thoughts, cut to the words that are scored."""


class Ranked(NamedTuple):
    """The scores of one file."""

    scores: list[Score]
    left_out: Counter[str]


def run_answer_ranking(
    files: Sequence[Path],
    scorer: "EngineConfig",
    config: AnswerRankingConfig,
    out: Path,
    console: "Console",
) -> None:
    """Rank each answer's own prompt among other prompts of its file, by a scoring model.

    Leaves ``answer-ranking.json`` and ``answer-ranking.jsonl``, one number a line, in ``out``, and
    a journal, so that the same command goes on after a crash and adds further files cheaply.

    Args:
        files: Completions of one benchmark by one or more models; differences are from the first.
        scorer: The model that scores, under its own template or the one that is named.
        config: How many other prompts, and how much of an answer.
        out: The folder; it may exist.
        console: Where the table is printed.

    Raises:
        DataError: a file has errors in place of answers, other prompts than the first file, or
            fewer than two different prompts.
        ModelError: the scoring model cannot be loaded.
    """
    from response_tuning.models.inference import load

    quiet_libraries()
    read = {str(path): _read(path, config.words) for path in files}
    _check_same_prompts(read)
    prompts = next(iter(read.values())).prompts
    texts = {item: text_of(prompt) for item, prompt in prompts.items()}
    drawn = draws(texts, config.others, config.seed)
    local = load(str(scorer.model), scorer.template, scorer.revision, scorer.device)
    journal = Journal(out / JOURNAL, AnswerLikelihoods)
    ranked = {}
    for name, answers in read.items():
        found = {}
        with progress_bar(f"answers of {name}", console) as advance:
            scored = likelihoods(local, answers, drawn, journal, scorer.tokens_per_batch)
            for done, (item, record) in enumerate(scored, start=1):
                found[item] = record
                advance(done, len(answers.prompts))
        ranked[name] = rank_answers(answers, drawn, found)
    scores = {name: one.scores for name, one in ranked.items()}
    tables = estimates(scores, "answer-ranking", compared=("answer_ranked", "answer_gain"))
    left_out = {name: one.left_out for name, one in ranked.items()}
    write_jsonl(
        out / "answer-ranking.jsonl",
        (Probed(model=n, **score.model_dump()) for n, one in scores.items() for score in one),
    )
    write_json(
        out / "answer-ranking.json",
        {
            "scorer": {"identity": local.identity, "template": local.chat.digest},
            **tables,
            "left_out": left_out,
            "settings": config.model_dump(),
            "packages": package_versions(),
        },
    )
    lines = [
        f"{r['value']:>8.3f}  [{r['low']:.3f}, {r['high']:.3f}]  {r['metric']}  {r['model']}"
        for r in tables["results"]
    ]
    lines += left_out_sentences(left_out)
    print_lines(console, [*lines, f"wrote {out / 'answer-ranking.json'}"])


def likelihoods(
    local: "LocalModel",
    read: Answers,
    drawn: Mapping[str, Sequence[str]],
    journal: Journal[AnswerLikelihoods],
    tokens_per_batch: int,
) -> Iterator[tuple[str, AnswerLikelihoods | None]]:
    """Yield each item with the likelihoods of its answer; None if it says nothing of its own.

    What the journal has is not computed again, also for equal answers of another file.
    """
    from response_tuning.grade.answer_ranking import says_nothing

    known = {record.key: record for record in journal}
    waiting: list[tuple[str, str, list[Pair]]] = []
    with journal.appending() as append:
        for item, prompt in read.prompts.items():
            text = read.answers[item]
            if says_nothing(text, text_of(prompt)):
                yield item, None
                continue
            pairs = [Pair(prompt, text), *(Pair(read.prompts[o], text) for o in drawn[item])]
            key = likelihood_key(local, pairs)
            if key in known:
                yield item, known[key]
                continue
            waiting.append((item, key, pairs))
            if len(waiting) == ANSWERS_AT_ONCE:
                yield from score_answers(local, waiting, append, tokens_per_batch)
                waiting = []
        yield from score_answers(local, waiting, append, tokens_per_batch)


def score_answers(
    local: "LocalModel",
    waiting: Sequence[tuple[str, str, Sequence[Pair]]],
    append: Callable[[AnswerLikelihoods], object],
    tokens_per_batch: int,
) -> Iterator[tuple[str, AnswerLikelihoods]]:
    """Score the answers that wait, all in one call, and keep each in the journal."""
    from response_tuning.models.likelihood import log_likelihoods

    pairs = [pair for _, _, several in waiting for pair in several]
    results = iter(log_likelihoods(local, pairs, tokens_per_batch))
    for item, key, several in waiting:
        own, *others = [next(results) for _ in several]
        if isinstance(own, Unscored):
            record = AnswerLikelihoods(key=key, reason=own.reason)
        else:
            totals = tuple(one.total for one in others if isinstance(one, Likelihood))
            record = AnswerLikelihoods(key=key, own=own.total, others=totals, tokens=own.tokens)
        append(record)
        yield item, record


def rank_answers(
    read: Answers,
    drawn: Mapping[str, Sequence[str]],
    found: Mapping[str, AnswerLikelihoods | None],
) -> Ranked:
    """Turn likelihoods into scores, and count the answers that cannot be scored.

    Raises:
        DataError: no answer can be scored.
    """
    from response_tuning.grade.answer_ranking import (
        AnswerFit,
        SharedWords,
        answer_scores,
        says_nothing,
    )

    share = shared_words(read.prompts, read.answers)
    ranked = Ranked([], Counter())
    for item, prompt in read.prompts.items():
        record = found[item]
        nothing = says_nothing(read.answers[item], text_of(prompt))
        fit = None
        if record is not None:
            reason = record.reason or ("" if record.others else "no other prompt can be scored")
            if reason:
                ranked.left_out[f"answers: {reason}"] += 1
                continue
            fit = AnswerFit(record.own, record.others, record.tokens)
        shared = SharedWords(share(item, item), [share(other, item) for other in drawn[item]])
        ranked.scores.extend(answer_scores(item, fit, shared, nothing))
    if not ranked.scores:
        reasons = (f"{count:,} {reason}" for reason, count in ranked.left_out.items())
        raise DataError(f"no answer can be ranked: {', '.join(reasons)}")
    return ranked


def first_words(text: str, count: int) -> str:
    """Return the first ``count`` words of a text, with the white space between them."""
    found = re.match(rf"\s*(?:\S+\s*){{0,{count}}}", text)
    assert found is not None
    return text if found[0] == text else found[0].rstrip()


def _read(path: Path, words: int) -> Answers:
    read = Answers({}, {})
    for number, completion in enumerate(read_jsonl(path, Completion), start=1):
        where = f"{path}:{number}: item {completion.item_id}"
        if completion.error is not None:
            raise DataError(f"{where} has no answer ({completion.error}); generate it again first")
        if completion.item_id in read.prompts:
            raise DataError(f"{where} is answered twice; remove one answer")
        read.prompts[completion.item_id] = completion.prompt
        read.answers[completion.item_id] = first_words(answer(completion).text or "", words)
    return read


def _check_same_prompts(read: Mapping[str, Answers]) -> None:
    """Refuse files with other prompts than the first: an answer's rank depends on all of them."""
    first, *others = read
    for name in others:
        if read[name].prompts != read[first].prompts:
            raise DataError(f"{name}: has other prompts than {first}; rank them one by one")


def likelihood_key(local: "LocalModel", pairs: Sequence[Pair]) -> str:
    """Return what the likelihoods of an answer under these prompts are known by."""
    prompts = [[message.model_dump() for message in pair.prompt] for pair in pairs]
    parts = [local.identity, local.chat.digest, pairs[0].response, prompts]
    return digest(json.dumps(parts))
