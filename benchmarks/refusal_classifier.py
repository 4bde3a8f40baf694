"""Fits the offline refusal classifier to people's labels, and measures how far it agrees with them.

    python benchmarks/refusal_classifier.py --data FOLDER [--write]

``FOLDER`` holds ``xstest/completions_<model>.csv`` and ``xstest/auto_labels_<model>.csv`` (Röttger
et al. 2024: answers of two models to 450 prompts, two annotators and their final label; labels by
GPT-4 and by string match) and ``harmbench/classifier_val_set_half.json`` (Mazeika et al. 2024:
three annotators say whether the harmful behaviour is there), and AlpacaEval's and JustEval's
outputs. ``tests/assets/refusal_answers.jsonl`` has 200 answers that decline, hedge or help, written
and labelled for this purpose, of which the half marked ``development`` is fitted to.
``refusal_labels.json`` has our labels of public outputs, by file and row, which are fitted to as
well and are measured by cross-validation; those of ``refusal_labels_blind.json``, by file, row and
column, were read before the weights were final and are fitted to nowhere, nor are those of
``refusal_logs.jsonl``: answers in the manner of assistants of 2023, written and labelled by a
language model in seven runs, without a sight of the classifier. It prints tables in Markdown;
``--write`` puts weights and figures into ``refusal_classifier.json`` of the package.

The weights are a logistic regression with an L2 penalty under bounds: a sign of a refusal can
never speak for a compliance, nor the other way round. Bounds other than 0 are set by hand, where
the labels have too few cases: an answer that is nothing but "I won't", or "that is illegal", and
one that refuses and then helps. *Held out* are a model, a domain or rows whose labels the weights
have not seen; the signs themselves were written with both models and the development rows in view.
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import write_json
from response_tuning.grade.agreement.labelled_sets import open_set
from response_tuning.grade.agreement.statistics import compare_labels
from response_tuning.grade.judges.refusal_classifier import FITTED, SIGNS, signs
from response_tuning.refusal_phrases import declines

MODELS = {"llama2orig": "Llama 2", "mistralinstruct": "Mistral Instruct"}
LABELS = ("compliance", "refusal")
WORDS = {"compliance": "present", "refusal": "absent"}
PARTIAL = "partial refusal"
NAMES = {"1": "compliance", "2": "refusal", "3": PARTIAL}
PENALTY = 0.1
"""Weight of half the sum of squares of the weights, against the summed log loss."""
DIGITS = 4
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(SIGNS, (0.0, None)),
    **dict.fromkeys(("opening_refuses", "first_declines", "next_declines"), (2.0, None)),
    "first_objects": (2.5, None),
    "restates": (-2.0, 0.0),
    **dict.fromkeys(("opening_facts", "facts"), (None, 0.0)),
    **dict.fromkeys(("answers_first", "goes_on", "turns_against_principle"), (None, -2.0)),
    "turns": (None, -5.0),
    "hands_over": (None, -4.0),
    **dict.fromkeys(("limit_is_the_answer", "answers_no"), (None, 0.0)),
}
ANSWERS = Path(__file__).parents[1] / "tests" / "assets" / "refusal_answers.jsonl"
PUBLIC_LABELS = Path(__file__).with_name("refusal_labels.json")
BLIND_LABELS = Path(__file__).with_name("refusal_labels_blind.json")
LOGS = Path(__file__).with_name("refusal_logs.jsonl")
FOLDS = 5
"""Parts of the public answers, by a hash of the prompt."""
DEVELOPMENT = "development"
HARMBENCH_RIVALS = {
    "advbench": "AdvBench's strings",
    "llama_guard": "Llama Guard",
    "gpt-4-0613": "GPT-4",
    "cls": "HarmBench's classifier",
}

Array = npt.NDArray[np.float64]
Figures = dict[str, Any]


class Row(NamedTuple):
    """An answer, its label, and what the two rivals called it where they were asked."""

    signs: list[float]
    label: str
    string_match: str = ""
    gpt4: str = ""


class Labelled(NamedTuple):
    """A public answer with a label of ours."""

    file: str
    prompt: str
    completion: str
    label: str

    def row(self) -> Row:
        """Return its signs and its label."""
        return Row([*signs(self.prompt, self.completion).values()], self.label)


class Fit(NamedTuple):
    """A fitted classifier."""

    intercept: float
    weights: Array

    def says(self, rows: Sequence[Row]) -> list[str]:
        """Return its labels."""
        odds = self.intercept + np.array([row.signs for row in rows]) @ self.weights
        return [LABELS[int(one > 0)] for one in odds]

    def label(self, prompt: str, completion: str) -> str:
        """Return its label of an answer."""
        odds = self.intercept + np.array([*signs(prompt, completion).values()]) @ self.weights
        return LABELS[int(odds > 0 or not completion.strip())]


def read_xstest(data: Path, model: str) -> list[Row]:
    """Return the answers of a model, those in part refused among them."""
    found = {row["id"]: row for row in _csv(data / f"xstest/auto_labels_{model}.csv")}
    return [
        Row(
            signs=list(signs(row["prompt"], row["completion"]).values()),
            label=NAMES[row["final_label"][0]],
            string_match=NAMES[found[row["id"]]["strmatch_label"][0]],
            # GPT-4 said something else to some, which is agreement with neither label.
            gpt4=NAMES.get(found[row["id"]]["gpt4_label"][0], "other"),
        )
        for row in _csv(data / f"xstest/completions_{model}.csv")
    ]


def fit(rows: Iterable[Row]) -> Fit:
    """Fit the weights to the rows that are wholly refused or wholly complied with."""
    from scipy.optimize import minimize

    whole = binary(rows)
    values = np.array([row.signs for row in whole])
    refused = np.array([float(row.label == "refusal") for row in whole])

    def loss(point: Array) -> tuple[float, Array]:
        odds = point[0] + values @ point[1:]
        excess = 1 / (1 + np.exp(-odds)) - refused
        total = (np.logaddexp(0, odds) - refused * odds).sum() + PENALTY / 2 * (
            point[1:] ** 2
        ).sum()
        return total, np.concatenate([[excess.sum()], values.T @ excess + PENALTY * point[1:]])

    bounds = [(None, None), *(BOUNDS[name] for name in SIGNS)]
    start = np.array([low if low is not None else high or 0.0 for low, high in bounds])
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    intercept, *weights = np.round(found.x, DIGITS).tolist()
    return Fit(intercept, np.array(weights))


def binary(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are no partial refusals."""
    return [row for row in rows if row.label != PARTIAL]


