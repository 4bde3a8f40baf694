"""Every page of one file in a browser: it fits a desk and a phone, and its script works."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import (
    Completion,
    Example,
    Message,
    Sampling,
    Score,
    write_json,
    write_jsonl,
)
from response_tuning.configs import DataConfig, RefinementConfig
from response_tuning.data.inspection.inspection import inspect
from response_tuning.data.inspection.page import write_page as write_inspection
from response_tuning.data.refinement.page import write_page as write_refinement
from response_tuning.data.refinement.tally import Refinement
from response_tuning.probe.page import (
    METRIC_LABELS,
    Interval,
    ProbedModel,
    ProbeExample,
    ProbeReport,
)
from response_tuning.probe.page import write_page as write_probe
from response_tuning.probe.template_fit import TemplateFit, rate_templates
from response_tuning.probe.templates_page import TemplateRow, TemplatesReport, write_templates_page
from response_tuning.report import About, Variant, report
from response_tuning.report_config import EquivalenceConfig, PrimaryConfig, ReportConfig
from response_tuning.rewriting import POLICIES
from tests.fixtures.browser import too_wide, violations

LONG_WORD = "https://example.org/" + "x" * 300
PROSE = "A sentence of some words. " * 30
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"
NAMES = [f"variant-{letter}-of-a-long-name" for letter in "abcd"]
METRICS = ("strict", "correct", "refusal", *(f"a_rather_long_metric_{n}" for n in range(9)))


def _report(folder: Path) -> Path:
    run = folder / "run"
    for place, name in enumerate(NAMES):
        scores = [
            Score(
                item_id=f"q{item}",
                metric=metric,
                value=float((item + place + len(metric)) % (3 + place) > 1),
                group=f"family_{item % 20}",
                explanation=LONG_WORD if metric == "strict" else "",
            )
            for item in range(40)
            for metric in METRICS
        ]
        answers = [
            Completion(
                item_id=f"q{item}",
                prompt=(Message(role="user", content=f"{LONG_WORD} {HOSTILE}"),),
                response=LONG_WORD if item % 2 else f"{name} says {item % (2 + place)}. {HOSTILE}",
                finish_reason="stop",
                key=str(item),
                model=name,
                template="tulu",
                sampling=Sampling(),
            )
            for item in range(40)
        ]
        for benchmark in ("seen", "a-benchmark-of-a-long-name"):
            write_jsonl(run / name / "seed-0" / "grade" / f"{benchmark}.jsonl", scores)
            write_jsonl(run / name / "seed-0" / "generate" / f"{benchmark}.jsonl", answers)
    variants = [Variant(name, LONG_WORD, "series", place) for place, name in enumerate(NAMES)]
    config = ReportConfig(
        baselines=(NAMES[0], NAMES[1]),
        primary=tuple(
            PrimaryConfig(variant=NAMES[2], baseline=baseline, metric="strict")
            for baseline in NAMES[:2]
        ),
        equivalence={"strict": EquivalenceConfig(margin=0.03, reason=LONG_WORD)},
    )
    report(run, variants, config, About([LONG_WORD, PROSE], [("command", LONG_WORD)]))
    return run / "report" / "report.html"


def _inspection(folder: Path) -> Path:
    rows = [LONG_WORD, PROSE, PROSE, "Write to anna.smith@acme.com.", f"I can't. {HOSTILE}"]
    source = folder / ("a-long-name-" * 8 + ".jsonl")
    write_jsonl(source, [Example(row=n, response=text) for n, text in enumerate(rows)])
    page = folder / "inspection.html"
    write_inspection(inspect(DataConfig(source=str(source))), page)
    return page


def _refinement(folder: Path) -> Path:
    records = [
        Refinement(
            row=row, turn=0, outcome="refined" if row else "no-marker", used="original", asked=1,
            original=f"{LONG_WORD} {PROSE}",
            refined=f"{PROSE} {LONG_WORD} {HOSTILE}" if row else None,
            finish_reason="stop", tokens=7, prompt_tokens=70, error=None, key=f"k{row}",
        )
        for row in range(3)
    ]  # fmt: skip
    config = RefinementConfig().model_dump(mode="json") | {"policies": dict(POLICIES)}
    outcomes = dict.fromkeys(["refined", *POLICIES], 0) | {"refined": 2, "no-marker": 1}
    summary = {
        "responses": 3, "outcomes": outcomes, "used": {"refined": 0, "original": 3, "nothing": 0},
        "words": {"original": 10.0, "refined": 12.5, "median_ratio": 1.25},
        "refusals": {"original": 2, "left": 1}, "model": LONG_WORD, "config": config,
    }  # fmt: skip
    write_jsonl(folder / "refinements.jsonl", records)
    write_json(folder / "refinement.json", summary)
    write_refinement(folder)
    return folder / "page.html"


_INTERVALS = {metric: Interval(0.8, 0.7, 0.9, 3) for metric in METRIC_LABELS}
_RATED = rate_templates([TemplateFit("tulu", -0.2, -1.2), TemplateFit("x" * 60, -3.0, -4.0)])


def _probe(folder: Path) -> Path:
    found = ProbeReport(
        ranking="weak",
        template="tulu",
        templates=_RATED,
        models=[ProbedModel(name, _INTERVALS) for name in (LONG_WORD, "tuned", "another")],
        examples=[ProbeExample(float(n), LONG_WORD, f"{PROSE} {HOSTILE}") for n in range(6)],
        differences=[LONG_WORD],
        notes=[LONG_WORD],
        confidence=0.95,
    )
    write_probe(found, folder / "probe.html")
    return folder / "probe.html"


def _templates(folder: Path) -> Path:
    rows = [TemplateRow(one, "none", _INTERVALS) for one in _RATED]
    found = TemplatesReport(LONG_WORD, f"Nothing suits {LONG_WORD}.", rows, [LONG_WORD])
    write_templates_page(found, folder / "templates.html")
    return folder / "templates.html"


def _shown(folder: Path) -> Path:
    from transformers import AutoTokenizer

    from response_tuning.finetune import show
    from response_tuning.finetune.encoding import Encoder
    from response_tuning.templates import Chat, install

    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parent / "assets" / "tiny_tokenizer")
    install(tokenizer, "tulu")
    chat = Chat(tokenizer)
    write_jsonl(folder / "dropped.jsonl", [])
    write_json(folder / "audit.json", {"rows": 2})
    texts = (LONG_WORD, f"{PROSE * 3} {HOSTILE}")
    rows = [Example(row=n, instruction=LONG_WORD, response=text) for n, text in enumerate(texts)]
    encoded = Encoder(chat, "instruction-tuning", 5000).rows(rows)
    view = show.overview(show.entries(encoded, folder), folder, show=9)
    show.write_html(view, chat, folder / "show.html", LONG_WORD, lambda _: ["e-mail"])
    return folder / "show.html"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "report": _report,
    "inspect": _inspection,
    "refine": _refinement,
    "probe": _probe,
    "templates": _templates,
    "show": _shown,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a page at its first use."""
    pages: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in pages:
            pages[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return pages[name]

    return make


Open = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any, made: Callable[[str], Path]) -> Iterator[Open]:
    """Open a page; a complaint of the browser, such as of its content policy, fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_(name: str, width: int = 1280, **how: Any) -> Any:
        how = {"viewport": {"width": width, "height": 900}} | how
        contexts.append(chromium.new_context(**how))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(made(name).resolve().as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", MAKERS)
def test_no_page_is_wider_than_a_desk_or_a_phone(opened: Open, name: str, width: int) -> None:
    page = opened(name, width)
    # Boxes of tables may scroll on a phone; on a desk, all that is open fits.
    assert too_wide(page, boxes=width == 1280) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert too_wide(page) == []
    assert page.title() != "owned"


A4 = 718
"""Width of a sheet in CSS pixels, without margins of 1 cm."""


@pytest.mark.parametrize("name", MAKERS)
def test_on_paper_nothing_is_cut_and_text_is_dark(opened: Open, name: str) -> None:
    page = opened(name, A4, color_scheme="dark")
    page.emulate_media(media="print")
    assert too_wide(page, boxes=True) == []
    ink = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert max(map(int, re.findall(r"\d+", ink)[:3])) < 128


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
@pytest.mark.parametrize("name", MAKERS)
def test_axe_finds_nothing(opened: Open, axe: str, name: str, scheme: str, width: int) -> None:
    page = opened(name, width, color_scheme=scheme, bypass_csp=True)
    assert violations(page, axe) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert violations(page, axe) == []


def test_the_report_s_answers_come_sorted_by_disagreement_with_their_reasons(opened: Open) -> None:
    page = opened("report")
    first = page.locator("#items article").first
    assert first.locator(".card mark").count() > 0
    assert "strict: yes" in first.inner_text() and "strict: no" in first.inner_text()
    first.locator("summary", has_text="why").first.click()
    assert LONG_WORD in first.locator("details[open] pre").first.inner_text()
    page.locator("select[name=order]").select_option("file")
    assert "q0" in page.locator("#items article small").first.inner_text()


def test_a_table_is_copied_as_markdown_and_as_latex(opened: Open) -> None:
    page = opened("report", permissions=["clipboard-read", "clipboard-write"])
    tools = page.locator(".tools").first
    copied = []
    for name in ("Markdown", "LaTeX"):
        tools.get_by_role("button", name=name).click()
        tools.get_by_role("button", name="Copied").wait_for()
        copied.append(page.evaluate("navigator.clipboard.readText()"))
        tools.get_by_role("button", name=name).wait_for()
    lines = copied[0].splitlines()
    assert lines[0].startswith(
        "| benchmark | variant-c-of-a-long-name | variant-a-of-a-long-name |"
    )
    assert lines[1].startswith("|---|---:|---:|")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert copied[1].startswith("\\begin{tabular}{lrrrr")
    assert copied[1].count("\\\\") == len(lines) - 1


def test_a_figure_is_downloaded_in_three_formats(opened: Open) -> None:
    page = opened("report")
    begins = {"SVG": b"<?xml", "PNG": b"\x89PNG", "PDF": b"%PDF"}
    for name, magic in begins.items():
        with page.expect_download() as waiting:
            page.locator(".downloads").first.get_by_role("link", name=name).click()
        assert waiting.value.suggested_filename == f"dose-response.{name.lower()}"
        assert Path(waiting.value.path()).read_bytes().startswith(magic)


def test_long_rows_are_folded_on_a_phone_alone(opened: Open) -> None:
    assert opened("show", 1280).locator("details.long[open]").count() == 1
    assert opened("show", 390).locator("details.long[open]").count() == 0
    assert opened("show", 390).locator("details.long").count() == 1


def test_rewrites_are_rejected_on_the_page_and_saved_as_a_file(opened: Open) -> None:
    page = opened("refine")
    page.locator("article[data-row='2']").get_by_label("accept").check()
    assert (
        "1 decided here, 1 rejected in all; not saved yet" in page.locator("#decided").inner_text()
    )
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save decisions").click()
    saved = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert saved == '{"row":2,"turn":0,"key":"k2","accept":true}\n'
    assert "not saved" not in page.locator("#decided").inner_text()
