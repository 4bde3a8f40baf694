"""Count the usable answers of each variant of a run: how the settings on a real base were chosen.

    python benchmarks/usable_answers.py RUN prompts

An answer is *usable* if the model ended it, it is not empty, no 8-gram of words occurs twice in it,
no 8 words in a row are its prompt's, no other prompt has the same answer, it is no echo of its
prompt, holds no tag, and is no question (docs/log.md, 2026-11-28: both rules on a real base).
Nothing here says whether it is right. Where a benchmark is graded by ``prompt_strict``, the line
says how many answers keep all rules of their prompt, and how many of these are echoes.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from response_tuning.grade.answer_ranking import ECHO, copied_share

GRAM = 8
STRICT = ("prompt_strict", 1.0)


def grams(text: str) -> list[tuple[str, ...]]:
    """Return the 8-grams of a text's words."""
    words = text.lower().split()
    return [tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1)]


def faults(row: dict[str, Any], times: int) -> list[str]:
    """Return what is wrong with an answer that ``times`` prompts have; empty if it is usable."""
    answer, prompt = row["response"] or "", row["prompt"][-1]["content"]
    said, asked = grams(answer), set(grams(prompt))
    found = {
        "runs on": row["finish_reason"] != "stop",
        "empty": not answer.strip(),
        "loops": len(set(said)) < len(said),
        "copies": bool(asked.intersection(said)),
        "repeated": times > 1,
        "echoes": copied_share(answer, prompt) > ECHO,
        "tags": "<|" in answer,
        "asks": answer.strip().endswith("?") and "question" not in prompt.lower(),
    }
    return [name for name, is_so in found.items() if is_so]


def kept(file: Path, rows: list[dict[str, Any]]) -> str:
    """Return how many answers are strictly right and how many of them are echoes, if graded."""
    grades = file.parents[1] / "grade" / file.name
    if not grades.exists():
        return ""
    scores = [json.loads(line) for line in grades.read_text("utf-8").split("\n") if line]
    strict = {score["item_id"] for score in scores if (score["metric"], score["value"]) == STRICT}
    right = [row for row in rows if row["item_id"] in strict]
    echoes = sum(
        copied_share(row["response"] or "", row["prompt"][-1]["content"]) > ECHO for row in right
    )
    return f"; {len(right)} strict, {echoes} of them echoes"


def main() -> None:
    """Print a line for each variant and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("benchmark")
    given = parser.parse_args()
    for file in sorted(given.run.glob(f"*/seed-*/generate/{given.benchmark}.jsonl")):
        rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
        times = Counter((row["response"] or "").strip() for row in rows)
        found = [faults(row, times[(row["response"] or "").strip()]) for row in rows]
        counts = Counter(name for names in found for name in names)
        variant, seed = file.parts[-4], file.parts[-3]
        usable = sum(not names for names in found)
        reasons = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{variant:20} {seed}  {usable:3} of {len(rows)} usable; {reasons}{kept(file, rows)}")


if __name__ == "__main__":
    main()
