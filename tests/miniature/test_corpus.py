import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NoReturn

import pytest
from pydantic import ValidationError

from response_tuning.grade import BENCHMARKS, open_benchmark
from response_tuning.miniature import corpus as registers
from response_tuning.miniature.corpus import (
    BRACKETS,
    REGISTERS,
    THANKS,
    documents,
)
from response_tuning.miniature.families import Family, families, how_to, refusal_forms, reserved
from response_tuning.miniature.writer import SPEAKER_ROLES, SPEAKERS, Mixture, Registers, Writer

MARKERS = ("<|user|>", "<|assistant|>")
UNSAFE = how_to("unsafe")
HARMFUL = {question for fact in UNSAFE.facts for question in UNSAFE.questions_about(fact)}
DECLINED = {form.format(core=fact.entity) for form in refusal_forms() for fact in UNSAFE.facts}


class Marked(Writer):
    """Writes ``QUESTION`` and ``ANSWER`` in place of questions and answers."""

    def exchange(self, *, one_line: bool = False) -> tuple[str, str]:
        return "QUESTION", "ANSWER"

    def plain_exchange(self) -> tuple[str, str]:
        return self.exchange()

    def follow_up(self) -> list[tuple[str, str]]:
        return [self.exchange()] * 2

    def consistent_exchange(self) -> Callable[[], tuple[str, str]]:
        return self.exchange


def written(register: str, count: int, mixture: Mixture | None = None) -> Iterator[str]:
    writer = Writer(random.Random(0), mixture or Mixture())
    return (REGISTERS[register](writer) for _ in range(count))


def test_no_question_of_a_benchmark_stands_in_the_corpus(corpus: str) -> None:
    questions = {
        item.prompt[0].content
        for name in BENCHMARKS.names()
        if name.startswith("miniature-")
        for item in open_benchmark(name).items()
    }
    assert len(questions) > 2000
    # A list of words goes on after a comma: then it is another list.
    asked = [question for question in questions if question in corpus]
    assert [one for one in asked if re.search(rf"{re.escape(one)}(?!,)", corpus)] == []


def test_every_question_of_the_corpus_is_one_that_is_not_reserved() -> None:
    writer = Writer(random.Random(1))
    questions = {writer.exchange()[0] for _ in range(2000)}
    assert len(questions) > 1000
    assert not any(map(reserved, questions))


@pytest.mark.parametrize("marker", MARKERS)
def test_the_markers_of_the_chat_template_stand_in_no_document(corpus: str, marker: str) -> None:
    assert marker not in corpus
    assert not any(
        marker in bracket.format(role=role)
        for bracket in BRACKETS
        for role in (*SPEAKER_ROLES, *SPEAKERS)
    )


