"""Answers in a browser: stopped, asked again, edited, and drawn with the knobs of sampling."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Message, Request, Sampling
from tests.fixtures.playground_page import (
    Serve,
    card,
    generated,
    open_page,
    send,
    text_of,
)


def test_stop_ends_all_answers_and_keeps_what_is_there(
    serve: Serve, page: Any, save_model: Callable[..., Path]
) -> None:
    endless = save_model("llama", context=8192, eos=[])
    site = serve(("one", endless), ("two", endless))
    open_page(page, site, "Hi.", tokens=8000)
    page.locator(".answer .text", has_text=re.compile("...")).nth(1).wait_for()
    page.keyboard.press("Escape")
    for pane in ("one", "two"):
        text = text_of(page, pane)
        assert "stopped by the user" in card(page, pane).locator(".foot").text_content()
        (kept,) = (one for one in site.playground.answers.values() if one.pane == pane)
        assert text == kept.response != ""
        assert kept.tokens < 8000
    assert page.get_by_role("button", name="Send").is_enabled()


def test_a_question_is_edited_and_what_followed_goes(
    serve: Serve, page: Any, llama: Path, ask: Callable[..., Request]
) -> None:
    open_page(page, serve(("one", llama)), "Hi.")
    text_of(page, "one")
    send(page, "Why?")
    text_of(page, "one", at=1)
    page.get_by_role("button", name="Edit", exact=True).first.click()
    page.get_by_label("Edited question").fill("Tell me a story.")
    page.get_by_role("button", name="Ask again").click()
    page.get_by_text("Tell me a story.").wait_for()
    assert text_of(page, "one") == generated(llama, ask, "Tell me a story.")
    assert page.locator(".round").count() == 1


def test_an_edited_answer_is_what_the_next_question_follows(
    serve: Serve, page: Any, llama: Path, ask: Callable[..., Request]
) -> None:
    open_page(page, serve(("one", llama)), "Hi.")
    text_of(page, "one")
    page.get_by_role("button", name="Edit: one").click()
    page.get_by_label("Edited answer of one").fill("Yes?")
    page.get_by_role("button", name="Save").click()
    assert "edited by you" in card(page, "one").locator(".foot").text_content()
    send(page, "Why?")
    assert text_of(page, "one", at=1) == generated(llama, ask, "Hi.", "Yes?", "Why?")


def test_knobs_of_sampling_are_sent_and_the_seed_decides(
    serve: Serve, page: Any, llama: Path
) -> None:
    site = serve(("one", llama))
    open_page(page, site)
    for label, value in (("Temperature", "0.9"), ("Top p", "0.95"), ("Seed", "5")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Stop strings").fill("qqq\nzzz")
    page.get_by_label("First words").fill("Well")
    page.get_by_label("System message").focus()
    send(page, "Hi.")
    first = text_of(page, "one")
    (kept,) = site.playground.answers.values()
    assert kept.sampling == Sampling(
        max_new_tokens=40, temperature=0.9, top_p=0.95, seed=5, stop=("qqq", "zzz")
    )
    assert first.startswith("Well")
    page.get_by_label("Seed").fill("6")
    page.get_by_role("button", name="Regenerate").click()
    page.locator(".answer[aria-busy='false'] .finish").wait_for()
    assert len(site.playground.answers) == 2
    assert text_of(page, "one") != first


def test_a_preset_puts_a_benchmark_s_prompt_into_the_box(
    serve: Serve, page: Any, llama: Path
) -> None:
    def prompts() -> list[tuple[Message, ...]]:
        return [
            (Message(role="user", content="Why?"),),
            (Message(role="system", content="Be brief."), Message(role="user", content="How?")),
        ]

    open_page(page, serve(("one", llama), presets={"some": prompts}))
    page.locator("#preset").select_option("some")
    page.get_by_label("Prompt of the preset").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "Why?"
    page.get_by_label("Prompt of the preset").select_option("1")
    assert page.get_by_label("Message", exact=True).input_value() == "How?"
    assert page.get_by_label("System message").input_value() == "Be brief."


def test_what_goes_wrong_is_said_in_the_card(serve: Serve, page: Any, llama: Path) -> None:
    open_page(page, serve(("one", llama)), "x" * 2000)
    page.get_by_text("leaves no room for a reply").wait_for()
    assert page.get_by_role("button", name="Send").is_enabled()


def test_an_impossible_knob_is_not_passed_over(serve: Serve, page: Any, llama: Path) -> None:
    site = serve(("one", llama))
    open_page(page, site)
    page.get_by_label("Temperature").fill("-1")
    send(page, "Hi.")
    assert page.evaluate("document.activeElement.name") == "temperature"
    assert page.locator(".round").count() == 0
    page.get_by_label("Temperature").fill("0.75")
    send(page, "Hi.")
    text_of(page, "one")
    assert [one.sampling.temperature for one in site.playground.answers.values()] == [0.75]
