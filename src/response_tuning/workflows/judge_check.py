"""``rtune judge-check``: how far a judge agrees with the labels of people.

The figures are in ``judge-check.json``; reports that use the judge quote them in a sentence.
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
    UNREAD_LABEL,
    Counts,
    Figures,
    by_rule,
    check_set,
    judged,
    questions,
)
from response_tuning.grade.agreement.labelled_sets import (
    SETS,
    LabelledRow,
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
    asked_by,
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


CHECK_JOURNAL = "judge-check.journal"
ROWS_PER_STEP = 500
"""Rows between two steps of the progress bar of the rules, which take microseconds a row."""
TABLE_HEAD = f"{'n':>8}{'agreement':>11}  {'95 %':<14}{'kappa':>9}  {'95 %':<14}{'unread':>9}"

JudgedRows = Iterator[tuple[LabelledRow, Judgement]]


class CheckOptions(NamedTuple):
    """The data that a judge is checked on, and where the results go."""

    sets: Sequence[str] = ()
    """Public sets, below ``grade.data``."""
    labels: Path | None = None
    """Your own labelled file instead."""
    out: Path | None = None
    """File for the verdicts."""
    save: Path | None = None
    """Folder for ``judge-check.json`` and the journal."""
    retry_filtered: bool = False
    """Ask again about rows that a content filter withheld from the judge."""

    @property
    def journal(self) -> Path:
        """File to which the judge's replies are appended as they arrive."""
        if self.save is not None:
            return self.save / CHECK_JOURNAL
        return self.out.with_name(f"{self.out.name}.journal") if self.out else Path(CHECK_JOURNAL)


class RowVerdict(Record):
    """The judge's verdict on one row, and the label of people."""

    verdict: str | None
    """None: the reply could not be read."""
    label: str
    """The label of people."""
    set: str
    row: int
    """0-based position in the set."""
    part: str
    """The model, or the part of the set."""
    why: str
    """A reason in a few words, if the rules give one; a judge's own words are in the journal."""


def run_judge_check(options: CheckOptions, config: GradeConfig, console: "Console") -> Check:
    """Have a judge judge labelled rows, and compare its verdicts with the labels.

    The same call again asks only for what is not in the journal.

    Raises:
        ConfigError: there is no such set, or the judge cannot judge it or use a setting.
        DataError: a labelled file cannot be used.
        EngineError: the judge did not reply to every question.
    """
    check_offline(config.judge)
    if config.judge.settings.digits:
        raise ConfigError(
            "grade.judge.settings.digits: people's labels are words; check a judge of digits by "
            "'auroc' of the benchmark grades-brief or grades, with expected words in its prompts"
        )
    check_retry(config.judge, retry_filtered=options.retry_filtered)
    # All sets are read before the judge opens, so that a bad file costs no request.
    sets = [limited(labelled, config.limit) for labelled in _open(options, config)]
    began = time.monotonic()
    judge = _RowJudge(config.judge, options, console)
    with _verdicts_file(options.out) as write:
        counts = {labelled.name: _counted(judge, labelled, write) for labelled in sets}
    check = Check(
        judge=judge.identity(),
        sets={labelled.name: check_set(labelled, counts[labelled.name]) for labelled in sets},
        cost=judge.cost(time.monotonic() - began),
        packages=package_versions(),
    )
    if options.save is not None:
        write_json(options.save / CHECK, check.model_dump(mode="json"))
    return check


def _counted(
    judge: "_RowJudge", labelled: LabelledSet, write: Callable[[RowVerdict], None]
) -> Counts:
    """Write the verdict on each row of a set; count them by part, label and verdict."""
    counts: Counts = Counter()
    for number, (row, judgement) in enumerate(judge.rows(labelled)):
        counts[row.part, row.label, judgement.label] += 1
        verdict = RowVerdict(
            verdict=judgement.label,
            label=row.label,
            set=labelled.name,
            row=number,
            part=row.part,
            why=judgement.why,
        )
        write(verdict)
    return counts


class _RowJudge:
    """Judges labelled rows, by rules or by a model, and counts questions and tokens."""

    def __init__(self, config: JudgeConfig, options: CheckOptions, console: "Console") -> None:
        self._judge = Judge(config, console, retry_filtered=options.retry_filtered)
        self._journal = options.journal
        self._console = console
        self._counts: Counter[str] = Counter()

    def rows(self, labelled: LabelledSet) -> JudgedRows:
        """Yield every row of a set with the judgement about it."""
        ask_judge = self._judge.with_journal(self._journal, labelled.name)
        if ask_judge is None:
            return self._by_rules(labelled)
        return self._by_model(labelled, ask_judge)

    def identity(self) -> CheckedJudge:
        """Return the judge's settings, model, template and prompts."""
        config = self._judge.config.model_copy(update={"checked": ()})
        if config.engine == OFFLINE:
            model, template = OFFLINE, ""
        else:
            model, template = self._judge.engine.model, self._judge.engine.template
        return CheckedJudge(config=config, model=model, template=template, prompts=asked_by(config))

    def cost(self, seconds: float) -> Cost:
        """Return questions, tokens and seconds; None where the engine counts no tokens."""
        counts = self._counts
        return Cost(
            questions=counts["questions"],
            asked=counts["asked"],
            tokens=counts.get("tokens"),
            prompt_tokens=counts.get("prompt_tokens"),
            seconds=round(seconds, 1),
        )

    def _by_rules(self, labelled: LabelledSet) -> JudgedRows:
        with progress_bar(f"verdicts on {labelled.name}", self._console) as advance:
            for number, row in enumerate(labelled.rows(), start=1):
                yield row, by_rule(labelled, row)
                if number % ROWS_PER_STEP == 0 or number == labelled.size:
                    advance(number, labelled.size)

    def _by_model(self, labelled: LabelledSet, ask_judge: AskJudge) -> JudgedRows:
        rows = list(labelled.rows())
        # A pair is judged in both orders, so a row may have two questions. All rows go to the
        # engine at once, which keeps as many requests in flight as its settings allow.
        requests = [questions(labelled, row, number) for number, row in enumerate(rows)]
        known = len(Journal(self._journal, Completion))
        replies = list(ask_judge(chain.from_iterable(requests)))
        self._count(replies, len(Journal(self._journal, Completion)) - known)
        errors = [reply.error for reply in replies if reply.error is not None]
        if errors:
            raise EngineError(
                f"{labelled.name}: the judge gave no reply to {len(errors)} of {len(replies)} "
                f"questions, the first because: {errors[0]}; the same command asks them again"
            )
        remaining = iter(replies)
        for row, of_row in zip(rows, requests, strict=True):
            yield row, judged(labelled, row, [*islice(remaining, len(of_row))])

    def _count(self, replies: Sequence[Completion], new_requests: int) -> None:
        self._counts.update(questions=len(replies), asked=new_requests)
        for name in ("tokens", "prompt_tokens"):
            known = [count for reply in replies if (count := getattr(reply, name)) is not None]
            if known:
                self._counts[name] += sum(known)


