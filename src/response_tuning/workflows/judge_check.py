"""``rtune judge-check``: how far a judge agrees with people, where people have labelled.

What is found stands in ``judge-check.json``, and a sentence of it goes with every report that the
judge had a part in.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import (
    Completion,
    Record,
    package_versions,
    write_json,
    written_aside,
)
from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.grade.agreement.comparison import (
    NOT_READ,
    Counts,
    Figures,
    by_rule,
    check_set,
    judged,
    prompt_digests,
    questions,
)
from response_tuning.grade.agreement.labelled_sets import (
    SETS,
    Labelled,
    LabelledSet,
    limited,
    open_set,
    read_labels,
)
from response_tuning.grade.agreement.record import (
    CHECK,
    IN_SAMPLE,
    Check,
    CheckedJudge,
    Cost,
    in_sample,
    name_of,
)
from response_tuning.grade.agreement.statistics import LabelAgreement
from response_tuning.grade.benchmark import OFFLINE, AskJudge
from response_tuning.grade.effect import check_offline
from response_tuning.grade.judges.refusals import Judgement
from response_tuning.journals import Journal
from response_tuning.terminal import progress_bar
from response_tuning.unread import Unread
from response_tuning.workflows.judge import Judge, check_retry

if TYPE_CHECKING:
    from rich.console import Console


JOURNAL = "judge-check.journal"
SHOWN_EVERY = 500
"""Rows between two steps of the bar of the rules, which need microseconds for a row."""
HEAD = f"{'n':>8}{'agreement':>11}  {'95 %':<14}{'kappa':>9}  {'95 %':<14}{'unread':>9}"

Judged = Iterator[tuple[Labelled, Judgement]]


class Wanted(NamedTuple):
    """What is checked on what, and where to leave it."""

    sets: Sequence[str] = ()
    """Public sets, below ``grade.data``."""
    labels: Path | None = None
    """A labelled file, in their place."""
    out: Path | None = None
    """File for the verdicts."""
    save: Path | None = None
    """Folder for ``judge-check.json`` and the journal."""
    retry_filtered: bool = False
    """Ask again what a filter kept the judge from."""

    @property
    def journal(self) -> Path:
        """File that keeps the judge's replies as they come."""
        if self.save is not None:
            return self.save / JOURNAL
        return self.out.with_name(f"{self.out.name}.journal") if self.out else Path(JOURNAL)


class Verdict(Record):
    """What the judge said about one row."""

    verdict: str | None
    """None: its reply could not be read."""
    label: str
    """What people said."""
    set: str
    row: int
    """0-based position in the set."""
    part: str
    """The model, or the part of the set."""
    why: str
    """In a few words, where there are any; the judge's own are in the journal."""


def run_judge_check(wanted: Wanted, config: GradeConfig, console: "Console") -> Check:
    """Have a judge judge what people have labelled, and compare.

    The same call again asks only what is not in the journal.

    Raises:
        ConfigError: there is no such set, or the judge cannot judge it or use a setting.
        DataError: a labelled file cannot be used.
        EngineError: the judge did not reply to every question.
    """
    check_offline(config.judge)
    check_retry(config.judge, retry_filtered=wanted.retry_filtered)
    sets = [limited(labelled, config.limit) for labelled in _open(wanted, config)]
    began = time.monotonic()
    asking = _Asking(config.judge, wanted, console)
    counts: dict[str, Counts] = {}
    with _verdicts_file(wanted.out) as keep:
        for labelled in sets:
            counts[labelled.name] = Counter()
            for number, (row, said) in enumerate(asking.judged(labelled)):
                counts[labelled.name][row.part, row.label, said.label] += 1
                keep(
                    Verdict(
                        verdict=said.label,
                        label=row.label,
                        set=labelled.name,
                        row=number,
                        part=row.part,
                        why=said.why,
                    )
                )
    check = Check(
        judge=asking.identity(),
        sets={labelled.name: check_set(labelled, counts[labelled.name]) for labelled in sets},
        cost=asking.cost(time.monotonic() - began),
        packages=package_versions(),
    )
    if wanted.save is not None:
        write_json(wanted.save / CHECK, check.model_dump(mode="json"))
    return check


class _Asking:
    """Has rows judged, by rules or by a model, and keeps count of what it takes."""

    def __init__(self, config: JudgeConfig, wanted: Wanted, console: "Console") -> None:
        self._judge = Judge(config, console, retry_filtered=wanted.retry_filtered)
        self._journal = wanted.journal
        self._console = console
        self._spent: Counter[str] = Counter()

    def judged(self, labelled: LabelledSet) -> Judged:
        """Yield every row of a set with the verdict on it."""
        say = self._judge.say(self._journal, labelled.name)
        return self._by_rules(labelled) if say is None else self._by_model(labelled, say)

    def identity(self) -> CheckedJudge:
        """Return who judged."""
        config = self._judge.config.model_copy(update={"checked": ()})
        if config.engine == OFFLINE:
            return CheckedJudge(config=config, model=OFFLINE, template="", prompts={})
        engine = self._judge.engine
        return CheckedJudge(
            config=config, model=engine.model, template=engine.template, prompts=prompt_digests()
        )

    def cost(self, seconds: float) -> Cost:
        """Return what it took."""
        spent = self._spent
        return Cost(
            questions=spent["questions"],
            asked=spent["asked"],
            tokens=spent.get("tokens"),
            prompt_tokens=spent.get("prompt_tokens"),
            seconds=round(seconds, 1),
        )

    def _by_rules(self, labelled: LabelledSet) -> Judged:
        with progress_bar(f"verdicts on {labelled.name}", self._console) as advance:
            for number, row in enumerate(labelled.rows(), start=1):
                yield row, by_rule(labelled, row)
                if number % SHOWN_EVERY == 0 or number == labelled.size:
                    advance(number, labelled.size)

    def _by_model(self, labelled: LabelledSet, ask_judge: AskJudge) -> Judged:
        rows = list(labelled.rows())
        asked = [questions(labelled, row, number) for number, row in enumerate(rows)]
        before = len(Journal(self._journal, Completion))
        replies = list(ask_judge(chain.from_iterable(asked)))
        self._count(replies, len(Journal(self._journal, Completion)) - before)
        failed = [reply.error for reply in replies if reply.error is not None]
        if failed:
            raise EngineError(
                f"{labelled.name}: the judge gave no reply to {len(failed)} of {len(replies)} "
                f"questions, the first because: {failed[0]}; the same command asks them again"
            )
        given = iter(replies)
        for row, requests in zip(rows, asked, strict=True):
            yield row, judged(labelled, row, [*islice(given, len(requests))])

    def _count(self, replies: Sequence[Completion], asked: int) -> None:
        self._spent.update(questions=len(replies), asked=asked)
        for name in ("tokens", "prompt_tokens"):
            known = [count for reply in replies if (count := getattr(reply, name)) is not None]
            if known:
                self._spent[name] += sum(known)


