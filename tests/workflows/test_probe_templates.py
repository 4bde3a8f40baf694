import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning import templates
from response_tuning.artifacts import read_json, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.generate import EngineConfig
from response_tuning.miniature.examples import family_rows
from response_tuning.miniature.families import families
from response_tuning.probe.template_fit import GIVEN
from response_tuning.workflows.probe import ProbeConfig
from response_tuning.workflows.probe_templates import (
    TemplateScore,
    check_templates,
    run_probe_templates,
)

FEW = ProbeConfig(items=120, draws=2)
ELEMENTS = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ "<turn role='user'>" + message['content'] + "</turn>\\n" }}
{%- else -%}
{{ "<turn role='assistant'>" + message['content'] + eos_token + "\\n" }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ "<turn role='assistant'>" }}
{%- endif -%}
"""
"""Response tuning reaches .03 under this template on the shipped base, and .97 under ``tulu``."""


def rank(out: Path, model: str, *names: str, data: str) -> str:
    said = io.StringIO()
    engine = EngineConfig(model=model, device="cpu")
    run_probe_templates(
        engine, names, DataConfig(source=data), FEW, out, Console(file=said, width=500)
    )
    return said.getvalue()


def rows_in(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    out = tmp_path_factory.mktemp("templates")
    seen = [family for family in families().values() if family.role == "seen"]
    data = rows_in(out / "facts.jsonl", [r for family in seen for r in family_rows(family, 20)])
    elements = out / "elements.jinja"
    elements.write_text(ELEMENTS)
    said = rank(out / "probe", "miniature", "all", str(elements), data=data)
    return out / "probe", said, str(elements)


def rated(out: Path) -> dict[str, dict[str, Any]]:
    found = read_json(out / "probe.json")["templates"]["rated"]
    return {line["template"]: line for line in found}


def test_the_ranking_puts_the_template_under_which_tuning_fails_last(
    ranked: tuple[Path, str, str],
) -> None:
    out, _, elements = ranked
    lines = rated(out)
    assert [*lines][-1] == elements
    assert lines[elements]["verdict"] == "none"
    assert lines["chatml-text"]["verdict"] in {"weak", "none"}
    assert lines["tulu"]["verdict"] == "strong"
    assert lines["tulu"]["given_gap"] < 0.1


def test_every_template_for_tuning_is_ranked_and_one_sentence_names_the_best(
    ranked: tuple[Path, str, str],
) -> None:
    out, said, elements = ranked
    found = read_json(out / "probe.json")
    lines = rated(out)
    assert lines.keys() == {*templates.for_tuning(), elements}
    assert not {"urial", "urial-r", "zero-shot", "native"} & lines.keys()
    assert found["best"] == next(iter(lines))
    sentence = (
        f"Of {len(lines)} templates, '{found['best']}' suits this base best: tune with it, and "
        "compare the base with a stop string."
    )
    assert found["says"] == sentence
    assert sentence in said
    assert sentence.replace("'", "&#39;") in (out / "probe.html").read_text()


def test_all_templates_have_the_same_items_and_their_means_decide(
    ranked: tuple[Path, str, str],
) -> None:
    out, _, _ = ranked
    items: dict[str, dict[str, float]] = {name: {} for name in rated(out)}
    for line in read_jsonl(out / "probe.jsonl", TemplateScore):
        if line.metric == GIVEN:
            items[line.template][line.item_id] = line.value
    assert len({frozenset(values) for values in items.values()}) == 1
    for name, figures in rated(out).items():
        assert len(items[name]) == 120
        assert figures["log_p_per_token"] == pytest.approx(sum(items[name].values()) / 120)


def test_what_cannot_be_used_is_listed_with_the_reason(
    tiny_base: Path, ranked: tuple[Path, str, str], tmp_path: Path
) -> None:
    data = str(ranked[0].parent / "facts.jsonl")
    long = tmp_path / "long.jinja"
    long.write_text("{{ '" + "long " * 400 + "' }}" + ELEMENTS)
    names = ("tulu", "xml", "native:other", "urial", str(long))
    said = rank(tmp_path / "out", str(tiny_base), *names, data=data)
    found = read_json(tmp_path / "out" / "probe.json")["templates"]
    assert {line["template"] for line in found["rated"]} == {"tulu", "xml"}
    assert found["unusable"].keys() == {"native:other", "urial", str(long)}
    assert "chat template" in found["unusable"]["native:other"]
    assert "not one special token" in found["unusable"]["urial"]
    assert "longer than the model's context" in found["unusable"][str(long)]
    for name, reason in found["unusable"].items():
        assert f"Template '{name}' was not measured: {reason}." in said


def test_a_ranking_can_be_repeated_to_the_byte(
    tiny_base: Path, ranked: tuple[Path, str, str], tmp_path: Path
) -> None:
    data = str(ranked[0].parent / "facts.jsonl")
    for name in ("one", "two"):
        rank(tmp_path / name, str(tiny_base), "tulu", "xml", data=data)
    for name in ("probe.html", "probe.json", "probe.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_ranking_of_one_template_or_of_none_that_exists_is_refused() -> None:
    with pytest.raises(ConfigError, match="--templates tulu: a ranking needs two templates"):
        check_templates(["tulu", "tulu"])
    with pytest.raises(ConfigError, match="nope"):
        check_templates(["all", "nope"])
    check_templates(["all"])


def test_a_model_that_no_template_suits_is_refused_with_the_reasons(
    tiny_base: Path, ranked: tuple[Path, str, str], tmp_path: Path
) -> None:
    data = str(ranked[0].parent / "facts.jsonl")
    with pytest.raises(DataError, match=r"no template can be measured: urial: .*; zero-shot: "):
        rank(tmp_path / "out", str(tiny_base), "urial", "zero-shot", data=data)
    assert not (tmp_path / "out").exists()