def figures(labels: Sequence[str], said: Sequence[str], known: Sequence[str] = LABELS) -> Figures:
    """Return agreement, kappa and confusion; what is no known label agrees with none."""
    found = compare_labels(labels, [one if one in known else None for one in said], known)
    return {
        "n": found.n,
        "agreement": round(found.agreement, 4),
        "kappa": None if found.kappa is None else round(found.kappa, 4),
        "confusion": found.confusion,
    }


def read_answers() -> list[tuple[dict[str, str], Row]]:
    """Return the answers of ``ANSWERS`` with their domain and split."""
    found = [json.loads(line) for line in ANSWERS.read_text("utf-8").splitlines()]
    return [
        (row, Row([*signs(row["prompt"], row["completion"]).values()], row["label"]))
        for row in found
    ]


def read_labelled(data: Path, labels: Path) -> list[Labelled]:
    """Return the answers whose labels a file has, as file -> row/column -> label."""
    found = []
    for name, known in json.loads(labels.read_text("utf-8")).items():
        rows = _records(data / name)
        for key, label in known.items():
            place, column = key.split("/")
            found.append(Labelled(name, *_turn(data, rows[int(place)], column), label))
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return list(_csv(path))
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    return list(json.loads(text))


def _turn(data: Path, row: dict[str, Any], column: str) -> tuple[str, str]:
    """Return prompt and answer; of HH-RLHF, the last turns of a dialogue."""
    if "chosen" in row:
        before, answer = row[column].rsplit("\n\nAssistant:", 1)
        return before.rsplit("\n\nHuman:", 1)[-1].strip(), answer.strip()
    if "messages" in row:
        return row["messages"][0]["content"], row["messages"][int(column)]["content"]
    if "question_id" in row:
        asked = {one["question_id"]: one for one in _records(data / "mt_bench/question.jsonl")}
        turn = int(column)
        return asked[row["question_id"]]["turns"][turn], row["choices"][0]["turns"][turn]
    if "instruction" in row:
        return f"{row['instruction']}\n{row.get('input', '')}", row[column]
    return row.get("prompt") or row["input"], row[column]


def _fold(prompt: str) -> int:
    return sha256(prompt.encode()).digest()[-1] % FOLDS


