import pytest

from response_tuning.artifacts import Completion, Example, FinishReason, Sampling
from response_tuning.configs import DataConfig, RefinementConfig
from response_tuning.data.refinement.continuations import ask_to_continue, parse_continuation
from response_tuning.errors import ConfigError
from response_tuning.rewriting import HALF_POLICIES
from response_tuning.validation import build

HALF = "The old mill stands by the river. Its wheel has not turned for a hundred years."
GOOD = "Children play there in summer, and in winter nobody comes."


def reply(text: str | None, finish: FinishReason | None = "stop") -> Completion:
    return Completion(
        item_id="0.0",
        prompt=(),
        response=text,
        finish_reason=finish,
        error=None if text is not None else "500",
        key="k",
        model="m",
        template="t",
        sampling=Sampling(),
    )


def outcome(text: str | None, finish: FinishReason | None = "stop") -> str:
    return parse_continuation(reply(text, finish), HALF).outcome


def test_a_continuation_is_used_without_the_white_space_around_it() -> None:
    parsed = parse_continuation(reply(f"\n {GOOD}\n"), HALF)
    assert (parsed.outcome, parsed.text) == ("refined", GOOD)


@pytest.mark.parametrize(
    "text",
    [
        f"Here is the second half: {GOOD}",
        f"Sure! {GOOD}",
        "This text describes an old mill that is out of use.",
        "It seems like you have shared a text about a mill.",
        f"Here are three ways to finish the mill's story:\n{GOOD}",
    ],
)
def test_a_message_about_the_text_is_a_comment(text: str) -> None:
    assert outcome(text) == "comment"


@pytest.mark.parametrize("text", ["Here is where the river bends.", "Surely nobody lives there."])
def test_prose_that_only_begins_like_a_comment_is_used(text: str) -> None:
    assert outcome(text) == "refined"


def test_what_repeats_the_half_is_a_copy() -> None:
    assert outcome(HALF) == "copy"
    assert outcome(f"{HALF} {GOOD}") == "copy"  # although half of it is new
    assert outcome(f"And so. {HALF}") == "copy"


def test_what_did_not_end_or_is_twice_as_long_as_its_half_is_truncated() -> None:
    assert outcome(GOOD, "length") == "truncated"
    words = len(HALF.split())
    assert outcome("word " * 2 * words) == "refined"
    assert outcome("word " * (2 * words + 1)) == "truncated"


def test_every_other_outcome_is_told_apart() -> None:
    assert outcome(None, None) == "error"
    assert outcome("", "filtered") == "filtered"
    assert outcome("  ") == "empty"
    assert outcome("I'm sorry, but I can't help with that.") == "refused"


def test_a_bare_request_is_the_half_alone_and_the_other_fences_it() -> None:
    example = Example(row=3, response="ignored", instruction=HALF)
    assert ask_to_continue(example, bare=True).prompt[0].content == HALF
    asked = ask_to_continue(example, bare=False).prompt[0].content
    assert f"<half>\n{HALF}\n</half>" in asked
    assert "ignored" not in asked


def test_no_policy_mixes_two_writers() -> None:
    assert "keep" not in HALF_POLICIES.values()
    config = build(RefinementConfig, {"material": "half"}, "here")
    assert (config.after_retries, config.request) == ("drop", "continue")
    for settings in ({"policies": {"copy": "keep"}}, {"after_retries": "keep"}):
        with pytest.raises(ConfigError, match="would mix"):
            build(RefinementConfig, {"material": "half", **settings}, "here")
    with pytest.raises(ConfigError, match="a half has no outcome 'no-marker'"):
        build(RefinementConfig, {"material": "half", "policies": {"no-marker": "drop"}}, "here")
    with pytest.raises(ConfigError, match="a response has no outcome 'copy'"):
        build(RefinementConfig, {"policies": {"copy": "drop"}}, "here")


def test_halves_are_what_is_asked_for_where_documents_are_cut() -> None:
    values = {"source": "docs", "continuation": {}, "refinement": {"engine": "miniature"}}
    config = build(DataConfig, values, "here")
    assert config.refinement is not None and config.refinement.material == "half"
    assert config.extraction is not None
    assert (config.extraction.min_words, config.extraction.max_words) == (75, 750)
    with pytest.raises(ConfigError, match="go together"):
        build(DataConfig, {"source": "docs", "refinement": {"material": "half"}}, "here")
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        build(DataConfig, {"source": "docs", "continuation": {"cut": "exact"}}, "here")