def contract(check: Check) -> dict[str, Any]:
    """Return the five numbers of the set that was checked; of several, by the name of each."""
    numbers = {
        name: found.figures.model_dump(include={*LabelAgreement.model_fields})
        for name, found in check.sets.items()
    }
    return numbers if len(numbers) > 1 else next(iter(numbers.values()))


def unread_sentences(check: Check) -> list[str]:
    """Return a sentence for each set of which too many verdicts could not be read."""
    found = {}
    for name, one in check.sets.items():
        apart = one.apart.values()
        lost = one.figures.parse_failures + sum(said.get(NOT_READ, 0) for said in apart)
        of = one.figures.n + sum(sum(said.values()) for said in apart)
        found[name] = Unread(lost, of, lost / of)
    return [
        f"{name}: {unread} ({100 * unread.share:.0f} % of verdicts), which says little about the "
        "judge; its replies are in the journal"
        for name, unread in found.items()
        if unread.too_many
    ]


def print_check(check: Check, console: "Console") -> None:
    """Print the figures, and what the judge said where people said something else."""
    names = [*check.sets, *(f"  {part}" for found in check.sets.values() for part in found.parts)]
    width = 2 + max(map(len, names))
    lines = [f"judge: {name_of(check.judge.config)}", "", " " * width + HEAD]
    for name, found in check.sets.items():
        lines.append(f"{name:<{width}}{_line(found.figures)}")
        lines += [f"{f'  {part}':<{width}}{_line(found.parts[part])}" for part in found.parts]
    for name, found in check.sets.items():
        lines += ["", f"{name}: people's labels in rows, the judge's in columns"]
        lines += _confusion(found.figures.confusion)
        lines += [f"to be taken with care: {IN_SAMPLE}"] if in_sample(check, name) else []
        for label, said in found.apart.items():
            counted = ", ".join(f"{n:,} {word}" for word, n in said.items())
            lines.append(f"apart, in no figure: {sum(said.values()):,} {label}, judged {counted}")
    if check.cost.questions:
        lines += ["", _took(check.cost)]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _open(wanted: Wanted, config: GradeConfig) -> list[LabelledSet]:
    if bool(wanted.sets) == (wanted.labels is not None):
        raise ConfigError(
            "judge-check needs either --labels FILE.jsonl or names of labelled sets, which are "
            f"{', '.join(sorted(SETS))}"
        )
    if wanted.labels is not None:
        return [read_labels(wanted.labels)]
    sets = [open_set(name, config.data) for name in dict.fromkeys(wanted.sets)]
    for labelled in sets:
        if labelled.pairwise and config.judge.engine == OFFLINE:
            raise ConfigError(
                f"{labelled.name}: its rows are pairs, and the offline judge knows refusals alone; "
                "name a model, such as --judge openai --judge-model MODEL --judge-url "
                "http://127.0.0.1:8000/v1"
            )
    return sets


@contextmanager
def _verdicts_file(path: Path | None) -> Iterator[Callable[[Verdict], None]]:
    if path is None:
        yield lambda verdict: None
        return
    with written_aside(path) as out:

        def keep(verdict: Verdict) -> None:
            out.write(verdict.model_dump_json() + "\n")

        yield keep


def _line(figures: Figures) -> str:
    kappa = "-" if figures.kappa is None else f"{figures.kappa:.3f}"
    return (
        f"{figures.n:>8,}{figures.agreement:>11.3f}  {_interval(figures.agreement_interval):<14}"
        f"{kappa:>9}  {_interval(figures.kappa_interval):<14}{figures.parse_failures:>9,}"
    )


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _confusion(table: dict[str, dict[str, int]]) -> list[str]:
    width = 2 + max(map(len, table))
    head = "".join(f"{label:>{width}}" for label in table)
    rows = ["".join(f"{n:>{width},}" for n in said.values()) for said in table.values()]
    return [
        f"  {'':<{width}}{head}",
        *(f"  {label:<{width}}{row}" for label, row in zip(table, rows, strict=True)),
    ]


def _took(cost: Cost) -> str:
    counted = [
        f"{count:,} tokens of {what}"
        for what, count in (("prompts", cost.prompt_tokens), ("replies", cost.tokens))
        if count is not None
    ]
    asked = f"{cost.questions:,} questions, {cost.asked:,} of them asked now"
    return ", ".join([asked, *counted, f"{cost.seconds:.1f} s"])
