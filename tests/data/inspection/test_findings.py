import json
from pathlib import Path

import pytest

from response_tuning.configs import DataConfig
from response_tuning.data.inspection.findings import Finding, findings
from response_tuning.data.inspection.inspection import Inspection, inspect
from response_tuning.data.inspection.page import tables, write_page


def inspected(tmp_path: Path, *rows: dict[str, str]) -> Inspection:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return inspect(DataConfig(source=str(path)))


@pytest.fixture
def mixed(tmp_path: Path) -> Inspection:
    """Responses with something to find of each severity."""
    mail = "Write to anna.smith@acme.com, please, and we answer within two days."
    answers = [mail, mail.replace("anna", "bert"), "I can't help with that."]
    return inspected(
        tmp_path,
        *({"instruction": f"Question {n}", "response": answer} for n, answer in enumerate(answers)),
        {"instruction": "Tea?", "response": "Tea?"},
        *({"instruction": "Hot?", "response": "It is hot."} for _ in range(2)),
    )


def test_findings_come_by_severity_and_each_names_what_changes_it(mixed: Inspection) -> None:
    found = [(one.severity, one.responses, one.fix) for one in findings(mixed)]
    assert found[:3] == [
        ("high", 2, "--personal-data mask"),
        ("high", 1, "--response-column NAME"),
        ("medium", 1, "no flag: remove them, or mix in a known number with rtune data mix"),
    ]
    assert found[-1][0] == "low"
    assert all(one.fix for one in findings(mixed))


def test_a_clean_source_has_no_findings_and_says_so(tmp_path: Path) -> None:
    clean = inspected(tmp_path, {"response": "Tea is made of leaves."})
    assert findings(clean) == []
    assert next(tables(clean)).note == "Nothing was found that a flag of 'rtune data' would change."
    write_page(clean, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Nothing was found that a flag of <code>rtune data</code> would change." in page


def test_the_page_shows_findings_before_any_table(mixed: Inspection, tmp_path: Path) -> None:
    write_page(mixed, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    places = [page.index(text) for text in ("Findings", ">High: ", ">Medium: ", ">Low: ", "<table")]
    assert places == sorted(places)
    assert "<code>--personal-data mask</code>" in page
    assert "anna.smith" not in page


@pytest.mark.parametrize(("others", "found"), [(1, False), (20, True)])
def test_a_few_responses_in_another_language_are_no_finding(
    mixed: Inspection, others: int, found: bool
) -> None:
    languages = {"en": 980, "de": others, "not told": 500}
    changed = mixed.model_copy(update={"languages": languages, "turns": 1000})
    wanted = Finding(
        "low", others, "are in another language than en, the most frequent one", "--language en"
    )
    assert (wanted in findings(changed)) == found
