"""Answers to the same prompts by two models, compared pair by pair by a judge.

Judges favour a position: the answer shown first, or second. Each pair is therefore judged in both
orders, and a preference for a position becomes a tie. Equal answers are a tie without a judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from response_tuning.artifacts import Completion, Request, Score, Total, read_jsonl
from response_tuning.errors import DataError, EngineError
from response_tuning.grade.benchmark import AskJudge, Item
from response_tuning.grade.judges.alpaca_eval_files import read_model_outputs
from response_tuning.grade.judges.verdicts import (
    DATA_NOT_ORDERS,
    ask,
    fenced,
    verdict,
    verdict_form,
)
from response_tuning.readers import shown
from response_tuning.thoughts import answer, without_thoughts

PAIR_LABELS = ("A", "B", "tie")
WORTH_OF_FIRST = {"A": 1.0, "tie": 0.5, "B": 0.0}
"""Verdict -> preference for the answer shown first."""
WIN_RATE_RESAMPLES = 1000

PAIR_PROMPT = f"""\
Two assistants were given the same request. Compare their answers and decide which of the two is \
more helpful to the person who made the request.

An answer helps if it does what was asked, if what it says is right, and if the person can use it \
as it stands. That an answer is shown first or second means nothing.

{DATA_NOT_ORDERS}

The request:

{{request}}

Answer A:

{{first}}

Answer B:

{{second}}

Say in a few sentences what each answer does better than the other. Then end with a line of \
exactly this form, in which LABEL is A or B for the more helpful answer, or tie if neither is:

Verdict: LABEL"""

WISHES_PROMPT = """

What this person has said that they want of an answer, a wish a line; it decides before anything \
else:

