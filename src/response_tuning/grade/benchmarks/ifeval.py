"""IFEval (Zhou et al. 2023): instructions that a rule can check, such as "use no commas".

The rules are those that lm-eval keeps. Of what they cannot check here, nothing is guessed: such an
instruction is *unchecked*, and a prompt that has one gets no score of its own.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

from response_tuning.artifacts import Completion, Message, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.sources import Rows, Source, cell, read_source, spread
from response_tuning.readers import Row, shown

SOURCE = Source(benchmark="ifeval", local="ifeval/input_data.jsonl", hub_id="google/IFEval")
PACKAGES = ("lm_eval", "langdetect", "nltk", "immutabledict")
PUNKT = "punkt_tab"
NEED_PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""What lm-eval counts with NLTK's sentence splitter, whose data is a download of its own."""


class Instruction(NamedTuple):
    """One requirement of a prompt."""

    name: str
    """``family:rule``."""
    arguments: dict[str, Any]
    """Of the rule, such as ``{"num_words": 300, "relation": "at least"}``."""


class Task(NamedTuple):
    """An item with what its prompt requires."""

    item: Item
    instructions: tuple[Instruction, ...]


class Followed(NamedTuple):
    """What became of one instruction."""

    name: str
    strict: bool = False
    loose: bool = False
    """As strict, or after emphasis, the first line or the last line is taken off."""
    unchecked: str = ""
    """Why it could not be checked; empty where it was."""


@BENCHMARKS.register("ifeval")
class IFEval:
    """541 prompts with 834 instructions, each in the group of its first instruction's family.

    Raises:
        ConfigError: lm-eval, or what its rules need, is not installed.
    """

    metrics = (
        *("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"),
        "unchecked",
    )

    def __init__(self, config: GradeConfig) -> None:
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"ifeval is checked by the rules of lm-eval, which need {', '.join(missing)}: pip "
                "install 'response-tuning[lm-eval]'"
            )
        self._config = config

    @cached_property
    def _rows(self) -> Rows:
        return read_source(SOURCE, self._config)

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        tasks = map(_task, spread(self._rows.rows, self._config.limit))
        return {task.item.item_id: task for task in tasks}

    @property
    def origin(self) -> dict[str, Any]:
        """Where the prompts are from, and whose rules check the answers with what."""
        from importlib import metadata

        return {
            **self._rows.origin,
            "rules": f"lm-eval {metadata.version('lm_eval')}",
            PUNKT: _has_punkt(),
        }

    def items(self) -> Sequence[Item]:
        """Return the prompts; their ids are the keys of the published file."""
        return [task.item for task in self._tasks.values()]

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield ``prompt_*`` and ``instruction_*``, strict and loose, and ``unchecked``.

        ``prompt_*``: all instructions are followed; not scored if one is unchecked.
        ``instruction_*``: the share followed of those checked, weighted by their number.
        ``unchecked``: the share that was not checked, weighted by the number of all.
        """
        found = [
            _followed(item.prompt[0].content, instruction, completion.response or "")
            for instruction in self._tasks[item.item_id].instructions
        ]
        checked = [one for one in found if not one.unchecked]
        if checked:
            n = len(checked)
            yield _score(item, "instruction_strict", sum(one.strict for one in checked) / n, n)
            yield _score(item, "instruction_loose", sum(one.loose for one in checked) / n, n)
        if len(checked) == len(found):
            broken = ", ".join(one.name for one in found if not one.strict)
            said = f"not followed: {broken}" if broken else ""
            yield _score(item, "prompt_strict", all(one.strict for one in found), 1, said)
            yield _score(item, "prompt_loose", all(one.loose for one in found))
        reasons = "; ".join(f"{one.name}: {one.unchecked}" for one in found if one.unchecked)
        share = 1 - len(checked) / len(found)
        yield _score(item, "unchecked", share, len(found), reasons)


def _score(
    item: Item, metric: str, value: float, weight: float = 1, explanation: str = ""
) -> Score:
    return Score(
        item_id=item.item_id,
        metric=metric,
        value=float(value),
        weight=weight,
        explanation=explanation,
        group=item.group,
    )


def _task(row: Row) -> Task:
    names, arguments = row.fields.get("instruction_id_list"), row.fields.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list) or not names:
        raise DataError(
            f"{row.where}: expected lists in 'instruction_id_list' and 'kwargs', found "
            f"{shown(names)} and {shown(arguments)}"
        )
    if len(names) != len(arguments):
        raise DataError(f"{row.where}: {len(names)} instructions, but {len(arguments)} kwargs")
    item = Item(
        item_id=f"ifeval-{row.fields.get('key')}",
        prompt=(Message(role="user", content=cell(row, "prompt")),),
        group=str(names[0]).partition(":")[0],
    )
    # The hub's rows name every argument of every rule, those of other rules as None.
    given = [{k: v for k, v in one.items() if v is not None} for one in arguments]
    return Task(item, tuple(map(Instruction, names, given)))


def _followed(prompt: str, instruction: Instruction, response: str) -> Followed:
    reason = _why_unchecked(instruction)
    if reason:
        return Followed(instruction.name, unchecked=reason)
    rules = _checkers()
    example = rules.InputExample(0, [instruction.name], prompt, [instruction.arguments])
    try:
        strict = rules.test_instruction_following_strict(example, response)
        loose = rules.test_instruction_following_loose(example, response)
    except RecursionError:  # brackets without end, which the JSON rule hands to json.loads
        return Followed(instruction.name)
    return Followed(instruction.name, strict.follow_all_instructions, loose.follow_all_instructions)


def _why_unchecked(instruction: Instruction) -> str:
    """Return why a rule has no say here; empty where it has."""
    if instruction.name not in _checkers().instructions_registry.INSTRUCTION_DICT:
        return "lm-eval has no such rule"
    if instruction.name in NEED_PUNKT and not _has_punkt():
        return f"needs NLTK's data: python -m nltk.downloader {PUNKT}"
    letter = str(instruction.arguments.get("letter", "a")).lower()
    if len(letter) != 1 or not "a" <= letter <= "z":
        return f"lm-eval would count a letter drawn at random in place of {letter!r}"
    return ""


@cache
def _has_punkt() -> bool:
    import nltk

    try:
        nltk.data.find(f"tokenizers/{PUNKT}/english/")
    except LookupError:
        return False
    return True


@cache
def _checkers() -> Any:  # noqa: ANN401 - a module without types
    """Import lm-eval's rules, once, and make them deterministic and quiet."""
    with _no_download():
        import langdetect
        from lm_eval.tasks.ifeval import utils
    langdetect.DetectorFactory.seed = 0  # it samples n-grams of the text
    # It logs whole answers whose language it cannot tell.
    logging.getLogger("lm_eval.tasks.ifeval").setLevel(logging.CRITICAL)
    return utils


@contextmanager
def _no_download() -> Iterator[None]:
    """Import as a second process on the machine would: only the first downloads NLTK's data."""
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        yield
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank
