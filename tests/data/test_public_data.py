from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import Audit, Dropped, Example

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def test_lima_as_a_plain_file_gives_every_assistant_turn(
    public_data: Path, prepare_source: Prepare
) -> None:
    audit, examples, _ = prepare_source(public_data / "lima/lima_train.jsonl", keep_duplicates=True)
    assert audit == Audit(rows=1030, rows_kept=1030, examples=1084, dropped={})
    assert len({example.row for example in examples if example.turn}) == 30


def test_lima_by_name_is_the_thousand_pairs_of_the_paper(
    public_data: Path, prepare_source: Prepare
) -> None:
    audit, examples, _ = prepare_source("lima", path=public_data / "lima/lima_train.jsonl")
    assert (audit.rows, audit.rows_kept, audit.examples) == (1030, 1000, 1000)
    assert audit.dropped == {"beyond the first 1,000 rows, which the paper uses": 30}
    assert all(example.instruction and not example.earlier for example in examples)


@pytest.mark.parametrize("by_name", [True, False])
def test_alpaca_loses_its_empty_outputs_only(
    by_name: bool, public_data: Path, prepare_source: Prepare
) -> None:
    path = public_data / "alpaca/alpaca_random_9k.json"
    audit, _, _ = prepare_source("alpaca", path=path) if by_name else prepare_source(path)
    assert audit == Audit(rows=8260, rows_kept=8257, examples=8257, dropped={"empty response": 3})


def test_dolly_loses_its_duplicates_only(public_data: Path, prepare_source: Prepare) -> None:
    audit, examples, _ = prepare_source("dolly", path=public_data / "dolly/dolly_filtered.json")
    assert audit == Audit(rows=2496, rows_kept=2494, examples=2494, dropped={"duplicate": 2})
    assert any("\n\n" in (example.instruction or "") for example in examples)


def test_safety_data_is_used_whole(public_data: Path, prepare_source: Prepare) -> None:
    audit, _, _ = prepare_source(public_data / "safety_tuned_llamas/safety_only_half.json")
    assert audit == Audit(rows=1241, rows_kept=1241, examples=1241, dropped={})


def test_plain_text_has_no_instructions(public_data: Path, prepare_source: Prepare) -> None:
    audit, examples, _ = prepare_source(public_data / "general_text/c4_demo.jsonl")
    assert audit == Audit(rows=300, rows_kept=300, examples=300, dropped={})
    assert {example.instruction for example in examples} == {None}
