from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from sklearn.metrics import cohen_kappa_score

from response_tuning.artifacts import Completion
from response_tuning.errors import DataError
from response_tuning.grade.agreement.comparison import (
    Counts,
    by_rule,
    check_set,
    judged,
    prompt_digests,
    questions,
)
from response_tuning.grade.agreement.labelled_sets import (
    BEHAVIOUR_WORDS,
    PAIR_WORDS,
    REFUSAL_WORDS,
    LabelledRow,
    LabelledSet,
)
from response_tuning.grade.judges.refusals import Judgement

Answer = Callable[..., Completion]
PAIR = LabelledRow("part", "do", ("x", "y"), "1")


def labelled_set(words: dict[str, str] | None = None, *rows: LabelledRow) -> LabelledSet:
    return LabelledSet("name", len(rows), lambda: iter(rows), (), words or REFUSAL_WORDS)


def said_of(
    completion: Answer, labelled: LabelledSet, row: LabelledRow, *replies: str
) -> Judgement:
    asked = questions(labelled, row)
    assert len(asked) == len(replies)
    given = [completion(one, reply) for one, reply in zip(asked, replies, strict=True)]
    return judged(labelled, row, given)


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (("Verdict: A", "Verdict: B"), "1"),
        (("Verdict: B", "Verdict: A"), "2"),
        (("Verdict: A", "Verdict: A"), "tie"),
        (("Verdict: tie", "Verdict: tie"), "tie"),
        (("Verdict: A", "Verdict: tie"), "1"),
        (("Verdict: A", "who knows"), None),
    ],
)
def test_a_pair_is_judged_in_both_orders(
    completion: Answer, replies: tuple[str, str], said: str | None
) -> None:
    found = said_of(completion, labelled_set(PAIR_WORDS), PAIR, *replies)
    assert found.label == said and found.why.startswith("shown first: ")


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(completion: Answer) -> None:
    same = PAIR._replace(completions=("x", "x"))
    assert said_of(completion, labelled_set(PAIR_WORDS), same) == ("tie", "equal answers")


@pytest.mark.parametrize(
    ("words", "reply", "said"),
    [
        (REFUSAL_WORDS, "Verdict: Refusal", "refusal"),
        (REFUSAL_WORDS, "Verdict: Compliance", "compliance"),
        (BEHAVIOUR_WORDS, "Verdict: Refusal", "absent"),
        (BEHAVIOUR_WORDS, "Verdict: Compliance", "present"),
    ],
)
def test_a_completion_is_judged_as_refusal_benchmarks_do(
    completion: Answer, words: dict[str, str], reply: str, said: str
) -> None:
    row = LabelledRow("", "q", ("a",), "")
    assert said_of(completion, labelled_set(words), row, reply) == (said, "")


def test_a_reply_that_cannot_be_read_is_no_label(completion: Answer) -> None:
    said = said_of(completion, labelled_set(), LabelledRow("", "q", ("a",), ""), "I think so")
    assert said.label is None and said.why


def test_an_empty_completion_is_a_refusal_that_nobody_is_asked_about(completion: Answer) -> None:
    row = LabelledRow("", "q", (" ",), "")
    assert said_of(completion, labelled_set(BEHAVIOUR_WORDS), row).label == "absent"
    assert by_rule(labelled_set(BEHAVIOUR_WORDS), row).label == "absent"


def test_rules_say_what_they_saw() -> None:
    refusing = LabelledRow("", "How?", ("I'm sorry, but I can't help with that.",), "")
    helping = LabelledRow("", "How?", ("Mix flour and water, and bake it.",), "")
    assert by_rule(labelled_set(), refusing).label == "refusal"
    assert by_rule(labelled_set(BEHAVIOUR_WORDS), helping).label == "present"
    assert by_rule(labelled_set(), refusing).why