def measure_xstest(data: Path) -> tuple[Fit, Figures]:
    """Return the final fit, and what it and its rivals reach on either model."""
    rows = {model: read_xstest(data, model) for model in MODELS}
    ours = [row for about, row in read_answers() if about["split"] == DEVELOPMENT]
    ours += [one.row() for one in read_labelled(data, PUBLIC_LABELS)]
    final = fit([*(row for found in rows.values() for row in found), *ours])
    checked: Figures = {}
    for model, found in rows.items():
        others = fit([*(row for other in MODELS if other != model for row in rows[other]), *ours])
        whole = binary(found)
        labels = [row.label for row in whole]
        in_part = [row for row in found if row.label == PARTIAL]
        checked[MODELS[model]] = {
            "held out": figures(labels, others.says(whole)),
            "fitted to both": figures(labels, final.says(whole)),
            "string match": figures(labels, [row.string_match for row in whole]),
            "GPT-4": figures(labels, [row.gpt4 for row in whole]),
            "partial refusals": dict(Counter(sorted(final.says(in_part)))),
        }
    return final, checked


def measure_answers(data: Path, final: Fit) -> Figures:
    """Return the agreement on our answers: by split, and with every domain left out in turn."""
    answers = read_answers()
    others = [row for model in MODELS for row in read_xstest(data, model)]
    others += [one.row() for one in read_labelled(data, PUBLIC_LABELS)]
    checked: Figures = {}
    for split in (DEVELOPMENT, "held-out"):
        rows = [row for about, row in answers if about["split"] == split]
        checked[split] = figures([row.label for row in rows], final.says(rows))
    labels, said = [], []
    for domain in sorted({about["domain"] for about, _ in answers}):
        kept = [
            row
            for about, row in answers
            if about["domain"] != domain and about["split"] == DEVELOPMENT
        ]
        left_out = [row for about, row in answers if about["domain"] == domain]
        labels += [row.label for row in left_out]
        said += fit([*others, *kept]).says(left_out)
    checked["domain left out"] = figures(labels, said)
    return checked


def measure_public(data: Path) -> Figures:
    """Return the agreement with our labels of public outputs, by file and for all.

    Every answer is classified with weights that were fitted to no answer to its prompt.
    """
    others = [row for model in MODELS for row in read_xstest(data, model)]
    others += [row for about, row in read_answers() if about["split"] == DEVELOPMENT]
    public = [(one, one.row()) for one in read_labelled(data, PUBLIC_LABELS)]
    fits = [
        fit([*others, *(row for one, row in public if _fold(one.prompt) != fold)])
        for fold in range(FOLDS)
    ]
    return _by_file(
        (one.file, one.label, fits[_fold(one.prompt)].says([row])[0]) for one, row in public
    )


def measure_blind(data: Path, final: Fit) -> tuple[Figures, Figures]:
    """Return the agreement with labels that nothing was fitted to, also of phrases alone."""
    blind = read_labelled(data, BLIND_LABELS)
    ours = _by_file((one.file, one.label, final.label(*one[1:3])) for one in blind)
    alone = _by_file((one.file, one.label, LABELS[declines(one.completion)]) for one in blind)
    return ours, alone


def measure_logs(final: Fit) -> tuple[Figures, Figures]:
    """Return the agreement on each of ``LOGS``, also of phrases alone."""
    rows = [json.loads(line) for line in LOGS.read_text("utf-8").splitlines()]
    asked = [(row["log"], row["label"], row["prompt"], row["completion"]) for row in rows]
    ours = _by_file((log, label, final.label(*pair)) for log, label, *pair in asked)
    alone = _by_file((log, label, LABELS[declines(pair[1])]) for log, label, *pair in asked)
    return ours, alone


def _by_file(found: Iterable[tuple[str, str, str]]) -> Figures:
    """Return figures of (file, label, said): of all, and by file."""
    parts: dict[str, list[tuple[str, str]]] = {"all": []}
    for name, label, said in found:
        for part in ("all", name):
            parts.setdefault(part, []).append((label, said))
    return {part: figures(*zip(*pairs, strict=True)) for part, pairs in parts.items()}


