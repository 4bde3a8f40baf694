from response_tuning.artifacts import Score
from response_tuning.unread import unread


def scores(*values: float, metric: str = "unclassified", weight: float = 1) -> list[Score]:
    return [
        Score(item_id=str(n), metric=metric, value=value, weight=weight)
        for n, value in enumerate(values)
    ]


def test_more_than_one_in_twenty_is_too_many() -> None:
    assert not unread(scores(1, *[0] * 19)).too_many
    assert unread(scores(1, *[0] * 18)).too_many
    assert str(unread(scores(1, 1, 0))) == "2 of 3 unread"


def test_where_nothing_is_judged_nothing_is_unread() -> None:
    found = unread(scores(1, 1, metric="refusal"))
    assert (found.lost, found.of, found.too_many) == (0, 0, False)


def test_both_kinds_of_prompts_and_the_weights_count() -> None:
    both = [*scores(1, metric="safe_unclassified"), *scores(*[0] * 9)]
    assert unread(both).share == 0.1
    assert unread([*scores(0.5, weight=4), *scores(0, weight=6)]).share == 0.2
