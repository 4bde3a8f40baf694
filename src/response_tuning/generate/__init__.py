"""Stage 3: a model is asked, and its completions are kept as they arrive.

``generate`` is the one way anything is said by a model: answers, refinements, judgements.
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
    """Have every request answered, and return the completions in the order of the requests.

    Each completion is appended to ``journal`` as it arrives, and what the journal already answers
    is not asked again: a crash costs only what was in flight. A request that failed is a
    completion with its error, and is asked again by the next call; one that a filter kept from an
    answer only with ``retry_filtered``. Equal requests are asked once.
    All work is done when this returns; ``progress`` hears (answered, all) of the distinct ones.

    Raises:
        DataError: the journal is damaged or another file, or a prompt is not valid Unicode.
        EngineError: the engine cannot answer at all; what it had answered is in the journal.
    """
    asked = [(key(engine, request, sampling), request) for request in requests]
    distinct: dict[str, Request] = {}
    for known_by, request in asked:
        distinct.setdefault(known_by, request)
    kept = Journal(journal, Completion)
    answers = _answered_before(kept, distinct.keys())
    if retry_filtered:
        answers = {k: one for k, one in answers.items() if one.finish_reason != "filtered"}
    missing = [request for known_by, request in distinct.items() if known_by not in answers]
    if progress:
        progress(len(answers), len(distinct))
    with kept.appending() as append:
        for completion in engine.complete(missing, sampling) if missing else ():
            append(completion)
            answers[completion.key] = completion
            if progress:
                progress(len(answers), len(distinct))
    return iter([answers[k].model_copy(update={"item_id": r.item_id}) for k, r in asked])


def _answered_before(
    journal: Journal[Completion], wanted: Collection[str]
) -> dict[str, Completion]:
    return {
        completion.key: completion
        for completion in journal
        if completion.key in wanted and completion.error is None
    }
