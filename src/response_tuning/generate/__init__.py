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
    ``retry_filtered``. Equal requests are answered once. All work is done when this returns; the
    completions are read from the journal one by one, so the file has to stay until then.
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
    places = _answered(completions, distinct.keys(), retry_filtered=retry_filtered)
    missing = [request for k, request in distinct.items() if k not in places]
    if progress:
        progress(len(places), len(distinct))
    # The journal is opened even if nothing is missing: that checks its header.
    with completions.appending() as append:
        for completion in engine.complete(missing, sampling) if missing else ():
            places[completion.key] = append(completion)
            if progress:
                progress(len(places), len(distinct))
    # An answer from the journal may be to another item with the same prompt.
    found = completions.at([places[k] for k, _ in keyed])
    return (
        completion.model_copy(update={"item_id": request.item_id})
        for completion, (_, request) in zip(found, keyed, strict=True)
    )


def _answered(
    journal: Journal[Completion], wanted: Collection[str], *, retry_filtered: bool
) -> dict[str, int]:
    """Return where the journal has an answer, by key; the last one counts.

    Places and not answers: a million answers would not fit into memory.
    """
    return {
        completion.key: place
        for place, completion in journal.placed()
        if completion.key in wanted
        and completion.error is None
        and not (retry_filtered and completion.finish_reason == "filtered")
    }
