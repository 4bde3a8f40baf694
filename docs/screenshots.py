"""Take the screenshots of the docs: ``python docs/screenshots.py RUN``, with the run of the demo.

It needs Playwright and a Chromium: ``pip install playwright`` and, on Debian, ``apt-get install
chromium``. The pictures are drawn by what the page shows, so take them again when it changes.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "how-to"
PRESET = "miniature-unseen"
"""The benchmark whose first prompt is asked."""


@contextmanager
def served(run: Path, out: Path) -> Iterator[str]:
    """Serve the playground of a run, and yield its address."""
    command = [sys.executable, "-m", "response_tuning", "playground", str(run), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(line.split()[0] for line in process.stdout if line.startswith("http"))
        try:
            yield address
        finally:
            process.send_signal(signal.SIGINT)


def main() -> None:
    """Take every screenshot."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(sys.argv[1]), Path(folder) / "out") as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        compare(browser, address)
        vote(browser, address)
        browser.close()


def opened(browser: Any, address: str, width: int, scheme: str) -> Any:  # noqa: ANN401
    """Return a page whose question is the first of the preset."""
    page = browser.new_page(viewport={"width": width, "height": 860}, color_scheme=scheme)
    page.goto(address)
    page.locator(".pane").first.wait_for()
    page.locator("#preset").select_option(PRESET)
    page.get_by_label("Prompt of the preset").wait_for()
    return page


def compare(browser: Any, address: str) -> None:  # noqa: ANN401
    """Three panes, with the prompt as sent and the tokens of one answer."""
    page = opened(browser, address, 1280, "light")
    page.get_by_role("button", name="Send").click()
    page.locator(".finish").nth(2).wait_for()
    page.get_by_role("button", name="Prompt as sent: base").click()
    page.get_by_role("button", name="Tokens: rt").click()
    page.locator(".tokens button").nth(1).click()
    page.locator(".reading table").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.locator("#composer").evaluate("(form) => (form.style.position = 'static')")
    page.screenshot(path=HERE / "playground.png", full_page=True)


def vote(browser: Any, address: str) -> None:  # noqa: ANN401
    """A blind round on a phone, in the dark."""
    page = opened(browser, address, 390, "dark")
    page.get_by_role("button", name="Blind vote").click()
    page.get_by_role("button", name="Send").click()
    page.locator(".ballot").wait_for()
    page.screenshot(path=HERE / "playground-vote.png", full_page=True)


if __name__ == "__main__":
    main()
