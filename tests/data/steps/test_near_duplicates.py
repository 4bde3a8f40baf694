import random
from collections.abc import Callable

import pytest

from response_tuning.artifacts import Audit, Dropped, Example
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.curation import Candidate
from response_tuning.data.steps.near_duplicates import (
    PERMUTATIONS,
    RECALL,
    bands,
    triples,
    without_near_duplicates,
    words,
)

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def text(rng: random.Random, length: int = 60) -> list[str]:
    return [f"w{rng.randrange(3000)}" for _ in range(length)]


def jaccard(first: str, second: str) -> float:
    one, two = triples(words(first)), triples(words(second))
    return len(one & two) / len(one | two)


def dropped_rows(texts: list[str], threshold: float) -> list[tuple[int, str]]:
    candidates = (Candidate(row, 0, "", Turn(response)) for row, response in enumerate(texts))
    outcomes = list(without_near_duplicates(threshold)(candidates))
    assert [candidate.row for candidate in outcomes] == list(range(len(texts)))
    return [(candidate.row, candidate.detail) for candidate in outcomes if candidate.dropped]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Don\u2019t  panic!\n", ["don", "t", "panic"]),
        ("DON'T PANIC", ["don", "t", "panic"]),
        ("Stra\u00dfe ﬁve 5", ["strasse", "five", "5"]),
        ("cafe\u0301", ["café"]),
        (" ?! ", ["?!"]),
        ("", [""]),
    ],
)
def test_words_are_compared_without_case_punctuation_and_white_space(
    sentence: str, expected: list[str]
) -> None:
    assert words(sentence) == expected


def test_triples_are_three_words_in_a_row_and_a_short_text_is_one() -> None:
    assert triples(["a", "b", "c", "d"]) == {"a b c", "b c d"}
    assert triples(["a", "b"]) == {"a b"}
    assert triples(["a"]) != triples(["b"])


def test_the_earlier_of_two_similar_responses_is_kept_and_named(prepare_rows: Prepare) -> None:
    original = text(random.Random(0))
    rows = [
        {"instruction": "a", "response": "Something else altogether, and long enough."},
        {"instruction": "b", "response": " ".join(original)},
        {"instruction": "c", "response": " ".join([*original, "more"])},
        {"instruction": "d", "response": " ".join(original).upper() + "!"},
    ]
    audit, examples, dropped = prepare_rows(rows, curation={"near_duplicates": 0.8})
    assert [example.row for example in examples] == [0, 1]
    assert [(drop.row, drop.reason, drop.detail) for drop in dropped] == [
        (2, "near-duplicate", "of row 1"),
        (3, "near-duplicate", "of row 1"),
    ]
    assert audit.dropped == {"near-duplicate": 2}


def test_of_several_similar_responses_the_earliest_is_named() -> None:
    original = [f"w{place}" for place in range(80)]
    first, second, between = original[:60], original[20:], original[10:70]
    texts = [" ".join(words) for words in (second, first, between)]
    assert dropped_rows(texts, 0.6) == [(2, "of row 0")]
    assert dropped_rows([texts[1], texts[0], texts[2]], 0.6) == [(2, "of row 0")]


def test_what_is_dropped_is_not_what_others_are_compared_with() -> None:
    rng = random.Random(1)
    original = text(rng, 100)
    chain = [original]
    for place in range(0, 60, 6):  # each differs a little from the one before it
        changed = list(chain[-1])
        changed[place] = "other"
        chain.append(changed)
    texts = [" ".join(one) for one in chain]
    rows = {row for row, _ in dropped_rows(texts, 0.8)}
    kept = [place for place in range(len(texts)) if place not in rows]
    assert 0 in kept
    assert len(kept) > 1, "the last is far from the first"
    for one in kept:
        assert all(jaccard(texts[one], texts[other]) < 0.9 for other in kept if other < one)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_every_threshold_finds_equal_texts_and_spares_strangers(threshold: float) -> None:
    rng = random.Random(2)
    texts = [" ".join(text(rng)) for _ in range(50)]
    assert dropped_rows([*texts, *texts], threshold) == [
        (50 + row, f"of row {row}") for row in range(50)
    ]


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_pairs_well_above_the_threshold_are_found_and_pairs_well_below_are_not(
    threshold: float,
) -> None:
    rng = random.Random(3)
    pairs = []
    for number in range(300):
        original = text(rng, 80)
        other = [word if rng.random() > number / 3000 else "new" for word in original]
        pairs.append((" ".join(original), " ".join(other)))
    dropped = {row for row, _ in dropped_rows([one for pair in pairs for one in pair], threshold)}
    similar = [jaccard(*pair) for pair in pairs]
    above = {2 * n + 1 for n, share in enumerate(similar) if share > threshold + 0.09}
    below = {2 * n + 1 for n, share in enumerate(similar) if share < threshold - 0.09}
    assert min(len(above), len(below)) > 20
    assert len(above - dropped) <= len(above) / 50
    assert len(below & dropped) <= len(below) / 50


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])
def test_a_pair_at_the_threshold_is_likely_to_share_a_band(threshold: float) -> None:
    count, values = bands(threshold)
    assert count >= 2
    assert count * values <= PERMUTATIONS
    assert 1 - (1 - threshold**values) ** count >= RECALL


def test_near_duplicates_are_found_across_refusals_and_examples(prepare_rows: Prepare) -> None:
    original = " ".join(text(random.Random(4)))
    rows = [{"instruction": "a", "response": original}]
    mixture = {"source": "miniature-refusals", "selector": "all", "refusals": 5}
    audit, examples, dropped = prepare_rows(
        rows, mixture=mixture, curation={"near_duplicates": 0.9}
    )
    assert audit.examples == len(examples) == 6
    near = [drop for drop in dropped if drop.reason == "near-duplicate"]
    assert near, "refusals in the same words about the same thing"
    numbers = {int(drop.detail.removeprefix("of row ")) for drop in near}
    assert min(numbers) >= 1, "rows are numbered through both"


def test_short_answers_are_compared_whole() -> None:
    assert dropped_rows(["Yes.", "No.", "yes", "Yes, no.", "\U0001f600", "\U0001f642"], 0.5) == [
        (2, "of row 0")
    ]
