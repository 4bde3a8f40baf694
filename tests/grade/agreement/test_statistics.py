import csv
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, permutations, zip_longest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from response_tuning.grade.agreement.statistics import Agreement, agreement, compare_labels

Rows = Sequence[Sequence[str | None]]

# Hand computations, from the definitions and with no library, to check the libraries' use with.


def percent(rows: Rows) -> float:
    shares = []
    for row in rows:
        pairs = list(combinations([label for label in row if label is not None], 2))
        if pairs:
            shares.append(sum(a == b for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares)


def cohen(rows: Rows) -> float:
    both = [(a, b) for a, b in rows if a is not None and b is not None]
    n = len(both)
    observed = sum(a == b for a, b in both) / n
    ones, others = Counter(a for a, _ in both), Counter(b for _, b in both)
    chance = sum(ones[label] * others[label] for label in ones) / n**2
    return (observed - chance) / (1 - chance)


def fleiss(rows: Rows) -> float:
    counts = Counter(label for row in rows for label in row if label is not None)
    total = sum(counts.values())
    chance = sum((count / total) ** 2 for count in counts.values())
    return (percent(rows) - chance) / (1 - chance)


def alpha(rows: Rows, order: Sequence[str] | None = None) -> float:
    """Krippendorff's alpha from its coincidence matrix, with the nominal or the ordinal metric."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for row in rows:
        labels = [label for label in row if label is not None]
        for pair in permutations(labels, 2):
            coincidences[pair] += 1 / (len(labels) - 1)  # type: ignore[assignment]
    margins: Counter[str] = Counter()
    for (one, _), count in coincidences.items():
        margins[one] += count
    total = sum(margins.values())

    def distance(one: str, other: str) -> float:
        if order is None:
            return float(one != other)
        low, high = sorted((order.index(one), order.index(other)))
        between = sum(margins[label] for label in order[low : high + 1])
        return float((between - (margins[one] + margins[other]) / 2) ** 2)

    observed = sum(count * distance(a, b) for (a, b), count in coincidences.items()) / total
    expected = sum(margins[a] * margins[b] * distance(a, b) for a in margins for b in margins)
    return 1 - observed / (expected / (total * (total - 1)))


# Four observers, twelve units, from Krippendorff's "Computing Krippendorff's
# Alpha-Reliability" (2011): 0.743 nominal, 0.815 ordinal.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
# Ten subjects, fourteen raters, five categories: Fleiss' kappa is 0.210.
FLEISS = (
    "0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1",
    "7 7 0 0 0", "3 2 6 3 0", "2 5 3 2 2", "6 5 2 1 0", "0 2 2 3 7",
)  # fmt: skip


def test_krippendorffs_own_example_gives_his_figures() -> None:
    columns = [line.split() for line in OBSERVERS]
    rows = [[None if one == "." else one for one in row] for row in zip(*columns, strict=True)]
    found = agreement(rows, "12345")
    assert found.alpha_nominal == pytest.approx(0.743, abs=5e-4)
    assert found.alpha_ordinal == pytest.approx(0.815, abs=5e-4)
    assert (found.items, found.raters) == (11, 4), "the last unit has one label only"
    assert found.cohen_kappa is None, "there are four raters"
    assert found.fleiss_kappa is None, "units have different numbers of labels"


def test_the_usual_example_of_fleiss_kappa_gives_its_figure() -> None:
    counts = [[int(count) for count in row.split()] for row in FLEISS]
    rows = [
        [label for label, n in zip("abcde", row, strict=True) for _ in range(n)] for row in counts
    ]
    found = agreement(rows, "abcde", ordered=False)
    assert found.fleiss_kappa == pytest.approx(0.210, abs=5e-4)
    assert found.percent == pytest.approx(0.378, abs=5e-4)
    assert found.alpha_ordinal is None, "the labels have no order"


def test_the_usual_example_of_cohens_kappa_gives_its_figure() -> None:
    rows = [
        *[("yes", "yes")] * 20,
        *[("yes", "no")] * 5,
        *[("no", "yes")] * 10,
        *[("no", "no")] * 15,
    ]
    found = agreement(rows, ["no", "yes"])
    assert found.cohen_kappa == pytest.approx(0.4)
    assert found.percent == pytest.approx(0.7)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["low", "mid", "high", None]), min_size=2, max_size=2),
        min_size=3,
        max_size=12,
    )
)
def test_two_raters_with_gaps_agree_as_the_definitions_say(rows: Rows) -> None:
    labels = ["low", "mid", "high"]
    both = [row for row in rows if None not in row]
    found = agreement(rows, labels)
    assert found.items == len(both)
    assert found.percent == (pytest.approx(percent(rows)) if both else None)
    if len({label for row in both for label in row}) < 2:
        assert {found.cohen_kappa, found.fleiss_kappa, found.alpha_nominal} == {None}
        return
    assert found.cohen_kappa == pytest.approx(cohen(rows))
    assert found.fleiss_kappa == pytest.approx(fleiss(both))
    assert found.alpha_nominal == pytest.approx(alpha(rows))
    assert found.alpha_ordinal == pytest.approx(alpha(rows, labels))


def test_without_two_labels_of_an_item_there_is_no_agreement() -> None:
    found = agreement([["a", None], [None, "b"]], "ab")
    assert found == Agreement(
        items=0,
        raters=2,
        percent=None,
        cohen_kappa=None,
        fleiss_kappa=None,
        alpha_nominal=None,
        alpha_ordinal=None,
    )
    assert agreement([], "ab").raters == 0


def test_one_label_throughout_is_full_agreement_and_says_nothing_about_chance() -> None:
    found = agreement([["a", "a"], ["a", "a"]], "ab")
    assert found.percent == 1
    assert {found.cohen_kappa, found.fleiss_kappa, found.alpha_nominal, found.alpha_ordinal} == {
        None
    }


def test_a_rater_who_said_nothing_is_none() -> None:
    found = agreement([["a", None, "b"], ["b", None, "b"], ["a", None, "a"]], "ab")
    assert found.raters == 2
    assert found.cohen_kappa == pytest.approx(cohen([("a", "b"), ("b", "b"), ("a", "a")]))


def test_a_label_that_is_none_of_the_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="'c' is none of the labels a, b"):
        agreement([["a", "c"]], "ab")
    with pytest.raises(ValueError, match="'c' is none of the labels a, b"):
        compare_labels(["a"], ["c"], "ab")


def test_rows_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        agreement([["a", "b"], ["a"]], "ab")
    with pytest.raises(ValueError, match="zip"):
        compare_labels(["a", "b"], ["a"], "ab")


def test_a_judge_is_compared_with_the_truth() -> None:
    truth = ["yes"] * 25 + ["no"] * 25
    said = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = compare_labels(truth, said, ["yes", "no"])
    assert (found.n, found.agreement, found.parse_failures) == (50, 0.7, 0)
    assert found.kappa == pytest.approx(0.4)
    assert found.confusion == {"yes": {"yes": 20, "no": 5}, "no": {"yes": 10, "no": 15}}


def test_what_a_judge_did_not_say_is_disagreement() -> None:
    found = compare_labels(["a", "a", "b", "b"], ["a", None, "b", None], "ab")
    assert (found.n, found.agreement, found.parse_failures) == (4, 0.5, 2)
    assert found.confusion == {"a": {"a": 1, "b": 0}, "b": {"a": 0, "b": 1}}
    # By hand: 2 of 4 agree; chance gives 2/4 x 1/4 for each of the two labels.
    assert found.kappa == pytest.approx((0.5 - 0.25) / (1 - 0.25))


def test_a_judge_who_never_says_anything_agrees_with_nothing() -> None:
    found = compare_labels(["a", "b"], [None, None], "ab")
    assert (found.agreement, found.kappa, found.parse_failures) == (0, 0, 2)


def test_kappa_of_one_label_throughout_is_not_defined() -> None:
    found = compare_labels(["a", "a"], ["a", "a"], "ab")
    assert (found.agreement, found.kappa) == (1, None)


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no labels"):
        compare_labels([], [], "ab")


def test_three_annotators_of_pandalm_agree_as_the_definitions_say(public_data: Path) -> None:
    path = public_data / "pandalm" / "testset_half.json"
    rows = [
        [str(row[f"annotator{number}"]) for number in (1, 2, 3)]
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    order = ["1", "0", "2"]  # the first is better, a tie, the second is better
    found = agreement(rows, order)
    assert (found.items, found.raters, found.cohen_kappa) == (507, 3, None)
    assert found.percent == pytest.approx(percent(rows)) == pytest.approx(0.925, abs=5e-4)
    assert found.fleiss_kappa == pytest.approx(fleiss(rows)) == pytest.approx(0.870, abs=5e-4)
    assert found.alpha_nominal == pytest.approx(alpha(rows)) == pytest.approx(0.870, abs=5e-4)
    assert (
        found.alpha_ordinal == pytest.approx(alpha(rows, order)) == pytest.approx(0.885, abs=5e-4)
    )
    kappas = []
    for one, other in combinations(range(3), 2):
        pair = [(row[one], row[other]) for row in rows]
        kappas.append(agreement(pair, order).cohen_kappa)
        assert kappas[-1] == pytest.approx(cohen(pair))
    assert kappas == pytest.approx([0.873, 0.880, 0.857], abs=5e-4)


def test_people_who_rated_the_same_answers_agree_as_the_definitions_say(public_data: Path) -> None:
    """Acceptability and preference by two or three people, who are not named."""
    acceptable, preferred = defaultdict(list), defaultdict(list)
    path = public_data / "tulu_human_eval" / "annotations_half.csv"
    with path.open(encoding="utf-8", newline="") as content:
        for row in csv.DictReader(content):
            first, second = sorted((row["model_a"], row["model_b"]))
            pair = (row["instance_index"], first, second)
            for side in "ab":
                label = row[f"completion_{side}_is_acceptable"]
                acceptable[*pair, row[f"model_{side}"]].append(label)
            said = row["preference"]
            better = "tie" if said == "tie" else row["model_a" if said[0] == "a" else "model_b"]
            preferred[pair].append({first: "first", second: "second"}.get(better, better))
    found = agreement(_table(acceptable.values()), ["no", "yes"])
    assert (found.items, found.fleiss_kappa) == (120, None)
    assert found.percent == pytest.approx(0.814, abs=5e-4)
    assert found.alpha_nominal == pytest.approx(alpha(_table(acceptable.values())))
    assert found.alpha_nominal == pytest.approx(0.438, abs=5e-4)
    order = ["first", "tie", "second"]
    found = agreement(_table(preferred.values()), order)
    assert (found.items, found.percent) == (60, 0.5)
    assert found.alpha_ordinal == pytest.approx(alpha(_table(preferred.values()), order))
    assert found.alpha_ordinal == pytest.approx(0.225, abs=5e-4)


def _table(labels: Iterable[list[str]]) -> Rows:
    return [*zip(*zip_longest(*labels), strict=True)]


def test_raters_who_throw_dice_agree_no_more_than_by_chance() -> None:
    rng = random.Random(0)
    rows = [[rng.choice("abc") for _ in range(3)] for _ in range(5000)]
    found = agreement(rows, "abc")
    assert found.percent == pytest.approx(1 / 3, abs=0.02)
    assert found.fleiss_kappa == pytest.approx(0, abs=0.03)
    assert found.alpha_ordinal == pytest.approx(0, abs=0.03)
