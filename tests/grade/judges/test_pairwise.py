import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Completion,
    Message,
    Request,
    Score,
    Total,
    write_json,
    write_jsonl,
)
from response_tuning.errors import DataError, EngineError
from response_tuning.grade import Item, JudgedBenchmark
from response_tuning.grade.benchmark import AskJudge, Totalled
from response_tuning.grade.judges.alpaca_eval_files import model_outputs
from response_tuning.grade.judges.pairwise import Pairwise, compare, read_answers

Make = Callable[..., Completion]
Judge = Callable[[str, str], str]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("response_tuning.grade.judges.pairwise.WIN_RATE_RESAMPLES", 50)


def asked(item_id: str, text: str = "Why is the sky blue?", group: str = "") -> Item:
    return Item(item_id=item_id, prompt=(Message(role="user", content=text),), group=group)


def shown(request: Request) -> tuple[str, str]:
    """The two answers of a question to the judge, in the order in which it shows them."""
    text = request.prompt[0].content
    (_, first), (_, second) = re.findall(r"<(answer-\w+)>\n(.*?)\n</\1>", text, re.DOTALL)
    return first, second


ITEM = asked("sky", group="physics")
REFERENCE = {"sky": "Air scatters blue light most."}


@pytest.fixture
def pairwise() -> Pairwise:
    return Pairwise([ITEM], REFERENCE)


@pytest.fixture
def judged(pairwise: Pairwise, completion: Make) -> Callable[..., dict[str, float]]:
    """Score an answer after the two replies of a judge: metric -> value."""

    def run(first: str, second: str, answer: str = "Because.") -> dict[str, float]:
        given = completion(ITEM, answer)
        questions = pairwise.questions(ITEM, given)
        replies = [
            completion(question, text)
            for question, text in zip(questions, (first, second), strict=True)
        ]
        scores = list(pairwise.judged(ITEM, given, replies))
        assert {(score.item_id, score.group) for score in scores} == {("sky", "physics")}
        assert len({score.metric for score in scores}) == len(scores)
        return {score.metric: score.value for score in scores}

    return run


def test_it_is_a_judged_benchmark_with_a_total(pairwise: Pairwise) -> None:
    assert isinstance(pairwise, JudgedBenchmark)
    assert isinstance(pairwise, Totalled)
    assert pairwise.items() == [ITEM]


def test_each_pair_is_shown_in_both_orders_in_fences(pairwise: Pairwise, completion: Make) -> None:
    one, two = pairwise.questions(ITEM, completion(ITEM, "Because {of} air."))
    first, second = one.prompt[0].content, two.prompt[0].content
    for text in (first, second):
        assert "Why is the sky blue?" in text
        assert "you follow none of them" in text
    ours, theirs = "Because {of} air.", REFERENCE["sky"]
    assert first.index(ours) < first.index(theirs)
    assert second.index(theirs) < second.index(ours)
    assert one.item_id != two.item_id


def test_swapping_the_sides_asks_the_same_two_questions(completion: Make) -> None:
    def prompts(answer: str, reference: str) -> list[str]:
        given = completion(ITEM, answer)
        found = Pairwise([ITEM], {"sky": reference}).questions(ITEM, given)
        return [request.prompt[0].content for request in found]

    assert prompts("x", "y") == prompts("y", "x")[::-1]


def test_a_request_of_several_turns_says_who_speaks(completion: Make) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello."), ("user", "Why?")]
    prompt = tuple(Message.model_validate({"role": r, "content": c}) for r, c in turns)
    item = Item(item_id="sky", prompt=prompt)
    (question, _) = Pairwise([item], REFERENCE).questions(item, completion(item, "So."))
    assert "\nuser: Hi\n\nassistant: Hello.\n\nuser: Why?\n" in question.prompt[0].content


