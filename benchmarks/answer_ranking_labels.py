"""Checks answer ranking against people: does the answer that they preferred rank higher?

    python benchmarks/answer_ranking_labels.py --data FOLDER --scorer MODEL --work FOLDER
        [--template tulu] [--others 16] [--pairs 300] [--words 150] [--minutes 60] [--out FILE]

``FOLDER`` holds LLMBar (Zeng et al. 2024), PandaLM's test set (Wang et al. 2024) and the human
evaluation of Tülu 1 (Wang et al. 2023). A row is a prompt with two answers, of which people
preferred one; ties are left out. Each answer is scored under its own prompt and under ``--others``
other prompts of its set, as ``rtune answer-ranking`` does. A measure is right where it gives the
preferred answer the higher value; equal values are half right.

``tulu-other-prompt`` is the easy task: an answer that people found acceptable beside one to another
prompt. LLMBar's adversarial parts are shown apart: in ``neighbor`` and ``gptinst`` the other answer
is a good one to a similar prompt, in ``gptout`` and ``manual`` it looks better than it is.

Measures: ``ranked`` and ``gain`` (see grade/answer_ranking.py), with the rule for echoes; without a
scoring model ``overlap`` (share of the answer's words, by rarity, that are in the prompt) and
``length`` (words of the answer); ``likelihood`` (log p(answer | prompt) a token, without any other
prompt). Intervals are 95 % percentile bootstraps over prompts. Likelihoods are kept in ``--work``,
and rows of all sets take turns: a run that ``--minutes`` ends has scored a part of each set.
"""

import argparse
import csv
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from response_tuning.artifacts import Message, write_json
from response_tuning.grade.agreement.labelled_sets import open_set
from response_tuning.grade.answer_ranking import AnswerFit, SharedWords, answer_scores, says_nothing
from response_tuning.journals import Journal
from response_tuning.likelihoods import Pair
from response_tuning.pairing import draws, shared_words, words
from response_tuning.workflows.answer_ranking import (
    AnswerLikelihoods,
    first_words,
    likelihood_key,
    score_answers,
)

MEASURES = ("ranked", "gain", "likelihood", "overlap", "length")
CONTROLS = ("overlap", "length")
LLMBAR = ("natural", "adv_neighbor", "adv_gptinst", "adv_gptout", "adv_manual")
POOLS = {
    "all preferences but adversarial ones": ("llmbar-natural", "pandalm", "tulu"),
    "llmbar, adversarial": tuple(f"llmbar-{part}" for part in LLMBAR[1:]),
}
RESAMPLES = 10_000
PREFERENCES = {
    **dict.fromkeys(("a-is-better", "a-is-slightly-better"), 0),
    **dict.fromkeys(("b-is-better", "b-is-slightly-better"), 1),
}


class Row(NamedTuple):
    """A prompt, its two answers and which of them people preferred."""

    part: str
    prompt: str
    answers: tuple[str, str]
    preferred: int
    others: tuple[str, ...] = ()
    """Other prompts of the part."""


def main() -> None:
    """Score what the time allows, and print and write the figures of all rows scored so far."""
    arguments = _arguments()
    rows = drawn_rows(read(Path(arguments.data)), arguments)
    values = list(measured(rows, arguments))
    parts = {part: (part,) for part in dict.fromkeys(row.part for row, _ in values)}
    found = {
        name: figures([one for one in values if one[0].part in members], arguments.seed)
        for name, members in (parts | POOLS).items()
        if {*members} & {*parts}
    }
    settings = {
        key: getattr(arguments, key) for key in ("others", "words", "seed", "template", "bfloat16")
    }
    controls = controls_alone(rows, arguments.seed)
    print(table(found))
    if arguments.out:
        path = Path(arguments.out)
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        figures_of = {"settings": settings, "parts": found, "controls": controls}
        write_json(path, known | {arguments.name: figures_of})


