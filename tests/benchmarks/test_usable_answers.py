import json
import runpy
from pathlib import Path

KEPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/usable_answers.py"))["kept"]


def test_echoes_are_counted_among_the_strict_answers(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Write a short poem about the sea."}]
    rows = [
        {"item_id": "a", "prompt": prompt, "response": "Write a short poem about the sea."},
        {"item_id": "b", "prompt": prompt, "response": "Waves come and go."},
        {"item_id": "c", "prompt": prompt, "response": "No."},
    ]
    file = tmp_path / "generate" / "ifeval.jsonl"
    assert KEPT(file, rows) == "", "it is not graded"
    (tmp_path / "grade").mkdir()
    scores = [
        {"item_id": one, "metric": "prompt_strict", "value": value}
        for one, value in (("a", 1.0), ("b", 1.0), ("c", 0.0))
    ]
    lines = "".join(json.dumps(score) + "\n" for score in scores)
    (tmp_path / "grade" / "ifeval.jsonl").write_text(lines)
    assert KEPT(file, rows) == "; 2 strict, 1 of them echoes"
