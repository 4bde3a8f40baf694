import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from response_tuning.configs import ReportConfig
from response_tuning.report import Variant, report
from response_tuning.report.page import PAGE_BYTES

Grade = Callable[..., None]
Answer = Callable[..., None]

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- {{ 7 * 7 }}"
CONFIG = ReportConfig(baselines=("it",), resamples=200)
VARIANTS = [
    Variant("it", "a | <i>label</i>"),
    Variant("rt", "", "rt", 0),
    Variant("rt-9", "", "rt", 9),
]


class Elements(HTMLParser):
    """Collects the tags, the attributes and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def graded(run: Path, grade: Grade, answer: Answer) -> Path:
    families = ("sums", "names")
    for place, variant in enumerate(VARIANTS):
        right = [int((item + place) % 4 > 0) for item in range(24)]
        grade(variant.name, {"strict": right, "correct": [1] * 24}, groups=families)
        answer(variant.name, [f"{variant.name} says {item}" for item in range(24)])
        grade(variant.name, {"refusal": [place > 1] * 12}, benchmark="unsafe")
    return run


def page(run: Path) -> str:
    return (run / "report" / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_its_parts_in_order(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG, ["Notes come first.", "<b>As they are.</b>"])
    text = Elements(page(graded)).text
    parts = [
        "Report on run", "Notes come first.", "<b>As they are.</b>", "Results", "Comparisons",
        "Against it", "Accuracy", "Dose and response", "Cochran-Armitage", "Accuracy by family",
        "Prompts and answers",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_tables_show_values_with_intervals_p_values_and_verdicts(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    text = " ".join(Elements(page(graded)).text.split())
    assert "75.0[55.1, 88.0]" in text
    assert "p 1.000 M" in text
    assert "\u2249" in text
    assert "a | <i>label</i>" in text


def test_the_page_asks_for_nothing_from_outside(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    found = Elements(page(graded))
    assert found.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in found.addresses)
    assert "default-src 'none'" in page(graded)
    assert not {"link", "iframe"} & {*found.tags}


def test_a_report_without_baselines_series_and_groups_leaves_their_parts_out(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"correct": [1, 0]})
    report(run, [Variant("rt", "")], ReportConfig(equivalence=(), resamples=100))
    text = Elements(page(run)).text
    for part in ("Comparisons", "Dose and response", "Accuracy by family", "not joined"):
        assert part not in text


def test_what_was_not_joined_is_on_the_page_and_in_markdown(graded: Path, grade: Grade) -> None:
    grade("rt", {"strict": [1, 1]})
    report(graded, VARIANTS, CONFIG)
    sentence = "quiz, rt against it: 22 scores of one have no partner"
    assert sentence in Elements(page(graded)).text
    assert f"- {sentence}" in (graded / "report" / "report.md").read_text(encoding="utf-8")


def test_markdown_has_the_tables_and_no_broken_rows(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG, ["One\nnote."])
    text = (graded / "report" / "report.md").read_text(encoding="utf-8")
    assert "- One note." in text
    assert r"| it | a \| &lt;i>label&lt;/i> |" in text
    assert "| it | quiz | strict | 75.0 | [55.1, 88.0] | 24 | 1 |" in text
    assert re.search(r"^\| it \| rt \| quiz \| strict \| 0\.0 \| \[.*not shown, p ", text, re.M)
    assert re.search(r"^\| rt \| unsafe \| refusal \| 0, 9 \| 0\.0, 100\.0 \|", text, re.M)
    assert "Nothing: all variants have scores of the same prompts." in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1


def test_what_a_model_said_cannot_become_part_of_the_page(
    run: Path, grade: Grade, answer: Answer
) -> None:
    grade("rt", {"correct": [1]}, groups=(HOSTILE,))
    answer("rt", [HOSTILE], prompt=HOSTILE)
    report(run, [Variant("rt", HOSTILE)], ReportConfig(resamples=100), [HOSTILE])
    found = Elements(page(run))
    assert "img" in found.tags  # the plot
    assert found.tags.count("script") == 2
    assert "x" not in found.addresses
    assert found.text.count("{{ 7 * 7 }}") >= 2  # the note and the label


def test_a_page_of_many_long_answers_stays_below_its_limit_and_says_so(
    run: Path, grade: Grade, answer: Answer
) -> None:
    grade("rt", {"correct": [1] * 90})
    answer("rt", ["\u00fc" * 30_000] * 90)
    report(run, [Variant("rt", "")], ReportConfig(resamples=100))
    size = len(page(run).encode())
    assert 0.9 * PAGE_BYTES < size <= PAGE_BYTES
    assert re.search(r"the first \d\d of 90 prompts are shown", Elements(page(run)).text)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def opened(run: Path, **filters: str) -> str:
    """Return the page as a browser shows it."""
    assert BROWSER
    address = f"{(run / 'report' / 'report.html').resolve().as_uri()}#{urlencode(filters)}"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={run / 'profile'}")
    done = subprocess.run(
        [BROWSER, *flags, "--dump-dom", address],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@needs_browser
def test_in_a_browser_the_filters_choose_what_is_shown(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    assert "24 of 24 prompts, page 1 of 3" in opened(graded)
    assert "12 of 24 prompts" in opened(graded, group="sums")
    assert "1 of 24 prompts" in opened(graded, text="RT-9 says 23")
    differ = opened(graded, a="it", b="rt", by="strict", page="2")
    assert "12 of 24 prompts, page 2 of 2" in differ
    assert differ.count('class="answer chosen"') == 4
    assert "0 of 24 prompts" in opened(graded, a="it", b="rt", by="correct")


@needs_browser
def test_in_a_browser_hostile_text_is_text(run: Path, grade: Grade, answer: Answer) -> None:
    grade("rt", {"correct": [1]}, groups=(HOSTILE,))
    answer("rt", [HOSTILE], prompt=HOSTILE)
    report(run, [Variant("rt", HOSTILE)], ReportConfig(resamples=100), [HOSTILE])
    shown = opened(run)
    assert "<title>Report on run</title>" in shown
    found = Elements(shown)
    assert found.text.count(HOSTILE) >= 4  # note, label, prompt, answer
    assert "x" not in found.addresses
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', shown, re.S)
    assert data
    assert json.loads(data[1])["items"][0]["texts"] == [HOSTILE]
