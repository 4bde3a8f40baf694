import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(path.stem for path in (DOCS / "concepts").glob("*.svg"))


def test_the_pictures_are_what_the_script_draws(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "drawings.py"))["main"](tmp_path)
    drawn = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {name: (DOCS / "concepts" / f"{name}.svg").read_bytes() for name in PICTURES}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_both_colour_schemes_and_nothing_beyond_its_edges(name: str) -> None:
    content = (DOCS / "concepts" / f"{name}.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in content
    root = ElementTree.fromstring(content)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for shape in root.iter("{http://www.w3.org/2000/svg}rect"):
        place = {key: float(shape.attrib.get(key, 0)) for key in ("x", "y", "width", "height")}
        assert place["x"] + place["width"] <= width, ElementTree.tostring(shape)
        assert place["y"] + place["height"] <= height, ElementTree.tostring(shape)


def test_there_are_at_most_ten_concepts_and_each_begins_with_its_picture() -> None:
    pages = [path for path in (DOCS / "concepts").glob("*.md") if path.stem != "README"]
    assert sorted(path.stem for path in pages) == PICTURES
    assert len(pages) <= 10
    for page in pages:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(rf"!\[.+\]\({page.stem}\.svg\)", lines[2]), page
