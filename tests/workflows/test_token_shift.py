import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import (
    Completion,
    Message,
    Sampling,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import DataConfig, EngineConfig
from response_tuning.errors import DataError, ModelError
from response_tuning.probe.token_shift import Shift
from response_tuning.workflows.token_shift import run_token_shift

MINIATURE = EngineConfig(model="miniature", template="tulu", device="cpu")


def shift(
    out: Path, *models: EngineConfig, replies: Path | DataConfig
) -> tuple[dict[str, Any], str]:
    said = io.StringIO()
    tuned, base = models
    run_token_shift(tuned, base, replies, out, Console(file=said))
    return read_json(out / "token-shift.json"), said.getvalue()


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    def one(number: int, response: str | None, finish: Any = "stop") -> Completion:
        return Completion(
            item_id=f"q{number}",
            prompt=(Message(role="user", content=f"What is {number} and {number}?"),),
            response=response,
            finish_reason=finish,
            error=None if response is not None else "no answer",
            key=str(number),
            model="m",
            template="t",
            sampling=Sampling(),
        )

    path = tmp_path / "replies.jsonl"
    write_jsonl(
        path,
        [
            one(1, "It is 2."),
            one(2, "It is four"),
            one(3, None, None),
            one(4, "It goes on", "length"),
        ],
    )
    return path


def test_a_base_is_not_shifted_from_itself(replies: Path, tmp_path: Path) -> None:
    found, said = shift(tmp_path / "out", MINIATURE, MINIATURE, replies=replies)
    by_metric = {line["metric"]: line["value"] for line in found["results"]}
    assert by_metric["kl"] == 0
    assert by_metric["agree"] == 1
    assert by_metric["ended"] == pytest.approx(2 / 3)
    assert by_metric["stop_at_end_tuned"] == by_metric["stop_at_end_base"]
    assert found["replies"] == 3
    assert "kl  [0, 0" in said
    lines = list(read_jsonl(tmp_path / "out" / "token-shift.jsonl", Shift))
    assert {line.item_id for line in lines} == {"q1", "q2", "q4"}
    assert sum(line["n"] for line in found["by_position"]) == sum(line.words for line in lines)


def test_metrics_of_tokens_are_means_over_all_tokens_not_over_replies(
    replies: Path, tmp_path: Path, miniature_base: Path
) -> None:
    config = EngineConfig(model=str(miniature_base), template="tulu", device="cpu")
    found, _ = shift(tmp_path / "out", config, config, replies=replies)
    lines = list(read_jsonl(tmp_path / "out" / "token-shift.jsonl", Shift))
    assert len({line.words for line in lines}) > 1
    unshifted = sum(rank == 1 for line in lines for rank in line.rank[: line.words])
    expected = unshifted / sum(line.words for line in lines)
    by_metric = {line["metric"]: line["value"] for line in found["results"]}
    assert by_metric["unshifted"] == pytest.approx(expected)


def test_given_responses_take_the_place_of_replies(tmp_path: Path) -> None:
    rows = [{"instruction": f"What is {n}?", "response": f"It is {n}."} for n in range(3)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(source=str(source))
    found, _ = shift(tmp_path / "out", MINIATURE, MINIATURE, replies=data)
    assert found["replies"] == 3


def test_replies_that_cannot_be_compared_leave_no_file(replies: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    (first, *_) = read_jsonl(replies, Completion)
    write_jsonl(long, [first.model_copy(update={"response": "x" * 900})])
    with pytest.raises(DataError, match=r"no reply can be compared: 1 longer than the model"):
        shift(tmp_path / "out", MINIATURE, MINIATURE, replies=long)
    assert not list((tmp_path / "out").glob("*"))


def test_a_base_with_another_tokenizer_is_refused(
    replies: Path, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="have different tokenizers"):
        shift(
            tmp_path / "out",
            MINIATURE,
            EngineConfig(model=str(tiny_base), template="tulu", device="cpu"),
            replies=replies,
        )
