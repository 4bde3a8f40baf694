"""``rtune generate``: a model answers a file of prompts, or a benchmark.

``Sampler`` is the one place where workflows ask a model: for answers, rewrites and verdicts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import (
    Completion,
    Request,
    Sampling,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError, unused
from response_tuning.folders import locked_file
from response_tuning.journals import Journal
from response_tuning.registry import unknown
from response_tuning.terminal import printable, progress_bar
from response_tuning.workflows.abstention import ABSTAINED, Abstaining, abstaining, check_model

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.generate import Engine


@dataclass(frozen=True)
class Sampler:
    """An open engine, how completions are sampled from it, and where progress is shown."""

    engine: "Engine"
    sampling: Sampling
    console: "Console"
    retry_filtered: bool = False
    """Whether to ask again what a content filter withheld."""

    def complete(
        self, requests: Iterable[Request], journal: Path, label: str
    ) -> Iterator[Completion]:
        """Return the completions in the order of ``requests``, under a progress bar.

        Those in ``journal`` are not asked for again, and the others are added to it.
        """
        from response_tuning.generate import generate

        with progress_bar(label, self.console) as advance:
            return generate(
                self.engine,
                requests,
                journal,
                self.sampling,
                progress=advance,
                retry_filtered=self.retry_filtered,
            )


def copy_completions(
    sources: Iterable[Iterable[Completion]], journal: Path, wanted: Collection[str] | None = None
) -> None:
    """Add to ``journal`` the completions it lacks from other files, so that you pay for each once.

    With ``wanted``, others than those with these keys are left. Of several with one key the last
    counts: it may be an answer after one that a content filter withheld. Another process may be
    writing a source; where it cannot be read, its completions are asked for instead.
    """
    kept = Journal(journal, Completion)
    known = {one.key for one in kept if one.error is None}
    copies: dict[str, Completion] = {}
    for source in sources:
        with suppress(DataError):
            for one in source:
                if one.error is None and one.key not in known:
                    copies[one.key] = one
    if wanted is not None:
        copies = {key: one for key, one in copies.items() if key in wanted}
    if copies:
        with kept.appending() as append:
            for one in copies.values():
                append(one)


def print_answers(out: Path, completions: Sequence[Completion], console: "Console") -> int:
    """Print how many prompts got an answer, and return how many did not."""
    failed = [completion for completion in completions if completion.error is not None]
    line = f"wrote {out}: {len(completions) - len(failed):,} answers, {len(failed):,} errors"
    if failed:
        line += f", the first: {printable(str(failed[0].error))}"
    for sentence in filter(None, (line, filtered_sentence(completions))):
        console.print(sentence, highlight=False, soft_wrap=True)
    return len(failed)


def filtered_sentence(completions: Sequence[Completion]) -> str:
    """Return how many answers a filter withheld, and why; empty where there are none."""
    causes = Counter(one.detail for one in completions if one.finish_reason == "filtered")
    named = ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common(3))
    if not causes:
        return ""
    return (
        f"{causes.total():,} of {len(completions):,} were filtered ({printable(named)}), which is "
        "neither a refusal nor a compliance; --retry-filtered asks them again"
    )


def run_generate(  # noqa: PLR0913 - the settings of one command
    engine: str,
    config: "EngineConfig",
    prompts: str,
    column: str | None,
    sampling: Sampling,
    out: Path,
    console: "Console",
    grading: GradeConfig | None = None,
    *,
    retry_filtered: bool = False,
    abstain: Abstaining = Abstaining(),  # noqa: B008 - immutable
) -> int:
    """Have a model answer a file of prompts, or a benchmark; return how many got no answer.

    Completions are appended to ``<out>.journal`` as they arrive, and ``out`` is written whole at
    the end: the same command again asks only for what the journal lacks. An answer that a content
    filter withheld counts as one, and is asked for again with ``retry_filtered``. In ``out``, an
    answer that is not sure enough by ``abstain`` is replaced by ``ABSTENTION``.

    Raises:
        ConfigError: ``out`` is a folder, or a setting has no effect.
        EngineError: the model cannot be asked at all.
    """
    from response_tuning.generate import check_retry, open_engine
    from response_tuning.grade import BENCHMARKS

    if not prompts.strip():
        raise ConfigError("the name of the prompts is empty; give a file, or a benchmark's name")
    if prompts not in BENCHMARKS.names() and not Path(prompts).exists():
        error = unknown("benchmark", prompts, BENCHMARKS.names())
        raise ConfigError(f"'{prompts}': no such file, and {error}")
    check_retry([engine], retry_filtered=retry_filtered)
    threshold = None
    if abstain.check(engine):
        config = config.model_copy(update={"confidence": True})
        threshold = abstain.threshold(console)
    grading = grading or GradeConfig()
    _check_settings(prompts, column, sampling, grading)
    read = None if prompts in BENCHMARKS.names() else Path(prompts)
    # The journal keeps what arrived if the run dies; ``out`` is only ever whole.
    with locked_file(out, config, grading, read) as journal:
        requests = _requests(prompts, column, grading)
        sampler = Sampler(open_engine(engine, config), sampling, console, retry_filtered)
        if abstain.graded is not None:
            check_model(abstain.graded, sampler.engine.model)
        completions = list(sampler.complete(requests, journal, "completions"))
        if threshold is not None:
            completions = [abstaining(one, threshold) for one in completions]
        write_jsonl(out, completions)
    if threshold is not None:
        declined = sum(one.detail.startswith(ABSTAINED) for one in completions)
        line = f"{declined:,} of {len(completions):,} prompts declined: not sure enough"
        console.print(line, highlight=False, soft_wrap=True)
    return print_answers(out, completions, console)


def _check_settings(
    prompts: str, column: str | None, sampling: Sampling, grading: GradeConfig
) -> None:
    """Refuse settings that have no effect on these prompts, or on greedy decoding."""
    from response_tuning.grade import BENCHMARKS, check_effect

    if prompts in BENCHMARKS.names():
        check_effect([prompts], grading, graded=False)
        unused(f"{prompts} is a benchmark, which has prompts of its own", column=column)
    else:
        unused("a file of prompts is used as it is", data=grading.data, limit=grading.limit)
    if not sampling.temperature:
        changed = None if sampling.top_p == 1 else sampling.top_p
        unused("temperature 0 is greedy", top_p=changed, seed=sampling.seed or None)


def _requests(prompts: str, column: str | None, grading: GradeConfig) -> Sequence[Request]:
    from response_tuning.data import read_prompts
    from response_tuning.grade import BENCHMARKS, open_benchmark

    if prompts in BENCHMARKS.names():
        return open_benchmark(prompts, grading).items()
    return list(read_prompts(Path(prompts), column))
