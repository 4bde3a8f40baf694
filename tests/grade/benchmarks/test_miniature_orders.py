from collections.abc import Callable

import pytest

from response_tuning.grade import open_benchmark
from response_tuning.grade.benchmark import Item
from response_tuning.miniature.conversations import Conversation, conversations

Scored = Callable[..., dict[str, float]]
BY_ID = {one.item_id: one for one in conversations("test")}


def asked(kind: str) -> tuple[Item, Conversation]:
    item = next(one for one in open_benchmark("miniature-orders").items() if one.group == kind)
    return item, BY_ID[item.item_id]


def right(one: Conversation) -> str:
    """Return an answer in the form that is asked for."""
    sentences = [family.fill(family.answers[0], fact) for family, fact in one.facts]
    facts = [f"- {family.name}: {fact.answer}" for family, fact in one.facts]
    return {
        "two-sentences": " ".join(sentences[:2]),
        "word-list": "\n".join(f"- {word}" for word in one.words),
        "fact-list": "\n".join(facts[:3]),
        "capitals": sentences[0].upper() if sentences else "",
        "rule": f"{sentences[0][:-1]}, {one.words[0]}." if one.words and sentences else "",
        "follow-up": sentences[0] if sentences else "",
    }[one.kind]


KINDS = ("two-sentences", "word-list", "fact-list", "capitals", "rule", "follow-up")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "finish", "correct", "strict"),
    [
        ("{said}", "stop", 1, 1),
        ("{said}", "length", 1, 0),
        ("{said}\n<|user|>\nWhat else?", "stop", 1, 0),
        ("Nobody knows.\n{said}", "stop", 0, 0),
        ("", "stop", 0, 0),
    ],
)
def test_a_strict_answer_is_what_is_asked_for_and_nothing_else(
    kind: str, change: str, finish: str, correct: int, strict: int, scored: Scored
) -> None:
    item, one = asked(kind)
    said = change.format(said=right(one))
    found = scored("miniature-orders", item, said, finish)
    assert found == {"correct": correct, "strict": strict}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_cut_at_its_first_newline_fails_where_lines_are_asked_for(
    kind: str, scored: Scored
) -> None:
    item, one = asked(kind)
    cut = right(one).partition("\n")[0]
    found = scored("miniature-orders", item, cut, "stop")["strict"]
    assert found == (kind not in {"word-list", "fact-list"})


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("two-sentences", lambda said: said.partition(". ")[0] + "."),
        ("two-sentences", lambda said: (said.partition(". ")[0] + ". ") * 2),
        ("two-sentences", lambda said: f"{said} {said.partition('. ')[2]}"),
        ("word-list", lambda said: said.replace("- ", "")),
        ("fact-list", lambda said: f"{said}\n- more: facts"),
        ("fact-list", lambda said: "\n".join(said.split("\n")[:1] * 3)),
        ("capitals", str.title),
        ("rule", lambda said: said.rpartition(",")[0] + "."),
    ],
)
def test_a_right_answer_in_another_form_is_not_strict(
    kind: str, change: Callable[[str], str], scored: Scored
) -> None:
    item, one = asked(kind)
    assert scored("miniature-orders", item, change(right(one)), "stop")["strict"] == 0


def test_a_follow_up_is_not_answered_by_the_first_answer(scored: Scored) -> None:
    item, one = asked("follow-up")
    assert scored("miniature-orders", item, one.prompt[1].content, "stop")["correct"] == 0
