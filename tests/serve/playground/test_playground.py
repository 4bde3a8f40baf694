"""The page in a browser: which model answered, what it was sent, and who can use it."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.models.inference import load
from response_tuning.models.location import identity
from response_tuning.serve.playground.records import Ask, Listener, Reply
from tests.fixtures.browser import violations
from tests.fixtures.playground_page import (
    HOSTILE,
    Saying,
    Serve,
    card,
    facts,
    generated,
    open_page,
    send,
    text_of,
)


def test_panes_answer_side_by_side_what_the_engine_says(
    serve: Serve, page: Any, llama: Path, gpt2: Path, ask: Callable[..., Request]
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site, "Tell me a story.")
    assert text_of(page, "one") == generated(llama, ask, "Tell me a story.")
    assert text_of(page, "two") == generated(gpt2, ask, "Tell me a story.")
    assert page.locator("h1").text_content() == "Playground"


def proven(page: Any, known: dict[str, tuple[str, str]]) -> bool:
    """Whether every card shows the answer of the model that it names, as ``rtune generate`` has it.

    ``known`` is the text of each pane's model, and its identity.
    """
    right = [
        text_of(page, pane) == text and facts(page, pane)[0] == model
        for pane, (text, model) in known.items()
    ]
    return all(right) and page.get_by_text("Another model answered").count() == 0


def test_panes_answer_at_the_same_time(serve: Serve, page: Any) -> None:
    met = threading.Barrier(3, timeout=30)

    class Meeting(Saying):
        def answer(self, ask: Ask, listener: Listener) -> Reply:
            met.wait()  # until all three are asked
            return super().answer(ask, listener)

    panes = [Meeting(name, f"I am {name}.") for name in ("one", "two", "three")]
    open_page(page, serve(*panes), "Hi.")
    assert [text_of(page, pane.name) for pane in panes] == ["I am one.", "I am two.", "I am three."]


@pytest.fixture
def known(llama: Path, gpt2: Path, ask: Callable[..., Request]) -> dict[str, tuple[str, str]]:
    return {
        name: (generated(path, ask, "Hi."), identity(str(path)))
        for name, path in (("one", llama), ("two", gpt2))
    }


def test_a_card_proves_which_model_answered(
    serve: Serve, page: Any, llama: Path, gpt2: Path, known: dict[str, tuple[str, str]]
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site, "Hi.")
    assert proven(page, known)
    assert facts(page, "one")[1] == site.playground.pane("one").about()["template_digest"]


@pytest.mark.parametrize("how", ["weights", "panes"])
def test_the_proof_fails_if_two_models_are_swapped(
    serve: Serve, page: Any, llama: Path, gpt2: Path, known: dict[str, tuple[str, str]], how: str
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    one, two = site.playground.panes.values()
    if how == "weights":  # the names stay, and other weights are behind them
        one._weights._model, two._weights._model = two._weights._model, one._weights._model
        for pane, model in ((one, one._weights._model), (two, two._weights._model)):
            pane._under = {name: replace(local, model=model) for name, local in pane._under.items()}
    else:
        site.playground.panes |= {"one": two, "two": one}
    open_page(page, site, "Hi.")
    assert not proven(page, known)
    if how == "weights":
        alarm = card(page, "one").get_by_role("alert")
        assert "Another model answered: " in alarm.text_content()


def test_an_adapter_is_switched_off_and_on(
    serve: Serve, page: Any, llama: Path, adapter: Path, ask: Callable[..., Request]
) -> None:
    site = serve(("tuned", adapter))
    open_page(page, site, "Hi.")
    assert text_of(page, "tuned") == generated(adapter, ask, "Hi.")
    assert facts(page, "tuned")[::2] == (identity(str(adapter)), "on")
    page.get_by_label("Adapter").select_option("off")
    card(page, "tuned").get_by_role("button", name="Regenerate").click()
    card(page, "tuned").get_by_text("adapter off").wait_for()
    assert text_of(page, "tuned") == generated(llama, ask, "Hi.")
    assert facts(page, "tuned")[::2] == (identity(str(llama)), "off")


def test_another_template_is_picked_and_its_prompt_is_shown(
    serve: Serve, page: Any, save_model: Callable[..., Path], ask: Callable[..., Request]
) -> None:
    roomy = save_model("llama", context=4096)
    open_page(page, serve(("one", roomy)), "Hi.")
    first = text_of(page, "one")
    page.get_by_label("Template").select_option("urial")
    card(page, "one").get_by_role("button", name="Regenerate").click()
    card(page, "one").get_by_text("under template urial").wait_for()
    assert text_of(page, "one") == generated(roomy, ask, "Hi.", template="urial") != first
    card(page, "one").get_by_role("button", name="Prompt as sent").click()
    assert "# Query:\n```\nHi.\n```" in page.locator("pre").text_content()


def test_the_prompt_as_sent_marks_what_has_loss(serve: Serve, page: Any, llama: Path) -> None:
    open_page(page, serve(("one", llama)), "Hi.")
    first = text_of(page, "one")
    send(page, "Why?")
    second = text_of(page, "one", at=1)
    card(page, "one", at=1).get_by_role("button", name="Prompt as sent").click()
    parts = page.locator("pre span")
    assert parts.evaluate_all("all => all.map((one) => [one.className, one.textContent])") == [
        ["free", "<|user|>\nHi.\n<|assistant|>\n"],
        ["loss", f"{first.strip()}<|endoftext|>"],
        ["free", f"{first[len(first.rstrip()) :]}\n<|user|>\nWhy?\n<|assistant|>\n"],
        ["loss", second],
    ]


def test_an_answer_that_did_not_stop_is_red_and_one_that_did_is_not(
    serve: Serve, page: Any, llama: Path, save_model: Callable[..., Path]
) -> None:
    whole = load(str(llama))
    draft = whole.draft((Message(role="user", content="Hi."),), Sampling(max_new_tokens=9))
    whole.extend([draft], Sampling(max_new_tokens=9))
    stopping = save_model("llama", eos=[draft.generated[4]])
    open_page(page, serve(("one", llama), ("two", stopping)), "Hi.", tokens=9)
    text_of(page, "one"), text_of(page, "two")
    assert card(page, "one").locator(".foot").text_content().startswith("did not stop, 9 tokens in")
    assert card(page, "two").locator(".foot").text_content().startswith("stopped by itself, 5 tok")
    red = "one => getComputedStyle(one).color"
    alarm = page.evaluate("getComputedStyle(document.body).getPropertyValue('--alarm')")
    assert alarm == "#b3261e"
    assert card(page, "one").locator(".finish").evaluate(red) == "rgb(179, 38, 30)"
    assert card(page, "two").locator(".finish").evaluate(red) != "rgb(179, 38, 30)"


def test_tokens_are_read_and_another_way_is_taken(serve: Serve, page: Any, llama: Path) -> None:
    site = serve(("one", llama))
    open_page(page, site, "Hi.", tokens=12)
    first = text_of(page, "one")
    card(page, "one").get_by_role("button", name="Tokens").click()
    tokens = page.locator(".tokens button")
    tokens.first.wait_for()
    assert tokens.count() == 12
    assert "".join(tokens.all_text_contents()).replace("\u00b7", "") == first
    tokens.nth(3).click()
    rows = page.locator(".reading tr")
    assert rows.count() == 6
    assert "rank 1" in page.locator(".reading .facts").text_content()
    assert rows.nth(0).text_content().endswith("taken")
    rows.nth(1).get_by_role("button").click()
    card(page, "one").locator(".finish").wait_for()
    kept = list(site.playground.answers.values())
    assert kept[1].begin_ids[:3] == kept[0].ids[:3]
    assert kept[1].begin_ids[3] != kept[0].ids[3]
    assert text_of(page, "one") == kept[1].response != first


def test_hostile_text_of_a_model_does_nothing(serve: Serve, page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    site = serve(Saying("one", HOSTILE), Saying("two", HOSTILE))
    open_page(page, site, HOSTILE)
    assert text_of(page, "one") == HOSTILE
    page.get_by_role("button", name="Prompt as sent: one").click()
    page.locator("pre").wait_for()
    page.get_by_role("button", name="Tokens: two").click()
    page.locator(".tokens button").first.click()
    page.locator(".reading td").first.wait_for()
    assert page.title() == "Playground"
    parts = "document.querySelectorAll('main :is(script, img, svg, style, a, iframe)').length"
    assert page.evaluate(parts) == 0
    assert page.evaluate("document.forms.length") == 2
    assert page.locator("#composer").is_visible()
    assert {url.split("/")[2] for url in asked} == {f"127.0.0.1:{site.port}"}
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def focused(page: Any) -> str:
    """What names the element that has the focus."""
    script = (
        "(() => { const e = document.activeElement; return e.ariaLabel || e.id || "
        "e.name || e.className || e.textContent })()"
    )
    return str(page.evaluate(script))


def tab_to(page: Any, name: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise AssertionError(f"no way to {name}")


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_questions_and_settings_are_reached_with_the_keyboard(
    serve: Serve, page: Any, llama: Path, adapter: Path
) -> None:
    site = serve(("one", llama), ("two", adapter))
    page.goto(site.address)
    page.locator(".pane").first.wait_for()
    tab_to(page, "adapter")
    press(page, "ArrowDown")
    tab_to(page, "Sampling, stop strings, system message")
    press(page, "Enter")
    tab_to(page, "max_new_tokens")
    press(page, "Control+a", "1", "2")
    tab_to(page, "question")
    page.keyboard.type("Hi.")
    press(page, "Shift+Enter")
    page.keyboard.type("Why?")
    press(page, "Enter")
    assert text_of(page, "two")
    assert facts(page, "two")[2] == "off"
    assert page.locator(".question .text").text_content() == "Hi.\nWhy?"
    assert {one.sampling.max_new_tokens for one in site.playground.answers.values()} == {12}


def test_tokens_are_chosen_with_the_keyboard(serve: Serve, page: Any, llama: Path) -> None:
    site = serve(("one", llama))
    open_page(page, site, "Hi.", tokens=12)
    text_of(page, "one")
    tab_to(page, "Tokens: one")
    press(page, "Enter")
    page.locator(".tokens").wait_for()
    press(page, "Tab", "Tab")  # past the button of the code
    press(page, "ArrowRight", "ArrowRight", "Enter")
    assert "Token 3:" in page.locator(".reading").text_content()
    press(page, "Tab")
    assert focused(page).startswith("Continue from ")
    press(page, "Enter")
    card(page, "one").locator(".finish").wait_for()
    assert len(list(site.playground.answers.values())[-1].begin_ids) == 3


def test_votes_are_cast_with_the_keyboard_and_letters_in_the_box_are_text(
    serve: Serve, page: Any, llama: Path, gpt2: Path
) -> None:
    site = serve(("one", llama), ("two", gpt2))
    open_page(page, site)
    tab_to(page, "blind")
    press(page, "Enter")
    tab_to(page, "question")
    page.keyboard.type("abt")
    press(page, "Enter")
    page.locator(".ballot").wait_for()
    page.keyboard.type("tab")
    assert page.get_by_label("Message", exact=True).input_value() == "tab"
    assert site.votes == []
    press(page, "Tab", "a")
    page.get_by_text("Saved.").wait_for()
    assert [vote.choice for vote in site.votes] == [0]


LONG = "x" * 300 + " " + HOSTILE
NIGHTLY = pytest.mark.exhaustive


def open_everything(page: Any, site: Any) -> None:
    """A page with all of its parts open."""
    open_page(page, site, "Tell me a story. " + "y" * 200)
    for pane in ("one", "two", "three"):
        text_of(page, pane)
    page.get_by_role("button", name="Prompt as sent: two").click()
    page.get_by_role("button", name="Tokens: one").click()
    page.locator(".tokens button").nth(2).click()
    page.get_by_role("button", name="Add a pane").click()
    page.get_by_role("button", name="Edit: two").click()


def test_nothing_is_wider_than_the_screen(
    serve: Serve, page: Any, llama: Path, adapter: Path
) -> None:
    open_everything(page, serve(("one", llama), ("two", adapter), Saying("three", LONG)))
    for width in (320, 390, 700, 1000, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 390), ("dark", 1440), pytest.param("dark", 390, marks=NIGHTLY),
        pytest.param("light", 768, marks=NIGHTLY), pytest.param("light", 1440, marks=NIGHTLY),
    ],
)  # fmt: skip
def test_axe_finds_nothing(
    serve: Serve, chromium: Any, axe: str, llama: Path, adapter: Path, scheme: str, width: int
) -> None:
    # Tall, so that nothing overlaps; axe is injected, which the page's own policy does not allow.
    context = chromium.new_context(
        viewport={"width": width, "height": 4000}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    open_everything(page, serve(("one", llama), ("two", adapter), Saying("three", LONG)))
    assert violations(page, axe) == []
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="Blind vote").click()
    send(page, "Hi.")
    page.locator(".ballot").wait_for()
    assert violations(page, axe) == []
    context.close()


def test_the_page_prints_its_answers_and_no_controls(serve: Serve, page: Any, llama: Path) -> None:
    open_page(page, serve(("one", llama)), "Hi.")
    text_of(page, "one")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".answer .text").is_visible()
    assert not page.get_by_role("button").filter(visible=True).count()
    assert not page.locator("#composer").is_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"


def test_the_page_says_why_it_is_empty_without_scripts(
    serve: Serve, chromium: Any, llama: Path
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(serve(("one", llama)).address)
    assert page.locator("noscript p").is_visible()
    context.close()
