import contextlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

from response_tuning.artifacts import Completion, Message, Request, write_jsonl
from response_tuning.errors import ConfigError
from response_tuning.grade.raters.page import rating_app, serve_rating
from response_tuning.grade.raters.study import Session, TaskRating, make_study
from tests.fixtures.browser import too_wide, violations

VARIANTS = ("variant-of-instructions", "variant-of-responses")
HOSTILE = (
    "</div></section><script>document.title = 'owned'</script>"
    "<img src=x onerror=\"document.title = 'owned'\"></textarea></form></main>"
    "<form action='http://example.org/'><button>Save</button></form><style>body{display:none}"
    "</style><!-- ${document.title='owned'} {{ 7 * 7 }} {% raw %} &amp; &#60; \u202eodd\u202c "
    "\u2066open isolate \u2028\n\n\n  two  spaces\n\tand a tab \x00\x07 javascript:alert(1)"
)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Site(NamedTuple):
    """A rating page that is served to this test."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
            connection.request(method, path, body or None, {**kind, **headers})
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, named, reply.read().decode())

    def rate(self, number: int, **fields: str) -> Reply:
        """Send a whole form as a browser would, but for ``fields``."""
        page = self.ask("GET", f"/{number}").body
        (task,) = re.findall(r'name="task" value="(\w+)"', page)
        form = {
            "task": task, "level-0": "excellent", "level-1": "sufficient", "more_helpful": "left",
            "comment": "",
        }  # fmt: skip
        sent = {name.replace("_1", "-1"): value for name, value in fields.items()}
        whole = {name: value for name, value in (form | sent).items() if value != "LEFT OUT"}
        return self.ask("POST", f"/{number}", urlencode(whole), Origin=self.address)

    def verdicts(self) -> dict[int, TaskRating]:
        return Session(self.folder, "ann").verdicts


Serve = Callable[..., Site]


def asking(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.fixture
def serve(tmp_path: Path, completion: Callable[..., Completion]) -> Iterator[Serve]:
    """Serve a study of texts that each variant answered."""
    import uvicorn

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(*answers: tuple[str, ...], prompt: tuple[Message, ...] = asking("Why?")) -> Site:
        files = {}
        for name, texts in zip(VARIANTS, answers, strict=False):
            asked = [Request(item_id=f"i{i}", prompt=prompt) for i in range(len(texts))]
            files[name] = tmp_path / f"{name}.jsonl"
            write_jsonl(
                files[name], [completion(one, text) for one, text in zip(asked, texts, strict=True)]
            )
        make_study(tmp_path / "study", files)
        listener = socket.create_server(("127.0.0.1", 0))
        app = rating_app(Session(tmp_path / "study", "ann"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        return Site(tmp_path / "study", listener.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture
def site(serve: Serve) -> Site:
    return serve(("One.", "Two.", "Three."), ("Uno.", "Dos.", "Tres."))


def test_the_way_begins_at_the_first_unrated_task_and_goes_on_to_the_next(site: Site) -> None:
    assert site.ask("GET", "/").headers["location"] == "/1"
    reply = site.rate(1)
    assert (reply.status, reply.headers["location"]) == (303, "/2")
    assert site.rate(3).headers["location"] == "/2"
    assert site.ask("GET", "/").headers["location"] == "/2"
    assert site.ask("GET", "/rated").headers["location"] == "/2", "not all is rated"
    assert site.rate(2).headers["location"] == "/rated"
    assert "Everything is rated" in site.ask("GET", "/rated").body
    assert site.ask("GET", "/").headers["location"] == "/rated"


def test_what_was_sent_is_kept_and_shown_when_the_rater_comes_back(site: Site) -> None:
    site.rate(2, level_1="not acceptable", more_helpful="tie", comment="Hm.\r\nüñ <b> ")
    assert site.verdicts() == {
        1: TaskRating(
            levels=("excellent", "not acceptable"), more_helpful="tie", comment="Hm.\nüñ <b>"
        )
    }
    page = site.ask("GET", "/2").body
    chosen = re.findall(r'name="([\w-]+)" value="([\w ]+)" data-key="\w" required checked', page)
    assert sorted(chosen) == [
        ("level-0", "excellent"), ("level-1", "not acceptable"), ("more_helpful", "tie"),
    ]  # fmt: skip
    assert "Hm.\nüñ &lt;b&gt;</textarea>" in page
    assert "1 rated" in page
    site.rate(2, level_1="excellent")
    assert site.verdicts()[1].levels == ("excellent", "excellent")


def test_no_page_and_no_address_names_a_variant(site: Site) -> None:
    pages = [site.ask("GET", f"/{number}") for number in (1, 2, 3)]
    said = [site.rate(number) for number in (1, 2, 3)]
    for reply in (*pages, *said, site.ask("GET", "/rated"), site.ask("GET", "/rating.js")):
        whole = (reply.body + json.dumps(reply.headers)).lower()
        assert "variant" not in whole
        assert "ann" not in whole.split()


def test_all_that_a_page_needs_is_on_it_or_beside_it(site: Site) -> None:
    page = site.ask("GET", "/1").body
    needed = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sorted(needed) == ["/2", "/rating.css", "/rating.js"]
    for name, kind in (("/rating.css", "text/css"), ("/rating.js", "text/javascript")):
        reply = site.ask("GET", name)
        assert reply.headers["content-type"].startswith(kind)
        assert not re.search(r"https?:|url\(|@import|\beval\b|innerHTML", reply.body)


def test_the_policy_allows_no_script_or_style_on_the_page_itself(site: Site) -> None:
    reply = site.ask("GET", "/1")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<style|<script(?! src)|\son\w+=|style=|javascript:", reply.body)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "example.org:80", ""])
def test_a_name_that_was_made_to_point_here_is_not_served(site: Site, host: str) -> None:
    assert site.ask("GET", "/1", Host=host).status == 400
    assert site.ask("POST", "/1", "a=1", Host=host, Origin=f"http://{host}").status == 400


@pytest.mark.parametrize(
    "origin", ["http://example.org", "null", "http://127.0.0.1", "http://127.0.0.1:1", None]
)
def test_a_form_of_another_site_is_refused(site: Site, origin: str | None) -> None:
    page = site.ask("GET", "/1").body
    (task,) = re.findall(r'name="task" value="(\w+)"', page)
    form = {"task": task, "level-0": "excellent", "level-1": "excellent", "more_helpful": "tie"}
    headers = {} if origin is None else {"Origin": origin}
    assert site.ask("POST", "/1", urlencode(form), **headers).status == 403
    assert site.verdicts() == {}


def test_a_form_of_another_session_is_refused(site: Site) -> None:
    assert site.rate(1, task="0123456789abcdef").status == 409
    assert site.rate(1, task="LEFT OUT").status == 409
    assert site.verdicts() == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"level_1": "LEFT OUT"},
        {"more_helpful": "LEFT OUT"},
        {"level_1": "superb"},
        {"more_helpful": "both"},
        {"more_helpful": ""},
    ],
)
def test_half_a_form_is_refused(site: Site, fields: dict[str, str]) -> None:
    reply = site.rate(1, **fields)
    assert (reply.status, site.verdicts()) == (400, {})
    assert "go back and choose" in reply.body


def test_other_tasks_and_methods_and_huge_forms_are_refused(site: Site) -> None:
    assert site.ask("GET", "/0").status == 404
    assert site.ask("GET", "/4").status == 404
    assert site.ask("GET", "/..%2f..%2fstudy.json").status == 404
    assert site.ask("GET", "/rating.html.jinja").status == 404
    assert site.ask("POST", "/4", "task=x", Origin=site.address).status == 404
    assert site.ask("PUT", "/1", "task=x", Origin=site.address).status == 405
    assert site.rate(1, comment="x" * 70_000).status == 413
    assert site.verdicts() == {}


def test_texts_are_escaped_and_keep_their_white_space(serve: Serve) -> None:
    site = serve((HOSTILE,), ("\n  One.",), prompt=asking(HOSTILE))
    page = site.ask("GET", "/1").body
    shown = re.findall(r'<div class="text" dir="auto">(.*?)</div>', page, flags=re.DOTALL)
    assert {unescape(text) for text in shown} >= {"\n  One."}
    assert sum("<" not in text and "&lt;script&gt;" in text for text in shown) == 2
    assert page.count("<script") == page.count("<form") == page.count("</form>") == 1


def test_one_answer_alone_is_not_compared(serve: Serve) -> None:
    site = serve(("One.", " "))
    pages = "".join(site.ask("GET", f"/{number}").body for number in (1, 2))
    assert "more_helpful" not in pages
    assert "level-1" not in pages
    assert "This answer is empty." in pages
    assert site.rate(1, more_helpful="LEFT OUT", level_1="LEFT OUT").status == 303
    assert site.verdicts() == {0: TaskRating(levels=("excellent",))}


def test_every_turn_of_a_conversation_is_shown_with_its_role(serve: Serve) -> None:
    turns = (
        Message(role="system", content="Be brief."),
        *asking("Hi."),
        Message(role="assistant", content="Yes?"),
        *asking("Why?"),
    )
    page = serve(("So.",), prompt=turns).ask("GET", "/1").body
    shown = re.findall(r'<h2>(\w+)</h2>\s*<div class="text" dir="auto">(.*?)</div>', page)
    assert shown == [*((turn.role, turn.content) for turn in turns), ("Answer", "So.")]


def test_serving_ends_at_an_interrupt_and_says_where_the_page_is(
    tmp_path: Path, completion: Callable[..., Completion]
) -> None:
    asked = Request(item_id="i", prompt=asking("Why?"))
    write_jsonl(tmp_path / "rt.jsonl", [completion(asked, "One.")])
    make_study(tmp_path / "study", {"rt": tmp_path / "rt.jsonl"})
    script = (
        "import sys; from pathlib import Path\n"
        "from response_tuning.grade.raters.study import Session\n"
        "from response_tuning.grade.raters.page import serve_rating\n"
        "serve_rating(Session(Path(sys.argv[1]), 'ann'), 0, lambda url: print(url, flush=True))\n"
        "print('ended well', flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "study")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname == "127.0.0.1"
        assert address.port
        site = Site(tmp_path / "study", address.port)
        assert site.ask("GET", "/1").status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "ended well\n", "")


def test_importing_the_page_loads_no_server() -> None:
    probe = "import sys, response_tuning.grade.raters.page; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    heavy = {"starlette", "uvicorn", "jinja2", "sklearn", "statsmodels", "krippendorff", "numpy"}
    assert not heavy & {*loaded.stdout.split()}


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, site: Site) -> None:
    with pytest.raises(ConfigError, match=rf"port {site.port}: .* choose another, or 0"):
        serve_rating(Session(site.folder, "ann"), site.port)


class Browser:
    """Chromium, driven through its pipe: messages are JSON, each ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        read_there, self._write = os.pipe()
        self._read, write_there = os.pipe()
        arguments = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        # Chromium reads messages from descriptor 3 and writes them to 4.
        redirected = f'exec "$@" 3<&{read_there} 4>&{write_there}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", *arguments],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._number = 0
        self._received = b""
        self._loads = 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Page.enable")

    def close(self) -> None:
        self._session = {}
        self.call("Browser.close")
        self._process.wait(timeout=60)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "result" in reply, reply
                return dict(reply["result"])

    def open(self, address: str) -> None:
        self._loads = 0
        self.call("Page.navigate", url=address)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the page that was asked for since the last one, unless it is here already."""
        while not self._loads:
            self._next()
        self._loads -= 1

    def run(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        text = {"Enter": "\r", "Escape": "", "ArrowDown": ""}.get(key, key)
        code = {"Enter": 13, "Escape": 27, "ArrowDown": 40}.get(key, 0)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def chosen(self) -> dict[str, str]:
        pairs = "[...document.querySelectorAll('input:checked')].map((e) => [e.name, e.value])"
        return dict(self.run(pairs))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "the browser says nothing"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._received += part
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._loads += message.get("method") == "Page.loadEventFired"
        return message


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None or shutil.which("bash") is None:
        pytest.skip("there is no Chromium here")
    started = Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def page(browser: Browser) -> Browser:
    """The browser as a desk has it."""
    browser.size(1280, 800)
    browser.scheme("light")
    return browser


def test_what_a_model_said_is_text_to_a_browser(serve: Serve, page: Browser) -> None:
    site = serve((HOSTILE,), ("One.",), prompt=asking(HOSTILE))
    page.open(f"{site.address}/1")
    assert page.run("document.title") == "Task 1 of 1"
    assert page.run("document.querySelectorAll('img, style, b').length") == 0
    assert page.run("document.querySelectorAll('script, form, main, textarea').length") == 4
    texts = page.run("[...document.querySelectorAll('.text')].map((node) => node.textContent)")
    assert sorted(texts) == sorted(["One.", *[HOSTILE.replace("\x00", "")] * 2])
    laid_out = page.run("[...document.querySelectorAll('.text')].map((node) => node.innerText)")
    assert sum("\n\n\n  two  spaces\n\tand" in text for text in laid_out) == 2
    # Its marks of direction end with it: what stands behind is laid out from left to right.
    order = (
        "(() => { const legend = document.querySelector('legend').firstChild;"
        "const at = (i) => { const range = document.createRange(); range.setStart(legend, i);"
        "range.setEnd(legend, i + 1); return range.getBoundingClientRect().x; };"
        "return at(0) < at(5); })()"
    )
    assert page.run(order) is True


def test_keys_choose_and_save_and_go_on(site: Site, page: Browser) -> None:
    page.open(f"{site.address}/")
    for key in "26t":
        page.press(key)
    chosen = {"level-0": "sufficient", "level-1": "not acceptable", "more_helpful": "tie"}
    assert page.chosen() == chosen
    page.press("b")
    page.press("4")
    assert page.chosen() == {**chosen, "level-1": "excellent", "more_helpful": "right"}
    page.press("Enter")
    page.loaded()
    assert page.run("location.pathname") == "/2"
    assert site.verdicts() == {
        0: TaskRating(levels=("sufficient", "excellent"), more_helpful="right")
    }
    page.press("p")
    page.loaded()
    assert page.run("location.pathname") == "/1"
    assert page.chosen()["level-0"] == "sufficient", "what was said is there, to be changed"
    page.press("n")
    page.loaded()
    assert page.run("location.pathname") == "/2"


def test_keys_in_a_comment_are_letters(site: Site, page: Browser) -> None:
    page.open(f"{site.address}/1")
    page.press("c")
    for key in ("a", "1", "n", "Enter", "b"):
        page.press(key)
    assert page.run("document.querySelector('textarea').value") == "a1n\nb"
    assert page.chosen() == {}
    page.press("Escape")
    for key in ("1", "4", "a", "Enter"):
        page.press(key)
    page.loaded()
    assert site.verdicts()[0].comment == "a1n\nb"


def test_nothing_is_sent_before_all_is_chosen(site: Site, page: Browser) -> None:
    page.open(f"{site.address}/1")
    page.press("1")
    page.press("Enter")
    assert page.run("document.activeElement.name") in {"more_helpful", "level-1"}
    assert page.run("location.pathname") == "/1"
    assert site.verdicts() == {}


def test_a_key_that_the_browser_knows_too_saves_once(site: Site, page: Browser) -> None:
    page.open(f"{site.address}/1")
    for key in "15t":
        page.press(key)
    page.run("document.querySelector('input').focus()")
    page.press("Enter")
    page.loaded()
    assert page.run("location.pathname") == "/2"
    header, *ratings = (site.folder / "ratings" / "ann.jsonl").read_text().splitlines()
    assert "journal" in header
    assert len(ratings) == 1


def test_the_mouse_chooses_and_scrolling_keys_change_nothing(site: Site, page: Browser) -> None:
    page.open(f"{site.address}/1")
    for selector in ("input[data-key='1']", "input[data-key='6']", "input[data-key='a']"):
        page.click(selector)
    page.press("ArrowDown")
    chosen = {"level-0": "excellent", "level-1": "not acceptable", "more_helpful": "left"}
    assert page.chosen() == chosen
    page.click("button")
    page.loaded()
    assert site.verdicts()[0] == TaskRating(
        levels=("excellent", "not acceptable"), more_helpful="left"
    )


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_nothing_is_wider_than_the_screen(serve: Serve, page: Browser, width: int) -> None:
    site = serve(("x" * 3000,), (HOSTILE,), prompt=asking("y" * 500))
    page.size(width, 800)
    page.open(f"{site.address}/1")
    assert page.run("document.documentElement.scrollWidth") <= width
    side_by_side = page.run(
        "(([a, b]) => a.getBoundingClientRect().top === b.getBoundingClientRect().top)"
        "(document.querySelectorAll('.answers section'))"
    )
    assert side_by_side == (width > 900)


def test_the_page_is_dark_where_the_system_is(site: Site, page: Browser) -> None:
    colours = (
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    page.open(f"{site.address}/1")
    light = page.run(colours)
    page.scheme("dark")
    assert page.run(colours) != light
    assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") is True


def test_without_scripts_the_form_still_works(site: Site, page: Browser) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(f"{site.address}/1")
        for key in "15t":
            page.click(f"input[data-key='{key}']")
        page.click("button")
        page.loaded()
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert site.verdicts()[0] == TaskRating(levels=("excellent", "sufficient"), more_helpful="tie")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("answer", ["word " * 300, "https://example.org/" + "x" * 400])
def test_the_page_fits_a_desk_and_a_phone(
    serve: Serve, chromium: Any, width: int, answer: str
) -> None:
    site = serve((answer,), ("Uno.",), prompt=asking(answer))
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{site.address}/1")
    assert too_wide(page) == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(serve: Serve, chromium: Any, axe: str, scheme: str) -> None:
    site = serve(("One.",), ("Two.",), prompt=asking("Which?"))
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for path in ("", "/1"):
        page.goto(f"{site.address}{path}")
        assert violations(page, axe) == [], path
    page.close()
