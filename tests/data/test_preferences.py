from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, Message
from response_tuning.errors import ConfigError, DataError

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
PAIR = {"prompt": "Hello?", "chosen": "Good day.", "rejected": "What?"}


def pairs(examples: list[Example]) -> list[tuple[str, str]]:
    """The answers of each row, as they follow one another."""
    rows: dict[int, list[str]] = {}
    for place, example in enumerate(examples):
        assert example.turn == place % 2
        rows.setdefault(example.row, []).append(example.response)
    return [(first, second) for first, second in rows.values()]


def many(count: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(count)
    ]


def test_a_row_becomes_its_preferred_answer_and_then_the_other_one(prepare_rows: Prepare) -> None:
    audit, examples, _ = prepare_rows([PAIR], preferences={})
    assert examples == [
        Example(row=0, turn=0, instruction="Hello?", response="Good day."),
        Example(row=0, turn=1, instruction="Hello?", response="What?"),
    ]
    assert audit.examples == 2
    assert audit.rows_kept == 1


ASKED = {"role": "user", "content": "Hello?"}
IN_EVERY_SPELLING: dict[str, dict[str, Any]] = {
    "texts": PAIR,
    "WildFeedback": {
        "conversations": [{"from": "human", "value": "Hello?"}],
        "chosen": {"from": "gpt", "value": "Good day."},
        "rejected": {"from": "gpt", "value": "What?"},
    },
    "UltraFeedback": {
        "prompt": "Hello?",
        "chosen": [ASKED, {"role": "assistant", "content": "Good day."}],
        "rejected": [ASKED, {"role": "assistant", "content": "What?"}],
    },
    "TRL": {
        "prompt": [ASKED],
        "chosen": [{"role": "assistant", "content": "Good day."}],
        "rejected": [{"role": "assistant", "content": "What?"}],
    },
}


@pytest.mark.parametrize("row", IN_EVERY_SPELLING.values(), ids=IN_EVERY_SPELLING)
def test_pairs_are_read_in_every_usual_spelling(prepare_rows: Prepare, row: dict[str, Any]) -> None:
    _, examples, _ = prepare_rows([row], preferences={})
    assert pairs(examples) == [("Good day.", "What?")]
    assert {example.instruction for example in examples} == {"Hello?"}
    assert {example.earlier for example in examples} == {()}


def test_earlier_turns_of_the_dialogue_are_the_context_of_both_answers(
    prepare_rows: Prepare,
) -> None:
    said = [("human", "One?"), ("gpt", "Two."), ("human", "And?")]
    row = {
        "conversations": [{"from": who, "value": what} for who, what in said],
        "chosen": {"from": "gpt", "value": "Three."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    _, examples, _ = prepare_rows([row], preferences={})
    assert pairs(examples) == [("Three.", "No.")]
    earlier = (Message(role="user", content="One?"), Message(role="assistant", content="Two."))
    assert {example.earlier for example in examples} == {earlier}
    assert {example.instruction for example in examples} == {"And?"}


def test_columns_of_answers_may_have_other_names(prepare_rows: Prepare) -> None:
    row = {"prompt": "q", "better": "a", "worse": "b"}
    _, examples, _ = prepare_rows(
        [row], preferences={"rejected_column": "worse"}, response_column="better"
    )
    assert pairs(examples) == [("a", "b")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": ""}, "empty response"),
        ({"rejected": " "}, "empty rejected response"),
        ({"rejected": "Good day."}, "both answers are the same"),
        ({"rejected": 3}, "chosen is a number, not text"),
        (
            {
                "rejected": [
                    {"role": "user", "content": "Other?"},
                    {"role": "assistant", "content": "x"},
                ]
            },
            "the two answers follow different conversations",
        ),
    ],
)
def test_a_pair_that_cannot_be_learnt_from_is_dropped_whole(
    prepare_rows: Prepare, change: dict[str, Any], reason: str
) -> None:
    audit, examples, dropped = prepare_rows([{**PAIR, **change}, *many(1)], preferences={})
    assert pairs(examples) == [("good 0", "bad 0")]
    assert [one.reason for one in dropped] == [reason]
    assert audit.dropped == {reason: 1}


def test_steps_look_at_both_answers_and_drop_the_pair(prepare_rows: Prepare) -> None:
    rows = [
        {**PAIR, "rejected": "Write to bob@mails.net."},
        {**PAIR, "chosen": "Call ann@mails.net."},
    ]
    audit, examples, _ = prepare_rows(
        [*rows, *many(1)], preferences={}, curation={"personal_data": "drop"}
    )
    assert pairs(examples) == [("good 0", "bad 0")]
    assert audit.dropped == {"personal data (e-mail)": 2}


def test_a_sample_draws_pairs_and_duplicates_are_pairs(prepare_rows: Prepare) -> None:
    rows = many(10)
    again = [rows[0], {**rows[1], "rejected": "another"}]
    _, examples, dropped = prepare_rows([*rows, *again], preferences={})
    assert len(pairs(examples)) == 11
    assert [one.reason for one in dropped] == ["duplicate"]
    _, drawn, _ = prepare_rows(rows, preferences={}, max_examples=4)
    assert len(pairs(drawn)) == 4
    assert {*pairs(drawn)} <= {*pairs(examples)}


def test_flips_are_drawn_by_the_seed_nested_counted_and_reverse_a_pair(
    prepare_rows: Prepare,
) -> None:
    rows = many(400)
    plain = pairs(prepare_rows(rows, preferences={})[1])

    def flipped(share: float, seed: int = 0) -> set[int]:
        audit, examples, _ = prepare_rows(rows, preferences={"flip": share}, seed=seed)
        found = pairs(examples)
        places = {n for n, pair in enumerate(found) if pair != plain[n]}
        assert all(found[n] == plain[n][::-1] for n in places)
        assert audit.flagged == ({"preference flipped": len(places)} if places else {})
        return places

    assert flipped(0.0) == set()
    assert flipped(1.0) == {*range(400)}
    half = flipped(0.5)
    assert len(half) == 200  # exact: by single draws, a preference would be left
    assert flipped(0.1) < half
    assert flipped(0.5, seed=1) != half


def test_a_source_without_pairs_is_one_line_that_names_the_column(prepare_rows: Prepare) -> None:
    with pytest.raises(DataError, match=r"no column 'chosen', so no pairs .*data\.response_column"):
        prepare_rows([{"prompt": "q", "response": "r"}], preferences={})
    with pytest.raises(DataError, match=r"no column 'rejected', so no pairs"):
        prepare_rows([{"prompt": "q", "chosen": "r"}], preferences={})
    with pytest.raises(ConfigError, match="cannot hold both"):
        prepare_rows([PAIR], preferences={"rejected_column": "chosen"})


def test_single_answers_cannot_be_mixed_into_pairs(prepare_rows: Prepare) -> None:
    with pytest.raises(ValueError, match=r"mixture\.refusals makes single answers, not pairs"):
        prepare_rows(
            [PAIR],
            preferences={},
            mixture={"refusals": 1, "source": "miniature-refusals", "selector": "all"},
        )


def test_no_column_of_a_pair_counts_as_unused(
    prepare_rows: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_rows(many(3), preferences={})
    assert Counter(record.message for record in caplog.records) == {}
