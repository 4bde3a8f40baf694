"""``rtune generate``: a model answers a file of prompts, or a benchmark."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import (
    Completion,
    Request,
    Sampling,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, unused
from response_tuning.folders import locked_file
from response_tuning.terminal import printable, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig


def print_answers(out: Path, completions: Sequence[Completion], console: "Console") -> int:
    """Print what became of a file of prompts, and return how many got no answer."""
    failed = [completion for completion in completions if completion.error is not None]
    line = f"wrote {out}: {len(completions) - len(failed):,} answers, {len(failed):,} errors"
    if failed:
        line += f", the first: {printable(str(failed[0].error))}"
    for said in filter(None, (line, filtered_sentence(completions))):
        console.print(said, highlight=False, soft_wrap=True)
    return len(failed)


def filtered_sentence(completions: Sequence[Completion]) -> str:
    """Say how many answers a filter kept back, and by which name; empty where there are none."""
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
) -> int:
    """Run stage 3 on a file of prompts or on a benchmark; return how many got no answer.

    What a filter kept from an answer has one, and is asked again with ``retry_filtered``.

    Completions are kept in ``<out>.journal`` as they arrive, and ``out`` is written whole at the
    end: the same command again asks only what is not in the journal.

    Raises:
        ConfigError: ``out`` is a folder.
    """
    from response_tuning.data import read_prompts
    from response_tuning.generate import check_retry, generate, open_engine
    from response_tuning.grade import BENCHMARKS, check_effect, open_benchmark

    if not prompts.strip():
        raise ConfigError("the name of the prompts is empty; give a file, or a benchmark's name")
    check_retry([engine], retry_filtered=retry_filtered)
    is_benchmark = prompts in BENCHMARKS.names()
    grading = grading or GradeConfig()
    if is_benchmark:
        check_effect([prompts], grading, graded=False)
        unused(f"{prompts} is a benchmark, which says itself what is asked", column=column)
    else:
        unused("a file of prompts is asked as it is", data=grading.data, limit=grading.limit)
    if not sampling.temperature:
        changed = None if sampling.top_p == 1 else sampling.top_p
        unused("temperature 0 is greedy", top_p=changed, seed=sampling.seed or None)
    with locked_file(out, config, grading, None if is_benchmark else Path(prompts)) as journal:
        if is_benchmark:
            requests: list[Request] = [*open_benchmark(prompts, grading).items()]
        else:
            requests = list(read_prompts(Path(prompts), column))
        answering = open_engine(engine, config)
        with progress_bar("completions", console) as advance:
            said = generate(
                answering,
                requests,
                journal,
                sampling,
                progress=advance,
                retry_filtered=retry_filtered,
            )
        completions = list(said)
        write_jsonl(out, completions)
    return print_answers(out, completions, console)
