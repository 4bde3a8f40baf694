import pytest

from response_tuning.grade.judges.levels import LEVELS, level_metrics


@pytest.mark.parametrize("level", LEVELS)
def test_one_level_gives_zeros_and_ones(level: str) -> None:
    found = level_metrics([level])
    assert [*found] == ["excellent", "sufficient", "not_acceptable", "acceptable"]
    assert found[level.replace(" ", "_")] == 1
    assert found["excellent"] + found["sufficient"] + found["not_acceptable"] == 1
    assert found["acceptable"] == 1 - found["not_acceptable"]


def test_several_levels_give_shares() -> None:
    assert level_metrics(["excellent", "sufficient", "not acceptable", "excellent"]) == {
        "excellent": 0.5,
        "sufficient": 0.25,
        "not_acceptable": 0.25,
        "acceptable": 0.75,
    }
