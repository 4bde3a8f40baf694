import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.cli.main import main
from response_tuning.recipe import PACKAGED, read_layers
from tests.fixtures.mail_exports import mailbox_of, outlook_of, workbook_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUNE = (ROOT / "docs" / "how-to" / "tune.md").read_text(encoding="utf-8")
EXPERIMENT = (ROOT / "docs" / "how-to" / "experiment.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OWN = README.split("## Your own answers")[1].split("\n## ")[0]
ALL = re.findall(r"^\$ (rtune .*)$", OWN + TUNE + EXPERIMENT, flags=re.MULTILINE)
EVALUATING = {"eval", "judge-check", "rate", "probe"}
EXPORTING = {"export"}  # needs llama.cpp's converter: tests/workflows/test_export.py
COMMANDS = [  # some are on two of the pages
    command for command in dict.fromkeys(ALL) if command.split()[1] not in EVALUATING | EXPORTING
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name."""
    shutil.copy(ROOT / "examples" / "answers.jsonl", tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    # A dry run times every distinct tuning of a recipe: here, two of the demo's, not thirty.
    demo = dict(read_layers(PACKAGED["demo"], {}).content)
    names = ("base-stop", "rt", "rt-refusals")
    demo["variants"] = {name: demo["variants"][name] for name in names}
    demo["report"] = {"baselines": ["rt"]}
    (tmp_path / "recipes" / "miniature.yaml").write_text(json.dumps(demo))
    pairs = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(16)]
    (tmp_path / "alpaca.json").write_text(json.dumps(pairs))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Is it broken?"}\n{"prompt": "When?"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("How long?\nexit\n"))
    return tmp_path


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 160
    assert len(README.split()) <= 1100


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def sessions(text: str) -> list[tuple[str, list[str], list[str]]]:
    """The commands of a text, with what is typed into each and the lines that it prints."""
    found: list[tuple[str, list[str], list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], [], []))
            elif line.startswith("> "):
                found[-1][1].append(line[2:])
            else:
                found[-1][2].append(line)
    return found


def test_what_the_readme_shows_in_sixty_seconds_is_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = sessions(section("Sixty seconds"))
    assert [command.split()[1] for command, _, _ in shown] == ["chat", "finetune", "chat"]
    for command, typed, printed in shown:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        with pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
        assert not ended.value.code
        said = capsys.readouterr().out.splitlines()
        assert [line for line in printed if line != "..."] == [
            line for line in said if line.strip() and ("..." not in printed or line in printed)
        ]


def test_the_library_of_the_readme_runs(
    desk: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = section("As a library").split("```python\n")[1].split("```")[0]
    lines = code.replace('"BASE"', f"{str(tiny_base)!r}, max_steps=1, window=96, device='cpu'")
    exec(compile(lines, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("96 ")


def table(text: str, header: str) -> dict[str, list[str]]:
    """The rows of the table whose header starts so: first cell -> the other cells."""
    lines = text.split(f"\n| {header}")[1].split("\n\n")[0].splitlines()[2:]
    rows = (re.split(r"\s*\|\s*", line.strip("| ")) for line in lines)
    return {first.strip("*"): others for first, *others in rows}


def test_the_controls_of_the_readme_have_the_scores_of_the_page_on_the_miniature() -> None:
    arms = {
        "the base with a stop string": "**base-stop**",
        "response tuning": "**rt**",
        "instruction tuning": "it:",
        "instructions paired at random": "it-shuffled",
        "response tuning of fresh weights": "rt-random-init",
    }
    page = (ROOT / "docs" / "results" / "miniature.md").read_text(encoding="utf-8")
    shown = table(README, "1,000 examples")
    assert list(shown) == list(arms)
    for arm, name in arms.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name}"))
        seen, unseen, orders, _, alike = re.split(r"\s*\|\s*", row.strip("| "))[1:]
        scores = [cell.replace("*", "").split()[0] for cell in (seen, unseen, orders, alike)]
        assert [cell.split()[0] for cell in shown[arm]] == scores


def test_the_bases_of_the_readme_are_those_of_the_page_for_practitioners() -> None:
    page = (ROOT / "docs" / "how-to" / "your-own-answers.md").read_text(encoding="utf-8")
    assert table(README, "base | memory") == table(page, "base | memory")


def test_the_pages_on_tuning_and_experiments_show_the_commands_of_a_practitioner() -> None:
    shown = {command.split()[1] for command in COMMANDS}
    assert shown == {"show", "finetune", "chat", "generate", "data", "run", "miniature"}
    assert {command.split()[1] for command in ALL} == shown | EVALUATING | EXPORTING


def test_every_command_of_these_pages_runs(
    desk: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("response_tuning.miniature.build.TOKENIZER_DOCUMENTS", 500)
    monkeypatch.setattr("response_tuning.miniature.build.ENCODED_AT_ONCE", 500)
    for command in COMMANDS:
        small = command.replace("BASE", str(tiny_base)).replace(
            "--data alpaca", "--data alpaca.json"
        )
        if small.split()[1] == "finetune" and "--dry-run" not in small:
            small += " --max-steps 2 --set finetune.window=96"
        if small.split()[1] == "run":
            small += " --dry-run"
        if "miniature build" in small:
            small += " --tokens 9000"
        if small.split()[1] in {"generate", "chat"}:
            small += " --max-new-tokens 8"
        monkeypatch.setattr(sys, "argv", shlex.split(small))
        with pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
        assert not ended.value.code, (command, capsys.readouterr().err)
    assert "98 rows, 98 rows or turns accounted for" in capsys.readouterr().out
    for run in ("tea", "story", "rt", "it"):
        assert json.loads((desk / run / "manifest.json").read_text())["status"] == "finished"


def test_the_tree_in_the_guide_for_contributors_is_the_tree() -> None:
    inside = (ROOT / "src" / "response_tuning").iterdir()
    source = {path.name for path in inside if path.is_dir() or path.suffix == ".py"}
    tree = CONTRIBUTING.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"^  ?(\w+)/|(\w+\.py)", tree, flags=re.MULTILINE))
    names = {part for pair in named for part in pair if part}
    expected = {n for n in source if not n.startswith("_")} - {"py.typed"}
    assert expected <= names


def test_every_command_that_evaluates_runs_on_public_files(
    desk: Path, tiny_lm: Path, public_data: Path, rtune: Callable[..., Any], server: Any
) -> None:
    server.says = lambda prompt: "I compared them.\nVerdict: A"
    task = {
        "id": "poem",
        "instruction": "Write a poem.",
        "input": "",
        "decomposed_questions": ["Is it a poem?"],
        "subset": "Easy_set",
    }
    (desk / "infobench.jsonl").write_text(json.dumps(task) + "\n", encoding="utf-8")
    files: list[object] = ["--data", public_data, "--limit", 1]
    for name in ("it", "rt"):
        asked = ("generate", "alpaca-eval", *files, "--model", tiny_lm, "--template", "tulu")
        assert rtune(*asked, "--max-new-tokens", 4, "--out", f"{name}.jsonl").code == 0
    where = {"MODEL": tiny_lm, "BASE": tiny_lm, "URL": server.url, "FOLDER": public_data}
    for command in (command for command in ALL if command.split()[1] in EVALUATING):
        _, verb, *words = shlex.split(command)
        flags: list[object] = [where.get(word, word) for word in words]
        if verb == "eval":
            flags += [*files, "--template", "tulu", "--max-new-tokens", 4]
            flags += ["--set", "grade.paths.infobench=infobench.jsonl"] if "all" in words else []
        if verb == "judge-check":
            flags += ["--limit", 2]
        if verb == "rate":  # the study is made; its page would be served until it is interrupted
            flags = [flag for flag in flags if flag not in ("--rater", "ann")]
        if verb == "probe":
            flags = [flag if flag != "alpaca" else "alpaca.json" for flag in flags]
        result = rtune(verb, *flags)
        # Most benchmarks cannot read a verdict on a pair: exit code 1.
        unread = "--suite all" in command or verb == "judge-check"
        assert result.code == (1 if unread else 0), (command, result.err)
        assert ("rates are n/a" in result.out or "2 of 2 unread" in result.out) == unread


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "log.md"]  # its past entries stay as they are
PACKAGE = ROOT / "src" / "response_tuning"


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Pages on plug-ins name files of the reader's own package, and decisions name files of their day.
OWN_FILES = [
    page
    for page in CURRENT
    if not page.name.startswith("plugins") and page.parent.name != "decisions"
]


@pytest.mark.parametrize("page", OWN_FILES, ids=page_name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ours = r"(?:tests|benchmarks|recipes|examples|docs)/[\w./-]+\.\w+"
    named = set(re.findall(r"(?<![\w./<*-])[a-z_.][\w./-]*\.(?:py|jinja)\b", text))
    named |= set(re.findall(rf"(?<![\w./-]){ours}", text))
    places = (ROOT, PACKAGE, page.parent)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    # A name alone may be in any folder, such as ``world.yaml`` or ``corpus.py``.
    missing = [name for name in missing if "/" in name or not any(PACKAGE.rglob(name))]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", CURRENT, ids=page_name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_reading_guide_is_an_afternoons_path_through_files_that_exist() -> None:
    guide = (ROOT / "docs" / "reading-guide.md").read_text(encoding="utf-8")
    numbered = re.findall(r"^(\d+)\. `([\w./-]+)`: \S", guide, flags=re.MULTILINE)
    assert [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1))
    files = [
        ROOT / name if name.startswith("examples/") else PACKAGE / name for _, name in numbered
    ]
    assert 15 <= len(set(files)) == len(files) <= 25
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert lines <= 4500


OWN_ANSWERS = (ROOT / "docs" / "how-to" / "your-own-answers.md").read_text(encoding="utf-8")


def test_every_command_on_own_answers_runs_on_mails_and_prints_what_the_page_shows(
    tmp_path: Path, tiny_base: Path, rtune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openpyxl", reason="the extra 'xlsx' is not installed")
    monkeypatch.chdir(tmp_path)
    mailbox_of(tmp_path / "all.mbox")
    outlook_of(tmp_path / "outlook.csv")
    workbook_of(tmp_path / "faq.xlsx")
    monkeypatch.setattr(sys, "stdin", io.StringIO("How long?\nexit\n"))
    ran = []
    for command, _, printed in sessions(OWN_ANSWERS):
        program, *words = shlex.split(command)
        if program == "pip":
            continue
        small = {
            "finetune": ("--max-steps", 2, "--set", "finetune.window=96"),
            "chat": ("--max-new-tokens", 8),
            # The conversion itself, which needs a converter: tests/workflows/test_export.py.
            "export": ("--dry-run",),
        }
        flags = small.get(words[0], ())
        result = rtune(*(str(tiny_base) if word == "BASE" else word for word in words), *flags)
        assert result.code == 0, (command, result.err)
        if words[0] == "data":
            shown = [line for line in printed if not line.startswith("rtune: ")]  # the log
            assert result.out.splitlines() == shown, command
        ran.append(words[0])
    kinds = {"data", "show", "finetune", "chat", "export"}
    assert set(ran) == kinds and ran.count("finetune") == 2
    for run in ("shop", "shop-2"):
        assert json.loads((tmp_path / run / "manifest.json").read_text())["status"] == "finished"
    assert json.loads((tmp_path / "shop-2" / "manifest.json").read_text())["recalled"]["held_out"]