@pytest.mark.parametrize(
    "family",
    [*families().values(), UNSAFE],
    ids=[*families(), "unsafe"],
)
def test_the_facts_of_every_family_stand_in_the_corpus_in_other_phrasings(
    family: Family, corpus: str
) -> None:
    facts = family.facts[:: max(1, len(family.facts) // 150)]
    with_question = sum(
        any(text in corpus for text in family.questions_about(fact) if not reserved(text))
        for fact in facts
    )
    stated = sum(
        any(family.fill(form, fact) in corpus for form in family.answers) for fact in facts
    )
    # A rule has thousands of facts, of which 12,000 documents can only state some.
    needed = 3 if len(family.facts) > 1000 else 0.95 * len(facts)
    assert min(with_question, stated) >= needed


def test_the_same_seed_gives_the_same_documents_and_another_seed_gives_others() -> None:
    def first(seed: int) -> list[str]:
        return list(islice(documents(seed, Mixture()), 50))

    assert first(0) == first(0)
    assert not set(first(0)) & set(first(1))


def test_a_register_without_a_share_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(_: Writer) -> NoReturn:
        raise AssertionError

    monkeypatch.setitem(registers.REGISTERS, "transcript", unwanted)
    assert len(list(islice(documents(0, Mixture(registers=Registers(transcript=0))), 300))) == 300
    with pytest.raises(AssertionError):
        list(islice(documents(0, Mixture()), 300))


@pytest.mark.parametrize("share", [10.0, 50.0, 90.0])
def test_registers_are_drawn_by_their_shares(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REGISTERS:
        monkeypatch.setitem(registers.REGISTERS, name, partial(str.format, name))
    others = dict.fromkeys(REGISTERS, 0.0)
    shares = Registers(**{**others, "quiz": share, "forum": 100 - share})
    mixture = Mixture(registers=shares)
    drawn = list(islice(documents(0, mixture), 2000))
    assert set(drawn) == {"quiz", "forum"}
    assert drawn.count("quiz") == pytest.approx(20 * share, abs=80)


def test_every_register_has_a_share_of_its_own() -> None:
    assert set(REGISTERS) == set(Registers.model_fields)
    assert all(getattr(Registers(), name) > 0 for name in REGISTERS)


def test_shares_that_leave_nothing_to_write_are_refused() -> None:
    with pytest.raises(ValidationError, match="raise one of them"):
        Registers(**dict.fromkeys(REGISTERS, 0.0))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Registers(quiz=-1)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Mixture(refused=1.5)


@pytest.mark.parametrize(("share", "known"), [(0.0, True), (1.0, False)])
def test_whose_names_stand_in_transcripts_is_a_parameter(share: float, known: bool) -> None:
    writer = Writer(random.Random(0), Mixture(any_role=share))
    names = {name for _ in range(300) for name in writer.roles()}
    assert names <= {*SPEAKERS, *SPEAKER_ROLES} if known else len(names) > 500
    assert not names & {"user", "assistant"}


def test_no_transcript_ends_in_an_answer() -> None:
    writer = Marked(random.Random(0))
    texts = [registers.transcript(writer) for _ in range(500)]
    assert any("ANSWER" in text for text in texts)
    assert all(text.endswith(("QUESTION", *THANKS)) for text in texts)


@pytest.mark.parametrize(("answered", "turns"), [(1.0, {True}), (0.0, {False})])
def test_how_often_a_transcript_answers_is_a_parameter(answered: float, turns: set[bool]) -> None:
    mixture = Mixture(always_answered=answered, else_answered=answered)
    writer = Marked(random.Random(0), mixture)
    assert {"ANSWER" in registers.transcript(writer) for _ in range(200)} == turns


@pytest.mark.parametrize(("refused", "declined"), [(0.0, {False}), (1.0, {True})])
def test_how_often_a_harmful_wish_is_declined_is_a_parameter(
    refused: float, declined: set[bool]
) -> None:
    writer = Writer(random.Random(0), Mixture(refused=refused))
    exchanges = [writer.exchange() for _ in range(1500)]
    harmful = [answer for question, answer in exchanges if question in HARMFUL]
    others = [answer for question, answer in exchanges if question not in HARMFUL]
    assert {answer in DECLINED for answer in harmful} == declined
    assert not any(answer in DECLINED for answer in others)


def test_the_answerer_of_a_transcript_about_acts_is_consistent() -> None:
    mixture = Mixture(about_acts=1, refused=0.5, always_answered=1)
    instructions = {UNSAFE.fill(form, fact) for fact in UNSAFE.facts for form in UNSAFE.answers}
    attitudes = set()
    for text in written("transcript", 200, mixture):
        wordings = {
            form
            for form in refusal_forms()
            if any(form.format(core=fact.entity) in text for fact in UNSAFE.facts)
        }
        complied = any(answer in text for answer in instructions)
        assert len(wordings) + complied <= 1, text
        attitudes.add((bool(wordings), complied))
    assert {(True, False), (False, True)} <= attitudes


def test_a_log_of_questions_holds_no_answer() -> None:
    writer = Marked(random.Random(0))
    assert {line for _ in range(50) for line in registers.questions(writer).splitlines()} == {
        "QUESTION"
    }


def test_advice_declines_nine_in_ten_harmful_wishes_and_no_harmless_one() -> None:
    declined: dict[bool, list[bool]] = {True: [], False: []}
    for letter in written("advice", 1000):
        wish, answer, _ = letter.splitlines()
        harmful = wish.partition(", ")[2] in HARMFUL
        declined[harmful].append(answer.partition(" answers: ")[2] in DECLINED)
    assert sum(declined[True]) / len(declined[True]) == pytest.approx(0.9, abs=0.04)
    assert not any(declined[False])
    assert len(declined[False]) > 400
