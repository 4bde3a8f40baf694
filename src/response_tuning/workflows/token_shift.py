"""``rtune token-shift``: where a tuned model's next token differs from its base's."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
    TOKEN_SHIFT,
    ProbeConfig,
    _counted,
    _left_out,
    _say,
    _tables,
    read_pairs,
)

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.probe.token_shift import Reply


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
        base: What it was tuned from; it is given the tuned model's prompts.
        replies: What ``rtune generate`` left, of the tuned model if its own replies are meant; or
            the responses of instruction data.
        out: The folder; it may be there.
        console: Where the table is printed.

    Raises:
        DataError: there is no reply that can be compared.
        ModelError: the two have different tokenizers.
    """
    from response_tuning.models.inference import load
    from response_tuning.probe.token_shift import ByPosition, LeftOut, Shift, scores, token_shift

    quiet_libraries()
    asked = _replies(replies)
    of_tuned = load(str(tuned.model), tuned.template, tuned.revision, tuned.device)
    # The base's own template is of no use here, but a base without one would be refused.
    of_base = load(str(base.model), base.template or "tulu", base.revision, base.device)
    found: list[Score] = []
    left_out, by_position = Counter[str](), ByPosition()

    def compared(advance: Callable[[int, int], None]) -> Iterator[Shift]:
        shifts = token_shift(of_tuned, of_base, asked, tuned.tokens_per_batch)
        for number, shift in enumerate(shifts, start=1):
            if isinstance(shift, LeftOut):
                left_out[shift.reason] += 1
            else:
                found.extend(scores(shift))
                by_position.add(shift)
                yield shift
            advance(number, len(asked))
        if not found:
            raise DataError(f"{replies}: no reply can be compared: {_counted(left_out)}")

    with progress_bar("replies", console) as advance:
        count = write_jsonl(out / "token-shift.jsonl", compared(advance))
    name = str(tuned.model)
    results = _tables({name: found}, TOKEN_SHIFT, seed=0)["results"]
    write_json(
        out / "token-shift.json",
        {
            "tuned": {"identity": of_tuned.identity, "template": of_tuned.chat.digest},
            "base": {"identity": of_base.identity},
            "replies": count,
            "left_out": left_out,
            "results": results,
            "by_position": by_position.positions(),
            "most_shifted": by_position.most_shifted(),
            "packages": package_versions(),
        },
    )
    lines = [
        f"{r['value']:>10.4g}  {r['metric']}  [{r['low']:.4g}, {r['high']:.4g}]" for r in results
    ]
    _say(console, [*lines, *_left_out({name: left_out}), f"wrote {out}: {count:,} replies"])


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
