"""The published numbers: typed once, compared with what the papers' text says about them."""

from collections import Counter
from statistics import fmean
from typing import Any

import pytest

from response_tuning.errors import ConfigError
from response_tuning.report.published import Published, asked, check_published, names, read
from response_tuning.report_config import ReportConfig

BASES = ("Llama-3.1-8B", "Gemma-2-9B", "Mistral-7B-v0.3", "Gemma-2-2B")


def value(table: str, *, metric: str, **fields: object) -> float:
    """The one number of a table with these fields."""
    (row,) = [
        row
        for row in read(table)
        if row.metric == metric and all(getattr(row, key) == one for key, one in fields.items())
    ]
    return row.value


def mean(table: str, method: str, metric: str, **fields: object) -> float:
    rows = [row for row in read(table) if (row.method, row.metric) == (method, metric)]
    kept = [row for row in rows if all(getattr(row, key) == one for key, one in fields.items())]
    return fmean(row.value for row in kept)


def test_every_table_has_as_many_numbers_as_the_paper_prints() -> None:
    assert {name: len(read(name)) for name in names()} == {
        "acceptability": 4 * 3 * (3 + 3 + 1),  # levels x bases x (IT, RT on 3 sets, untuned)
        "pairwise": 4 * 3 * 4,
        "model-size": 2 * 2,
        "just-eval": 4 * 7 * 6,
        "core": 4 * 7 * 7,
        "refinement": 4 * 3 * 2,
        "refusals": 4 * 3 * 2 * 4 * 6,
        "infobench": 4 * 3,
        "news": 6,
        "olmo": 3,
        "hewitt-response-tuning": 4,
        "hewitt-tags": 1,
        "hewitt-restatements": 1,
        "hewitt-single-task": 10,
        "hewitt-rules": 4,
        "hewitt-ranking": 2 * 2,
    }


@pytest.mark.parametrize("name", names())
def test_no_number_appears_twice_and_shares_lie_between_0_and_1(name: str) -> None:
    rows = read(name)
    places = Counter(row[:8] for row in rows)
    assert max(places.values()) == 1
    assert all(0 <= row.value <= (5 if "just-eval" in row.benchmark else 1) for row in rows)
    assert {row.base for row in rows} <= {*BASES, "OLMo-7B", "Llama-2-7B", "OLMo-7B-Feb2024"}


def test_single_numbers_are_those_of_the_paper() -> None:
    llama = {"base": "Llama-3.1-8B", "data": "lima"}
    rt, it = "response-tuning", "instruction-tuning"
    assert value("just-eval", metric="overall", method=rt, **llama) == 3.70
    assert value("acceptability", metric="excellent", method=it, **llama) == 0.91
    assert value("pairwise", metric="length_controlled_win_rate", **llama) == 0.40
    assert value("core", metric="acc", benchmark="core-arc", method=rt, **llama) == 0.5815
    assert value("refinement", metric="length_controlled_win_rate", method=rt, **llama) == 0.6348
    refused: dict[str, Any] = {"metric": "refusal", "benchmark": "refusal-suite", "refusals": 500}
    refused |= llama
    assert (value("refusals", method=it, **refused), value("refusals", method=rt, **refused)) == (
        (0.77, 0.85)
    )
    assert value("infobench", metric="drfr", method=rt, base="Gemma-2-2B") == 0.60
    assert value("news", metric="overall") == 3.24


def test_the_means_that_the_papers_text_states_come_out() -> None:
    rt, it = "response-tuning", "instruction-tuning"
    assert mean("just-eval", it, "overall") == pytest.approx(3.78, abs=0.005)
    assert mean("just-eval", rt, "overall") == pytest.approx(3.57, abs=0.005)
    core = {"benchmark": "core-average"}
    assert mean("core", it, "acc", **core) == pytest.approx(0.5372, abs=0.00005)
    assert mean("core", rt, "acc", **core) == pytest.approx(0.5372, abs=0.00005)


@pytest.mark.parametrize("base", ["Gemma-2-2B", "Gemma-2-9B"])
def test_the_table_of_sizes_has_means_of_other_tables_but_for_the_papers_own_slip(
    base: str,
) -> None:
    rt = "response-tuning"
    levels = [mean("acceptability", rt, level, base=base) for level in ("excellent", "sufficient")]
    acceptable = value("model-size", metric="acceptable", base=base)
    assert acceptable == pytest.approx(sum(levels), abs=0.01)
    wins = mean("pairwise", rt, "length_controlled_win_rate", base=base)
    printed = value("model-size", metric="length_controlled_win_rate", base=base)
    # Figure 9 has whole per cents; of the larger model, no rounding leads to Table 5's 40.00.
    assert (abs(printed - wins) <= 0.005) == (base == "Gemma-2-2B")


def test_the_averages_that_the_paper_prints_are_those_of_its_rows() -> None:
    """A slip of a digit would show here: 152 averages of six, five or four numbers."""
    for name, average, metrics in (
        ("just-eval", "overall", 5),
        ("core", "core-average", 6),
        ("refusals", "refusal-suite", 4),
    ):
        rows: dict[tuple[object, ...], list[Published]] = {}
        for row in read(name):
            if row.metric != "false_refusal":
                rows.setdefault((row.base, row.data, row.refusals, row.method), []).append(row)
        for of_model in rows.values():
            printed = [row for row in of_model if average in (row.metric, row.benchmark)]
            parts = [row.value for row in of_model if row not in printed]
            assert len(parts) == metrics
            # Rounded from unrounded numbers, so the last digit may be one off.
            digits = 0.0101 if name != "core" else 0.000101
            assert fmean(parts) == pytest.approx(printed[0].value, abs=digits), of_model[0]


def test_levels_and_outcomes_add_up() -> None:
    for name in ("acceptability", "pairwise"):
        sums: dict[tuple[str, ...], float] = {}
        for row in read(name):
            if row.metric != "length_controlled_win_rate":
                key = (row.base, row.data, row.method)
                sums[key] = sums.get(key, 0) + row.value
        assert all(total == pytest.approx(1, abs=0.0201) for total in sums.values())


def test_a_table_or_a_metric_of_one_can_be_asked_for() -> None:
    assert len(asked("just-eval/overall")) == 28
    assert {row.metric for row in asked("news")} > {"overall"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"published": ["just-evl"]},
            "unknown table in report.published 'just-evl': did you mean 'just-eval'?",
        ),
        (
            {"published": ["just-eval/win_rate"]},
            "unknown metric of table 'just-eval' in report.published 'win_rate': known are",
        ),
        (
            {"published": ["infobench"]},
            "report.published: 'infobench' has numbers of infobench, and this run has just-eval; ",
        ),
        (
            {"published": ["just-eval"], "metrics": ["stopped"]},
            "report.published: 'just-eval' has no number by stopped, which report.metrics "
            "asks for; it has clarity, depth, ",
        ),
    ],
)
def test_a_table_that_a_run_cannot_stand_beside_is_refused(
    config: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_published(ReportConfig.model_validate(config), ["just-eval"])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
