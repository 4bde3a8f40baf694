import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from response_tuning.artifacts import read_json
from response_tuning.configs import GradeConfig
from response_tuning.grade import open_benchmark
from response_tuning.grade.agreement.labelled_sets import open_set
from response_tuning.grade.judges.refusal_classifier import FITTED, SIGNS, classify
from response_tuning.grade.judges.refusals import PAPER_AVERAGE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "refusal_classifier.py"


# Refusals


def groups(name: str, data: Path) -> Counter[str]:
    return Counter(item.group for item in open_benchmark(name, GradeConfig(data=data)).items())


def test_the_refusal_benchmarks_have_the_sizes_of_the_paper(public_data: Path) -> None:
    assert groups("advbench", public_data) == {"": 520}
    assert groups("malicious-instruct", public_data) == {"": 100}
    assert groups("harmbench", public_data) == {
        "standard/illegal": 58,
        "standard/cybercrime_intrusion": 40,
        "standard/misinformation_disinformation": 34,
        "standard/chemical_biological": 28,
        "standard/harmful": 21,
        "standard/harassment_bullying": 19,
        "contextual/misinformation_disinformation": 31,
        "contextual/chemical_biological": 28,
        "contextual/cybercrime_intrusion": 27,
        "contextual/illegal": 7,
        "contextual/harassment_bullying": 6,
        "contextual/harmful": 1,
    }
    xstest = groups("xstest", public_data)
    assert len(xstest) == 18
    assert set(xstest.values()) == {25}
    assert sum(count for group, count in xstest.items() if group.startswith("safe/")) == 250


@pytest.mark.parametrize("name", PAPER_AVERAGE.benchmarks)
def test_requests_are_distinct_and_have_names_of_their_own(name: str, public_data: Path) -> None:
    items = open_benchmark(name, GradeConfig(data=public_data)).items()
    assert len({item.item_id for item in items}) == len(items)
    assert len({item.prompt[0].content for item in items}) == len(items)
    assert all(item.prompt[0].content.strip() for item in items)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that fits the offline refusal classifier and measures it."""
    spec = importlib.util.spec_from_file_location("refusal_classifier_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fitted(script: ModuleType, public_data: Path) -> tuple[Any, dict[str, Any]]:
    fit, checked = script.measure_xstest(public_data)
    return fit, checked


def test_the_offline_classifier_is_what_its_script_fits_and_measures(
    script: ModuleType, fitted: tuple[Any, dict[str, Any]], public_data: Path
) -> None:
    fit, checked = fitted
    kept = read_json(FITTED)
    assert kept["checked"]["xstest"] == checked
    assert kept["checked"]["harmbench"] == script.measure_harmbench(public_data, fit)["all"]
    assert kept["intercept"] == pytest.approx(fit.intercept, abs=1e-3)
    found = dict(zip(SIGNS, fit.weights, strict=True))
    assert kept["weights"] == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("model", ["Llama 2", "Mistral Instruct"])
def test_people_agree_with_it_more_than_with_its_rivals_on_a_model_it_was_not_fitted_to(
    model: str, fitted: tuple[Any, dict[str, Any]]
) -> None:
    _, checked = fitted
    found = checked[model]
    assert found["held out"]["agreement"] >= 0.93
    for rival in ("string match", "GPT-4"):
        for figure in ("agreement", "kappa"):
            assert found["held out"][figure] > found[rival][figure]


@pytest.mark.parametrize(
    ("model", "rival", "agreement"),
    [
        ("Llama 2", "string match", 361 / 395),
        ("Llama 2", "GPT-4", 336 / 395),
        ("Mistral Instruct", "string match", 383 / 423),
        ("Mistral Instruct", "GPT-4", 332 / 423),
    ],
)
def test_the_rivals_are_counted_as_published(
    model: str, rival: str, agreement: float, fitted: tuple[Any, dict[str, Any]]
) -> None:
    _, checked = fitted
    assert checked[model][rival]["agreement"] == pytest.approx(agreement, abs=1e-4)


def test_the_package_says_of_labelled_answers_what_was_measured(public_data: Path) -> None:
    agreed: Counter[str] = Counter()
    names = {"llama2orig": "Llama 2", "mistralinstruct": "Mistral Instruct"}
    for row in open_set("xstest", public_data).rows():
        if row.label != "partial refusal":
            said = classify(row.prompt, row.completions[0]).label
            agreed[names[row.part]] += said == row.label
    for model, kept in read_json(FITTED)["checked"]["xstest"].items():
        figures = kept["fitted to both"]
        assert agreed[model] / figures["n"] == pytest.approx(figures["agreement"], abs=1e-4)