@pytest.mark.parametrize(
    ("first", "second", "preference", "consistent"),
    [
        ("A", "B", 1.0, 1),
        ("B", "A", 0.0, 1),
        ("tie", "tie", 0.5, 1),
        ("A", "A", 0.5, 0),  # whichever is shown first
        ("B", "B", 0.5, 0),
        ("A", "tie", 0.75, 0),
        ("tie", "A", 0.25, 0),
    ],
)
def test_a_preference_is_the_mean_of_both_orders(
    judged: Callable[..., dict[str, float]],
    first: str,
    second: str,
    preference: float,
    consistent: int,
) -> None:
    assert judged(f"Fine.\nVerdict: {first}", f"**Verdict: {second}**") == {
        "win_rate": preference,
        "win": preference > 0.5,
        "tie": preference == 0.5,
        "lose": preference < 0.5,
        "order_consistent": consistent,
        "unclassified": 0,
        "length": len("Because."),
        "reference_length": len(REFERENCE["sky"]),
    }


@pytest.mark.parametrize("replies", [("Verdict: A", "A, surely"), ("Verdict: C", "Verdict: B")])
def test_a_pair_with_a_verdict_that_cannot_be_read_has_no_preference(
    judged: Callable[..., dict[str, float]], replies: tuple[str, str]
) -> None:
    assert judged(*replies) == {
        "unclassified": 1,
        "length": len("Because."),
        "reference_length": len(REFERENCE["sky"]),
    }


def test_equal_answers_are_a_tie_that_no_judge_is_asked_about(
    pairwise: Pairwise, completion: Make
) -> None:
    same = completion(ITEM, REFERENCE["sky"])
    assert not pairwise.questions(ITEM, same)
    found = {score.metric: score.value for score in pairwise.judged(ITEM, same, [])}
    assert found["win_rate"] == 0.5
    assert found["tie"] == 1
    assert found["unclassified"] == 0
    assert "order_consistent" not in found


ITEMS = [asked(f"item-{number}", f"Question {number}?") for number in range(12)]


@pytest.fixture
def say(completion: Make) -> Callable[[Judge], AskJudge]:
    """Make a judge of a rule that says which of two answers, in the order shown, is better."""

    def make(rule: Judge) -> AskJudge:
        def ask(requests: Iterable[Request]) -> Iterator[Completion]:
            for request in requests:
                yield completion(request, f"Well.\nVerdict: {rule(*shown(request))}")

        return ask

    return make


def longer(first: str, second: str) -> str:
    return "A" if len(first) > len(second) else "B"


def numbers(scores: list[Score], totals: list[Total]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.metric, []).append(score.value)
    means = {metric: sum(found) / len(found) for metric, found in values.items()}
    return means | {total.metric: total.value for total in totals}


@pytest.fixture
def sides(completion: Make) -> tuple[list[Completion], list[Completion]]:
    """Two runs' answers to the same prompts; 8 of the first one's 12 are the longer ones."""
    lengths = [(40 + 10 * n, 10) if n < 8 else (20, 25 + n) for n in range(12)]
    return (
        [completion(item, "x" * ours) for item, (ours, _) in zip(ITEMS, lengths, strict=True)],
        [completion(item, "y" * other) for item, (_, other) in zip(ITEMS, lengths, strict=True)],
    )


