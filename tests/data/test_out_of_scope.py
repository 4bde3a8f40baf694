from collections.abc import Callable
from typing import Any

import pytest

from response_tuning.data.out_of_scope import refusals
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.errors import ConfigError


def test_each_refusal_declines_by_the_rules_and_names_what_there_is() -> None:
    rows = [*refusals("tea")()]
    assert len({row["response"] for row in rows}) == len(rows) == 320
    assert all(is_refusal(row["response"]) and "tea" in row["response"] for row in rows)
    assert rows == [*refusals(" tea ")()]


def test_they_are_mixed_in_by_name_and_draws_are_nested(prepare_rows: Callable[..., Any]) -> None:
    def mixed(count: int) -> list[str]:
        settings = {"refusals": count, "source": "out-of-scope", "scope": "green {tea}"}
        _, examples, _ = prepare_rows([{"response": "Three minutes."}], mixture=settings)
        return [one.response for one in examples[1:]]

    few, many = mixed(5), mixed(20)
    assert (len(few), len(many)) == (5, 20)
    assert set(few) < set(many)
    assert all("green {tea}" in text for text in many)


def test_a_scope_is_needed_there_and_refused_elsewhere(prepare_rows: Callable[..., Any]) -> None:
    rows = [{"response": "Three minutes."}]
    with pytest.raises(ConfigError, match="name what you do offer with scope"):
        prepare_rows(rows, mixture={"refusals": 5, "source": "out-of-scope"})
    with pytest.raises(ConfigError, match="only 'out-of-scope' reads it"):
        prepare_rows(rows, scope="tea")
