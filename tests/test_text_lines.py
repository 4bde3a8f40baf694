from pathlib import Path

import pytest

from response_tuning.errors import DataError
from response_tuning.text_lines import can_be_cut, encoding_of, extents, lines, utf_8_lines

GERMAN = "Für Grüße aus München zahlen Sie 5 €, „schön“ verpackt \u2013 öfter."
FRENCH = (
    "Voilà, votre thé a été expédié. Ça vous plaît, n\u2019est-ce pas ? Où êtes-vous né à Noël ?"
)
SPANISH = "¿Cuándo llegó el té? Mañana, señor; el próximo año será más fácil."
POLISH = "Dzień dobry, dziękujemy za zamówienie. Proszę, żółta herbata już jest w drodze."
CZECH = "Dobrý den, děkujeme za objednávku. Žlutý čaj už je na cestě, příště vám přidáme."
RUSSIAN = "Добрый день, спасибо за заказ. Чай уже в пути."
DANISH = "Tak for din bestilling, vi sender grøn te på fredag og håber, at æsken når frem."


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "utf-8-sig", "utf-8"),
        ("plain", "ascii", "utf-8"),
        (GERMAN, "utf-16", "utf-16"),
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
        (GERMAN, "cp1252", "cp1252"),
        (f"{GERMAN} {FRENCH}", "cp1252", "cp1252"),
        (FRENCH, "cp1252", "cp1252"),
        (SPANISH, "cp1252", "cp1252"),
        (DANISH, "cp1252", "cp1252"),
        ("We don\u2019t \u2013 \u201csell\u201d it\u2026 for £5, or £ 6.", "cp1252", "cp1252"),
        (POLISH, "cp1250", "cp1250"),
        (CZECH, "cp1250", "cp1250"),
        (RUSSIAN, "cp1251", "cp1251"),
        (GERMAN.replace("€", "$"), "mac-roman", "mac-roman"),
        ("Für Grüße aus München, schön verpackt.", "cp850", "cp850"),
    ],
)
def test_an_encoding_is_known_by_the_letters_that_it_makes(
    text: str, encoding: str, found: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.csv", f"Frage;Antwort\r\n{text}\r\n".encode(encoding))
    assert encoding_of(path) == found
    assert "".join(lines(path, found)) == f"Frage;Antwort\r\n{text}\r\n"


def test_two_readings_that_make_sense_are_both_shown_and_none_is_chosen(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text\ntrès\n".encode("cp1252"))  # "trčs" in cp1250
    with pytest.raises(DataError) as error:
        encoding_of(path)
    message = str(error.value)
    assert message.startswith(f"{path}: byte 7 is not UTF-8, and several encodings fit: ")
    assert "cp1252 reads 'rès'" in message and "cp1250 reads 'rčs'" in message
    assert "--encoding" in message and "\n" not in message


def test_bytes_in_no_known_encoding_are_refused_and_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "お茶をありがとうございます。".encode("shift_jis"))
    with pytest.raises(DataError, match="no encoding fits"):
        encoding_of(path)
    assert "".join(lines(path, "shift_jis")) == "お茶をありがとうございます。"


def test_the_first_byte_that_is_not_utf_8_is_found_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.text_lines._CHUNK", 7)
    assert encoding_of(written(tmp_path / "a.csv", ("ü" * 50).encode())) == "utf-8"
    path = written(tmp_path / "b.csv", ("ü" * 50).encode() + b"\xff\xfe\x81")
    with pytest.raises(DataError, match="byte 100 is not UTF-8"):
        encoding_of(path)


def test_a_wrong_name_of_an_encoding_is_refused_at_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"fine\nnot\x81 so\n")
    with pytest.raises(DataError, match=r"a\.csv:[12]: not CP1252: .*--encoding"):
        list(lines(path, "cp1252"))


def test_lines_that_are_not_read_to_their_end_leave_no_file_open(tmp_path: Path) -> None:
    content = lines(written(tmp_path / "a.csv", "a\nb\n".encode("utf-16")))
    assert next(content) == "a\n"
    content.close()  # warnings are errors here


@pytest.mark.parametrize("size", [1, 2, 7, 20, 1000])
def test_parts_of_a_file_are_its_lines_with_their_numbers(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes("\ufeffone\r\n\n\u2028 zwölf\nthree\n\nno line end".encode())
    found = extents(path, size)
    with path.open("rb") as content:
        parts = [list(utf_8_lines(content, path, extent)) for extent in found]
    assert [line for part in parts for line in part] == list(lines(path))
    assert [extent.line for extent in found] == [
        1 + sum(map(len, parts[:number])) for number in range(len(parts))
    ]
    assert (len(found) == 1) == (size == 1000)
    assert all(found[n].stop == found[n + 1].start for n in range(len(found) - 1))
    assert extents(tmp_path / "a.jsonl", size)[-1].stop == path.stat().st_size


def test_a_bad_byte_in_a_part_has_its_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo\nth\xffree\n")
    last = extents(path, 4)[-1]
    with path.open("rb") as content, pytest.raises(DataError) as raised:
        list(utf_8_lines(content, path, last))
    assert f"{path}:3: byte 10 of the file is 0xff" in str(raised.value)


def test_only_utf_8_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("tea", encoding="utf-8")
    assert can_be_cut(path, None)
    assert can_be_cut(path, "UTF8")
    assert not can_be_cut(path, "cp1252")
    for content in ("tea".encode("utf-16"), b"PAR1 and so on"):
        path.write_bytes(content)
        assert not can_be_cut(path, None)
