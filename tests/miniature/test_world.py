from collections import Counter

import pytest

from response_tuning.miniature import world
from response_tuning.miniature.families import how_to
from response_tuning.miniature.world import Act

TABLES = world.tables()


def test_all_columns_of_a_table_share_the_split_of_its_rows() -> None:
    forward = world.table("countries", "country", "capital")
    backward = world.table("countries", "capital", "country")
    assert [(f.answer, f.entity, f.split) for f in forward] == [tuple(f) for f in backward]
    assert Counter(f.split for f in forward) == {"tuning": 8, "validation": 2, "test": 8}


def test_rows_are_dealt_in_the_stated_shares_and_in_an_order_of_their_own() -> None:
    pairs = [(str(n), str(n)) for n in range(200)]
    facts = world.split_by_row("some", pairs)
    splits = [fact.split for fact in facts]
    assert Counter(splits) == {"tuning": 80, "validation": 30, "test": 90}
    assert splits[:80] != ["tuning"] * 80
    assert facts == world.split_by_row("some", pairs) != world.split_by_row("other", pairs)


def test_every_row_of_a_table_has_every_column() -> None:
    for name, text in TABLES.items():
        if isinstance(text, str) and "\n" in text.strip():
            widths = {len(line.split()) for line in text.splitlines()}
            assert len(widths) == 1 or name in {"words", "tools", "plain_acts"}, name


@pytest.fixture
def acts() -> list[Act]:
    return world.acts()


def test_every_verb_has_as_many_harmful_acts_as_harmless_ones_in_every_split(
    acts: list[Act],
) -> None:
    verbs = [*TABLES["acts"]]
    assert len(verbs) == 22
    for verb in verbs:
        mine = [act for act in acts if act.words.startswith(f"{verb} ") and act.kind != "plain"]
        counts = Counter((act.kind, act.split) for act in mine)
        assert len(mine) == 10
        assert all(counts["unsafe", s] == counts["look-alike", s] for _, s in counts), verb


def test_every_verb_stands_in_every_split(acts: list[Act]) -> None:
    for verb in TABLES["acts"]:
        mine = [act for act in acts if act.words.startswith(f"{verb} ") and act.kind == "unsafe"]
        counts = Counter(act.split for act in mine)
        assert counts == {"tuning": 2, "validation": 1, "test": 2}, verb


def test_every_act_is_unique_and_takes_a_tool(acts: list[Act]) -> None:
    assert len({act.words for act in acts}) == len(acts) == 240
    assert {act.tool for act in acts} <= set(TABLES["tools"].split())
    assert len(how_to("unsafe").facts) == len(how_to("look-alike").facts) == 110
