"""``rtune data screen``: how much of a set of texts is instructions, or answers to them?"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from response_tuning.artifacts import Completion, Request, Sampling, read_json
from response_tuning.configs import DataConfig, EngineConfig
from response_tuning.errors import EngineError
from response_tuning.folders import locked
from response_tuning.registry import unknown
from response_tuning.workflows.data import print_audit, run_data
from response_tuning.workflows.generate import Sampler
from response_tuning.workflows.judge import check_engine
from response_tuning.workflows.refine import ORIGINAL

if TYPE_CHECKING:
    from rich.console import Console

JOURNAL = "journal.jsonl"
VERDICT_TOKENS = 512
"""Longest reply of a judge, thoughts included."""


class Screening(NamedTuple):
    """Who judges, and which examples are left out."""

    engine: str | None
    settings: EngineConfig
    drop: str
    retry_filtered: bool = False


def run_screening(config: DataConfig, how: Screening, out: Path, console: "Console") -> None:
    """Screen a source into ``out``; the same command again asks only what has no reply yet.

    Raises:
        ConfigError: a setting is impossible.
        EngineError: the judge gave no reply to some examples.
    """
    from response_tuning.data.refinement.screening import Drop, screen
    from response_tuning.generate import check_retry, open_engine

    if how.drop not in get_args(Drop):
        raise unknown("choice of --drop", how.drop, [*get_args(Drop)])
    if how.engine is not None:
        check_engine(how.engine, how.settings)
        check_retry([how.engine], retry_filtered=how.retry_filtered)
    with locked(out, config):
        run_data(config, out / ORIGINAL)
        ask: Callable[[Iterable[Request]], Iterator[Completion]] | None = None
        if how.engine is not None:
            engine = open_engine(how.engine, how.settings)
            sampling = Sampling(max_new_tokens=VERDICT_TOKENS)
            sampler = Sampler(engine, sampling, console, how.retry_filtered)
            ask = _whole(sampler, out / JOURNAL)
        screen(out / ORIGINAL, out, ask, cast("Drop", how.drop))
        print_audit(out, console)
        for line in _lines(read_json(out / "audit.json")["screening"]):
            console.print(line, highlight=False, soft_wrap=True)


def _whole(sampler: Sampler, journal: Path) -> Callable[[Iterable[Request]], Iterator[Completion]]:
    """Return a function that asks, and raises where a request got no reply."""

    def ask(requests: Iterable[Request]) -> Iterator[Completion]:
        replies = list(sampler.complete(requests, journal, "verdicts"))
        failed = [reply for reply in replies if reply.error is not None]
        if failed:
            raise EngineError(
                f"{len(failed):,} of {len(replies):,} examples got no verdict, the first because: "
                f"{failed[0].error}; the same command asks them again"
            )
        return iter(replies)

    return ask


def _lines(counts: dict[str, Any]) -> Iterator[str]:
    for what in ("instructions", "responses"):
        number = counts[what].pop("all")
        if number:
            shares = ", ".join(f"{sign} {n / number:.1%}" for sign, n in counts[what].items())
            yield f"{number:,} {what}: {shares}"
    if "judged" in counts:
        verdicts = counts["judged"]
        known = verdicts.get("yes", 0) + verdicts.get("no", 0)
        share = f"{verdicts.get('yes', 0) / known:.1%}" if known else "no share"
        yield (
            f"the judge: {share} of {known:,} ask for something or answer it; "
            f"{verdicts.get('unread', 0):,} replies could not be read"
        )
