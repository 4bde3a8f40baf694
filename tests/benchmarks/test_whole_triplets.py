import runpy
from pathlib import Path

import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.finetune.objectives import OBJECTIVES, build_objective
from response_tuning.models.inference import load
from response_tuning.registry import Registry

SCRIPT = Path(__file__).parents[2] / "benchmarks/whole_triplets.py"
SYSTEM = (Message(role="system", content="End with a full stop."),)
INSTRUCTIONS = [f"Is it {n}?" for n in range(200)]


def row(number: int, instruction: str, *earlier: Message) -> Example:
    return Example(row=number, response="Yes.", instruction=instruction, earlier=earlier)


# As ``data.roles`` makes them: styled and plain responses take turns.
ROWS = [
    row(2 * n + plain, asked, *(() if plain else SYSTEM))
    for n, asked in enumerate(INSTRUCTIONS)
    for plain in (0, 1)
]


@pytest.mark.parametrize(("whole", "least", "most"), [(0.0, 0, 0), (0.2, 25, 55), (1.0, 200, 200)])
def test_a_share_of_the_instructions_is_shown_with_both_responses(
    monkeypatch: pytest.MonkeyPatch, whole: float, least: int, most: int
) -> None:
    # The script registers an objective, which no other test may find.
    monkeypatch.setattr(Registry, "register", lambda self, name: lambda entry: entry)
    objective = runpy.run_path(str(SCRIPT))["SystemMostly"](whole=whole)
    chat = load("miniature", "roles", "main", "cpu").chat
    shown: dict[bool, set[str | None]] = {True: set(), False: set()}
    for one in ROWS:
        whole_row, rest = (
            build_objective(name)(one, lambda: ROWS[0], chat)
            for name in ("instruction-tuning", "system-only")
        )
        found = objective(one, lambda: ROWS[0], chat)
        assert found in (whole_row, rest)
        if found == whole_row:
            shown[bool(one.earlier)].add(one.instruction)
    assert shown[True] == shown[False]
    assert least <= len(shown[True]) <= most
    assert "system-mostly" not in OBJECTIVES.names()
