"""What the commands of judges read, and how they ask for a digit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Completion, Message, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.judging import Form, judging_prompt
from response_tuning.workflows.generate import Sampler

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.generate.digits import DigitEngine

JOURNAL = "grades.journal"


class View(NamedTuple):
    """What the judge sees of an answer."""

    form: Form
    instruction: bool = True
    reference: bool = False

    def prompt(self, answer: "Answer") -> tuple[Message, ...]:
        """Return the prompt that asks for the digit."""
        text = judging_prompt(
            answer.response,
            answer.instruction if self.instruction else None,
            reference=answer.reference if self.reference else None,
            form=self.form,
        )
        return (Message(role="user", content=text),)


@dataclass(frozen=True)
class Answer:
    """A row of the source."""

    fields: dict[str, Any]
    where: str
    response: str
    instruction: str | None
    reference: str | None = None


def read_answers(source: Path, needed: Sequence[str]) -> list[Answer]:
    """Read a file of answers with columns ``instruction``, ``response`` and ``reference``.

    Raises:
        DataError: it has no rows, or a row lacks text in a column of ``needed``.
    """
    from response_tuning.readers import check_is_file, read

    check_is_file(source)
    found = []
    for row in read(source):
        if row.fault:
            raise DataError(f"{row.where}: {row.fault}")
        texts = {}
        for column in ("instruction", "response", "reference"):
            value = row.fields.get(column)
            texts[column] = value if isinstance(value, str) and value.strip() else None
            if texts[column] is None and column in needed:
                raise DataError(f"{row.where}: no text in column '{column}'; fill it in each row")
        response = texts["response"]
        assert response is not None
        found.append(
            Answer(row.fields, row.where, response, texts["instruction"], texts["reference"])
        )
    if not found:
        raise DataError(f"{source}: it has no rows")
    return found


def check_judge_model(settings: EngineConfig) -> None:
    """Refuse a judge that is not named; loads nothing.

    Raises:
        ConfigError: no model is named.
    """
    if settings.model is None:
        raise ConfigError("name the judge with --model: a folder, a .gguf file or a hub id")


def open_judge(settings: EngineConfig) -> "DigitEngine":
    """Load the judge.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from response_tuning.generate import open_engine
    from response_tuning.generate.digits import DigitEngine
    from response_tuning.terminal import quiet_libraries

    quiet_libraries()
    engine = open_engine("hf", settings.model_copy(update={"digits": True}))
    assert isinstance(engine, DigitEngine)
    return engine


def grades(
    engine: "DigitEngine",
    answers: Sequence[Answer],
    view: View,
    journal: Path,
    console: "Console",
) -> list[float]:
    """Return the mean digit of each answer; those in ``journal`` are not computed again.

    Raises:
        EngineError: some answers have no grade, because the judge cannot take their prompts.
    """
    requests = [
        Request(item_id=str(number), prompt=view.prompt(answer))
        for number, answer in enumerate(answers)
    ]
    sampler = Sampler(engine, Sampling(max_new_tokens=1), console)
    replies = sampler.complete(requests, journal, "grades")
    return [_grade(reply, one) for reply, one in zip(replies, answers, strict=True)]


def _grade(reply: Completion, answer: Answer) -> float:
    if reply.expected_digit is None:
        raise EngineError(
            f"{answer.where}: the judge has no grade for it ({reply.error}); remove or shorten it"
        )
    return reply.expected_digit
