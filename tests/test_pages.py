import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import jinja2
import pytest

import response_tuning
from response_tuning.pages import environment, palette, picture

SOURCE = Path(response_tuning.__file__).parent
PAGES = [
    path
    for path in sorted(SOURCE.rglob("*.html.jinja"))
    if "{% block body %}" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a page and a Markdown file, both of which show a name."""
    page = '{% extends "pages.html.jinja" %}{% block title %}{{ name }}{% endblock %}'
    (tmp_path / "one.html.jinja").write_text(
        page + "{% block body %}<b>{{ name }}</b>{% endblock %}"
    )
    (tmp_path / "one.md.jinja").write_text("**{{ name }}**\n")
    return tmp_path


def test_text_is_escaped_on_a_page_and_not_in_markdown(folder: Path) -> None:
    templates = environment(folder)
    page = templates.get_template("one.html.jinja").render(name="<i>&")
    assert "<title>&lt;i&gt;&amp;</title>" in page
    assert "<b>&lt;i&gt;&amp;</b>" in page
    assert templates.get_template("one.md.jinja").render(name="<i>&") == "**<i>&**\n"


def test_a_name_that_a_page_lacks_is_an_error(folder: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        environment(folder).get_template("one.html.jinja").render()


def test_the_policy_allows_no_script_but_the_page_s_own(folder: Path) -> None:
    template = environment(folder).get_template("one.html.jinja")
    script = 'show("<&>");\n'
    page = template.render(name="x", script=script)
    assert f"<script>{script}</script>" in page
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "script-src" not in template.render(name="x")
    assert "<script" not in template.render(name="x")


def test_a_picture_is_in_the_page() -> None:
    assert picture("<svg/>") == "data:image/svg+xml;base64,PHN2Zy8+"


def luminance(colour: str) -> float:
    digits = colour * 2 if len(colour) == 3 else colour
    if len(colour) == 3:
        digits = "".join(digit * 2 for digit in colour)
    channels = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_ground(scheme: str) -> None:
    light, _, dark = palette().partition("@media screen")
    colours = dict(re.findall(r"--([a-z-]+): #([0-9a-f]+)", dark if scheme == "dark" else light))
    grounds = {
        "paper": ("ink", "quiet", "accent", "up", "down", "good", "alarm"),
        "soft": ("ink", "quiet"),
        "added": ("ink",),
        "removed": ("ink",),
        "accent": ("on-accent",),
    }
    for ground, texts in grounds.items():
        for text in texts:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_page_takes_its_colours_from_the_palette(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?<!&)#[0-9a-fA-F]{3,6}\b", text)
    assert '{% extends "pages.html.jinja" %}' in text


def test_every_page_is_made_in_the_one_environment() -> None:
    makers = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "jinja2.Environment(" in path.read_text(encoding="utf-8")
    }
    # The others make prompts and model cards, in plain text.
    prompts = ("refinement/prompt", "refinement/continuations", "refinement/screening")
    plain = {f"data/{name}.py" for name in (*prompts, "roles/requests")}
    plain |= {"finetune/model_card.py", "serve/export/card.py"}
    assert makers == {*plain, "pages.py"}
