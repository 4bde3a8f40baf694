import re
from pathlib import Path

import pytest

from response_tuning.grade import BENCHMARKS
from response_tuning.validation import build
from response_tuning.workflows.bibliography import ENTRIES, MADE_HERE, write_references
from response_tuning.workflows.experiment import Experiment, cells, read_experiment

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
NEIGHBOURS = PAPER.with_name("neighbours")


def keys(text: str) -> set[str]:
    return set(re.findall(r"^@\w+\{(\w+),", text, flags=re.MULTILINE))


def written(experiment: Experiment, tmp_path: Path) -> str:
    write_references(cells(experiment), tmp_path / "references.bib")
    return (tmp_path / "references.bib").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("recipe", "cited"),
    [
        ("refusals", {"taori2023alpaca", "conover2023dolly", "zhou2023lima", "bianchi2023safety"}),
        ("core", {"gao2024harness", "hendrycks2020mmlu", "cobbe2021gsm8k", "bisk2019piqa"}),
        ("in-context", {"lin2023unlocking"}),
        ("hewitt-single-task", {"hewitt2024instruction", "austin2021mbpp", "dubois2024length"}),
        ("hewitt-rules", {"hewitt2024instruction"}),
    ],
)
def test_a_run_cites_the_paper_us_and_what_it_used(
    recipe: str, cited: set[str], tmp_path: Path
) -> None:
    found = keys(written(read_experiment(PAPER / f"{recipe}.yaml"), tmp_path))
    assert {"an2025revealing", "responsetuning"} | cited <= found
    unused = {"rottger2023xstest"} if recipe != "refusals" else {"qin2024infobench"}
    assert not unused & found


def test_what_has_no_entry_is_named_and_what_is_made_here_needs_none(tmp_path: Path) -> None:
    settings = {
        "data": {"source": "my/articles"},
        "finetune": {"base_model": "miniature"},
        "benchmarks": ["miniature-seen"],
        "variants": {"rt": {}},
    }
    text = written(build(Experiment, settings, "here"), tmp_path)
    assert "% No entry: my/articles\n" in text
    assert "miniature" not in text
    assert keys(text) == {"an2025revealing", "responsetuning"}
    assert "keywords" not in text


def test_every_entry_is_whole_and_every_benchmark_of_others_has_one() -> None:
    text = ENTRIES.read_text(encoding="utf-8")
    entries = re.findall(r"^@.*?^}", text, flags=re.DOTALL | re.MULTILINE)
    assert len(entries) == text.count("\n@") == len(keys(text))
    about: set[str] = set()
    for entry in entries:
        assert entry.count("{") == entry.count("}")
        assert {"title", "author", "keywords"} <= {*re.findall(r"^  (\w+) = ", entry, re.MULTILINE)}
        about |= {*re.findall(r"keywords = \{(.*)\}", entry)[0].split(", ")}
    others = {name for name in BENCHMARKS.names() if not name.startswith(MADE_HERE)}
    assert others <= about


@pytest.mark.parametrize(
    ("recipe", "cited"),
    [
        ("roles", "wang2024rnr"),
        ("continuations", "xie2024noninstructional"),
        ("self-judge", "ye2024selfjudge"),
    ],
)
def test_a_run_of_a_neighbours_method_cites_it_and_no_other(
    recipe: str, cited: str, tmp_path: Path
) -> None:
    neighbours = {"wang2024rnr", "xie2024noninstructional", "ye2024selfjudge"}
    found = keys(written(read_experiment(NEIGHBOURS / f"{recipe}.yaml"), tmp_path))
    assert found & neighbours == {cited}
