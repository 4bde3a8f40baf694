"""A source that is found, surveyed and ready to be read, with the steps of its own."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.configs import DataConfig, SourceConfig
from response_tuning.data import columns, judgements, piecewise, preferences, sources
from response_tuning.data.sampling import sample
from response_tuning.data.steps.curation import Step
from response_tuning.data.survey import Survey
from response_tuning.data.workers import Apply
from response_tuning.errors import ConfigError
from response_tuning.terminal import printable

logger = logging.getLogger(__name__)


class Places(NamedTuple):
    """Where the examples of a part are made."""

    out: Path
    """The folder of the examples."""
    work: Path
    """The folder of the part's pieces."""
    apply: Apply


class SourcePart:
    """A source of examples, and the steps for its rows only."""

    size_flag = "--max-examples"

    def __init__(self, config: SourceConfig, size: int | None, seed: int, where: Places) -> None:
        out, work, apply = where
        self._name = config.source
        self.source = sources.find(config)
        # Inside the source, the next run would read the examples as rows.
        path = self.source.path
        if path is not None and out.resolve().is_relative_to(path):
            raise ConfigError(
                f"{out} lies in the source {self.source.name}; write to another folder"
            )
        self.judging = config.judging if isinstance(config, DataConfig) else None
        self.folder = piecewise.Folder(work, self.source) if self.source.pieces else None
        plan = self.folder.plan() if self.folder else None
        if plan is None:
            survey, rows = sources.survey_pieces(self.source, apply)
            plan = self._plan(survey, rows, config)
            if self.folder:
                self.folder.keep(plan)
        self.used, self.not_used, self.rows = plan
        if self.not_used:
            names = columns.listed(self.not_used)
            logger.warning("%s: columns not used: %s", printable(self.source.name), names)
        self.selector: str | None = None
        self.last: list[Step] = []
        if size is not None:
            wanted = f"{self.source.name}: {size} examples requested ({self.size_flag})"
            self.last.append(sample(size, seed, wanted, out))
        pairs = config.preferences if isinstance(config, DataConfig) else None
        if pairs is not None and pairs.flip:
            self.last.append(preferences.flip(pairs.flip, seed))
        if self.judging is not None and self.judging.shuffle:
            self.last.append(judgements.shuffle(seed))

    def _plan(self, survey: Survey, rows: list[int], config: SourceConfig) -> piecewise.Plan:
        pairs = isinstance(config, DataConfig) and config.preferences
        if self.judging is not None:
            used = judgements.choose_judged(survey, config, self.judging, self.source.name)
        else:
            choose: Any = preferences.choose_pair if pairs else columns.choose
            used = choose(survey, config, self.source.name)
        return piecewise.Plan(used, columns.not_used(survey, used), rows)

    @property
    def origin(self) -> dict[str, Any]:
        """Origin of the examples, for the audit."""
        origin = {"name": self._name, **self.source.origin, "columns": self.used.named()}
        return origin | ({"columns_not_used": self.not_used} if self.not_used else {})


class RefusalsPart(SourcePart):
    """The refusals that are mixed in: the rows of a source that decline."""

    size_flag = "data.mixture.refusals"

    def __init__(self, config: DataConfig, where: Places) -> None:
        mixture = config.mixture
        super().__init__(mixture, mixture.refusals, config.seed, where)
        self.selector = mixture.selector