def read(data: Path) -> dict[str, list[Row]]:
    """Return the rows with a preference, by part."""
    rows: dict[str, list[Row]] = {}
    for name in ("llmbar", "pandalm"):
        for one in open_set(name, data).rows():
            part = f"llmbar-{one.part}" if name == "llmbar" else name
            if one.label in ("1", "2") and (name != "llmbar" or one.part in LLMBAR):
                first, second = one.completions
                row = Row(part, one.prompt, (first, second), int(one.label) - 1)
                rows.setdefault(part, []).append(row)
    acceptable: dict[str, str] = {}
    with (data / "tulu_human_eval" / "annotations_half.csv").open(encoding="utf-8") as lines:
        for one in csv.DictReader(lines):
            answers = (one["completion_a"], one["completion_b"])
            if one["preference"] in PREFERENCES:
                row = Row("tulu", one["prompt"], answers, PREFERENCES[one["preference"]])
                rows.setdefault("tulu", []).append(row)
            if one["completion_a_is_acceptable"] == "yes":
                acceptable.setdefault(one["prompt"], one["completion_a"])
    return rows | {"tulu-other-prompt": _crossed(acceptable)}


def _crossed(acceptable: Mapping[str, str]) -> list[Row]:
    prompts = sorted(acceptable)
    random.Random(0).shuffle(prompts)
    return [
        Row("tulu-other-prompt", prompt, (acceptable[prompt], acceptable[other]), 0)
        for prompt, other in zip(prompts, [*prompts[1:], prompts[0]], strict=True)
    ]


def drawn_rows(rows: Mapping[str, list[Row]], arguments: argparse.Namespace) -> list[Row]:
    """Draw ``--pairs`` rows of each part, with other prompts; rows of all parts take turns."""
    seed, count = arguments.seed, arguments.words
    drawn = []
    for part, of_part in rows.items():
        cut = [
            row._replace(
                prompt=first_words(row.prompt, count),
                answers=tuple(first_words(one, count) for one in row.answers),
            )
            for row in of_part
        ]
        prompts = {row.prompt: row.prompt for row in cut}
        picked = draws(prompts, arguments.others, seed)
        chosen = random.Random(f"{seed} {part}").sample(cut, min(arguments.pairs, len(cut)))
        drawn.append([row._replace(others=picked[row.prompt]) for row in chosen])
    return [row for row in chain.from_iterable(zip_longest(*drawn)) if row is not None]


def measured(
    rows: Sequence[Row], arguments: argparse.Namespace
) -> Iterator[tuple[Row, list[dict[str, float]]]]:
    """Yield each scored row with the measures of its two answers."""
    from response_tuning.models.inference import load

    local = load(arguments.scorer, arguments.template)
    if arguments.bfloat16:
        local.model.to(torch.bfloat16)
    journal = Journal(Path(arguments.work) / "answer-ranking.journal", AnswerLikelihoods)
    known = {record.key: record for record in journal}
    share = _shares(rows)
    end = time.monotonic() + 60 * arguments.minutes
    with journal.appending() as append:
        for row in rows:
            asked = [(str(side), *_keyed(local, row, side)) for side in (0, 1)]
            missing = [one for one in asked if one[1] not in known]
            if missing and time.monotonic() > end:
                continue
            known |= {r.key: r for _, r in score_answers(local, missing, append, arguments.tokens)}
            records = [known[key] for _, key, _ in asked]
            if all(record.others and not record.reason for record in records):
                pairs = zip(row.answers, records, strict=True)
                yield row, [values(row, text, record, share) for text, record in pairs]


def _keyed(local: Any, row: Row, side: int) -> tuple[str, list[Pair]]:  # noqa: ANN401 - a LocalModel
    pairs = [Pair(_message(prompt), row.answers[side]) for prompt in (row.prompt, *row.others)]
    return f"{likelihood_key(local, pairs)} {local.model.dtype}", pairs


def _message(prompt: str) -> tuple[Message, ...]:
    return (Message(role="user", content=prompt),)


def _shares(rows: Sequence[Row]) -> Callable[[str, str], float]:
    prompts = {prompt: _message(prompt) for row in rows for prompt in (row.prompt, *row.others)}
    return shared_words(prompts, {text: text for row in rows for text in row.answers})


