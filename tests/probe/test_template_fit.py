import math

import pytest

from response_tuning.artifacts import Message, Score
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.probe.ranking import ProbeVerdict
from response_tuning.probe.template_fit import (
    ALONE,
    ALONE_LIMIT,
    GIVEN,
    GIVEN_LIMIT,
    KIND_VERDICTS,
    OUTCOMES,
    TemplateFit,
    TemplateKind,
    describe_gaps,
    expectation,
    fit_scores,
    fits_of,
    limited,
    rate_templates,
    recommend,
    shared_items,
)

BEST = TemplateFit("best", -0.2, -1.2)
OPENS = TemplateFit("opens", -2.0, -1.1)


def scores(given: dict[str, float], alone: dict[str, float]) -> list[Score]:
    return [
        Score(item_id=item, metric=metric, value=value)
        for metric, values in ((GIVEN, given), (ALONE, alone))
        for item, value in values.items()
    ]


def test_gaps_are_to_the_best_template_by_each_measure() -> None:
    rated = {one.fit.template: one for one in rate_templates([OPENS, BEST])}
    assert rated["best"].given_gap == 0
    assert rated["best"].alone_gap == pytest.approx(0.1)
    assert rated["opens"].given_gap == pytest.approx(1.8)
    assert rated["opens"].alone_gap == 0
    assert (rated["opens"].best_given, rated["opens"].best_alone) == ("best", "opens")


@pytest.mark.parametrize(
    ("given", "alone", "kind"),
    [
        (GIVEN_LIMIT - 0.01, ALONE_LIMIT - 0.01, "conversation"),
        (GIVEN_LIMIT - 0.01, ALONE_LIMIT + 0.01, "no-opening"),
        (GIVEN_LIMIT + 0.01, ALONE_LIMIT - 0.01, "no-answer"),
        (GIVEN_LIMIT + 0.01, ALONE_LIMIT + 0.01, "neither"),
    ],
)
def test_each_gap_beyond_its_limit_makes_a_kind(given: float, alone: float, kind: str) -> None:
    other = TemplateFit("other", BEST.given - given, BEST.alone - alone)
    rated = {one.fit.template: one.kind for one in rate_templates([other, BEST])}
    assert rated == {"best": "conversation", "other": kind}


def test_the_kind_ranks_before_the_probability_of_the_answer() -> None:
    fits = [
        TemplateFit("neither", -5.0, -9.0),
        TemplateFit("no answer", -3.0, -1.2),
        TemplateFit("no opening", -0.1, -9.0),
        TemplateFit("worse", -0.4, -1.2),
        BEST,
    ]
    ranked = [one.fit.template for one in rate_templates(fits)]
    assert ranked == ["best", "worse", "no opening", "no answer", "neither"]
    assert rate_templates([]) == []


@pytest.mark.parametrize(
    ("verdict", "kind", "expected"),
    [
        ("strong", "conversation", "strong"),
        ("strong", "no-answer", "weak"),
        ("strong", "neither", "none"),
        ("weak", "conversation", "weak"),
        ("none", "no-opening", "none"),
    ],
)
def test_a_verdict_is_no_better_than_its_template_allows(
    verdict: ProbeVerdict, kind: TemplateKind, expected: str
) -> None:
    assert limited(verdict, kind) == expected


def test_every_kind_has_its_measured_outcome_in_words() -> None:
    assert OUTCOMES.keys() == KIND_VERDICTS.keys()
    for kind, outcome in OUTCOMES.items():
        assert 0 <= outcome.low <= outcome.median <= outcome.high <= 1
        said = expectation(kind)
        assert f"Under {outcome.templates} templates of this kind" in said
        assert f"reached {100 * outcome.low:.0f} to {100 * outcome.high:.0f} % on the" in said


def test_the_gaps_in_words_name_the_best_templates_and_the_limits() -> None:
    said = describe_gaps(rate_templates([OPENS, BEST])[1])
    assert said == (
        "Per token of a response, 'opens' gives 1.80 nats less than 'best' given the instruction "
        "(limit 0.6), and as much as any template measured after the assistant's opening alone "
        "(limit 0.5)."
    )


def test_one_sentence_names_the_best_template_and_says_if_even_that_is_too_bad() -> None:
    rated = rate_templates([BEST, OPENS])
    assert recommend(rated, "strong") == (
        "Of 2 templates, 'best' suits this base best: tune with it, and compare the base with a "
        "stop string."
    )
    assert "but it does not match these responses to their instructions" in recommend(rated, "weak")
    apart = rate_templates([TemplateFit("answers", -0.2, -9.0), OPENS])
    assert "but even this one is not a conversation to it" in recommend(apart, "weak")


def test_scores_are_those_of_the_own_response_with_and_without_the_prompt() -> None:
    asked = {name: (Message(role="user", content=name),) for name in ("a", "b")}
    responses = {"a": "x", "b": "y"}

    def scorer(pairs: object) -> list[Likelihood | Unscored]:
        assert isinstance(pairs, list)
        return [
            Unscored("too long")
            if pair.response == "y" and pair.prompt
            else Likelihood(-2.0 if pair.prompt else -6.0, 2, math.log(0.5), 0.1)
            for pair in pairs
            if isinstance(pair, Pair)
        ]

    found = [*fit_scores(asked, responses, scorer)]
    assert [(one.item_id, one.metric, one.value) for one in found] == [
        ("a", GIVEN, -1.0),
        ("a", ALONE, -3.0),
    ]


def test_templates_are_compared_on_the_items_that_all_of_them_score() -> None:
    all_items = {"a": -1.0, "b": -2.0, "c": -9.0}
    by_template = {
        "long": scores({"a": -3.0, "b": -3.0}, {"a": -4.0, "b": -6.0}),
        "short": scores(all_items, all_items),
    }
    fits, excluded = fits_of(by_template)
    assert fits == [TemplateFit("long", -3.0, -5.0), TemplateFit("short", -1.5, -1.5)]
    assert excluded == {}
    assert shared_items(by_template) == ["a", "b"]


def test_a_template_that_scores_too_few_items_is_excluded_with_the_reason() -> None:
    many = {str(n): -1.0 for n in range(10)}
    few = {str(n): -2.0 for n in range(4)}
    fits, excluded = fits_of({"many": scores(many, many), "few": scores(few, few), "no": []})
    assert [fit.template for fit in fits] == ["many"]
    assert excluded == {
        "few": "it can score 4 responses, where another template scores 10",
        "no": "it can score 0 responses, where another template scores 10",
    }
