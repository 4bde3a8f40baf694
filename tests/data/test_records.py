from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from response_tuning.artifacts import Example, Message
from response_tuning.data.conversations import Turn
from response_tuning.data.records import Aside, late_drops, line, lines
from response_tuning.data.steps.curation import Candidate

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ODD = "".join(map(chr, range(0x20))) + '"\\/\x7f\x80\u2028\u2029\ufeff😀'


@given(TEXTS, st.none() | TEXTS, TEXTS)
@example(ODD, ODD, ODD)
def test_examples_have_the_bytes_of_their_record(
    response: str, instruction: str | None, before: str
) -> None:
    earlier = (Message(role="system", content=before), Message(role="user", content=response))
    written = lines(Candidate(7, 2, "f:8", Turn(response, instruction, earlier, rejected=before)))
    expected = [
        Example(row=7, turn=turn, response=text, instruction=instruction, earlier=earlier)
        for turn, text in ((2, response), (3, before))
    ]
    assert written == [one.model_dump_json() for one in expected]


def test_a_candidate_comes_back_with_its_texts_and_a_change_of_them_is_written() -> None:
    earlier = (Message(role="assistant", content="a\tb"),)
    turn = Turn("r\n", "i\t", earlier, rejected="no")
    candidate = Candidate(3, 1, "f\udc80:1", turn, flags=(("a", "b"),), digest=b"12345678")
    back = Aside(line(candidate))
    assert known(back) == known(candidate)
    assert lines(back) == lines(candidate)
    assert line(back) == line(candidate)
    back.answer = turn._replace(response="other")
    assert [Example.model_validate_json(one).response for one in lines(back)] == ["other", "no"]


def test_what_was_dropped_late_is_first_compared_with_others() -> None:
    early = Aside(line(Candidate(0, 0, "f:1", Turn("lost"), "early")))
    assert (early.dropped, early.late) == ("early", None)
    late = line(Candidate(1, 0, "f:2", Turn("lost"), "late", "why", digest=b"12345678"))

    def duplicates(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for candidate in candidates:
            assert not candidate.dropped
            if candidate.row == 2:
                candidate.drop("duplicate")
            yield candidate

    found = list(late_drops(duplicates(iter([Aside(late), Aside(late.replace("[1", "[2"))]))))
    assert [(one.dropped, one.detail) for one in found] == [("late", "why"), ("duplicate", "")]
    assert Aside(line(found[0])).dropped == "late", "once decided, it is not decided again"


def known(candidate: Candidate) -> list[Any]:
    return [getattr(candidate, field.name) for field in fields(Candidate)]
