import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from response_tuning.configs import DataConfig
from response_tuning.data.inspection.inspection import Inspection, inspect
from response_tuning.data.inspection.page import print_inspection, tables, write_page
from response_tuning.data.inspection.tallies import MOST_ENTRIES, Text, Top

EVIL = "<script>alert(1)</script> & [bold]\x1b[31m"


@pytest.fixture
def inspection(tmp_path: Path) -> Inspection:
    path = tmp_path / "mine <i>.csv"
    rows = ["Here is a poem about love:\nRoses are red.", "I can't help with that.", EVIL, EVIL]
    cells = "".join('"{}"\n'.format(row.replace('"', '""')) for row in rows)
    path.write_text(f"answer\n{cells}", encoding="utf-8")
    return inspect(DataConfig(source=str(path)))


def printed(inspection: Inspection, *, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, markup=False, width=60)
    print_inspection(inspection, console)
    return out.getvalue()


def test_the_page_escapes_all_text_and_loads_nothing(
    inspection: Inspection, tmp_path: Path
) -> None:
    write_page(inspection, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<i>" not in page
    assert "\x1b" not in page
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)


def test_the_page_and_the_terminal_say_the_same(inspection: Inspection, tmp_path: Path) -> None:
    write_page(inspection, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    output = printed(inspection, terminal=False)
    for table in tables(inspection):
        assert table.title in page
        assert table.title in output
    assert "4 responses in 4 rows" in page
    assert "4 responses in 4 rows" in output


def test_every_row_of_a_table_has_a_cell_for_each_column(inspection: Inspection) -> None:
    for table in tables(inspection):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title
        assert len(table.bars) in {0, len(table.rows)}, table.title


def test_without_a_terminal_the_lines_are_plain_and_unwrapped(inspection: Inspection) -> None:
    output = printed(inspection, terminal=False)
    assert "\x1b" not in output
    assert "1  25.0%  phrases" in output
    wide = f"{inspection.source['name']}:2  'Here is a poem about love:'"
    assert wide in output.splitlines()


def test_a_terminal_obeys_nothing_that_the_data_say(inspection: Inspection) -> None:
    output = printed(inspection, terminal=True)
    assert "\x1b[31m" not in output
    assert r"[bold]\x1b[31m" in output


def test_a_page_stays_small_whatever_the_data_are(tmp_path: Path, inspection: Inspection) -> None:
    top = Top(texts=(Text(count=2, text="<" * 200, where="<" * 200),) * MOST_ENTRIES, exact=False)
    full = inspection.model_copy(
        update={
            "repeated": top,
            "openings": top,
            "endings": top,
            "restatement_examples": top.texts,
            "personal_data_places": {
                k: ["<" * 200] * MOST_ENTRIES for k in ("e-mail", "phone", "key")
            },
            "languages": {f"{n:03}": 1 for n in range(150)},
        }
    )
    write_page(full, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 200_000
    assert "counts are lower bounds" in printed(full, terminal=False)


def test_many_languages_are_summed_up(inspection: Inspection) -> None:
    many = inspection.model_copy(update={"languages": {f"{n:03}": 1 for n in range(150)}})
    languages = next(table for table in tables(many) if table.title == "Languages")
    assert len(languages.rows) == MOST_ENTRIES + 1
    assert (languages.rows[-1][0], languages.rows[-1][-1]) == ("140", "others")


def test_the_same_inspection_gives_the_same_bytes(inspection: Inspection, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_page(inspection, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
