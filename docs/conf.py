"""Configuration of the documentation site, which ``make docs`` builds from the Markdown here.

The pages stay plain Markdown, so that a forge shows them too. A link to a file outside this
folder, such as a recipe, becomes a download of that file, so that the built site works offline. The
pages in ``GENERATED`` get their content from the code when the site is built.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _PROJECT["name"]
author = "The response-tuning developers"
version = release = _PROJECT["version"]
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
# A forge shows README.md as the index; the site has index.md.
exclude_patterns = ["README.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # the anchors that forges make, as in settings.md#the-preset-paper
# A table may leave its corner empty, and a code block may name a shell that Pygments does not know.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_typehints = "description"
autodoc_class_signature = "separated"  # a config's fields say more than its __init__
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"response-tuning {version}"
html_baseurl = _PROJECT["urls"]["Documentation"]
html_copy_source = html_show_sourcelink = False
html_show_sphinx = html_show_copyright = False
smartquotes = False  # quotation marks belong to values and commands here
html_static_path = ["static"]
html_css_files = ["site.css"]
# Built twice from the same files, the site has the same bytes.
html_last_updated_fmt = None


def _commands() -> Iterator[str]:
    """Yield the help of every command of ``rtune``, as Markdown."""
    from typer.main import get_command

    from response_tuning.cli.main import app

    def walk(command: Any, above: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - Click's
        context = command.make_context(name, [], parent=above, resilient_parsing=True)
        context.terminal_width = context.max_content_width = 96
        yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
        for inner, one in getattr(command, "commands", {}).items():
            yield from walk(one, context, inner)

    yield from walk(get_command(app), None, "rtune")


def _settings() -> Iterator[str]:
    """Yield every setting of a recipe under its section, as Markdown."""
    from response_tuning.workflows.settings import described

    entries: list[list[str]] = []
    for line in described():
        if line.startswith(" "):
            entries[-1].append(line.strip())
        else:
            entries.append([line])
    sections = {entry[0].partition(".")[0] for entry in entries if "." in entry[0].split(":")[0]}

    def section_of(entry: list[str]) -> str:
        first = re.split(r"[.:]", entry[0])[0]
        return first if first in sections else ""

    entries.sort(key=section_of)  # stable; settings outside of every section come first
    for section, group in groupby(entries, key=section_of):
        yield f"## {section or 'a recipe'}\n"
        for first, *help_text in group:
            key, _, kind = first.partition(": ")
            yield f"`{key}`\n: *{kind}*  \n  {_plain(' '.join(help_text))}\n"


def _plain(text: str) -> str:
    """Keep Markdown from reading the text of a help line as markup."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]<>#|$" else sign for sign in text)


def _library() -> Iterator[str]:
    """Yield the directives that document every public name at its home."""
    import response_tuning

    for home, names in response_tuning._HOMES.items():
        yield f"## response_tuning.{home}\n"
        for name in names:
            path = f"response_tuning.{home}.{name}"
            kind = _directive(name)
            options = "\n   :members:\n   :undoc-members:" if kind == "autoclass" else ""
            yield f"```{{eval-rst}}\n.. {kind}:: {path}{options}\n```\n"


def _directive(name: str) -> str:
    import response_tuning
    from response_tuning.workflows import library

    value = getattr(library, name, None) or getattr(response_tuning, name)
    if isinstance(value, type):
        return "autoexception" if issubclass(value, Exception) else "autoclass"
    return "autofunction" if callable(value) else "autodata"


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "reference/commands": _commands,
    "reference/settings": _settings,
    "reference/library": _library,
}


_TO_FORGE = re.compile(r"\]\((?=(?:\.\./)+[A-Z]+\.md)")
"""A link to README.md, CONTRIBUTING.md or CHANGELOG.md, which are no pages of the site."""


_FOLDER = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]+/\)")
"""A link to a folder outside, which a forge lists and a site has no page for: its text remains."""
_REST = re.compile(r"^\*\n(?=```)", flags=re.MULTILINE)
"""The last line of a table of contents: all other pages of the folder."""


def _rest(page: str, text: str) -> str:
    """Return the pages of the folder of ``page`` that its tables of contents do not name."""
    named = {*text.splitlines(), "README", "index"}
    pages = (DOCS / page).parent.glob("*.md")
    return "".join(f"{name}\n" for name in sorted({path.stem for path in pages} - named))


def _read(_: object, page: str, source: list[str]) -> None:
    """Complete the text of a page before it is parsed."""
    source[0] = _REST.sub(_rest(page, source[0]), source[0])
    source[0] = _TO_FORGE.sub("](path:", _FOLDER.sub(r"\1", source[0]))
    if page in GENERATED:
        source[0] += "\n" + "\n".join(GENERATED[page]())


def _plain_attribute(_: object, what: str, *rest: Any) -> None:  # noqa: ANN401 - autodoc's
    """Keep napoleon from reading what precedes a colon in the docstring of a field as its type."""
    if what in {"attribute", "data", "property"}:
        rest[-1].insert(0, "")  # it looks at the first line alone


def setup(app: Any) -> None:  # noqa: ANN401 - Sphinx is installed with the extra `docs` only
    """Register the generated pages with Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _plain_attribute, priority=400)  # before napoleon