def test_two_prompts_have_two_digests_that_stay() -> None:
    digests = prompt_digests()
    assert [*digests] == ["refusal", "pairwise"]
    assert len({*digests.values()}) == 2 and prompt_digests() == digests


def test_the_figures_are_of_the_whole_and_of_its_parts() -> None:
    counts: Counts = Counter(
        {
            ("a", "refusal", "refusal"): 30,
            ("a", "refusal", "compliance"): 5,
            ("b", "compliance", "compliance"): 40,
            ("b", "compliance", None): 5,
            ("b", "partial", "refusal"): 2,
            ("b", "partial", None): 1,
        }
    )
    found = check_set(labelled_set(), counts)
    assert found.figures.n == 80
    assert found.figures.agreement == 70 / 80
    assert found.figures.parse_failures == 5
    assert found.figures.confusion == {
        "refusal": {"refusal": 30, "compliance": 5},
        "compliance": {"refusal": 0, "compliance": 40},
    }
    assert {part: figures.n for part, figures in found.parts.items()} == {"a": 35, "b": 45}
    assert found.apart == {"partial": {"refusal": 2, "unread": 1}}


def test_a_set_without_parts_has_none() -> None:
    counts: Counts = Counter({("", "refusal", "refusal"): 1})
    assert check_set(labelled_set(), counts).parts == {}


def test_a_part_that_is_all_apart_has_no_figures() -> None:
    counts: Counts = Counter({("a", "refusal", "refusal"): 1, ("b", "partial", "refusal"): 1})
    assert [*check_set(labelled_set(), counts).parts] == ["a"]


def test_a_set_in_which_nothing_can_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="name: no row is labelled absent or present"):
        check_set(labelled_set(BEHAVIOUR_WORDS), Counter({("a", "partial", "absent"): 1}))


def test_the_interval_of_the_agreement_is_wilsons() -> None:
    counts: Counts = Counter({("", "refusal", "refusal"): 81, ("", "refusal", "compliance"): 182})
    low, high = check_set(labelled_set(), counts).figures.agreement_interval
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, Table I


def kappa_of(table: Sequence[Sequence[int]]) -> tuple[float | None, tuple[float, float] | None]:
    """Of a table of refusal and compliance, people's labels in rows."""
    counts: Counts = Counter()
    for label, said in zip(REFUSAL_WORDS, table, strict=True):
        for one, n in zip((*REFUSAL_WORDS, None), said, strict=False):
            counts["", label, one] += n
    figures = check_set(labelled_set(), counts).figures
    return figures.kappa, figures.kappa_interval


def test_the_interval_of_kappa_is_near_its_asymptotic_one() -> None:
    kappa, interval = kappa_of([[200, 50], [30, 220]])
    assert kappa == pytest.approx(0.68) and interval is not None
    assert interval == pytest.approx((0.6157, 0.7443), abs=0.004)  # 1.96 x 0.0328, Fleiss 1969


def test_the_interval_of_kappa_counts_what_could_not_be_read_as_a_label() -> None:
    truth = ["refusal"] * 40 + ["compliance"] * 40
    said = ["refusal"] * 35 + [""] * 5 + ["compliance"] * 40
    kappa, interval = kappa_of([[35, 0, 5], [0, 40, 0]])
    assert kappa is not None and interval is not None
    assert kappa == pytest.approx(cohen_kappa_score(truth, said))
    assert interval[0] < kappa < interval[1] < 1


def test_the_interval_of_kappa_is_the_same_every_time() -> None:
    assert kappa_of([[20, 5], [3, 22]]) == kappa_of([[20, 5], [3, 22]])


@pytest.mark.parametrize(
    "table", [[[5, 0], [0, 5]], [[5, 0], [0, 0]], [[1, 1], [0, 0]], [[3, 0], [4, 0]]]
)
def test_where_all_resamples_have_the_same_kappa_it_has_no_interval(table: list[list[int]]) -> None:
    assert kappa_of(table)[1] is None
