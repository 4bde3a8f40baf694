"""Why do documents' own second halves teach to answer: are there requests in them, or is it form?

    rtune data continue miniature-documents --min-words 16 --max-words 120 --out FOLDER/all
    rtune data continue miniature-documents --split statements --min-words 16 --max-words 120
        --out FOLDER/statements
    python benchmarks/own_halves.py FOLDER
    rtune run FOLDER/own-halves.yaml --set base=BASE --set finetune.template=roles

Writes up to 640 halves for each of seven arms: all documents, and those without requests
(``statements``), each also by whether the second half is one sentence, as a strict answer is; and
all documents without a question mark or an imperative in either half.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from response_tuning.artifacts import Example, read_jsonl, write_jsonl
from response_tuning.data.passages import sentences
from response_tuning.data.refinement.screening import signs

ROWS = 640
RECIPE = Path(__file__).parents[1] / "recipes" / "neighbours" / "continuations.yaml"
ARMS: dict[str, tuple[str, Callable[[Example], bool]]] = {
    "all": ("all", lambda _: True),
    "all-no-request": ("all", lambda one: not asks(one)),
    "all-one-sentence": ("all", lambda one: is_one_sentence(one)),
    "all-longer": ("all", lambda one: not is_one_sentence(one)),
    "statements": ("statements", lambda _: True),
    "statements-one-sentence": ("statements", lambda one: is_one_sentence(one)),
    "statements-longer": ("statements", lambda one: not is_one_sentence(one)),
}


def is_one_sentence(example: Example) -> bool:
    """Whether the second half has the form of a strict answer."""
    return len(sentences(example.response)) == 1


def asks(example: Example) -> bool:
    """Whether a rule finds a request in either half; "you" alone is none."""
    found = {*signs(example.instruction or ""), *signs(example.response)}
    return bool(found - {"second person"})


def main() -> None:
    """Write the files and the recipe, and print what is in them."""
    folder = Path(sys.argv[1])
    recipe = yaml.safe_load(RECIPE.read_text("utf-8"))
    recipe["data"] = {}
    recipe["finetune"] |= {"objective": "instruction-tuning", "max_steps": 20}
    recipe["variants"], recipe["report"] = {}, {"baselines": ["all"]}
    for arm, (documents, fits) in ARMS.items():
        found = [
            one for one in read_jsonl(folder / documents / "examples.jsonl", Example) if fits(one)
        ]
        rows = random.Random(arm).sample(found, min(ROWS, len(found)))
        path = folder / f"{arm}.jsonl"
        write_jsonl(path, rows)
        short, asking = (sum(map(rule, rows)) / len(rows) for rule in (is_one_sentence, asks))
        print(f"{arm}: {len(rows)} rows, {short:.1%} one sentence, {asking:.1%} with a request")
        recipe["variants"][arm] = {"data": {"source": str(path)}}
    (folder / "own-halves.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")


if __name__ == "__main__":
    main()