def controls_alone(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Return how often the controls are right in all drawn rows, scored or not, by part."""
    share = _shares(rows)
    result: dict[str, Any] = {}
    for part in dict.fromkeys(row.part for row in rows):
        members = [row for row in rows if row.part == part]
        both = [
            [
                {"overlap": share(row.prompt, text), "length": float(len(words(text)))}
                for text in row.answers
            ]
            for row in members
        ]
        pairs = list(zip(members, both, strict=True))
        prompts = [row.prompt for row in members]
        result[part] = {"n": len(members)} | {
            name: _interval([_right(row, two, name) for row, two in pairs], prompts, seed)
            for name in CONTROLS
        }
    return result


def values(
    row: Row, text: str, record: AnswerLikelihoods, share: Callable[[str, str], float]
) -> dict[str, float]:
    """Return the measures of one answer."""
    nothing = says_nothing(text, row.prompt)
    shared = SharedWords(share(row.prompt, text), [share(other, text) for other in row.others])
    fit = None if nothing else AnswerFit(record.own, record.others, record.tokens)
    scores = {one.metric: one.value for one in answer_scores("", fit, shared, nothing)}
    return {
        "ranked": scores["answer_ranked"],
        "gain": scores["answer_gain"],
        "likelihood": record.own / max(1, record.tokens),
        "overlap": shared.own,
        "length": float(len(words(text))),
        "echo": scores["echo"],
    }


def figures(found: Sequence[tuple[Row, list[dict[str, float]]]], seed: int) -> dict[str, Any]:
    """Return how often each measure is right, and how much oftener than the controls."""
    prompts = [row.prompt for row, _ in found]
    right = {name: np.array([_right(row, both, name) for row, both in found]) for name in MEASURES}
    result: dict[str, Any] = {name: _interval(right[name], prompts, seed) for name in MEASURES}
    for name in ("ranked", "gain"):
        for control in CONTROLS:
            difference = right[name] - right[control]
            result[f"{name} - {control}"] = _interval(difference, prompts, seed)
    # For the easy task: what the measure says of answers to the prompt and of others.
    for place, label in enumerate(("preferred", "other")):
        each = [both[abs(row.preferred - place)]["ranked"] for row, both in found]
        result[f"mean ranked, {label}"] = _interval(np.array(each), prompts, seed)
    echoes = sum(one["echo"] for _, both in found for one in both)
    return result | {"n": len(found), "prompts": len({*prompts}), "echoes": int(echoes)}


def _right(row: Row, both: Sequence[Mapping[str, float]], name: str) -> float:
    preferred, other = both[row.preferred][name], both[1 - row.preferred][name]
    return float(preferred > other) + (preferred == other) / 2


def _interval(values: Any, prompts: Sequence[str], seed: int) -> list[float]:  # noqa: ANN401
    """Return [mean, low, high]: a bootstrap over prompts, whose rows stay together."""
    names, owner = np.unique(prompts, return_inverse=True)
    sums = np.bincount(owner, weights=values)
    counts = np.bincount(owner)
    picked = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[picked].sum(1) / counts[picked].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return [round(float(number), 4) for number in (np.mean(values), low, high)]


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a table in Markdown, in per cent."""
    head = ("set", "n", *MEASURES, "ranked - overlap", "ranked - length")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for part, figure in found.items():
        cells = [
            f"{100 * m:.0f} [{100 * a:.0f}, {100 * b:.0f}]" for m, a, b in map(figure.get, head[2:])
        ]
        lines.append(f"| {part} | {figure['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--name", default="scorer", help="Key of the figures in --out.")
    parser.add_argument("--template")
    parser.add_argument("--work", required=True)
    parser.add_argument("--out")
    parser.add_argument("--others", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--words", type=int, default=150, help="Of a prompt and of an answer.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--bfloat16", action="store_true", help="Score in bfloat16.")
    parser.add_argument("--tokens", type=int, default=1024, help="Tokens in a batch.")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