def contract(check: Check) -> dict[str, Any]:
    """Return the five numbers of the checked set; by name, if there are several sets."""
    numbers = {
        name: checked.figures.model_dump(include={*LabelAgreement.model_fields})
        for name, checked in check.sets.items()
    }
    return numbers if len(numbers) > 1 else next(iter(numbers.values()))


def unread_sentences(check: Check) -> list[str]:
    """Return a sentence for each set with too many unread verdicts."""
    shares = {}
    for name, one in check.sets.items():
        apart = one.apart.values()
        lost = one.figures.parse_failures + sum(verdicts.get(UNREAD_LABEL, 0) for verdicts in apart)
        total = one.figures.n + sum(sum(verdicts.values()) for verdicts in apart)
        shares[name] = Unread(lost, total, lost / total)
    return [
        f"{name}: {unread} ({100 * unread.share:.0f} % of verdicts), which says little about the "
        "judge; its replies are in the journal"
        for name, unread in shares.items()
        if unread.too_many
    ]


def print_check(check: Check, console: "Console") -> None:
    """Print the agreement of each set and part, and the confusion of verdicts and labels."""
    names = [*check.sets, *(f"  {part}" for one in check.sets.values() for part in one.parts)]
    width = 2 + max(map(len, names))
    lines = [f"judge: {name_of(check.judge.config)}", "", " " * width + TABLE_HEAD]
    for name, checked in check.sets.items():
        lines.append(f"{name:<{width}}{_line(checked.figures)}")
        lines += [f"{f'  {part}':<{width}}{_line(checked.parts[part])}" for part in checked.parts]
    for name, checked in check.sets.items():
        lines += ["", f"{name}: people's labels in rows, the judge's in columns"]
        lines += _confusion(checked.figures.confusion)
        lines += [f"to be taken with care: {IN_SAMPLE}"] if in_sample(check, name) else []
        for label, verdicts in checked.apart.items():
            counted = ", ".join(f"{n:,} {word}" for word, n in verdicts.items())
            total = sum(verdicts.values())
            lines.append(f"apart, in no figure: {total:,} {label}, judged {counted}")
    if check.cost.questions:
        lines += ["", _cost_line(check.cost)]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _open(options: CheckOptions, config: GradeConfig) -> list[LabelledSet]:
    if bool(options.sets) == (options.labels is not None):
        raise ConfigError(
            "judge-check needs either --labels FILE.jsonl or names of labelled sets, which are "
            f"{', '.join(sorted(SETS))}"
        )
    if options.labels is not None:
        return [read_labels(options.labels)]
    # A set that is named twice is judged once.
    sets = [open_set(name, config.data) for name in dict.fromkeys(options.sets)]
    for labelled in sets:
        if labelled.pairwise and config.judge.engine == OFFLINE:
            raise ConfigError(
                f"{labelled.name}: its rows are pairs, and the offline judge knows refusals alone; "
                "name a model, such as --judge openai --judge-model MODEL --judge-url "
                "http://127.0.0.1:8000/v1"
            )
    return sets


@contextmanager
def _verdicts_file(path: Path | None) -> Iterator[Callable[[RowVerdict], None]]:
    if path is None:
        yield lambda verdict: None
        return
    with written_aside(path) as out:

        def write(verdict: RowVerdict) -> None:
            out.write(verdict.model_dump_json() + "\n")

        yield write


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
    rows = ["".join(f"{n:>{width},}" for n in row.values()) for row in table.values()]
    return [
        f"  {'':<{width}}{head}",
        *(f"  {label:<{width}}{row}" for label, row in zip(table, rows, strict=True)),
    ]


def _cost_line(cost: Cost) -> str:
    counted = [
        f"{count:,} tokens of {what}"
        for what, count in (("prompts", cost.prompt_tokens), ("replies", cost.tokens))
        if count is not None
    ]
    questions = f"{cost.questions:,} questions, {cost.asked:,} of them asked now"
    return ", ".join([questions, *counted, f"{cost.seconds:.1f} s"])
