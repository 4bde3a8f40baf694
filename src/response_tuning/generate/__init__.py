"""Stage 3: a model answers prompts, and a journal keeps each completion as it arrives.

Every text that a model writes comes from ``generate``: answers, refinements, judgements.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.generate.engine import (
    ENGINES,
    Engine,
    check_retry,
    key,
    open_engine,
)
from response_tuning.journals import Journal

__all__ = ["ENGINES", "Engine", "EngineConfig", "check_retry", "generate", "open_engine"]


def generate(
    engine: Engine,
    requests: Iterable[Request],
    journal: Path,
    sampling: Sampling,
    *,
    progress: Callable[[int, int], None] | None = None,
    retry_filtered: bool = False,
) -> Iterator[Completion]:
    """Answer every request, and return the completions in the order of the requests.

    ``journal`` gets each completion as it arrives, and what it already answers is not generated
    again: a crash costs only what was in flight. A failed request is a completion with its error,
    which the next call tries again; one that a filter blocked is tried again only with
    ``retry_filtered``. Equal requests are answered once. All work is done when this returns.
    ``progress`` is called with (answered, all) of the distinct requests.

    Raises:
        DataError: the journal is damaged or another file, or a prompt is not valid Unicode.
        EngineError: the engine cannot answer at all; the journal keeps the answers so far.
    """
    keyed = [(key(engine, request, sampling), request) for request in requests]
    distinct: dict[str, Request] = {}
    for k, request in keyed:
        distinct.setdefault(k, request)
    completions = Journal(journal, Completion)
    answers = _answers_in(completions, distinct.keys())
    if retry_filtered:
        answers = {k: one for k, one in answers.items() if one.finish_reason != "filtered"}
    missing = [request for k, request in distinct.items() if k not in answers]
    if progress:
        progress(len(answers), len(distinct))
    # The journal is opened even if nothing is missing: that checks its header.
    with completions.appending() as append:
        for completion in engine.complete(missing, sampling) if missing else ():
            append(completion)
            answers[completion.key] = completion
            if progress:
                progress(len(answers), len(distinct))
    # An answer from the journal may be to another item with the same prompt.
    return iter([answers[k].model_copy(update={"item_id": r.item_id}) for k, r in keyed])


def _answers_in(journal: Journal[Completion], wanted: Collection[str]) -> dict[str, Completion]:
    return {
        completion.key: completion
        for completion in journal
        if completion.key in wanted and completion.error is None
    }
