"""AlpacaEval: are answers to 805 instructions more helpful than a reference's?

The instructions are of Li et al. 2023 (github.com/tatsu-lab/alpaca_eval), the length-controlled
rate is of AlpacaEval 2 (arXiv 2404.04475), and the judge's wording is our own; each pair is judged
in both orders. The paper compares response tuning with instruction tuning so (Figures 4, 8, 9).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from response_tuning import hub
from response_tuning.artifacts import Completion, Message, Request, Score, Total, file_digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import BENCHMARKS, OFFLINE, Item
from response_tuning.grade.judges.alpaca_eval_files import model_outputs, read_difficulties
from response_tuning.grade.judges.pairwise import Pairwise, answers_by_id, read_answers
from response_tuning.grade.sources import (
    BenchmarkSource,
    SourceRows,
    cell,
    local_copy,
    read_source,
    spread,
)
from response_tuning.readers import one_line, read

NAME = "alpaca-eval"
LOCAL = BenchmarkSource(benchmark=NAME, local="alpaca_eval/reference_text_davinci_003.json")
HUB_ID, HUB_FILE = "tatsu-lab/alpaca_eval", "alpaca_eval.json"
"""A dataset whose loading script current versions of ``datasets`` refuse; its file is read."""


class AlpacaEvalInstructions:
    """The 805 instructions, without a way to score answers."""

    def __init__(self, config: GradeConfig) -> None:
        self._config = config

    @cached_property
    def _rows(self) -> SourceRows:
        if local_copy(LOCAL, self._config) is not None:
            return read_source(LOCAL, self._config)
        commit = hub.resolve(HUB_ID, self._config.revisions.get(NAME, "main"), NAME)
        rows = tuple(read(_download(commit)))
        return SourceRows(rows, {"hub_id": HUB_ID, "commit": commit, "file": HUB_FILE})

    @property
    def origin(self) -> dict[str, Any]:
        """Where the instructions come from."""
        return self._rows.origin

    @cached_property
    def _items(self) -> list[Item]:
        every = [
            Item(
                item_id=f"{NAME}-{number:03}",
                prompt=(Message(role="user", content=cell(row, "instruction")),),
                group=cell(row, "dataset") if "dataset" in row.fields else "",
            )
            for number, row in enumerate(self._rows.rows)
        ]
        return spread(every, self._config.limit)

    def items(self) -> Sequence[Item]:
        """Return the instructions, each in the group of the dataset that it comes from."""
        return self._items


@BENCHMARKS.register(NAME)
class AlpacaEval(AlpacaEvalInstructions):
    """The instructions, and a judge that compares answers with a reference's.

    Raises:
        ConfigError: there is a judge and no reference. This is known before a model answers.
    """

    suite = "helpfulness"
    metrics = Pairwise.metrics
    headline = ("length_controlled_win_rate", "win_rate")
    has_reference = True

    def __init__(self, config: GradeConfig) -> None:
        super().__init__(config)
        if config.judge.engine != OFFLINE:
            _reference(config)

    @property
    def origin(self) -> dict[str, Any]:
        """Where the instructions and their difficulties come from."""
        path = self._config.difficulties
        if path is None:
            return super().origin
        used = {"path": str(path), "sha256": file_digest(path)}
        return {**super().origin, "difficulties": used}

    @cached_property
    def _pairwise(self) -> Pairwise:
        reference = read_answers(_reference(self._config), self._items)
        return Pairwise(self._items, reference, self._difficulties())

    def _difficulties(self) -> dict[str, float] | None:
        path = self._config.difficulties
        if path is None:
            return None
        known = read_difficulties(path)
        for item in self._items:
            if item.prompt[0].content not in known:
                raise DataError(f"{path}: no difficulty of the instruction of item {item.item_id}")
        return {item.item_id: known[item.prompt[0].content] for item in self._items}

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return the question in both orders.

        Raises:
            ConfigError: no reference is named.
            DataError: the reference, or the file of difficulties, lacks an item.
        """
        return self._pairwise.questions(item, completion)

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of ``Pairwise``."""
        return self._pairwise.judged(item, completion, replies)

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield ``length_controlled_win_rate``."""
        return self._pairwise.totals(scores)

    def export(self, completions: Sequence[Completion], generator: str) -> Mapping[str, object]:
        """Return the answers as the ``alpaca_eval`` package reads them."""
        answers = answers_by_id(completions, self._items, NAME)
        return {"model_outputs.json": model_outputs(self._items, answers, generator)}


def _reference(config: GradeConfig) -> Path:
    if config.reference is None:
        raise ConfigError(
            f"{NAME} compares answers with those of a reference: name a variant, or a file of "
            "answers (completions .jsonl or model_outputs.json), with --set grade.reference=NAME"
        )
    return Path(config.reference)


def _download(commit: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    # The error of its HTTP library, which is another one from version to version.
    http_error = errors.HTTPError  # type: ignore[attr-defined]
    try:
        return Path(hf_hub_download(HUB_ID, HUB_FILE, repo_type="dataset", revision=commit))
    except (OSError, errors.EntryNotFoundError, http_error) as error:
        raise DataError(
            f"{HUB_ID}: {HUB_FILE} cannot be loaded from the hub: {one_line(error)}; check the "
            f"network, or name a local copy with --set grade.paths.{NAME}=FILE"
        ) from error