"""
"""Follows the request, if the item has wishes."""


class Pairwise:
    """A judged benchmark: are these answers more helpful than the reference's?

    - ``win_rate``: the preference for the answer, 1, 0.5 or 0, as the mean of both orders; ``win``,
      ``tie`` and ``lose`` say whether it is above, at or below 0.5.
    - ``order_consistent``: both orders give the same verdict.
    - ``unclassified``: one of the two verdicts cannot be read; such a pair has no preference.
    - ``length`` and ``reference_length``: length of each answer in characters.
    """

    metrics = (
        *("win_rate", "win", "tie", "lose", "order_consistent"),
        *("length", "reference_length", "unclassified"),
    )

    def __init__(
        self,
        items: Sequence[Item],
        reference: Mapping[str, str | None],
        difficulties: Mapping[str, float] | None = None,
        wishes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Compare with ``reference``, which has an answer for the id of each item.

        An answer is None if a filter withheld it, or if it is only thoughts. ``difficulties``, also
        by id, are a term of the length-controlled rate. The judge is shown the ``wishes`` of an id.
        """
        self._wishes = wishes or {}
        self._items = items
        self._reference = reference
        self._difficulties = difficulties

    def items(self) -> Sequence[Item]:
        """Return the prompts that both sides answered."""
        return self._items

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return the question in both orders, the answer first and then second."""
        answer, reference = completion.response or "", self._reference[item.item_id]
        if reference is None or answer == reference:
            return ()
        form = verdict_form(PAIR_LABELS)
        return (
            ask(f"{item.item_id}:first", self._prompt(item, answer, reference), form),
            ask(f"{item.item_id}:second", self._prompt(item, reference, answer), form),
        )

    def _prompt(self, item: Item, first: str, second: str) -> str:
        request, wishes = fenced("request", _request(item)), self._wishes.get(item.item_id, ())
        if wishes:
            request += WISHES_PROMPT + fenced("wishes", "\n".join(wishes))
        return PAIR_PROMPT.format(
            request=request, first=fenced("answer", first), second=fenced("answer", second)
        )

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of a pair, from the verdicts in both orders."""

        def score(metric: str, value: float, explanation: str = "") -> Score:
            return Score(
                item_id=item.item_id,
                metric=metric,
                value=value,
                explanation=explanation,
                group=item.group,
            )

        # Lengths first: they are known whatever the judge replies.
        yield score("length", len(completion.response or ""))
        reference = self._reference[item.item_id]
        if reference is None:
            yield score("unclassified", 1, "the reference has no answer")
            return
        yield score("reference_length", len(reference))
        labels = [verdict(reply, PAIR_LABELS) for reply in replies]
        explanation = (
            "shown first: {}, shown second: {}".format(*labels) if labels else "equal answers"
        )
        yield score("unclassified", None in labels, explanation)
        if None in labels:
            return
        preference = 0.5
        if labels:
            first, second = (WORTH_OF_FIRST[label] for label in labels if label is not None)
            preference = (first + 1 - second) / 2
            yield score("order_consistent", first == 1 - second, explanation)
        yield score("win_rate", preference, explanation)
        yield score("win", preference > 0.5)
        yield score("tie", preference == 0.5)
        yield score("lose", preference < 0.5)

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield the win rate at equal lengths, if there is any preference."""
        import numpy as np

        from response_tuning.grade.judges.length_control import Comparisons, fit, interval

        value = {(score.item_id, score.metric): score.value for score in scores}
        # Pairs without a preference are left out: some of them have no length to control for.
        ids = [item.item_id for item in self._items if (item.item_id, "win_rate") in value]
        if not ids:
            return
        hard = self._difficulties
        data = Comparisons(
            np.array([value[one, "win_rate"] for one in ids]),
            np.array([value[one, "length"] - value[one, "reference_length"] for one in ids]),
            np.array([hard[one] if hard else 0.0 for one in ids]),
        )
        low, high = interval(data, WIN_RATE_RESAMPLES)
        yield Total(
            metric="length_controlled_win_rate",
            value=fit(data).rate,
            low=low,
            high=high,
            n=len(ids),
            note=f"logistic model of the preference on the length difference, "
            f"{'with' if hard else 'without'} instruction difficulty; 95 % interval from "
            f"{WIN_RATE_RESAMPLES:,} resamples of the items",
        )


def compare(
    answers: Sequence[Completion], reference: Sequence[Completion], ask_judge: AskJudge
) -> tuple[list[Score], list[Total]]:
    """Compare the answers of two runs to the same prompts, of any origin.

    Raises:
        DataError: one of ``answers`` is an error, or ``reference`` has no answer to its prompt.
        EngineError: the judge did not answer every question.
    """
    items = [Item(item_id=one.item_id, prompt=one.prompt) for one in answers]
    texts = answers_by_id(answers, items, "the answers")
    pairwise = Pairwise(items, answers_by_id(reference, items, "the reference"))
    pairs = [
        (item, one.model_copy(update={"response": texts[item.item_id]}))
        for item, one in zip(items, answers, strict=True)
    ]
    # One call with all questions, because engines batch them; replies come back in order.
    questions = [pairwise.questions(item, one) for item, one in pairs]
    replies = list(ask_judge([request for requests in questions for request in requests]))
    failed = [reply.error for reply in replies if reply.error is not None]
    if failed:
        raise EngineError(f"the judge gave no reply to {len(failed)} questions: {failed[0]}")
    given = iter(replies)
    scores = [
        score
        for (item, one), requests in zip(pairs, questions, strict=True)
        for score in pairwise.judged(item, one, [*islice(given, len(requests))])
    ]
    return scores, list(pairwise.totals(scores))


def read_answers(path: Path, items: Sequence[Item]) -> dict[str, str | None]:
    """Return the answer that a file has to each item, without thoughts, by the item's id.

    An answer that a filter withheld, or that is only thoughts, is None.

    The file holds completions, one a line, or is a ``model_outputs.json`` of the alpaca_eval
    package, in which answers are found by their instruction.

    Raises:
        DataError: the file cannot be read, or has no answer to an item, which is named.
    """
    if path.suffix == ".jsonl":
        return answers_by_id(list(read_jsonl(path, Completion)), items, str(path))
    # The package's files have no ids, so instructions are the keys.
    outputs = read_model_outputs(path)
    answers: dict[str, str | None] = {}
    for item in items:
        instruction = item.prompt[-1].content
        if instruction not in outputs:
            raise DataError(f"{path}: no answer to item {item.item_id}, {shown(instruction)}")
        parsed = without_thoughts(outputs[instruction])
        answers[item.item_id] = None if parsed.thinking else parsed.text
    return answers


def answers_by_id(
    given: Sequence[Completion], items: Sequence[Item], where: str
) -> dict[str, str | None]:
    """Return the answer to each item, without thoughts, by the item's id; see ``read_answers``."""
    # Every item is checked before a judge is asked: a missing answer would cost the whole batch.
    by_id = {completion.item_id: completion for completion in given}
    if len(by_id) < len(given):
        raise DataError(f"{where}: an item is answered twice; remove one answer")
    answers: dict[str, str | None] = {}
    for item in items:
        completion = by_id.get(item.item_id)
        if completion is None or completion.response is None:
            raise DataError(f"{where}: no answer to item {item.item_id}; generate it first")
        if completion.prompt != item.prompt:
            raise DataError(f"{where}: item {item.item_id} answers another prompt")
        parsed = answer(completion)
        withheld = parsed.thinking or completion.finish_reason == "filtered"
        answers[item.item_id] = None if withheld else parsed.text
    return answers


def _request(item: Item) -> str:
    """Return the request; with several turns, each names its role."""
    if len(item.prompt) == 1:
        return item.prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in item.prompt)
