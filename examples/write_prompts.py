"""Finished texts become pairs: a model writes the prompt that each text answers.

    python examples/write_prompts.py ANSWERS PAIRS.jsonl --model NAME --base-url http://127.0.0.1:8000/v1

ANSWERS is anything that ``rtune data prepare`` reads. The model is a folder, or a name on a server
that speaks OpenAI's protocol. PAIRS.jsonl has an "instruction" and a "response" in each line, for
``rtune finetune --objective instruction-tuning``. A text whose prompt did not end, is empty, or
begins as the text does (small models copy) is left out and counted. The same command again asks
only for what is missing. A model that was tuned to write prompts needs the text alone:
--request '{response}'.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import response_tuning as rt

REQUEST = (
    "Below is the answer of an assistant. Write the message of the user that it answers. Give the "
    "message alone.\n\n{response}"
)


def lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file; only a line feed ends a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def opening(text: str) -> list[str]:
    """Return the first words of a text: of 500 people's prompts, none had its answer's."""
    return re.findall(r"\w+", text.lower())[:4]


parser = argparse.ArgumentParser(description="Write prompts for finished texts.")
parser.add_argument("answers")
parser.add_argument("pairs", type=Path)
parser.add_argument("--model", required=True)
parser.add_argument("--base-url", help="address of a server")
parser.add_argument("--request", default=REQUEST, help="what is asked, with {response} in it")
parser.add_argument("--template", help="of a model without a chat template; example: tulu")
given = parser.parse_args()
if "{response}" not in given.request:
    parser.error("--request: put {response} where the text belongs")

prepared = rt.prepare(given.answers, given.pairs.with_suffix(".prepared"))
responses = [one["response"] for one in lines(prepared.file)]
prompts, asked = (given.pairs.with_suffix(f".{name}.jsonl") for name in ("prompts", "written"))
write(
    prompts, [{"prompt": given.request.replace("{response}", response)} for response in responses]
)
engine = {"engine": "openai", "base_url": given.base_url} if given.base_url else {}
template = {"template": given.template} if given.template else {}
rt.generate(prompts, asked, model=given.model, max_new_tokens=128, **engine, **template)

whole = [
    {"instruction": one["response"].strip(), "response": response}
    for one, response in zip(lines(asked), responses, strict=True)
    if one["finish_reason"] == "stop" and one["response"].strip()
]
pairs = [one for one in whole if opening(one["instruction"]) != opening(one["response"])]
write(given.pairs, pairs)
copies = f", {len(whole) - len(pairs):,} begin as their text does"
print(f"{len(pairs):,} of {len(responses):,} texts have a prompt{copies}: {given.pairs}")
