import runpy
from pathlib import Path

import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.finetune.objectives import OBJECTIVES, build_objective
from response_tuning.models.inference import load
from response_tuning.registry import Registry

SCRIPT = Path(__file__).parents[2] / "benchmarks/whole_triplets.py"
SYSTEM = (Message(role="system", content="End with a full stop."),)
ROWS = [Example(row=n, response="Yes.", instruction="Is it?", earlier=SYSTEM) for n in range(40)]


@pytest.mark.parametrize(("whole", "rows"), [(0.0, []), (0.05, [19, 39]), (1.0, [*range(40)])])
def test_a_share_of_the_rows_keeps_its_instruction_evenly_spread(
    monkeypatch: pytest.MonkeyPatch, whole: float, rows: list[int]
) -> None:
    # The script registers an objective, which no other test may find.
    monkeypatch.setattr(Registry, "register", lambda self, name: lambda entry: entry)
    objective = runpy.run_path(str(SCRIPT))["SystemMostly"](whole=whole)
    chat = load("miniature", "roles", "main", "cpu").chat
    for one in ROWS:
        same = build_objective("instruction-tuning" if one.row in rows else "system-only")
        assert objective(one, lambda: ROWS[0], chat) == same(one, lambda: ROWS[0], chat)
    assert "system-mostly" not in OBJECTIVES.names()
