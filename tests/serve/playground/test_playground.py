"""The page in a browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Request, Sampling
from response_tuning.generate import EngineConfig, open_engine

Serve = Callable[..., Any]


def generated(model: Path, ask: Callable[..., Request], *words: str, **how: Any) -> str:
    """What ``rtune generate`` answers."""
    sampling = Sampling(max_new_tokens=how.pop("max_new_tokens", 40))
    engine = open_engine("hf", EngineConfig(model=str(model), **how))
    (completion,) = engine.complete([ask("a", *words)], sampling)
    assert completion.response is not None
    return completion.response


def open_page(page: Any, site: Any, question: str = "", *, tokens: int = 40) -> None:
    page.goto(site.address)
    page.locator(".pane").first.wait_for()
    page.evaluate("document.getElementById('settings').open = true")
    page.get_by_label("Most new tokens").fill(str(tokens))
    page.get_by_label("Most new tokens").blur()
    if question:
        send(page, question)


def send(page: Any, question: str) -> None:
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_label("Message", exact=True).press("Enter")


def card(page: Any, pane: str, at: int = 0) -> Any:
    return page.locator(f".answer[data-pane='{pane}']").nth(at)


def text_of(page: Any, pane: str, at: int = 0) -> str:
    """The text of an answer that has ended."""
    card(page, pane, at).locator(".finish").wait_for()
    return str(card(page, pane, at).locator(".text").text_content())


def test_panes_answer_side_by_side_what_the_engine_says(
    serve: Serve, page: Any, llama: Path, gpt2: Path, ask: Callable[..., Request]
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site, "Tell me a story.")
    assert text_of(page, "one") == generated(llama, ask, "Tell me a story.")
    assert text_of(page, "two") == generated(gpt2, ask, "Tell me a story.")
    assert page.locator("h1").text_content() == "Playground"
