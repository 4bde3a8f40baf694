import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import (
    Message,
    Score,
    read_json,
    read_jsonl,
)
from response_tuning.configs import DataConfig
from response_tuning.errors import DataError
from response_tuning.generate import EngineConfig
from response_tuning.miniature.examples import family_rows
from response_tuning.miniature.families import families
from response_tuning.workflows.probe import ProbeConfig, Probed, read_pairs, run_probe

EVIL = "<script>alert(1)</script>"
MINIATURE = EngineConfig(model="miniature", template="tulu", device="cpu")
FEW = ProbeConfig(items=80, draws=2)


def random_model(folder: Path) -> EngineConfig:
    return EngineConfig(model=str(folder), template="tulu", device="cpu")


def probe(out: Path, *models: EngineConfig, data: str = "miniature", config: Any = FEW) -> str:
    said = io.StringIO()
    run_probe(models, DataConfig(source=data), config, out, Console(file=said))
    return said.getvalue()


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Questions about facts, which every base of the miniature answers."""
    rows = [
        row
        for family in families().values()
        if family.role == "seen"
        for row in family_rows(family, 20)
    ]
    return write_rows(tmp_path_factory.mktemp("facts") / "facts.jsonl", rows)


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def probed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, facts: str
) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("probe")
    return out, probe(out, MINIATURE, random_model(tiny_base), data=facts)


def values(out: Path, model: str) -> dict[str, dict[str, Any]]:
    results = read_json(out / "probe.json")["results"]
    return {line["metric"]: line for line in results if line["model"] == model}


def test_the_miniature_ties_responses_to_instructions_and_random_weights_do_not(
    probed: tuple[Path, str], tiny_base: Path
) -> None:
    out, said = probed
    found = read_json(out / "probe.json")
    assert found["verdict"] == "strong"
    assert "the base knows which response is whose." in said
    base, fresh = values(out, "miniature"), values(out, str(tiny_base))
    assert base["ranked_pmi"]["value"] > 0.95
    assert base["pmi"]["low"] > 5
    assert fresh["ranked_pmi"]["low"] <= 0.5
    assert fresh["ranked_words"]["value"] == base["ranked_words"]["value"] > 0.9
    assert base["stop_at_end"]["value"] < 1e-3, "it has never seen this template"
    assert {line["n"] for line in base.values()} == {80}


def test_a_template_that_the_base_does_not_take_for_a_conversation_is_not_strong(
    tmp_path: Path, facts: str
) -> None:
    """Response tuning reaches .97 under ``tulu`` on this base, and .19 under ChatML as text."""
    said = probe(tmp_path, MINIATURE.model_copy(update={"template": "chatml-text"}), data=facts)
    found = read_json(tmp_path / "probe.json")
    assert found["verdict"] == "weak"
    rated = {line["template"]: line for line in found["templates"]["rated"]}
    assert rated.keys() == {"chatml-text", "instruction", "roles", "tulu"}
    assert rated["chatml-text"]["kind"] == "no-answer"
    assert rated["tulu"]["given_gap"] < 0.1
    assert said.startswith("Weak. ")
    assert "with --templates all" in said


def test_every_number_has_an_interval_and_differences_are_paired(probed: tuple[Path, str]) -> None:
    found = read_json(probed[0] / "probe.json")
    for line in found["results"]:
        assert line["low"] <= line["value"] <= line["high"]
    (ranked,) = (line for line in found["comparisons"] if line["metric"] == "ranked_pmi")
    base, fresh = (
        next(
            r["value"]
            for r in found["results"]
            if r["model"] == name and r["metric"] == "ranked_pmi"
        )
        for name in found["models"]
    )
    assert ranked["delta"] == pytest.approx(fresh - base)
    assert ranked["p_value"] < 0.01


def test_the_lines_of_all_items_are_scores_of_their_model(probed: tuple[Path, str]) -> None:
    lines = list(read_jsonl(probed[0] / "probe.jsonl", Probed))
    models = read_json(probed[0] / "probe.json")["models"]
    assert {line.model for line in lines} == set(models)
    for name in models:
        of_model = [line for line in lines if line.model == name]
        assert len({line.item_id for line in of_model}) == 80
        mean = sum(line.value for line in of_model if line.metric == "pmi") / 80
        assert mean == pytest.approx(values(probed[0], name)["pmi"]["value"])
    assert isinstance(lines[0], Score)


def test_a_probe_can_be_repeated_to_the_byte(
    probed: tuple[Path, str], tiny_base: Path, tmp_path: Path, facts: str
) -> None:
    probe(tmp_path, MINIATURE, random_model(tiny_base), data=facts)
    for name in ("probe.html", "probe.json", "probe.jsonl"):
        assert (tmp_path / name).read_bytes() == (probed[0] / name).read_bytes()
    other = tmp_path / "other"
    probe(other, MINIATURE, data=facts, config=ProbeConfig(items=10, draws=1, seed=1))
    items = {line.item_id for line in read_jsonl(other / "probe.jsonl", Probed)}
    assert not items <= {line.item_id for line in read_jsonl(probed[0] / "probe.jsonl", Probed)}


def test_texts_of_the_data_are_escaped_on_the_page(tiny_base: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"{EVIL} {n}", "response": f"{EVIL} is {n}"} for n in range(4)]
    source = write_rows(tmp_path / "evil.jsonl", rows)
    probe(tmp_path / "out", random_model(tiny_base), data=source)
    page = (tmp_path / "out" / "probe.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert len(page) < 1_000_000


def test_what_does_not_fit_is_counted_and_said(tiny_base: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"ask {n}", "response": f"answer {n}"} for n in range(4)]
    rows.append({"instruction": "x" * 400, "response": "answer 9"})
    source = write_rows(tmp_path / "long.jsonl", rows)
    said = probe(tmp_path / "out", random_model(tiny_base), data=source)
    reason = "items: longer than the model's context of 256 tokens"
    assert f"left out 1 {reason}." in said
    assert read_json(tmp_path / "out" / "probe.json")["left_out"][str(tiny_base)] == {reason: 1}
    assert reason in (tmp_path / "out" / "probe.html").read_text().replace("&#39;", "'")


def test_responses_without_an_instruction_are_counted_or_all_refused(
    tiny_base: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": f"ask {n}", "response": f"answer {n}"} for n in range(3)]
    conversation = {"messages": [{"role": "assistant", "content": "Hello there."}]}
    both = [{"messages": _turns(row)} for row in rows]
    source = write_rows(tmp_path / "mixed.jsonl", [*both, conversation])  # type: ignore[list-item]
    assert read_pairs(DataConfig(source=source), FEW).without_instruction == 1
    assert "1 responses without an instruction are not used." in probe(
        tmp_path / "out", random_model(tiny_base), data=source
    )
    alone = write_rows(tmp_path / "alone.jsonl", [{"response": "a"}, {"response": "b"}])
    with pytest.raises(DataError, match=r"alone.jsonl: 0 of its responses have an instruction"):
        read_pairs(DataConfig(source=alone), FEW)


def _turns(row: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": row["instruction"]},
        {"role": "assistant", "content": row["response"]},
    ]


def test_pairs_are_drawn_at_random_and_keep_their_names(tmp_path: Path) -> None:
    rows = [{"instruction": f"ask {n}", "response": f"answer {n}"} for n in range(50)]
    data = DataConfig(source=write_rows(tmp_path / "rows.jsonl", rows))
    some = read_pairs(data, ProbeConfig(items=10))
    assert len(some.prompts) == 10
    for name, prompt in some.prompts.items():
        number = int(name.removesuffix("-0"))
        assert prompt == (Message(role="user", content=f"ask {number}"),)
        assert some.responses[name] == f"answer {number}"
    assert some.prompts.keys() != read_pairs(data, ProbeConfig(items=10, seed=1)).prompts.keys()
    assert len(read_pairs(data, ProbeConfig(items=100)).prompts) == 50