def measure_harmbench(data: Path, final: Fit) -> dict[str, Figures]:
    """Return, by model and for all, how often a compliance, and nothing else, held the behaviour.

    The labels are of attacks that succeeded, not of compliance: an answer that tries and fails is
    a compliance without the behaviour.
    """
    path = data / "harmbench/classifier_val_set_half.json"
    rivals = [row for found in json.loads(path.read_text("utf-8")).values() for row in found]
    parts: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for row, rival in zip(open_set("harmbench", data).rows(), rivals, strict=True):
        verdicts = {"this classifier": WORDS[final.label(row.prompt, row.completions[0])]}
        for column, name in HARMBENCH_RIVALS.items():
            verdicts[name] = "present" if int(rival[column]) else "absent"
        for part in ("all", row.part):
            parts.setdefault(part, []).append((row.label, verdicts))
    known = [*WORDS.values()]
    return {
        part: {
            name: figures([label for label, _ in found], [said[name] for _, said in found], known)
            for name in found[0][1]
        }
        for part, found in sorted(parts.items())
    }


def measure_alarms(data: Path, final: Fit) -> Iterator[tuple[str, int, int, int]]:
    """Yield, of answers to mostly harmless prompts: file, answers, called refusals, by phrases.

    Nobody labelled them, and some are refusals: Llama 2's by far the most.
    """
    files = [*data.glob("alpaca_eval/*/outputs.json"), *data.glob("alpaca_eval/reference_*.json")]
    harmless = slice(0, 800)  # of JustEval's prompts; the last 200 are unsafe
    for path in [*sorted(files), *sorted(data.glob("just_eval/outputs_*.json"))]:
        rows = json.loads(path.read_text("utf-8"))
        if path.parent.name == "just_eval":
            rows = rows[harmless]
        asked = [(row["instruction"], row["output"] or "") for row in rows]
        called = sum(final.label(*one) == "refusal" for one in asked)
        name = path.relative_to(data).as_posix()
        yield name, len(asked), called, sum(declines(answer) for _, answer in asked)


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def xstest_table(checked: Figures) -> Iterator[str]:
    """Yield the lines of a table; the confusion is people -> said."""
    yield _line("model", "who", "n", "agreement", "kappa", "C -> C", "C -> R", "R -> C", "R -> R")
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for model, found in checked.items():
        for who, one in found.items():
            if who != "partial refusals":
                counts = [one["confusion"][true][said] for true in LABELS for said in LABELS]
                measures = (_number(one["agreement"]), _number(one["kappa"]))
                yield _line(model, who, one["n"], *measures, *counts)


def label_table(found: Figures) -> Iterator[str]:
    """Yield the lines of a table of figures by part."""
    yield _line("answers", "n", "agreement", "kappa", "C -> C", "C -> R", "R -> C", "R -> R")
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for part, one in found.items():
        counts = [one["confusion"][true][said] for true in LABELS for said in LABELS]
        yield _line(part, one["n"], _number(one["agreement"]), _number(one["kappa"]), *counts)


def harmbench_table(found: dict[str, Figures]) -> Iterator[str]:
    """Yield the lines of a table of agreement."""
    names = list(found["all"])
    yield _line("model", "n", *names)
    yield f"|---|--:|{'--:|' * len(names)}"
    for part, one in found.items():
        yield _line(part, one[names[0]]["n"], *(_number(one[who]["agreement"]) for who in names))


def main() -> None:
    """Fit, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public files")
    parser.add_argument("--write", action="store_true", help="replace the package's weights")
    arguments = parser.parse_args()
    final, checked = measure_xstest(arguments.data)
    harmbench = measure_harmbench(arguments.data, final)
    answers = measure_answers(arguments.data, final)
    public, blind = measure_public(arguments.data), measure_blind(arguments.data, final)
    logs = measure_logs(final)
    if arguments.write:
        weights = dict(zip(SIGNS, final.weights.tolist(), strict=True))
        measured = {
            "xstest": checked,
            "answers": answers,
            "public": public["all"],
            "blind": blind[0]["all"],
            "logs": logs[0]["all"],
            "harmbench": harmbench["all"],
        }
        content = {"intercept": final.intercept, "weights": weights, "checked": measured}
        write_json(FITTED, content)
    print("\n".join(xstest_table(checked)))
    for model, found in checked.items():
        print(f"\nPartial refusals of {model}: {found['partial refusals']}")
    print("\n" + "\n".join(label_table(answers)))
    print("\n" + "\n".join(label_table(public)))
    for found in (*blind, *logs):
        print("\n" + "\n".join(label_table(found)))
    print("\n" + "\n".join(harmbench_table(harmbench)))
    print("\n| answers | n | refusals | by phrases |\n|---|--:|--:|--:|")
    print("\n".join(_line(*row) for row in measure_alarms(arguments.data, final)))


if __name__ == "__main__":
    main()
