"""IFEval (Zhou et al. 2023): instructions that a rule can check, such as "use no commas".

The rules are lm-eval's. An instruction that they cannot check on this machine is *unchecked*: it
gets no guess, and a prompt that contains one gets no score as a whole.
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
from response_tuning.grade.answer_ranking import ECHO
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread
from response_tuning.pairing import copied_share
from response_tuning.readers import Row, shown

SOURCE = BenchmarkSource(
    benchmark="ifeval", local="ifeval/input_data.jsonl", hub_id="google/IFEval"
)
RULE_PACKAGES = ("lm_eval", "langdetect", "nltk", "immutabledict")
PUNKT = "punkt_tab"
NEED_PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""Rules that use NLTK's sentence splitter, whose data is a separate download."""


class Instruction(NamedTuple):
    """One requirement of a prompt."""

    name: str
    """``family:rule``."""
    arguments: dict[str, Any]
    """Arguments of the rule, such as ``{"num_words": 300, "relation": "at least"}``."""


class InstructedItem(NamedTuple):
    """An item with the instructions of its prompt."""

    item: Item
    instructions: tuple[Instruction, ...]


class Followed(NamedTuple):
    """The check of one instruction."""

    name: str
    strict: bool = False
    loose: bool = False
    """Strict, or strict without emphasis, without the first line or without the last line."""
    unchecked: str = ""
    """Why it could not be checked; empty if it was checked."""


@BENCHMARKS.register("ifeval")
class IFEval:
    """541 prompts with 834 instructions, each in the group of its first instruction's family.

    Raises:
        ConfigError: lm-eval, or what its rules need, is not installed.
    """

    suite = "instructions"
    headline = ("prompt_strict", "prompt_strict_own", "instruction_strict", "prompt_loose", "echo")
    metrics = (*headline, "instruction_loose", "unchecked")

    def __init__(self, config: GradeConfig) -> None:
        if missing := missing_packages():
            raise ConfigError(
                f"ifeval is checked by the rules of lm-eval, which need {', '.join(missing)}: pip "
                "install 'response-tuning[lm-eval]'"
            )
        self._config = config

    @cached_property
    def _rows(self) -> SourceRows:
        return read_source(SOURCE, self._config)

    @cached_property
    def _instructed_items(self) -> dict[str, InstructedItem]:
        rows = spread(self._rows.rows, self._config.limit)
        return {one.item.item_id: one for one in map(_instructed, rows)}

    @property
    def origin(self) -> dict[str, Any]:
        """Where the prompts come from, which rules check them, and whether NLTK has its data."""
        from importlib import metadata

        return {
            **self._rows.origin,
            "rules": f"lm-eval {metadata.version('lm_eval')}",
            PUNKT: _has_punkt(),
        }

    def items(self) -> Sequence[Item]:
        """Return the prompts; their ids are the keys of the published file."""
        return [one.item for one in self._instructed_items.values()]

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield ``prompt_*`` and ``instruction_*``, strict and loose, ``echo`` and ``unchecked``.

        ``prompt_*``: all instructions are followed; without a score if one is unchecked.
        ``instruction_*``: the share of the checked instructions that are followed, weighted by the
        number of checked instructions, so that the mean is a share of instructions.
        ``echo``: most of the response's words are copied from the prompt. A base model that repeats
        the prompt keeps many of its rules: ``prompt_strict_own`` is strict, and no echo.
        ``unchecked``: the share of unchecked instructions, weighted by the number of all.
        """
        prompt, response = item.prompt[0].content, completion.response or ""
        instructions = self._instructed_items[item.item_id].instructions
        found = [followed(prompt, instruction, response) for instruction in instructions]
        echo = copied_share(response, prompt) > ECHO
        yield _score(item, "echo", echo)
        checked = [one for one in found if not one.unchecked]
        if checked:
            n = len(checked)
            yield _score(item, "instruction_strict", sum(one.strict for one in checked) / n, n)
            yield _score(item, "instruction_loose", sum(one.loose for one in checked) / n, n)
        # A prompt with an unchecked instruction could only be guessed to follow all of them.
        if len(checked) == len(found):
            broken = ", ".join(one.name for one in found if not one.strict)
            why = f"not followed: {broken}" if broken else ""
            strict = all(one.strict for one in found)
            yield _score(item, "prompt_strict", strict, 1, why)
            yield _score(item, "prompt_strict_own", strict and not echo)
            yield _score(item, "prompt_loose", all(one.loose for one in found))
        reasons = "; ".join(f"{one.name}: {one.unchecked}" for one in found if one.unchecked)
        share = 1 - len(checked) / len(found)
        yield _score(item, "unchecked", share, len(found), reasons)


def missing_packages() -> list[str]:
    """Return the packages that the rules need and that are not installed."""
    return [name for name in RULE_PACKAGES if find_spec(name) is None]


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


def _instructed(row: Row) -> InstructedItem:
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
    return InstructedItem(item, tuple(map(Instruction, names, given)))


def followed(prompt: str, instruction: Instruction, response: str) -> Followed:
    """Check one instruction of ``prompt`` in a response."""
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
    """Return why a rule cannot check an instruction; empty if it can."""
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
