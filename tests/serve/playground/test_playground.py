"""The page in a browser."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.models.inference import load
from response_tuning.models.location import identity
from response_tuning.serve.playground.prompts import Stretch
from response_tuning.serve.playground.records import Answer, Ask, Listener, Reply, Started
from response_tuning.serve.playground.surprise import Alternative, TokenReading

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


def facts(page: Any, pane: str, at: int = 0) -> tuple[str, str, str]:
    """Identity, template and adapter that a card says wrote its answer."""
    shown = card(page, pane, at).locator(".facts").first
    adapter = str(shown.text_content()).partition(", adapter ")[2]
    model = shown.locator(".model").get_attribute("title")
    return model, shown.locator(".template").get_attribute("title"), adapter


def proven(page: Any, known: dict[str, tuple[str, str]]) -> bool:
    """Whether every card shows the answer of the model that it names, as ``rtune generate`` has it.

    ``known`` is the text of each pane's model, and its identity.
    """
    right = [
        text_of(page, pane) == text and facts(page, pane)[0] == model
        for pane, (text, model) in known.items()
    ]
    return all(right) and page.get_by_text("Another model answered").count() == 0


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


def test_a_blind_vote_names_no_model_before_the_choice(
    serve: Serve, page: Any, llama: Path, gpt2: Path
) -> None:
    site = serve(("model-one", llama), ("model-two", gpt2))
    open_page(page, site)
    page.get_by_role("button", name="Blind vote").click()
    orders = set()
    for at in range(1, 13):
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
    assert len(orders) == 2, "the order is drawn"


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


def test_what_goes_wrong_is_said_in_the_card(serve: Serve, page: Any, llama: Path) -> None:
    open_page(page, serve(("one", llama)), "x" * 2000)
    page.get_by_text("leaves no room for a reply").wait_for()
    assert page.get_by_role("button", name="Send").is_enabled()


HOSTILE = (
    "</div></section></pre><script>document.title = 'owned'</script><img src=x onerror="
    "\"document.title = 'owned'\"><svg onload=\"document.title = 'owned'\"><style>body{display:none}"
    "</style><form action='http://example.org/'><button>Send</button></form><a href='javascript:"
    "document.title=1'>x</a><!-- ${document.title} {{ 7 * 7 }} &amp; \u202eodd \u2028\n  two  spaces"
)


class Saying:
    """A pane that says one text whatever it is asked, in pieces that cut its tags."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text

    def about(self) -> dict[str, Any]:
        return {
            "name": self.name, "kind": "local", "source": HOSTILE, "model": HOSTILE, "base": None,
            "template": HOSTILE, "template_digest": "t", "has_adapter": True, "context": None,
        }  # fmt: skip

    def answer(self, ask: Ask, listener: Listener) -> Reply:
        listener.started(
            Started(HOSTILE, HOSTILE, HOSTILE, "on", (Stretch(HOSTILE, supervised=False),), 3)
        )
        for at in range(0, len(self._text), 7):
            listener.text(self._text[at : at + 7])
        return Reply(self._text, "other", HOSTILE, 2, 3, (1, 2), HOSTILE)

    def read(self, answer: Answer) -> list[TokenReading]:
        other = Alternative(5, HOSTILE, 0.25)
        return [TokenReading(one, HOSTILE, 0.5, 1, (other,)) for one in answer.ids]


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


def test_everything_is_done_with_the_keyboard(
    serve: Serve, page: Any, llama: Path, adapter: Path
) -> None:
    site = serve(("one", llama), ("two", adapter))
    page.goto(site.address)
    page.locator(".pane").first.wait_for()

    def focused() -> str:
        return str(
            page.evaluate(
                "(() => { const e = document.activeElement; return e.ariaLabel || e.id || "
                "e.name || e.className || e.textContent })()"
            )
        )

    def tab_to(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if focused() == name:
                return
        raise AssertionError(f"no way to {name}")

    tab_to("adapter")
    page.keyboard.press("ArrowDown")
    tab_to("Sampling, stop strings, system message")
    page.keyboard.press("Enter")
    tab_to("max_new_tokens")
    page.keyboard.press("Control+a")
    page.keyboard.type("12")
    tab_to("question")
    page.keyboard.type("Hi.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Why?")
    page.keyboard.press("Enter")
    assert text_of(page, "two")
    assert facts(page, "two")[2] == "off"
    assert page.locator(".question .text").text_content() == "Hi.\nWhy?"
    tab_to("Tokens: one")
    page.keyboard.press("Enter")
    page.locator(".tokens").wait_for()
    page.keyboard.press("Tab")  # past the button of the code
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert "Token 3:" in page.locator(".reading").text_content()
    page.keyboard.press("Tab")
    assert focused().startswith("Continue from ")
    page.keyboard.press("Enter")
    card(page, "one").locator(".finish").wait_for()
    assert len(list(site.playground.answers.values())[-1].begin_ids) == 3
    tab_to("blind")
    page.keyboard.press("Enter")
    tab_to("question")
    page.keyboard.type("abt")  # letters in the box are text
    page.keyboard.press("Enter")
    page.locator(".ballot").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("a")
    page.get_by_text("Saved.").wait_for()
    assert len(site.votes) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_page_fits_its_screen_and_axe_finds_nothing(
    serve: Serve, chromium: Any, llama: Path, adapter: Path, scheme: str, width: int
) -> None:
    long = "x" * 300 + " " + HOSTILE
    site = serve(("one", llama), ("two", adapter), Saying("three", long))
    # Tall, so that nothing overlaps; axe is injected, which the page's own policy would not allow.
    context = chromium.new_context(
        viewport={"width": width, "height": 4000}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    open_page(page, site, "Tell me a story. " + "y" * 200)
    for pane in ("one", "two", "three"):
        text_of(page, pane)
    page.get_by_role("button", name="Prompt as sent: two").click()
    page.get_by_role("button", name="Tokens: one").click()
    page.locator(".tokens button").nth(2).click()
    page.get_by_role("button", name="Add a pane").click()
    page.get_by_role("button", name="Edit: two").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if (script := axe()) is not None:
        page.evaluate(script)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [
            (one["id"], [n["target"] for n in one["nodes"]]) for one in found["violations"]
        ] == []
    context.close()


def axe() -> str | None:
    """The script of axe-core, if ``AXE_CORE`` names it."""
    path = os.environ.get("AXE_CORE")
    return Path(path).read_text(encoding="utf-8") if path else None


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
