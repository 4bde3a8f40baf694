from typing import Literal

import pytest

from response_tuning.artifacts import Completion, Sampling
from response_tuning.data.refinement.reply import MARKER, parse_reply, rewrite

ORIGINAL = "Tea is made of leaves."
REFUSAL = "I'm sorry, but I can't help with that."


def reply(
    text: str | None, finish: Literal["stop", "length"] | None = "stop", error: str | None = None
) -> Completion:
    return Completion(
        item_id="0.0",
        prompt=(),
        response=text,
        finish_reason=finish,
        error=error,
        key="k",
        model="m",
        template="t",
        sampling=Sampling(),
    )


def after(text: str) -> str:
    return f"It is short and clear.\n\n{MARKER}\n{text}"


@pytest.mark.parametrize(
    "line",
    [
        "Refined response:\n",
        "Refined response: ",
        "  refined RESPONSE :",
        "**Refined response:**\n\n",
        "**Refined response**:\n",
        "__Refined response:__ ",
        "### Refined response:\n",
        "## **Refined response:**\n",
        "2. **Refined response:**\n",
        "**2. Refined response:**\n",
    ],
)
def test_the_rewrite_is_what_follows_the_marker_line(line: str) -> None:
    assert rewrite(f"A review.\n\n{line}Leaves make tea.\n", ORIGINAL) == "Leaves make tea."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Leaves make tea.",
        "The refined response: should be shorter.",
        'I would write "Refined response:" before it.',
        "Refined response",
        "A refined response: tea.",
        "Refined responses: tea.",
    ],
)
def test_words_that_do_not_begin_a_line_are_no_marker(text: str) -> None:
    assert rewrite(text, ORIGINAL) is None
    assert parse_reply(reply(text), ORIGINAL) == ("no-marker", None)


def test_the_last_marker_line_counts_whatever_the_review_says() -> None:
    text = (
        f"{MARKER} this is what I shall write now. The refined response: better.\n{after('Tea.')}"
    )
    assert rewrite(text, ORIGINAL) == "Tea."


def test_a_marker_within_a_line_of_the_rewrite_stays_there() -> None:
    assert rewrite(after("A refined response: tea."), ORIGINAL) == "A refined response: tea."


@pytest.mark.parametrize(
    ("around", "inside"),
    [
        ("```\nTea.\n\nMore tea.\n```", "Tea.\n\nMore tea."),
        ("```markdown\nTea.\n```python\nx = 1\n```\n```", "Tea.\n```python\nx = 1\n```"),
        ("~~~text\nTea.\n~~~", "Tea."),
        ('"Tea."', "Tea."),
        ("\u201cTea.\u201d", "Tea."),
        ('"""Tea."""', "Tea."),
        ("[Tea.]", "Tea."),
        ("**Tea.**", "Tea."),
        ("<response>\nTea.\n</response>", "Tea."),
        ('```\n"Tea."\n```', "Tea."),
    ],
)
def test_what_is_wrapped_around_the_whole_rewrite_is_taken_off(around: str, inside: str) -> None:
    assert rewrite(after(around), ORIGINAL) == inside


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n```",
        "```\nx = 1\n```\nand\n```\ny = 2\n```",
        "```\nx = 1\n```\nis code.",
        '"Tea," he said, "is made of leaves."',
        '"Tea" is a word.',
        "**Tea** is made of **leaves**",
        "[1] and [2]",
        "[link](https://tea.example)",
        '"',
        "**",
    ],
)
def test_marks_that_belong_to_the_text_stay(text: str) -> None:
    assert rewrite(after(text), ORIGINAL) == text


@pytest.mark.parametrize("text", ['"Tea."', "```\nx = 1\n```", "[Tea.]"])
def test_what_is_around_the_original_too_stays(text: str) -> None:
    assert rewrite(after(text), text) == text


def test_each_outcome_is_told_apart() -> None:
    parsed = {
        "refined": parse_reply(reply(after("Leaves make tea.")), ORIGINAL),
        "unchanged": parse_reply(reply(after(ORIGINAL)), f" {ORIGINAL}\n"),
        "no-marker": parse_reply(reply("Leaves make tea."), ORIGINAL),
        "empty": parse_reply(reply(after("")), ORIGINAL),
        "truncated": parse_reply(reply(after("Leaves make"), "length"), ORIGINAL),
        "refused": parse_reply(reply(after(REFUSAL)), ORIGINAL),
        "error": parse_reply(reply(None, None, "500"), ORIGINAL),
    }
    assert {name: one.outcome for name, one in parsed.items()} == {n: n for n in parsed}
    texts = {name: one.text for name, one in parsed.items()}
    assert texts["refined"] == "Leaves make tea."
    assert texts["truncated"] == "Leaves make"
    assert texts["no-marker"] is texts["empty"] is texts["error"] is None


@pytest.mark.parametrize("text", ["```\n\n```", "[]", '""', "**\n**", "<response></response>"])
def test_a_wrapping_of_nothing_is_empty(text: str) -> None:
    assert parse_reply(reply(after(text)), ORIGINAL) == ("empty", None)


def test_a_reply_that_is_cut_before_the_marker_is_truncated() -> None:
    assert parse_reply(reply("It is sho", "length"), ORIGINAL) == ("truncated", None)


def test_declining_without_a_marker_is_a_refusal_and_not_a_missing_marker() -> None:
    assert parse_reply(reply(REFUSAL), ORIGINAL).outcome == "refused"


def test_a_rewritten_refusal_is_a_refinement() -> None:
    better = "I'm sorry, but I can't help you with that one."
    assert parse_reply(reply(after(better)), REFUSAL) == ("refined", better)
    assert parse_reply(reply(REFUSAL), REFUSAL).outcome == "no-marker"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>I cannot. {MARKER} no</think>\n{after('Leaves make tea.')}",
        f"I cannot.\n{MARKER} no\n</think>\n{after('Leaves make tea.')}",
        f"<|channel|>analysis<|message|>{MARKER} no<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{after('Leaves make tea.')}<|return|>",
    ],
)
def test_the_refiner_s_thoughts_are_no_part_of_the_rewrite(text: str) -> None:
    assert parse_reply(reply(text), ORIGINAL) == ("refined", "Leaves make tea.")


def test_a_reply_of_nothing_but_thoughts_is_empty_and_a_filtered_one_is_counted() -> None:
    assert parse_reply(reply(f"<think>{after('Leaves make tea.')}"), ORIGINAL).outcome == "empty"
    assert parse_reply(reply("<think>hm", "length"), ORIGINAL).outcome == "truncated"
    filtered = reply(after("Leaves make")).model_copy(update={"finish_reason": "filtered"})
    assert parse_reply(filtered, ORIGINAL) == ("filtered", None)
