"""A source that is found, surveyed and ready to be read, with the steps of its own."""

import logging
from pathlib import Path
from typing import Any

from response_tuning.configs import DataConfig, SourceConfig
from response_tuning.data import columns, judgements, preferences, sources
from response_tuning.data.sampling import sample
from response_tuning.data.steps import curation
from response_tuning.data.steps.curation import Step
from response_tuning.errors import ConfigError
from response_tuning.terminal import printable

logger = logging.getLogger(__name__)


class SourcePart:
    """A source of examples, and the steps for its rows only."""

    size_flag = "--max-examples"

    def __init__(self, config: SourceConfig, out: Path, size: int | None, seed: int) -> None:
        self._name = config.source
        self.source = sources.find(config)
        # Inside the source, the next run would read the examples as rows.
        path = self.source.path
        if path is not None and out.resolve().is_relative_to(path):
            raise ConfigError(
                f"{out} lies in the source {self.source.name}; write to another folder"
            )
        survey = sources.columns(self.source)
        pairs = config.preferences if isinstance(config, DataConfig) else None
        self.judging = config.judging if isinstance(config, DataConfig) else None
        if self.judging is not None:
            self.used = judgements.choose_judged(survey, config, self.judging, self.source.name)
        else:
            choose: Any = preferences.choose_pair if pairs else columns.choose
            self.used = choose(survey, config, self.source.name)
        self.not_used = columns.not_used(survey, self.used)
        if self.not_used:
            names = columns.listed(self.not_used)
            logger.warning("%s: columns not used: %s", printable(self.source.name), names)
        self.first: list[Step] = []
        self.last: list[Step] = []
        if size is not None:
            wanted = f"{self.source.name}: {size} examples requested ({self.size_flag})"
            self.last.append(sample(size, seed, wanted, out))
        if pairs is not None and pairs.flip:
            self.last.append(preferences.flip(pairs.flip, seed))
        if self.judging is not None and self.judging.shuffle:
            self.last.append(judgements.shuffle(seed))

    @property
    def origin(self) -> dict[str, Any]:
        """Origin of the examples, for the audit."""
        origin = {"name": self._name, **self.source.origin, "columns": self.used.named()}
        return origin | ({"columns_not_used": self.not_used} if self.not_used else {})


class RefusalsPart(SourcePart):
    """The refusals that are mixed in: the rows of a source that decline."""

    size_flag = "data.mixture.refusals"

    def __init__(self, config: DataConfig, out: Path) -> None:
        mixture = config.mixture
        super().__init__(mixture, out, mixture.refusals, config.seed)
        self.first.append(curation.only_refusals(mixture.selector))
