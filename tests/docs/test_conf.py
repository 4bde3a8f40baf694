import os
import re
import sys
from pathlib import Path

import pytest
import yaml

import response_tuning
from tests.fixtures.processes import run_in_processes

pytest.importorskip("sphinx", reason="needs the extra `docs`")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run_sphinx(log: Path, words: list[str]) -> None:
    """Run ``sphinx-build`` in a process of its own, which prints to ``log``."""
    from sphinx.cmd.build import main

    written = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(written, stream)
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def build(builder: str, out: Path) -> Path:
    """Build the site as ``make docs`` does: a warning is an error."""
    words = ["-W", "--keep-going", "-q", "-b", builder]
    words += ["-d", str(out / "doctrees"), str(DOCS), str(out / "site")]
    codes = run_in_processes(run_sphinx, out / "log", words)
    assert codes == [0], (out / "log").read_text(encoding="utf-8")
    return out / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site: over 30 s of processor time, half of it for writing HTML."""
    return build("html", tmp_path_factory.mktemp("site"))


def test_the_pages_are_read_without_a_warning(tmp_path: Path) -> None:
    """Every link, table of contents and docstring is resolved; no page is written."""
    build("dummy", tmp_path)


def text(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


@pytest.mark.exhaustive
def test_every_page_of_the_folder_is_on_the_site_and_in_its_navigation(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    pages -= {Path("README.html")}
    assert {page for page in pages if not (site / page).exists()} == set()
    links = {
        Path(os.path.normpath(page.parent / link.partition("#")[0])).as_posix()
        for page in pages
        for link in re.findall(
            r'class="reference internal" href="([^"]*)"', (site / page).read_text(encoding="utf-8")
        )
    }
    assert {page.as_posix() for page in pages} - links <= {"index.html"}


@pytest.mark.exhaustive
def test_the_reference_has_every_command_setting_and_public_name(site: Path) -> None:
    commands = text(site / "reference" / "commands.html")
    assert "rtune data mix" in commands
    assert "--refusals" in commands
    settings = text(site / "reference" / "settings.html")
    assert "data.curation.near_duplicates" in settings
    assert "Jaccard of word triples, by MinHash" in settings
    library = (site / "reference" / "library.html").read_text(encoding="utf-8")
    missing = [name for name in response_tuning.__all__ if f'.{name}">' not in library]
    assert missing == []


@pytest.mark.exhaustive
def test_the_site_loads_nothing_from_elsewhere_and_names_no_folder_of_this_machine(
    site: Path,
) -> None:
    for page in site.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="([^"]+)"', content)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', content)
        assert not [one for one in loaded if "//" in one], page
        assert str(ROOT) not in content, page


def test_the_first_screen_has_the_words_that_people_search_for() -> None:
    first = (DOCS / "index.md").read_text(encoding="utf-8").lower().replace("**", "")
    for words in (
        "fine-tune without prompts",
        "fine-tune on answers only",
        "base model to an assistant",
        "style tuning",
        "tone of voice",
        "refusal tuning",
        "instruction tuning without instructions",
    ):
        assert words in first


@pytest.mark.parametrize(
    "page",
    [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_recipes_on_a_page_are_yaml(page: Path) -> None:
    for block in re.findall(
        r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        yaml.safe_load(block)  # or it raises
