"""What a browser's page keeps: panes, votes, links and exports."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.playground_page import (
    Serve,
    open_page,
    send,
    text_of,
)


def test_a_blind_vote_names_no_model_before_the_choice(
    serve: Serve, page: Any, llama: Path, gpt2: Path
) -> None:
    site = serve(("model-one", llama), ("model-two", gpt2))
    open_page(page, site)
    page.get_by_role("button", name="Blind vote").click()
    orders: set[tuple[str, ...]] = set()
    at = 0
    while len(orders) < 2:  # the order is drawn: 41 votes in one order are no chance
        at += 1
        assert at <= 41
        page.get_by_role("button", name="New conversation").click()
        send(page, "Hi.")
        page.get_by_role("group", name="Which answer is best?").wait_for()
        whole = page.locator("main").inner_html()
        assert "model-" not in whole
        assert "local@" not in whole
        page.locator(".ballot button").first.focus()  # in the box, letters are text
        page.keyboard.press("b")
        page.get_by_text("local@").first.wait_for()
        cards = page.locator(".answer")
        shown = cards.evaluate_all("all => all.map((one) => one.dataset.pane)")
        vote = site.votes[-1]
        assert [one.pane for one in vote.candidates] == shown
        assert (vote.choice, vote.blind, len(site.votes)) == (1, True, at)
        orders.add(tuple(shown))


@pytest.mark.parametrize(("key", "choice"), [("a", 0), ("t", "tie"), ("x", "both bad")])
def test_a_tie_and_both_bad_are_votes(
    serve: Serve, page: Any, llama: Path, gpt2: Path, key: str, choice: Any
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site)
    page.get_by_role("button", name="Blind vote").click()
    send(page, "Hi.")
    page.locator(".ballot").wait_for()
    page.locator(".ballot button").first.focus()
    page.keyboard.press(key)
    page.get_by_text("Saved.").wait_for()
    assert [vote.choice for vote in site.votes] == [choice]


def test_a_link_shows_the_conversation_again(
    serve: Serve, page: Any, llama: Path, gpt2: Path
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site, "Hi.")
    first = [text_of(page, pane) for pane in ("one", "two")]
    send(page, "Why?")
    second = [text_of(page, pane, at=1) for pane in ("one", "two")]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied the link.").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    assert [text_of(page, pane) for pane in ("one", "two")] == first
    assert [text_of(page, pane, at=1) for pane in ("one", "two")] == second
    assert page.locator(".question .text").all_text_contents() == ["Hi.", "Why?"]


def test_answers_on_the_page_are_exported_and_copied_as_code(
    serve: Serve, page: Any, llama: Path
) -> None:
    site = serve(("one", llama))
    open_page(page, site, "Hi.")
    text = text_of(page, "one")
    site.answer("one", "Something else.")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    assert download.value.suggested_filename == "playground.jsonl"
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["response"] for line in lines] == [text]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as code").click()
    page.get_by_text("Copied the code.").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert f"model='{llama}'" in code


def test_a_pane_is_opened_and_closed(serve: Serve, page: Any, llama: Path, gpt2: Path) -> None:
    site = serve(("one", llama))
    open_page(page, site)
    page.get_by_role("button", name="Add a pane").click()
    page.get_by_label("Model: folder").fill("/nowhere")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("/nowhere: no such folder").wait_for()
    page.get_by_label("Model: folder").fill(str(gpt2))
    page.get_by_label("Name of the pane").fill("two")
    page.get_by_role("button", name="Open").click()
    page.get_by_role("heading", name="two").wait_for()
    send(page, "Hi.")
    assert text_of(page, "two")
    page.get_by_role("button", name="Close two").click()
    page.locator(".pane[data-pane='two']").wait_for(state="detached")
    send(page, "Why?")
    assert text_of(page, "one", at=1)
    assert [*site.playground.panes] == ["one"]
