import pytest

from response_tuning.data.steps.personal import kinds_in, masked


@pytest.mark.parametrize(
    "text",
    [
        "Write to jane.doe+news@mail.some-firm.co.uk.",
        "(max@firma.de)",
        "MAX@FIRMA.DE",
    ],
)
def test_an_address_is_an_e_mail(text: str) -> None:
    assert kinds_in(text) == ["e-mail"]


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com",
        "me@mail.example.org",
        "root@localhost",
        "printer@office.local",
        "a@b.test, b@site.example",
        "icon@2x.png",
        "x@w.sum()",
        "A@B.T",
        "@app.route, me @ home.com",
        "pkg@1.2.3",
    ],
)
def test_what_reaches_nobody_is_none(text: str) -> None:
    assert kinds_in(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Call +49 30 901820.",
        "+44 (0)20 7946 0958? No: +44 20 7946 0958",
        "(212) 684-4700",
        "1-212-684-4700",
        "Fax: 212.684.4700",
    ],
)
def test_a_number_with_a_code_or_in_north_american_form_is_a_phone(text: str) -> None:
    assert kinds_in(text) == ["phone"]


@pytest.mark.parametrize(
    "text",
    [
        "from 1914 to 1918, and 1939-1945",
        "ISBN 978-3-16-148410-0",
        "$1,212,684.47 or 212 684 4700 0000",
        "314-159-2653",
        "2126844700",
        "12 + 491234567 = 491234579",
        "y = 3x+212684470055",
        "212-555-0123",
        "1-800-362-0101",
        "192.168.100.2001",
        "2024-05-12 10:30:00",
    ],
)
def test_years_books_prices_formulas_and_public_lines_are_none(text: str) -> None:
    assert kinds_in(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "ABCDEFGH12345678",
        "token: ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 10,
        "sk-" + "proj-aB3dEfGh1jKlMnOpQrSt",
        "xoxb-" + "123456789012-abcdef",
        "AIza" + "a1B2c" * 7,
        "hf_" + "aBcD" * 8 + "eF",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----",
    ],
)
def test_a_well_known_form_is_a_key(text: str) -> None:
    assert kinds_in(text) == ["key"]


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "sk-container-id-and-other-classes",
        "-----BEGIN PUBLIC KEY-----",
        "ghp_short",
        "task-a1B2c3D4e5F6g7H8i9J0k1L2",
    ],
)
def test_a_manuals_key_or_a_class_name_is_none(text: str) -> None:
    assert kinds_in(text) == []


def test_all_kinds_are_named_in_one_order() -> None:
    text = "ghp_" + "a1B2" * 9 + " +49 30 901820 max@firma.de"
    assert kinds_in(text) == ["e-mail", "phone", "key"]


@pytest.mark.parametrize("piece", ["a@", "a", "a.", "+1 2", "2 ", "sk-", "+1 212 555 1", "-----BE"])
def test_a_megabyte_made_to_be_slow_is_looked_through(piece: str) -> None:
    assert kinds_in(piece * (1_000_000 // len(piece))) == []


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 901820",
        "+49 (0)30 901820",
        "0049 30 901820",
        "030 901820",
        "030/90 18 20",
        "(030) 90-18-20",
        "0171 2345678",
        "06 12 34 56 78",
        "020 7946 0958",
        "+1-212-684-4700",
        "(212) 684-4700",
        "2126844700",
        "212\u2011684\u20114700",
        "**030** 901820",
        "48 29 15",
        "\u0663\u0660\u0661\u0668\u0662\u0660",
    ],
)
def test_a_number_in_any_notation_is_masked_before_it_is_shown(number: str) -> None:
    output = masked(f"Call {number}, or write.")
    assert output.endswith("[number], or write.")
    assert not any(character.isdigit() for character in output)


@pytest.mark.parametrize("address", ["max@firma.de", "MAX.M+x@firma.co.uk", "<max@localhost>"])
def test_an_address_is_masked(address: str) -> None:
    assert masked(f"Write to {address} now") == "Write to [address] now"


@pytest.mark.parametrize(
    "key",
    ["ghp_" + "a1B2" * 9, "glpat-" + "a1B2c" * 4, "0a1b" * 8, "eyJ" + "a1B2" * 10, "A1b/" * 10],
)
def test_a_long_token_of_letters_and_digits_is_masked(key: str) -> None:
    assert masked(f"Use {key}.") == "Use [key]."


@pytest.mark.parametrize(
    "text",
    ["from 1914 to 1918", "1,000,000", "in 2024", "A-rather-long-compound-word", "@home"],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("piece", ["a@", "a", "a.", "1 ", "+1 2 ", "aB1", "@", "1-"])
def test_a_megabyte_made_to_be_slow_is_masked(piece: str) -> None:
    assert len(masked(piece * (1_000_000 // len(piece)))) <= 1_000_000
