"""``rtune token-shift``: where a tuned model's next token differs from its base's."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import (
    Completion,
    Score,
    package_versions,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import DataConfig
from response_tuning.errors import DataError
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.workflows.probe import (
    ProbeConfig,
    estimates,
    left_out_sentences,
    print_lines,
    read_pairs,
)

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.models.local import LocalModel
    from response_tuning.probe.token_shift import ByPosition, LeftOut, Reply, Shift


class ShiftTotals(NamedTuple):
    """What is kept of all replies while each is written and forgotten."""

    scores: list[Score]
    left_out: Counter[str]
    by_position: "ByPosition"


def run_token_shift(
    tuned: "EngineConfig",
    base: "EngineConfig",
    replies: Path | DataConfig,
    out: Path,
    console: "Console",
) -> None:
    """Compare a tuned model with its base on replies, token by token.

    Leaves ``token-shift.json`` and ``token-shift.jsonl``, one reply a line, in ``out``.

    Args:
        tuned: The tuned model.
        base: The model that it was tuned from; it gets the tuned model's prompts.
        replies: The file that ``rtune generate`` left, usually of the tuned model; or the responses
            of instruction data.
        out: The folder; it may exist.
        console: Where the table is printed.

    Raises:
        DataError: no reply can be compared.
        ModelError: the two models have different tokenizers.
    """
    from response_tuning.models.inference import load
    from response_tuning.probe.token_shift import ByPosition, token_shift

    quiet_libraries()
    read = _replies(replies)
    of_tuned = load(str(tuned.model), tuned.template, tuned.revision, tuned.device)
    # The base's template is not used here, but the loader refuses a model without one.
    of_base = load(str(base.model), base.template or "tulu", base.revision, base.device)
    totals = ShiftTotals([], Counter(), ByPosition())
    with progress_bar("replies", console) as advance:
        shifts = token_shift(of_tuned, of_base, read, tuned.tokens_per_batch)
        counted = _count(shifts, totals, lambda done: advance(done, len(read)))
        source = replies.source if isinstance(replies, DataConfig) else replies
        written = write_jsonl(out / "token-shift.jsonl", _at_least_one(counted, totals, source))
    name = str(tuned.model)
    results = estimates({name: totals.scores}, "token-shift")["results"]
    _write(out, of_tuned, of_base, totals, written, results)
    print_lines(
        console,
        [
            *(
                f"{r['value']:>10.4g}  {r['metric']}  [{r['low']:.4g}, {r['high']:.4g}]"
                for r in results
            ),
            *left_out_sentences({name: totals.left_out}),
            f"wrote {out}: {written:,} replies",
        ],
    )


def _count(
    shifts: "Iterator[Shift | LeftOut]", totals: ShiftTotals, on_progress: Callable[[int], None]
) -> "Iterator[Shift]":
    """Yield the compared replies, and add them and those left out to ``totals``."""
    from response_tuning.probe.token_shift import LeftOut, scores

    for number, shift in enumerate(shifts, start=1):
        if isinstance(shift, LeftOut):
            totals.left_out[shift.reason] += 1
        else:
            totals.scores.extend(scores(shift))
            totals.by_position.add(shift)
            yield shift
        on_progress(number)


def _at_least_one(
    shifts: "Iterator[Shift]", totals: ShiftTotals, source: object
) -> "Iterator[Shift]":
    """Pass ``shifts`` on; raise if there was none, while the file is being written aside."""
    yield from shifts
    if not totals.scores:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in totals.left_out.items())
        raise DataError(f"{source}: no reply can be compared: {reasons}")


def _write(
    out: Path,
    tuned: "LocalModel",
    base: "LocalModel",
    totals: ShiftTotals,
    replies: int,
    results: Sequence[dict[str, Any]],
) -> None:
    write_json(
        out / "token-shift.json",
        {
            "tuned": {"identity": tuned.identity, "template": tuned.chat.digest},
            "base": {"identity": base.identity},
            "replies": replies,
            "left_out": totals.left_out,
            "results": results,
            "by_position": totals.by_position.positions(),
            "most_shifted": totals.by_position.most_shifted(),
            "packages": package_versions(),
        },
    )


def _replies(source: Path | DataConfig) -> "list[Reply]":
    from response_tuning.likelihoods import Pair
    from response_tuning.probe.token_shift import Reply

    if isinstance(source, DataConfig):
        pairs = read_pairs(source, ProbeConfig())
        return [Reply(n, Pair(p, pairs.responses[n])) for n, p in pairs.prompts.items()]
    return [
        Reply(one.item_id, Pair(one.prompt, one.response), one.finish_reason == "stop")
        for one in read_jsonl(source, Completion)
        if one.response is not None
    ]
