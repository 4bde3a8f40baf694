import pytest

from response_tuning.data import survey as module
from response_tuning.data.survey import survey


def test_columns_are_counted_in_the_order_in_which_they_come_up() -> None:
    statistics = survey(
        [{"b": "x"}, {"a": "two words", "b": ""}, {"b": None, "a": [{"role": "user"}]}]
    )
    assert statistics.rows == 3
    assert [*statistics.columns] == ["b", "a"]
    b, a = statistics.columns.values()
    assert (b.filled, b.texts, b.has_words, b.lists) == (1, 1, False, 0)
    assert (a.filled, a.texts, a.has_words, a.lists, a.conversations) == (2, 1, True, 1, 1)


def test_zero_and_false_are_something() -> None:
    statistics = survey([{"a": 0, "b": False, "c": [], "d": {}}])
    assert [column.filled for column in statistics.columns.values()] == [1, 1, 0, 0]


def test_speakers_are_known_only_if_every_row_names_one() -> None:
    statistics = survey(
        [{"role": "prompter", "from": "human"}, {"role": "Assistant", "from": "Ada"}]
    )
    assert statistics.columns["role"].names_speakers
    assert statistics.columns["role"].speakers == {"user", "assistant"}
    assert not statistics.columns["from"].names_speakers


def test_rows_with_ever_new_columns_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COLUMNS", 5)
    statistics = survey({f"c{number}": "x", "prompt": "a", "query": "b"} for number in range(100))
    assert statistics.rows == 100
    assert len(statistics.columns) == 5
