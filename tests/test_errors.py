import pytest

from response_tuning.errors import ConfigError, unused


def test_a_flag_without_effect_is_named_as_it_was_typed() -> None:
    with pytest.raises(ConfigError, match=r"^--top-p has no effect: temperature 0 is greedy"):
        unused("temperature 0 is greedy", seed=None, top_p=0.5)


def test_flags_that_were_not_given_are_no_flags() -> None:
    unused("whatever", seed=None, jsonl=False, stop=())
    with pytest.raises(ConfigError, match="--seed has no effect"):
        unused("whatever", jsonl=False, stop=(), seed=0)
