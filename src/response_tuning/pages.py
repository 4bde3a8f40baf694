"""How every HTML page is made: one template environment, one style sheet and one content policy.

``palette.css`` has the colours and ``pages.css`` the look of text, controls and print. A page of
one file extends ``pages.html.jinja``; a page that is served gets both from ``loopback``. Text of
models and of data is always escaped, and a page loads nothing and runs no script but its own.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

PAGE_BYTES = 3_000_000
"""Size limit of a page: it opens quickly and fits in an e-mail."""
_HERE = Path(__file__).parent


@cache
def environment(folder: Path) -> "jinja2.Environment":
    """Return the environment for the templates in ``folder``; Markdown and LaTeX are not escaped.

    One for each folder: compiling a template takes longer than filling it.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
        autoescape=jinja2.select_autoescape(
            disabled_extensions=("md.jinja", "tex.jinja"), default_for_string=True, default=True
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"stylesheet": _as_it_is(stylesheet()), "policy": _policy}
    return made


@cache
def palette() -> str:
    """Return the style sheet with the colours of all pages."""
    return (_HERE / "palette.css").read_text(encoding="utf-8")


@cache
def stylesheet() -> str:
    """Return the style sheet of all pages: the palette, and the look of their parts."""
    return palette() + (_HERE / "pages.css").read_text(encoding="utf-8")


def script(*files: Path) -> str:
    """Return the script of a page of one file: copying of tables, folding, and its own files."""
    texts = (path.read_text(encoding="utf-8") for path in (_HERE / "pages.js", *files))
    blocks = "".join(f"{{\n{text}}}\n" for text in texts)  # a block each: no names clash
    return f'"use strict";\n{blocks}'


def picture(svg: str) -> str:
    """Return an SVG as a data URI, so that no id in it can clash with another picture's."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _policy(script: str) -> "Markup":
    """Return the content policy of a page whose only script is ``script``.

    The digest allows this script and no other, so that text that became an element by mistake could
    still run nothing.
    """
    digest = b64encode(sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'; " if script else ""
    return _as_it_is(
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )


def _as_it_is(text: str) -> "Markup":
    from markupsafe import Markup

    return Markup(text)
