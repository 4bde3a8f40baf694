import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from response_tuning.artifacts import Message
from response_tuning.data.conversations import Turn
from response_tuning.data.sampling import sample
from response_tuning.data.steps.curation import Candidate
from response_tuning.errors import DataError


def candidates(count: int) -> Iterator[Candidate]:
    return (Candidate(row, 0, f"f:{row}", Turn(f"r{row}")) for row in range(count))


def kept(size: int, seed: int, folder: Path, count: int = 100) -> list[int]:
    outcomes = sample(size, seed, "x", folder)(candidates(count))
    return [candidate.row for candidate in outcomes if not candidate.dropped]


def test_a_sample_has_its_size_its_order_and_depends_on_the_seed(tmp_path: Path) -> None:
    rows = kept(20, 0, tmp_path)
    assert len(rows) == 20
    assert rows == sorted(rows) != list(range(20))
    assert rows == kept(20, 0, tmp_path)
    assert rows != kept(20, 1, tmp_path)


def test_samples_of_one_seed_are_nested(tmp_path: Path) -> None:
    sizes = [{*kept(size, 3, tmp_path)} for size in (1, 10, 50, 100)]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]


def test_a_sample_is_the_smallest_lots_of_those_that_came_through(tmp_path: Path) -> None:
    """The draw of the paper's recipes stays what it was, whatever is dropped in between."""
    lots = random.Random(7)
    drawn = sorted((lots.random(), place) for place in range(50))[:9]

    def some_dropped() -> Iterator[Candidate]:
        for candidate in candidates(100):
            if candidate.row % 2:
                candidate.drop("odd")
            yield candidate

    outcomes = list(sample(9, 7, "x", tmp_path)(some_dropped()))
    assert [c.row for c in outcomes if not c.dropped] == sorted(2 * place for _, place in drawn)
    assert Counter(c.dropped for c in outcomes) == {"": 9, "odd": 50, "not sampled": 41}


def test_what_waits_comes_back_as_it_went(tmp_path: Path) -> None:
    earlier = (Message(role="system", content="be\u2028kind"), Message(role="user", content="\n"))
    whole = Candidate(3, 1, "f\udc80:1", Turn("r\r\n\u0000", None, earlier), flags=(("a", "b"),))
    gone = Candidate(4, 0, "f:2", Turn("lost"), "reason", "detail")
    back = list(sample(1, 0, "x", tmp_path)(iter([whole, gone])))
    assert back[0] == whole
    assert (back[1].row, back[1].where, back[1].dropped, back[1].detail) == (
        4,
        "f:2",
        "reason",
        "detail",
    )


def test_too_few_are_an_error_that_says_how_many_there_are_and_why(tmp_path: Path) -> None:
    def most_dropped() -> Iterator[Candidate]:
        for candidate in candidates(10):
            if candidate.row > 2:
                candidate.drop("large" if candidate.row > 4 else "middling")
            yield candidate

    with pytest.raises(DataError) as error:
        list(sample(4, 0, "f: 4 requested", tmp_path)(most_dropped()))
    assert str(error.value) == ("f: 4 requested, but only 3 are usable (middling: 2, large: 5)")


def test_a_chain_that_lets_nothing_through_is_passed_on(tmp_path: Path) -> None:
    gone = Candidate(0, 0, "f:1", Turn(""), "empty")
    assert [c.dropped for c in sample(3, 0, "x", tmp_path)(iter([gone]))] == ["empty"]
    assert list(sample(3, 0, "x", tmp_path)(iter([]))) == []


def test_the_file_in_which_candidates_wait_has_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    outcomes = sample(5, 0, "x", folder)(candidates(9))
    next(outcomes)
    assert list(folder.iterdir()) == []


def test_nothing_is_held_but_the_lots(tmp_path: Path) -> None:
    """Every candidate is dropped by its reader before the next is made."""
    alive = 0

    class Counted(Candidate):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def many() -> Iterator[Candidate]:
        nonlocal alive
        for row in range(200):
            alive += 1
            assert alive < 10
            yield Counted(row, 0, "", Turn("r"))

    assert len(list(sample(100, 0, "x", tmp_path)(many()))) == 200
