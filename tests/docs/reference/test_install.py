import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_table_of_extras_is_that_of_the_project() -> None:
    page = (ROOT / "docs" / "reference" / "install.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = page.split("## Extras")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)`", table, flags=re.MULTILINE) == sorted(
        project["optional-dependencies"]
    )
