import pytest

from response_tuning.data.steps.mail import without_quotes, without_signature

ANSWER = "Yes, we open at nine.\n\nOn Sundays we are closed."


@pytest.mark.parametrize(
    "quoted",
    [
        "On Tue, 3 Mar 2026 at 10:12, Anna Smith <anna@tea.example> wrote:\n> When?\n>\n> Anna\n",
        "On Tue, 3 Mar 2026 at 10:12, Anna Smith\n<anna@tea.example> wrote:\n\n> When?\n",
        "On 3 March 2026, at 10:12, Anna wrote:\n\nWhen do you open?\n\nThanks\n",
        "Am 03.03.2026 um 10:12 schrieb Anna Müller:\n> Wann?\n",
        "Am Di., 3. März 2026 um 10:12 Uhr schrieb Anna Müller <\nanna@tea.example>:\n\n> Wann?\n",
        "Anna Müller <anna@tea.example> schrieb am 3. März 2026:\n\nWann?\n",
        "Le mar. 3 mars 2026 à 10:12, Anna <anna@tea.example> a écrit :\n> Quand ?\n",
        "El mar, 3 mar 2026 a las 10:12, Anna (<anna@tea.example>) escribió:\n> ¿Cuándo?\n",
        "Il giorno mar 3 mar 2026 alle ore 10:12 Anna <anna@tea.example> ha scritto:\n> Quando?\n",
        "-----Original Message-----\nFrom: Anna\nSent: Tuesday\n\nWhen?\n",
        "-----Ursprüngliche Nachricht-----\nVon: Anna\n\nWann?\n",
        "---------- Forwarded message ---------\nFrom: Anna\n\nWhen?\n",
        "From: Anna <anna@tea.example>\nSent: Tuesday, March 3, 2026 10:12 AM\nTo: Ben\n"
        "Subject: Hours\n\nWhen?\n",
        f"{'_' * 32}\nFrom: Anna\nSent: Tuesday\nTo: Ben\nSubject: x\n\nWhen?\n",
        "Von: Anna\nGesendet: Dienstag, 3. März 2026 10:12\nAn: Ben\nBetreff: Zeiten\n\nWann?\n",
        "> When do you open?\n",
    ],
)
def test_the_mail_that_a_reply_quotes_is_cut_off(quoted: str) -> None:
    assert without_quotes(f"{ANSWER}\n\n{quoted}") == ANSWER


def test_answers_between_and_below_the_quoted_lines_stay() -> None:
    text = (
        "On Tue, 3 Mar 2026 at 10:12, Anna <anna@tea.example> wrote:\n"
        "> When do you open?\n\nAt nine.\n\n> And close?\n> Thanks\n\nAt six.\n"
    )
    assert without_quotes(text) == "At nine.\n\nAt six."


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "On the box somebody wrote:\nhandle with care.",
        "From: the first page, you can order. To: us, it is all one.",
        "Is 3 > 2? Yes.\n\nOn Monday, we wrote to you.",
        "Steep it.\n\n---\n\nThen drink it.",
    ],
)
def test_what_quotes_no_mail_stays(text: str) -> None:
    assert without_quotes(text) == text


@pytest.mark.parametrize(
    "signature",
    [
        "-- \nAnna\nTea House",
        "--\nAnna",
        "Kind regards,\nAnna Smith\nTea House Ltd.\n+44 20 7946 0000\nwww.tea.example",
        "Best regards from Berlin,\nAnna",
        "Best,\nAnna",
        "Thanks,\nAnna",
        "Best, Anna",
        "Thank you, Anna Smith\nTea House Ltd\n+44 20 7946 0000",
        "Mit freundlichen Grüßen\n\nAnna Müller\nTeehaus GmbH\nHRB 12345",
        "Viele Grüße aus München\nAnna",
        "Mit freundlichen Gruessen\nAnna",
        "MfG\nAnna",
        "Cordialement,\nAnne",
        "Un saludo,\nAna",
        "Cordiali saluti\nAnna",
        "Met vriendelijke groet,\nAnna",
        "Kind regards, Anna",
        "Sent from my iPhone",
        "Von meinem iPhone gesendet",
        "Kind regards\nAnna\n\nThis mail is confidential. If you are not the one whom it is meant "
        "for, delete it and tell us, and do not copy, forward or use what it says.",
    ],
)
def test_the_signature_is_cut_off(signature: str) -> None:
    assert without_signature(f"{ANSWER}\n\n{signature}\n") == ANSWER


def test_a_closing_on_the_last_line_is_cut_off() -> None:
    assert without_signature("Your tea left today. Kind regards, Anna Smith") == (
        "Your tea left today."
    )


def test_a_postscript_behind_the_signature_stays() -> None:
    text = f"{ANSWER}\n\nKind regards\nAnna\n\nP.S. The pot follows on Monday."
    assert without_signature(text) == f"{ANSWER}\n\nP.S. The pot follows on Monday."


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "Thanks\nfor the tea, it was good.",
        "Best\nserved cold.",
        "Thanks, Anna\n\nThe tea left today.",
        "Hello,\nThanks, Anna\n\nwe send it today,\ntoo",
        "Best, with a little milk",
        "We send it with kind regards to your family.\nIt is blue.",
        "Green tea\n--- \nMint tea",
        "Kind regards\n" + "\n".join(f"This is line {n} of the mail." for n in range(40)),
    ],
)
def test_what_is_no_signature_stays(text: str) -> None:
    assert without_signature(text) == text


@pytest.mark.parametrize("clean", [without_quotes, without_signature])
@pytest.mark.parametrize(
    "text", ["On 2026 " * 20_000, "From: a\n" * 20_000, "Best\n" * 5_000, "Best, A\n" * 5_000]
)
def test_a_long_text_takes_little_time(clean: object, text: str) -> None:
    assert callable(clean)
    clean(text)  # a pattern that backtracks would not come back