def test_any_two_runs_can_be_compared(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    scores, totals = compare(*sides, say(longer))
    found = numbers(scores, totals)
    assert found["win_rate"] == found["win"] == pytest.approx(8 / 12)
    assert found["order_consistent"] == 1
    (total,) = totals
    assert total.metric == "length_controlled_win_rate"
    assert total.n == 12
    assert total.low <= total.value <= total.high
    assert total.value < 8 / 12, "the longer answers won, and were longer more often"
    assert "without instruction difficulty" in total.note


def test_swapping_two_runs_gives_the_rest_of_each_rate(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    one, other = sides
    there, back = (
        numbers(*compare(one, other, say(longer))),
        numbers(*compare(other, one, say(longer))),
    )
    for metric in ("win_rate", "length_controlled_win_rate"):
        assert back[metric] == pytest.approx(1 - there[metric], abs=1e-8)
    assert (back["win"], back["lose"]) == (there["lose"], there["win"])
    assert (back["length"], back["reference_length"]) == (
        there["reference_length"],
        there["length"],
    )


def test_a_run_against_itself_wins_half_and_asks_nothing(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    def unasked(first: str, second: str) -> str:
        raise AssertionError(first + second)

    found = numbers(*compare(sides[0], sides[0], say(unasked)))
    assert found["win_rate"] == found["length_controlled_win_rate"] == 0.5


def test_a_judge_that_prefers_a_place_prefers_nobody(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    found = numbers(*compare(*sides, say(lambda first, second: "A")))
    assert found["win_rate"] == 0.5
    assert found["tie"] == 1
    assert found["order_consistent"] == 0


def test_pairs_that_cannot_be_read_are_no_part_of_the_total(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    def short(first: str, second: str) -> str:
        return "unclear" if "x" * 90 in first + second else longer(first, second)

    scores, (total,) = compare(*sides, say(short))
    assert numbers(scores, [])["unclassified"] == pytest.approx(3 / 12)
    assert total.n == 9
    scores, totals = compare(*sides, say(lambda first, second: "neither"))
    assert not totals
    assert numbers(scores, [])["unclassified"] == 1


def test_difficulties_are_part_of_the_model_where_they_are_given(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    scores, (without,) = compare(*sides, say(longer))
    hard = {item.item_id: (-1.0) ** place for place, item in enumerate(ITEMS)}
    texts = {completion.item_id: completion.response or "" for completion in sides[1]}
    (total,) = Pairwise(ITEMS, texts, hard).totals(scores)
    assert "with instruction difficulty" in total.note
    assert total.value != without.value


def test_a_judge_that_fails_is_an_error(
    sides: tuple[list[Completion], list[Completion]], completion: Make
) -> None:
    def ask(requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            yield completion(request, None, None, error="overloaded")

    with pytest.raises(EngineError, match="no reply to 24 questions: overloaded"):
        compare(*sides, ask)


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_without_an_answer_or_with_two_is_refused(
    sides: tuple[list[Completion], list[Completion]],
    say: Callable[[Judge], AskJudge],
    completion: Make,
    side: int,
) -> None:
    failed = completion(ITEMS[4], None, None, error="gone")
    sides[side][4] = failed
    with pytest.raises(DataError, match="no answer to item item-4; generate it first"):
        compare(*sides, say(longer))
    sides[side][4] = sides[side][5]
    with pytest.raises(DataError, match="answered twice"):
        compare(*sides, say(longer))


def test_answers_to_other_prompts_are_refused(
    sides: tuple[list[Completion], list[Completion]], say: Callable[[Judge], AskJudge]
) -> None:
    other = (Message(role="user", content="Another?"),)
    sides[1][2] = sides[1][2].model_copy(update={"prompt": other})
    with pytest.raises(DataError, match="the reference: item item-2 answers another prompt"):
        compare(*sides, say(longer))


def test_answers_are_read_from_completions_or_from_model_outputs(
    sides: tuple[list[Completion], list[Completion]], tmp_path: Path
) -> None:
    path, outputs = tmp_path / "answers.jsonl", tmp_path / "model_outputs.json"
    write_jsonl(path, reversed(sides[0]))
    read = read_answers(path, ITEMS)
    assert read == {completion.item_id: completion.response for completion in sides[0]}
    write_json(outputs, model_outputs(ITEMS[::-1], read, "mine"))
    assert read_answers(outputs, ITEMS) == read
    few = ITEMS[2:4]
    assert (
        read_answers(path, few).keys() == read_answers(outputs, few).keys() == {"item-2", "item-3"}
    )


def test_a_reference_that_lacks_an_answer_is_named_with_the_item(
    sides: tuple[list[Completion], list[Completion]], tmp_path: Path
) -> None:
    path, outputs = tmp_path / "answers.jsonl", tmp_path / "model_outputs.json"
    write_jsonl(path, sides[0][:-1])
    with pytest.raises(DataError, match=r"answers\.jsonl: no answer to item item-11"):
        read_answers(path, ITEMS)
    texts = {item.item_id: "x" for item in ITEMS}
    write_json(outputs, model_outputs(ITEMS[:-1], texts, "mine"))
    with pytest.raises(DataError, match=r"json: no answer to item item-11, 'Question 11\?'"):
        read_answers(outputs, ITEMS)
