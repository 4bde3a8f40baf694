"""What the cells of a run would cost: hours, memory, tokens, and questions to a judge.

Tuning is estimated as ``rtune finetune --dry-run`` does. Answering is measured: the base generates
a few tokens here. A tuned model is expected to answer as long as the responses it is tuned on.
Loading the base and preparing the data are measured too; starting, scores and the report are
constants.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from response_tuning.artifacts import Completion, Message, Request, Sampling, write_jsonl
from response_tuning.errors import ModelError, ResponseTuningError
from response_tuning.grade.benchmark import OFFLINE
from response_tuning.models.location import is_here
from response_tuning.models.speed import clock
from response_tuning.workflows.cell import sampling_of
from response_tuning.workflows.data import run_data
from response_tuning.workflows.experiment import Cell, Experiment
from response_tuning.workflows.refine import unrefined

if TYPE_CHECKING:
    from response_tuning.finetune.plan import Plan
    from response_tuning.generate.engines.hf import Pending
    from response_tuning.grade import Item
    from response_tuning.models.local import LocalModel
    from response_tuning.models.speed import Speed

Made = TypeVar("Made")
CHARACTERS = 4
"""Of a token of the judge, whose tokenizer is not known here: about as many as in English text."""
AS_COSTLY = {"learning_rate", "scheduler", "warmup_steps", "weight_decay", "max_grad_norm", "twins"}
"""Settings of ``finetune`` that change no cost, and that a grid may vary."""
OF_PACE = {"base_model", "base_revision", "objective", "method", "lora_r", "precision", "window"}
"""Settings of ``finetune`` that decide how long a token takes to train; others hardly matter."""
SAMPLE = 256
"""Prompts that are generated from, at most."""
START = 10.0
"""Seconds of a core for what a run does once: 6 to import the libraries, 2 for what the first
forward pass imports, and 2 or more for the report (2026-11-30, a shared virtual core)."""
ANSWER = 3e-4
"""Seconds of a core for each answer, beside generating it: a third of it to score it, the rest to
read its prompt and to write it down (2026-11-30, the miniature's benchmarks)."""
QUICK = 10.0
"""Seconds. What takes less is timed twice, as imports may take most of the first time."""


class Cost(NamedTuple):
    """What some cells would cost, one after the other."""

    tuning: float = 0.0
    """Seconds."""
    answering: float = 0.0
    """Seconds."""
    memory: float = 0.0
    """Bytes at most."""
    trained: float = 0
    """Tokens that go through a model in training."""
    generated: float = 0
    """Tokens of answers."""
    questions: float = 0
    """Requests to the judge."""
    asked: float = 0
    """Tokens of these requests."""
    other: float = 0.0
    """Seconds of all else: to start, prepare data, load and save models, score and report."""

    def plus(self, other: "Cost") -> "Cost":
        """Return the cost of both."""
        both = Cost(*(one + another for one, another in zip(self, other, strict=True)))
        return both._replace(memory=max(self.memory, other.memory))

    def times(self, count: int) -> "Cost":
        """Return the cost of so many."""
        return Cost(*(count * one for one in self))._replace(memory=self.memory)


def cost_of(cells: Sequence[Cell], experiment: Experiment) -> tuple[Cost, dict[str, list[str]]]:
    """Return what cells would cost, and why some variants are not part of it: reason -> variants.

    It loads the bases that are on this machine, and downloads no weights.
    """
    import torch

    if experiment.threads is not None:
        torch.set_num_threads(experiment.threads)
    every: dict[str, list[Cell]] = {}
    for cell in cells:
        every.setdefault(cell.variant, []).append(cell)
    total, left_out = Cost(), dict[str, list[str]]()
    with tempfile.TemporaryDirectory() as folder:
        estimator = _Estimator(experiment, Path(folder))
        # Variants of one base follow each other, so that it is loaded once.
        for name in sorted(every, key=lambda name: _model_key(every[name][0])):
            try:
                total = total.plus(estimator.variant(every[name]))
            except ResponseTuningError as error:
                # A judge is asked as often, wherever the answers come from.
                total = total.plus(estimator.judging_at_most(every[name]))
                left_out.setdefault(str(error), []).append(name)
    if len(every) > sum(map(len, left_out.values())):
        total = total.plus(Cost(other=START))
    return total, left_out


def answers_once(cell: Cell) -> bool:
    """Whether a cell gives the same answers at all seeds: a greedy model that is not tuned."""
    return not (cell.tuned or cell.generate.temperature)


def asked_once(items: "Mapping[str, Sequence[Item]]") -> "dict[str, list[Item]]":
    """Return the items of benchmarks without those whose prompt an earlier one has.

    A cell answers a prompt once, whatever benchmarks ask it.
    """
    first: dict[tuple[Message, ...], Item] = {}
    for item in chain(*items.values()):
        first.setdefault(item.prompt, item)
    return {
        name: [item for item in of_one if first[item.prompt] is item]
        for name, of_one in items.items()
    }


def _model_key(cell: Cell) -> tuple[str, str, str, str]:
    tuning = cell.finetune
    template = cell.generate.template or tuning.template
    return tuning.base_model, tuning.base_revision, tuning.device, template


@dataclass
class _Estimator:
    """Estimates variants; what several of them share is prepared or measured once."""

    experiment: Experiment
    folder: Path
    """For temporary files."""
    _data: dict[str, tuple[Path, float]] = field(default_factory=dict)
    """Settings -> the folder, and the seconds that it took."""
    _plans: "dict[str, Plan]" = field(default_factory=dict)
    _paces: dict[str, tuple[float, float]] = field(default_factory=dict)
    _speeds: "dict[str, Speed]" = field(default_factory=dict)
    _model: "tuple[tuple[str, str, str, str], LocalModel] | None" = None
    _loading: float = 0.0
    """Seconds to load this model."""

    def variant(self, seeds: Sequence[Cell]) -> Cost:
        """Return the cost of the cells of a variant.

        Raises:
            ResponseTuningError: there is no telling.
        """
        cell, count = seeds[0], len(seeds)
        if not cell.local:
            raise ModelError(f"engine '{cell.generate.engine}' answers, and not this machine")
        if not is_here(cell.finetune.base_model, cell.finetune.base_revision):
            raise ModelError(f"{cell.finetune.base_model} is not on this machine")
        plan = self._plan(cell) if cell.tuned else None
        items = self._items(cell)
        answering, length = self._answering(cell, items, plan)
        total = answering.times(1 if answers_once(cell) else count)
        total = total.plus(self._judging(cell, items, round(length)).times(count))
        if plan is not None:
            one = Cost(tuning=plan.seconds, memory=plan.memory_bytes, trained=plan.tokens)
            total = total.plus(one.times(count))
        return total.plus(Cost(other=self._other(cell, items)).times(count))

    def judging_at_most(self, seeds: Sequence[Cell]) -> Cost:
        """Return the cost of judging the longest answers that a variant may give."""
        cell, count = seeds[0], len(seeds)
        longest = sampling_of(cell).max_new_tokens
        return self._judging(cell, self._items(cell), longest).times(count)

    def _other(self, cell: Cell, items: "Mapping[str, Sequence[Item]]") -> float:
        """Return the seconds that a cell takes beside tuning and answering."""
        seconds = ANSWER * sum(map(len, items.values()))
        if not cell.tuned:
            return seconds + self._loading
        assert cell.data is not None
        # The base is loaded, and the tuned model too; all its weights are saved, or an adapter.
        loads = 2 + (cell.finetune.method == "full")
        return seconds + loads * self._loading + self._data[cell.data.model_dump_json()][1]

    def _plan(self, cell: Cell) -> "Plan":
        from response_tuning.finetune.base import fitted
        from response_tuning.finetune.dataset import read_examples
        from response_tuning.finetune.plan import estimate

        assert cell.data is not None
        data = cell.data.model_dump_json()
        if data not in self._data:
            config = unrefined(cell.data)

            def prepare() -> Path:
                folder = Path(tempfile.mkdtemp(dir=self.folder)) / "data"
                run_data(config, folder)
                return folder

            self._data[data] = _timed(prepare, clock("cpu"))
        key = data + cell.finetune.model_dump_json(exclude=AS_COSTLY)
        if key not in self._plans:
            kind = cell.finetune.model_dump_json(include=OF_PACE)
            plan = estimate(
                fitted(cell.finetune), read_examples(self._data[data][0]), self._paces.get(kind)
            )
            self._plans[key], self._paces[kind] = plan, plan.pace
        return self._plans[key]

    def _items(self, cell: Cell) -> "dict[str, Sequence[Item]]":
        from response_tuning.grade import open_benchmark, open_lm_eval

        return {
            name: open_benchmark(name, self.experiment.grade).items()
            for name in cell.benchmarks
            if open_lm_eval(name) is None
        }

    def _answering(
        self, cell: Cell, items: "Mapping[str, Sequence[Item]]", plan: "Plan | None"
    ) -> tuple[Cost, float]:
        """Return the cost of all answers, and the tokens of one."""
        from response_tuning.models import speed

        local = self._load(cell)
        sampling = sampling_of(cell)
        now = clock(local.model.device.type)
        began = now()
        of_each = [
            [(one, local.draft(one.prompt, sampling)) for one in of_one]
            for of_one in asked_once(items).values()
            if of_one
        ]
        encoding = now() - began
        drafts = [draft for pending in of_each for _, draft in pending]
        if not drafts:
            return Cost(), 0.0
        # Evenly spread, because the items of a benchmark may be sorted.
        some = drafts[:: ceil(len(drafts) / SAMPLE)]
        limit = fmean(draft.limit for draft in drafts)
        if plan is None:
            length = speed.mean_length(local, some, sampling)
        else:
            responses = plan.audit["supervised_tokens"] / plan.audit["kept"]
            length = min(responses, limit)
        # Tuned or not, a model of this base answers at one speed.
        kind = f"{_model_key(cell)} {cell.benchmarks} {sampling.model_dump_json()}"
        if kind not in self._speeds:
            self._speeds[kind] = speed.measure(local, some, sampling)
        pace = self._speeds[kind]
        tokens_per_batch = cell.generate.tokens_per_batch
        batches, read = map(
            sum,
            zip(*(_batches(one, tokens_per_batch, length) for one in of_each), strict=True),
        )
        # The last answers of a batch are longer than the mean.
        steps = batches * min(2 * length, limit)
        tokens = length * len(drafts)
        seconds = encoding + read * pace.prompt_token + steps * pace.step + tokens * pace.row
        weights = sum(p.numel() * p.element_size() for p in local.model.parameters())
        return Cost(answering=seconds, memory=weights, generated=tokens), length

    def _load(self, cell: Cell) -> "LocalModel":
        import torch

        from response_tuning.models.inference import load

        key = _model_key(cell)
        if self._model is None or self._model[0] != key:
            self._model = None  # frees the one before
            base, revision, _, template = key
            device = cell.finetune.device
            precision = cell.generate.settings.precision
            on_gpu = device != "cpu" and torch.cuda.is_available()
            local, self._loading = _timed(
                lambda: load(base, template, revision, device, precision),
                clock("cuda" if on_gpu else "cpu"),
            )
            self._model = key, local
        return self._model[1]

    def _judging(self, cell: Cell, items: "Mapping[str, Sequence[Item]]", length: int) -> Cost:
        """Return the cost of asking the judge about answers of ``length`` tokens."""
        from response_tuning.grade import JudgedBenchmark, open_benchmark

        grade = self.experiment.grade
        if grade.judge.engine == OFFLINE:
            return Cost()
        requests: list[Request] = []
        named = self.experiment.references.get(cell.variant)
        for name, of_one in items.items():
            config = grade
            if named is not None:
                reference = self.folder / f"{name}.jsonl"
                # A judge is not asked about equal answers, such as those of the reference itself.
                letter = "a" if named == cell.variant else "b"
                write_jsonl(reference, [_answer(item, letter, length) for item in of_one])
                config = grade.model_copy(update={"reference": str(reference)})
            rule = open_benchmark(name, config)
            if isinstance(rule, JudgedBenchmark):
                for item in of_one:
                    requests += rule.questions(item, _answer(item, "a", length))
        written = sum(len(message.content) for one in requests for message in one.prompt)
        return Cost(questions=len(requests), asked=written / CHARACTERS)


def _timed(act: Callable[[], Made], now: Callable[[], float]) -> tuple[Made, float]:
    """Return what ``act`` makes, and the seconds that it takes."""
    began = now()
    made = act()
    seconds = now() - began
    if seconds < QUICK:
        del made  # frees a model before it is loaded again
        began = now()
        made = act()
        seconds = now() - began
    return made, seconds


def _batches(
    pending: "Sequence[Pending]", tokens_per_batch: int, length: float
) -> tuple[int, float]:
    """Return the batches in which prompts are answered, and the tokens that begin these batches.

    The tokens count padding, and the rows that wait for another batch of the engine ``hf``. These
    are read once more, with an answer of about ``length`` tokens.
    """
    from response_tuning.generate.engines.hf import STRAGGLERS, next_batch

    left, batches, read = [*pending], 0, 0.0
    while left:
        batch, left = next_batch(left, tokens_per_batch)
        width, batches = max(len(draft.prompt) for _, draft in batch), batches + 1
        read += len(batch) * width
        if left:
            read += len(batch) / STRAGGLERS * (width + length)
    return batches, read


def _answer(item: "Item", letter: str, tokens: int) -> Completion:
    """Return an answer of about ``tokens`` tokens, to count the questions about it."""
    return Completion(
        item_id=item.item_id,
        prompt=item.prompt,
        response=(letter * (CHARACTERS - 1) + " ") * max(tokens, 1),
        finish_reason="stop",
        key="",
        model="",
        template="",
        sampling=Sampling(),
    )
