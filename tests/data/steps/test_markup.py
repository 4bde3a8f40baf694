import pytest

from response_tuning.data.steps.markup import is_html, visible

MAIL = """<!DOCTYPE html><html><head><title>Tea</title><style>p {color: red}</style></head>
<body><!-- from a template --><p>Hello&nbsp;Anna,</p>
<p>your <b>tea</b><br>left
today &amp; arrives<br/>soon.</p><ul><li>green</li><li>mint</li></ul>
<blockquote><p>When?</p><blockquote>Never.</blockquote></blockquote></body></html>"""


def test_the_text_of_a_page_is_what_its_reader_sees() -> None:
    assert visible(MAIL) == (
        "Hello Anna,\n\nyour tea\nleft today & arrives\nsoon.\n\n- green\n- mint\n\n"
        "> When?\n\n> > Never."
    )


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<div>One</div><div>Two</div><div><br></div><div>Three</div>", "One\nTwo\n\nThree"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("Open&#8217;s the <i>day</i>.", "Open\u2019s the day."),
        # Line breaks of a plain text with a few tags are its own.
        ("Write <b>soon</b>\nto <anna@tea.example> if 3 < 4.", None),
        ("<script>alert('x')</script>Tea.", "Tea."),
        ("<p>One</p>\n\n\n<p>Two</p>", "One\n\nTwo"),
    ],
)
def test_tags_break_lines_and_what_is_no_tag_stays(text: str, seen: str | None) -> None:
    assert is_html(text)
    assert visible(text) == (seen or "Write soon\nto <anna@tea.example> if 3 < 4.")


@pytest.mark.parametrize(
    "text",
    ["Use `<p>` for a paragraph.", "```\n<p>code</p>\n```", "a < b and c > d", "<anna@tea.example>",
     "Tea & cake", "<think>no</think>"],
)  # fmt: skip
def test_code_and_signs_are_no_html(text: str) -> None:
    assert not is_html(text)
