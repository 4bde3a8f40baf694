from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, Flagged, read_jsonl
from response_tuning.data.steps.cleaning import without_front_matter

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
MAIL = "Your tea left today.\n\nKind regards\nAnna\n\n-----Original Message-----\nWhere is it?"


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"response": text} for text in texts]


@pytest.mark.parametrize(
    ("setting", "text", "what", "rest"),
    [
        ("html", "<p>Hello</p><p>Anna</p>", "HTML", "Hello\n\nAnna"),
        ("quoted_mail", "Yes.\n> When?", "quoted mail", "Yes."),
        ("signatures", "Yes.\nKind regards\nAnna", "signature", "Yes."),
        ("greetings", "Dear Ben,\n\nYes.", "greeting", "Yes."),
    ],
)
def test_each_step_keeps_flags_strips_or_drops_and_is_counted(
    setting: str, text: str, what: str, rest: str, prepare_rows: Prepare
) -> None:
    def outcome(how: str) -> tuple[list[str], dict[str, int], dict[str, int]]:
        audit, examples, _ = prepare_rows(rows(text, "Plain."), curation={setting: how})
        return [example.response for example in examples], audit.flagged, audit.dropped

    assert outcome("keep") == ([text, "Plain."], {}, {})
    assert outcome("flag") == ([text, "Plain."], {f"holds {what}": 1}, {})
    assert outcome("strip") == ([rest, "Plain."], {f"{what} stripped": 1}, {})
    assert outcome("drop") == (["Plain."], {}, {f"holds {what}": 1})


def test_tags_come_off_before_the_quoted_mail_and_that_before_the_signature(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    page = "<p>Your tea left.</p><p>Kind regards<br>Anna</p><blockquote>Where is it?</blockquote>"
    strip = dict.fromkeys(("html", "quoted_mail", "signatures"), "strip")
    _, examples, _ = prepare_rows(rows(page, MAIL), curation=strip)
    assert [one.response for one in examples] == ["Your tea left.", "Your tea left today."]
    flags = [*read_jsonl(tmp_path / "out" / "flagged.jsonl", Flagged)]
    assert [flag.what for flag in flags if flag.row == 0] == [
        "HTML stripped", "quoted mail stripped", "signature stripped",
    ]  # fmt: skip
    assert not any("Anna" in flag.detail for flag in flags)


def test_a_mail_without_an_answer_is_dropped_with_its_reason(prepare_rows: Prepare) -> None:
    mails = rows("> Where is it?", "Kind regards\nAnna", "Here.")
    strip = {"quoted_mail": "strip", "signatures": "strip"}
    audit, examples, _ = prepare_rows(mails, curation=strip)
    assert [one.response for one in examples] == ["Here."]
    assert audit.dropped == {"only quoted mail": 1, "only signature": 1}


def test_masked_data_is_in_no_text_of_the_example(prepare_rows: Prepare, tmp_path: Path) -> None:
    key = "hf_" + "a1" * 17
    row = {
        "instruction": "Write to ben@post.de.",
        "response": f"Mail anna@tea.de, call +49 30 901820 or use {key}; not you@example.com.",
    }
    audit, examples, _ = prepare_rows([row], curation={"personal_data": "mask"})
    assert examples[0].response == "Mail [e-mail], call [phone] or use [key]; not you@example.com."
    assert examples[0].instruction == "Write to [e-mail]."
    kinds = ("e-mail", "phone", "key")
    assert audit.flagged == {f"personal data masked ({kind})": 1 for kind in kinds}
    assert "anna" not in (tmp_path / "out" / "flagged.jsonl").read_text()


def test_texts_that_are_equal_once_they_are_cleaned_are_duplicates(prepare_rows: Prepare) -> None:
    texts = rows("Yes.\nKind regards\nAnna", "Yes.\nKind regards\nBen")
    audit, _, _ = prepare_rows(texts, curation={"signatures": "strip"})
    assert (audit.examples, audit.dropped) == (1, {"duplicate": 1})


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("---\ntitle: Tea\ntags: [a]\n---\n\nSteep it.", "Steep it."),
        ("---\ntitle: Tea\n...\nSteep it.", "Steep it."),
        ("---\nA paragraph between rules.\n---\nMore.", None),
        ("---\nbroken: [\n---\nMore.", None),
        ("Steep it.\n---\na: 1\n---\n", None),
    ],
)
def test_front_matter_is_a_mapping_of_yaml_at_the_top(text: str, rest: str | None) -> None:
    assert without_front_matter(text) == (text if rest is None else rest)


def test_front_matter_comes_off_texts_of_a_folder_alone_and_can_be_kept(
    tmp_path: Path, prepare_source: Callable[..., Any]
) -> None:
    text = "---\ntitle: Tea\n---\nSteep it."
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_text(text)
    (tmp_path / "a.jsonl").write_text('{"response": "---\\ntitle: Tea\\n---\\nSteep it."}\n')

    def kept(source: Path, **settings: object) -> tuple[str, dict[str, int]]:
        audit, (example,), _ = prepare_source(source, curation=settings)
        return example.response, audit.flagged

    assert kept(tmp_path / "texts") == ("Steep it.", {"YAML front matter stripped": 1})
    assert kept(tmp_path / "texts", front_matter="keep") == (text, {})
    assert kept(tmp_path / "a.jsonl") == (text, {})
