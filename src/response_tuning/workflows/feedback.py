"""``rtune data feedback``: a log of conversations becomes preference pairs and lists of answers.

    OUT/pairs.jsonl  satisfied.jsonl  dissatisfied.jsonl  neither.jsonl  feedback.json

Labels come from the log or from a model; the preferred answer of a pair is the next one in the log,
or one that a model writes. The same command again asks only for what is not in the journal.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from pydantic import Field

from response_tuning.artifacts import (
    Completion,
    Request,
    Sampling,
    file_digest,
    write_json,
    written_aside,
)
from response_tuning.configs import Config, EngineConfig, EngineSettings
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.folders import locked
from response_tuning.workflows.generate import Sampler
from response_tuning.workflows.judge import check_engine

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.data.feedback.labels import Answer
    from response_tuning.data.feedback.log import Dialogue
    from response_tuning.grade.benchmark import Item

JOURNAL = "replies.journal"


class FeedbackConfig(Config):
    """Where the log is, and what a model is asked about it."""

    source: Path
    """A JSONL, JSON, CSV or Parquet file of utterances or of conversations."""
    label: bool = False
    """Have the engine label the user's turns; by default, the log has labels."""
    rewrite: bool = False
    """Have the engine answer again where an answer displeased, given what the user wants."""
    without_wishes: bool = False
    """Control: the new answer is written without knowing what the user wants."""
    on_policy: bool = False
    """The engine writes both answers, the rejected one without knowing what the user wants. A pair
    is kept if the other one wins the engine's own comparison, which sees what the user wants."""
    engine: str | None = None
    """The engine that is asked."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """Settings of that engine."""
    personal_data: Literal["drop", "keep"] = "drop"
    """What happens to rows with e-mail addresses, telephone numbers and keys."""
    max_new_tokens: int = Field(default=2048, ge=1)
    """Stop a reply after this many tokens."""


@dataclass
class _Counts:
    dialogues: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def run_feedback(config: FeedbackConfig, out: Path, console: "Console") -> None:
    """Write the pairs and the lists of answers to ``out``, and print how many there are.

    Raises:
        ConfigError: nothing is to be asked of the engine that is given, or no engine is.
        DataError: the log cannot be read, or has no labels.
        EngineError: some requests got no reply; the same command asks them again.
    """
    from response_tuning.data.feedback.records import AUDIT

    _check(config)
    with locked(out, config.source):
        (out / AUDIT).unlink(missing_ok=True)  # an old account must never describe new files
        counts = _write(config, out, console)
        write_json(out / AUDIT, _account(config, counts))
    _print(counts, out, console)


def _check(config: FeedbackConfig) -> None:
    asks = config.label or config.rewrite
    if asks and config.engine is None:
        raise ConfigError("--label and --rewrite ask a model; name it with --engine and --model")
    if not asks and config.engine is not None:
        raise ConfigError(
            f"--engine {config.engine} has nothing to do; give --label, --rewrite or both"
        )
    if (config.without_wishes or config.on_policy) and not config.rewrite:
        raise ConfigError("--without-wishes and --on-policy change what --rewrite does; add it")
    if config.without_wishes and config.on_policy:
        raise ConfigError("--without-wishes and --on-policy exclude each other; give one")
    if config.engine is not None:
        check_engine(config.engine, config.settings)


def _write(config: FeedbackConfig, out: Path, console: "Console") -> _Counts:
    from response_tuning.data.feedback.records import LISTS, PAIRS, pair, personal_data, single

    counts, asking = _Counts(), _Asking(config, out, console)
    with ExitStack() as stack:
        names = {**LISTS, "pairs": PAIRS}
        files = {key: stack.enter_context(written_aside(out / name)) for key, name in names.items()}

        def put(row: dict[str, Any], file: TextIO) -> bool:
            if config.personal_data == "drop" and (kinds := personal_data(row)):
                counts.dropped[f"personal data ({kinds})"] += 1
                return False
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            return True

        displeased: list[Answer] = []
        for of_dialogue, revisions in _labelled(config, asking, counts):
            for answer in of_dialogue:
                counts.labels[answer.label] += 1
                if answer.label in LISTS:
                    put(single(answer), files[answer.label])
                if answer.label == "dissatisfied" and config.rewrite:
                    displeased.append(answer)
            for answer, following in revisions:
                made = pair(answer, following.response, answer.response, "log")
                counts.pairs["log"] += put(made, files["pairs"])
        way = _way(config)
        for new in asking.rewritten(displeased, counts):
            made = pair(new.answer, new.chosen, new.rejected, way, new.wishes)
            counts.pairs[way] += put(made, files["pairs"])
    return counts


def _way(config: FeedbackConfig) -> str:
    if config.on_policy:
        return "on-policy"
    return "rewritten without wishes" if config.without_wishes else "rewritten"


def _labelled(
    config: FeedbackConfig, asking: "_Asking", counts: _Counts
) -> Iterator[tuple[list["Answer"], list[tuple["Answer", "Answer"]]]]:
    """Yield the answers of each usable conversation, and those that were revised with success."""
    from response_tuning.data.feedback.labels import answers, revised

    labels = asking.labels(counts) if config.label else None
    has_labels = labels is not None
    for dialogue in _dialogues(config.source):
        counts.dialogues += 1
        if dialogue.fault:
            counts.unusable[dialogue.fault] += 1
            continue
        known = dialogue if labels is None else _with(dialogue, labels)
        has_labels = has_labels or any(one.satisfied is not None for one in known.utterances)
        found = answers(known)
        yield found, [*revised(found)]
    if not has_labels:
        raise DataError(
            f"{config.source}: no usable conversation has labels (columns SAT and DSAT); have a "
            "model label them, with --label --engine ENGINE"
        )


def _with(dialogue: "Dialogue", labels: dict[str, tuple[bool, bool]]) -> "Dialogue":
    from response_tuning.data.feedback.requests import labelled

    return labelled(dialogue, labels)


def _dialogues(source: Path) -> Iterator["Dialogue"]:
    from response_tuning.data.feedback.log import dialogues
    from response_tuning.readers import check_is_file, read

    check_is_file(source)
    return dialogues(read(source), str(source))


@dataclass
class _Asking:
    """Asks the engine; every reply is kept in a journal."""

    config: FeedbackConfig
    out: Path
    console: "Console"

    def labels(self, counts: _Counts) -> dict[str, tuple[bool, bool]]:
        """Return ``item_id`` -> (satisfied, dissatisfied) of every user turn with a clear reply."""
        from response_tuning.data.feedback.requests import label_requests, read_labels

        usable = (one for one in _dialogues(self.config.source) if not one.fault)
        requests = (request for dialogue in usable for request in label_requests(dialogue))
        labels = {}
        for completion in self._ask(requests, "labels"):
            label = read_labels(completion)
            if label is None:
                counts.dropped["label could not be read"] += 1
            else:
                labels[completion.item_id] = label
        return labels

    def rewritten(self, displeased: list["Answer"], counts: _Counts) -> Iterator["_Rewritten"]:
        """Yield a pair for each answer that displeased and got a new one."""
        from response_tuning.data.feedback.requests import read_wishes, wishes_request

        if not displeased:
            return
        replies = self._ask([wishes_request(answer) for answer in displeased], "wishes")
        wanted = [(a, read_wishes(reply)) for a, reply in zip(displeased, replies, strict=True)]
        counts.dropped["wishes could not be read"] += sum(not wishes for _, wishes in wanted)
        clear = [(answer, wishes) for answer, wishes in wanted if wishes]
        shown = [(a, () if self.config.without_wishes else wishes) for a, wishes in clear]
        drafts = [(answer, ()) for answer, _ in clear] if self.config.on_policy else []
        rejected = self._answers(drafts, "first answers") or [(a.response, "") for a, _ in clear]
        found = []
        new_answers = self._answers(shown, "answers")
        for (answer, wishes), new, old in zip(clear, new_answers, rejected, strict=True):
            fault = new[1] or old[1] or ("the same again" if new[0] == old[0] else "")
            if fault:
                counts.dropped[f"new answer: {fault}"] += 1
            else:
                found.append(_Rewritten(answer, new[0], old[0], wishes))
        yield from self._winners(found, counts) if self.config.on_policy else found

    def _answers(
        self, asked: Sequence[tuple["Answer", tuple[str, ...]]], what: str
    ) -> list[tuple[str, str]]:
        """Return (text, what is wrong with it) of new answers that are told the wishes."""
        from response_tuning.data.feedback.requests import answer_request

        found = []
        for reply in self._ask([answer_request(*one) for one in asked], what) if asked else []:
            text = reply.response or ""
            whole = reply.finish_reason == "stop" and text.strip()
            found.append((text, "" if whole else str(reply.finish_reason or "empty")))
        return found

    def _winners(self, pairs: list["_Rewritten"], counts: _Counts) -> Iterator["_Rewritten"]:
        """Yield the pairs whose chosen answer wins by the wishes (Shi et al., section 3.3)."""
        from response_tuning.grade.benchmark import Item
        from response_tuning.grade.judges.pairwise import Pairwise

        items = [
            Item(item_id=str(place), prompt=new.answer.prompt) for place, new in enumerate(pairs)
        ]
        judge = Pairwise(
            items,
            {str(place): new.rejected for place, new in enumerate(pairs)},
            wishes={str(place): new.wishes for place, new in enumerate(pairs)},
        )
        answered = [_answered(item, new.chosen) for item, new in zip(items, pairs, strict=True)]
        asked = [judge.questions(item, one) for item, one in zip(items, answered, strict=True)]
        verdicts = iter(self._ask([one for both in asked for one in both], "comparisons"))
        for new, item, one, both in zip(pairs, items, answered, asked, strict=True):
            scores = judge.judged(item, one, [next(verdicts) for _ in both])
            if any(score.metric == "win" and score.value for score in scores):
                yield new
            else:
                counts.dropped["new answer: does not win by the wishes"] += 1

    def _ask(self, requests: Iterable[Request], what: str) -> list[Completion]:
        from response_tuning.generate import open_engine

        assert self.config.engine is not None
        engine = open_engine(self.config.engine, self.config.settings)
        sampling = Sampling(max_new_tokens=self.config.max_new_tokens)
        sampler = Sampler(engine, sampling, self.console)
        replies = [*sampler.complete(requests, self.out / JOURNAL, what)]
        failed = [reply for reply in replies if reply.error is not None]
        if failed:
            raise EngineError(
                f"{self.out}: {len(failed):,} of {len(replies):,} requests for {what} failed, "
                f"the first because: {failed[0].error}; the same command asks them again"
            )
        return replies


class _Rewritten(NamedTuple):
    """A pair with a new answer."""

    answer: "Answer"
    """The one that displeased."""
    chosen: str
    rejected: str
    wishes: tuple[str, ...]


def _answered(item: "Item", response: str) -> Completion:
    """Return an answer in the form that judges read."""
    return Completion(
        item_id=item.item_id, prompt=item.prompt, response=response, finish_reason="stop",
        key=item.item_id, model="", template="", sampling=Sampling(),
    )  # fmt: skip


def _account(config: FeedbackConfig, counts: _Counts) -> dict[str, Any]:
    return {
        "source": {"path": str(config.source.resolve()), "sha256": file_digest(config.source)},
        "settings": config.model_dump(mode="json"),
        "dialogues": counts.dialogues,
        "unusable": dict(counts.unusable),
        "answers": dict(counts.labels),
        "pairs": dict(counts.pairs),
        "dropped": {reason: count for reason, count in counts.dropped.items() if count},
    }


def _print(counts: _Counts, out: Path, console: "Console") -> None:
    answers = counts.labels.total()
    lines = [f"{counts.dialogues:,} conversations with {answers:,} answers"]
    lines += [f"{count:>9,}  unusable: {reason}" for reason, count in counts.unusable.items()]
    lines += [f"{count:>9,}  answers: {label}" for label, count in counts.labels.most_common()]
    lines += [f"{count:>9,}  pairs: {made}" for made, count in counts.pairs.items()]
    lines += [f"{count:>9,}  dropped: {why}" for why, count in counts.dropped.items() if count]
    for line in [*lines, f"wrote {out}"]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
