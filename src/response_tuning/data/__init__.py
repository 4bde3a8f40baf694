"""Stage 1: a named dataset or your own file becomes examples, with an audit of the rest."""

from response_tuning.data.preparation import prepare
from response_tuning.data.prompts import read_prompts
from response_tuning.data.remote import origin_at
from response_tuning.data.sources import DATASETS, Dataset, check_source
from response_tuning.data.steps.decontamination import prompts_digest
from response_tuning.data.workers import available

__all__ = ["DATASETS", "Dataset", "available", "check_source", "prepare", "prompts_digest"]
__all__ += ["origin_at", "read_prompts"]
