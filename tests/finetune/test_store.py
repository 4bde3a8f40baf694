import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.finetune.encoding import Encoder
from response_tuning.finetune.objectives import IGNORED, OBJECTIVES
from response_tuning.finetune.rows import EncodedRow, Span
from response_tuning.finetune.steps import Document
from response_tuning.finetune.store import read, write
from response_tuning.templates import Chat

EXAMPLES = [
    Example(row=0, instruction="Why?", response="Because blue light scatters most 🙂."),
    Example(row=1, instruction="Nothing?", response=""),
    Example(row=2, response="An answer that nobody asked for."),
    Example(row=3, instruction="Tell me more. " * 40, response="No."),
    Example(
        row=4,
        turn=1,
        instruction="And at dusk?",
        response=" red </s>",
        earlier=(Message(role="system", content="Be brief."),),
    ),
    Example(row=5, instruction="Tell me all.", response="All of it, " * 60),
]


def rows(chat: Chat, objective: str, window: int = 64, **how: Any) -> list[EncodedRow]:
    return list(Encoder(chat, objective, window, **how).rows(EXAMPLES))


@pytest.mark.parametrize("twins", [(), ("instruction-tuning", "shuffled-pairs")])
@pytest.mark.parametrize("window", [16, 64, 2000])
@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_documents_on_disk_are_those_in_memory(
    chat: Chat, tmp_path: Path, objective: str, window: int, twins: tuple[str, ...]
) -> None:
    encoded = rows(chat, objective, window, twins=twins)
    write(iter(encoded), tmp_path / "new" / "store")
    stored, counts = read(tmp_path / "new" / "store")
    places = [place for place, row in enumerate(encoded) if row.trained]
    for index, place in enumerate(places):
        row = encoded[place]
        hidden = {at for each in row.hidden for at in each}
        kept = [at for at in range(len(row.input_ids)) if at not in hidden]
        weights = row.weights and [row.weights[at] for at in kept]
        assert stored[index].input_ids == [row.input_ids[at] for at in kept]
        assert stored[index].labels == [row.labels[at] for at in kept]
        assert stored[index].positions == (kept if hidden else None)
        assert stored[index].weights == (weights and pytest.approx(weights, rel=1e-7))
        assert stored[index].example == place
        assert stored[index].extent == stored.extents[index] == len(row.input_ids)
        assert stored.lengths[index] == len(kept)
        assert bool(hidden) == (objective == "decoupled")
    statuses = Counter(row.status for row in encoded)
    assert counts == {
        "examples": len(EXAMPLES),
        "kept": statuses.pop("kept", 0),
        "truncated": statuses.pop("truncated", 0),
        "dropped": statuses,
        "remarks": Counter(remark for row in encoded for remark in row.remarks),
        "tokens": sum(stored.lengths),
        "supervised_tokens": sum(row.supervised for row in encoded),
        "hidden_tokens": sum(stored.extents) - sum(stored.lengths),
    }


def test_several_spans_of_a_row_come_back_as_they_were_verified(tmp_path: Path) -> None:
    written = [
        EncodedRow(EXAMPLES[0], "kept", [5, 6, 7, 8, 9, 1], [Span(1, 2), Span(3, 4), Span(5, 6)]),
        EncodedRow(EXAMPLES[1], "no instruction", [], []),
        EncodedRow(EXAMPLES[2], "truncated", [5, 6, 7], [Span(2, 3)], ("are odd",)),
    ]
    write(written, tmp_path / "store")
    stored, counts = read(tmp_path / "store")
    assert [stored[i] for i in range(len(stored))] == [
        Document([5, 6, 7, 8, 9, 1], [IGNORED, 6, IGNORED, 8, IGNORED, 1], example=0),
        Document([5, 6, 7], [IGNORED, IGNORED, 7], example=2),
    ]
    assert stored.part([1])[0] == stored[1]
    assert (counts["tokens"], counts["supervised_tokens"]) == (9, 4)
    assert counts["remarks"] == {"are odd": 1}


def test_a_part_reads_from_the_same_file(chat: Chat, tmp_path: Path) -> None:
    write(rows(chat, "response-tuning"), tmp_path / "store")
    whole, _ = read(tmp_path / "store")
    part = whole.part([3, 0, 5])
    assert [part[i] for i in range(len(part))] == [whole[3], whole[0], whole[5]]
    assert list(part.lengths) == [whole.lengths[i] for i in (3, 0, 5)]
    assert len(whole.part([])) == 0


def test_a_worker_that_is_not_forked_reads_the_same(chat: Chat, tmp_path: Path) -> None:
    write(rows(chat, "response-tuning"), tmp_path / "store")
    whole, _ = read(tmp_path / "store")
    copy = pickle.loads(pickle.dumps(whole))
    assert [copy[i] for i in range(len(copy))] == [whole[i] for i in range(len(whole))]


def test_rows_that_end_in_an_error_leave_nothing(chat: Chat, tmp_path: Path) -> None:
    def breaking() -> Iterator[EncodedRow]:
        yield from rows(chat, "response-tuning")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(breaking(), tmp_path / "stores" / "store")
    assert list((tmp_path / "stores").iterdir()) == []


def test_of_two_processes_that_write_the_same_one_is_kept(chat: Chat, tmp_path: Path) -> None:
    def while_another_is_faster() -> Iterator[EncodedRow]:
        yield from encoded[:2]
        write(encoded, tmp_path / "store")

    encoded = rows(chat, "response-tuning")
    write(while_another_is_faster(), tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(read(tmp_path / "store")[0]) == len(EXAMPLES)
