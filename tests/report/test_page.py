import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from response_tuning.metrics import Display
from response_tuning.pages import PAGE_BYTES
from response_tuning.report import About, Variant, report
from response_tuning.report_config import EquivalenceConfig, PrimaryConfig, ReportConfig

pytestmark = pytest.mark.usefixtures("plain_plots")

Grade = Callable[..., None]
Answer = Callable[..., None]
Add = Callable[..., None]

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- {{ 7 * 7 }}"
CONFIG = ReportConfig(
    baselines=("it",),
    primary=(PrimaryConfig(variant="rt", baseline="it", metric="strict"),),
    equivalence={"strict": EquivalenceConfig(margin=0.03, reason="More would be seen.")},
)
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
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data
        self.cells += [" ".join(data.split())] if data.strip() else []


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
    report(
        graded,
        VARIANTS,
        CONFIG,
        About(["Notes come later.", "<b>As they are.</b>"], [("command", "rtune run")]),
    )
    text = Elements(page(graded)).text
    parts = [
        "Report on run", "By strict, ", "95\xa0% interval", "Refusals over the number",
        "Where answers disagree",
        "Caveats", "Notes come later.", "<b>As they are.</b>", "Primary comparisons", "Results",
        "Against it", "By family", "At a glance", "Dose and response", "Slope",
        "Prompts and answers", "Provenance", "rtune run",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_tables_show_values_with_intervals_p_values_and_verdicts(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    text = " ".join(Elements(page(graded)).text.split())
    assert "75.0[55.1, 88.0]" in text
    assert "p 1.000" in text
    assert "\u2249" in text
    assert "a | <i>label</i>" in text


def test_the_page_asks_for_nothing_from_outside(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    found = Elements(page(graded))
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    assert "default-src 'none'" in page(graded)
    assert not {"link", "iframe"} & {*found.tags}


def test_a_report_without_baselines_series_and_groups_leaves_their_parts_out(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"correct": [1, 0]})
    report(run, [Variant("rt", "")], ReportConfig())
    text = Elements(page(run).partition("<script>")[0]).text
    for part in ("Against", "Dose and response", "By family", "disagree", "Provenance"):
        assert part not in text


def test_groups_of_other_benchmarks_are_shown_by_their_headline_with_weights(
    run: Path, grade: Grade
) -> None:
    drfr: list[float | tuple[float, float]] = [(1, 1), (0.5, 2), (0, 3), (1, 2)]
    grade("rt", {"drfr": drfr, "depth": [4, 5, 2, 1], "hit_limit": [0] * 4}, groups=("a_b", ""))
    grade("it", {"drfr": drfr[:1], "depth": [3], "hit_limit": [0]}, groups=("a_b", ""))
    report(run, VARIANTS[:2], CONFIG)
    text = "|".join(Elements(page(run)).cells)
    assert "|2 groups|depth|group|prompts|it|rt|no group|2|3.000|a b|2|3.000|3.000|drfr|" in text
    assert "|no group|2|75.0|a b|2|100.0|25.0|1 further metric|" in text
    assert "By family" not in text
    assert "At a glance" in text


def test_totals_are_in_the_tables_with_a_note_and_in_no_comparison(
    run: Path, grade: Grade, total: Add
) -> None:
    for seed in (0, 1):
        for name in ("it", "rt"):
            grade(name, {"win_rate": [name == "rt", 0, 1, 1] * 10}, seed=seed)
            low = 0.25 + seed / 10
            total(name, {"length_controlled_win_rate": (0.5, low, 0.75)}, seed=seed, note="<fit>")
    report(run, VARIANTS[:2], CONFIG)
    text = " ".join(Elements(page(run)).text.split())
    assert "50.0[30.0, 75.0]" in text
    assert (
        "quiz, length_controlled_win_rate: <fit>; means over seeds, of their values and of their "
        "limits." in text
    )
    results, comparisons = text.split("Against it on quiz", 1)
    assert "length controlled win rate" in results.split("Results")[1]
    assert "length controlled win rate" not in comparisons.split("At a glance")[0]
    assert "| rt | quiz | length_controlled_win_rate | 50.0 | [30.0, 75.0] | 0.0 | 3 | 3 | 2 |" in (
        run / "report" / "report.md"
    ).read_text(encoding="utf-8")


def test_many_benchmarks_of_many_metrics_make_narrow_tables_in_a_small_page(
    run: Path, grade: Grade, answer: Answer
) -> None:
    names = [f"bench-{letter}" for letter in "abcdefghijkl"]
    for place, variant in enumerate(VARIANTS):
        for name in names:
            further = {
                f"part_{k:02}": [int((i + k + place) % 3 > 0) for i in range(30)] for k in range(40)
            }
            ratings: dict[str, list[float]] = {
                "helpfulness": [1 + (i + place) % 5 for i in range(30)],
                "win_rate": [(i + place) % 3 / 2 for i in range(30)],
                "stopped": [1] * 30,
            }
            grade(variant.name, {**ratings, **further}, benchmark=name, groups=("x", "y"))
            answer(variant.name, ["so " * 500] * 30, benchmark=name)
    display = Display(("win_rate", "helpfulness"), {"helpfulness": (1, 5)})
    report(
        run,
        VARIANTS,
        ReportConfig(
            baselines=("it",),
        ),
        benchmarks=dict.fromkeys(names, display),
    )
    html = page(run)
    assert len(html.encode()) <= PAGE_BYTES
    text = "|".join(Elements(html).cells)
    assert "|variant|win rate|it|50.0|[" in text
    assert text.count("No variant can be told from another by helpfulness") == 12
    assert text.count("|2 groups|") == 12
    assert text.count("|41 further metrics|") == 12
    assert text.count("|part 39|") == 12
    assert max(map(len, re.findall(r"<tr>(?:<th[^>]*>[^<]*</th>)+</tr>", html))) < 600


def test_what_was_not_joined_is_on_the_page_and_in_markdown(graded: Path, grade: Grade) -> None:
    grade("rt", {"strict": [1, 1]})
    report(graded, VARIANTS, CONFIG)
    sentence = "quiz, rt against it: 22 scores of one have no partner"
    assert sentence in Elements(page(graded)).text
    assert f"- {sentence}" in (graded / "report" / "report.md").read_text(encoding="utf-8")


def test_markdown_has_the_tables_and_no_broken_rows(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG, About(["One\nnote."]))
    text = (graded / "report" / "report.md").read_text(encoding="utf-8")
    assert "- One note." in text
    assert "By strict, **rt** is " in text
    assert r"| it | a \| &lt;i>label&lt;/i> |" in text
    assert "| it | quiz | strict | 75.0 | [55.1, 88.0] |  | 24 | 24 | 1 |" in text
    assert re.search(
        r"^\| it \| rt \| quiz \| strict \| 0\.0 \| \[.*\| inconclusive \(primary\) \|", text, re.M
    )
    assert re.search(r"^\| rt \| unsafe \| refusal \| 0, 9 \| 0\.0, 100\.0 \|", text, re.M)
    assert "Nothing was left out: all variants have scores for the same prompts." in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1


def test_what_a_model_said_cannot_become_part_of_the_page(
    run: Path, grade: Grade, answer: Answer
) -> None:
    grade("rt", {"correct": [1]}, groups=(HOSTILE,))
    answer("rt", [HOSTILE], prompt=HOSTILE)
    report(run, [Variant("rt", HOSTILE)], ReportConfig(), About([HOSTILE], [(HOSTILE, HOSTILE)]))
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
    report(run, [Variant("rt", "")], ReportConfig())
    size = len(page(run).encode())
    assert 0.9 * PAGE_BYTES < size <= PAGE_BYTES
    assert re.search(r"the first \d\d of 90 prompts are shown", Elements(page(run)).text)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


COLLECT = """
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const shown = document.createElement("pre");
    shown.textContent = frame.contentDocument.documentElement.outerHTML;
    document.body.append(shown);
  }
});
"""


def opened(run: Path, *filters: dict[str, str]) -> list[str]:
    """Return the page as a browser shows it, once for each of ``filters``; one start shows all."""
    assert BROWSER
    frames = [f'<iframe src="report.html#{escape(urlencode(each))}"></iframe>' for each in filters]
    frame_page = run / "report" / "frames.html"
    frame_page.write_text(f"{''.join(frames)}<script>{COLLECT}</script>", encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    address = frame_page.resolve().as_uri()
    done = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={run / 'profile'}", "--dump-dom", address],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    shown = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", done.stdout, re.S)]
    assert len(shown) == len(filters)
    return shown


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@needs_browser
def test_in_a_browser_the_filters_choose_what_is_shown(graded: Path) -> None:
    report(graded, VARIANTS, CONFIG)
    pair = {"a": "it", "b": "rt"}
    everything, group, text, differ, agree = opened(
        graded,
        {},
        {"group": "sums"},
        {"text": "RT-9 says 23"},
        {**pair, "by": "strict", "page": "2"},
        {**pair, "by": "correct"},
    )
    assert "24 of 24 prompts, page 1 of 3" in everything
    assert "12 of 24 prompts" in group
    assert ">1 of 24 prompts" in text
    assert "12 of 24 prompts, page 2 of 2" in differ
    assert differ.count('class="card chosen') == 4
    assert ">0 of 24 prompts" in agree


@needs_browser
def test_in_a_browser_hostile_text_is_text(run: Path, grade: Grade, answer: Answer) -> None:
    grade("rt", {"correct": [1]}, groups=(HOSTILE,))
    answer("rt", [HOSTILE], prompt=HOSTILE)
    report(run, [Variant("rt", HOSTILE)], ReportConfig(), About([HOSTILE], [(HOSTILE, HOSTILE)]))
    (shown,) = opened(run, {})
    assert "<title>Report on run</title>" in shown
    found = Elements(shown)
    assert found.text.count(HOSTILE) >= 4  # note, label, prompt, answer
    assert "x" not in found.addresses
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', shown, re.S)
    assert data
    assert json.loads(data[1])["items"][0]["texts"] == [HOSTILE]


PRIMARY = ReportConfig(
    baselines=("it",),
    primary=(PrimaryConfig(variant="rt", baseline="it", metric="strict"),),
    equivalence={"strict": EquivalenceConfig(margin=0.2, reason="More would be seen.")},
)


def test_the_headline_covers_all_benchmarks_and_names_those_that_lack_scores(
    run: Path, grade: Grade
) -> None:
    for name, right in (("it", 190), ("rt", 190)):
        grade(name, {"strict": [1] * right + [0] * 10}, benchmark="a")
    for name, right in (("it", 190), ("rt", 100)):
        grade(name, {"strict": [1] * right + [0] * (200 - right)}, benchmark="b")
    grade("it", {"strict": [1] * 9}, benchmark="c")
    report(run, [Variant("it", ""), Variant("rt", "")], PRIMARY)
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    for sentence in (
        "- Equivalent on a; lower on b; not compared on c.",
        "- Not equivalent within 20.0 points: shown on 1 of 3 benchmarks.",
        "- Why this margin: More would be seen.",
        "- One seed: no information on how much training varies; intervals cover the choice of "
        "prompts alone.",
        "- rt and it are no twins: neither has a tuned model here.",
    ):
        assert f"{sentence}\n" in text
        assert sentence.removeprefix("- ") in Elements(page(run)).text


def test_the_headline_of_three_seeds_says_how_much_they_differ(run: Path, grade: Grade) -> None:
    for seed, right in enumerate((150, 160, 170)):
        grade("it", {"strict": [1] * 160 + [0] * 40}, seed=seed)
        grade("rt", {"strict": [1] * right + [0] * (200 - right)}, seed=seed)
    report(run, [Variant("it", ""), Variant("rt", "")], PRIMARY)
    text = Elements(page(run)).text
    assert "3 seeds: intervals cover prompts and seeds." in text
    assert "Standard deviation of the difference between seeds: 5.0 on quiz." in text
    assert "no information on how much training varies" not in text
