"""Response Tuning: a base language model becomes an assistant from responses alone.

The five verbs ``prepare``, ``finetune``, ``generate``, ``grade`` and ``report`` run the stages; see
docs/how-to/library.md. Every name is imported at its first use, so that importing the package costs
nothing. Four verbs have the names of their stages' packages, which are therefore callable:
``response_tuning.finetune(...)`` tunes, and ``response_tuning.finetune.trainer`` is a module.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from response_tuning.artifacts import Completion, Example, Message, Request, Sampling, Score
    from response_tuning.configs import DataConfig, EngineConfig, FinetuneConfig, GradeConfig
    from response_tuning.data import DATASETS, Dataset
    from response_tuning.errors import ResponseTuningError
    from response_tuning.finetune.encoding import Encoder
    from response_tuning.finetune.losses import DocumentLoss, Scored, Term
    from response_tuning.finetune.objectives import (
        OBJECTIVES,
        ObjectiveConfig,
        Segment,
        UnfitError,
    )
    from response_tuning.finetune.steps import Documents
    from response_tuning.finetune.trainer import ResponseTrainer
    from response_tuning.generate import ENGINES, open_engine
    from response_tuning.generate.engine import answered, failed
    from response_tuning.grade import BENCHMARKS, Item
    from response_tuning.recipe import Recipe
    from response_tuning.templates import TEMPLATES, Chat, install
    from response_tuning.workflows.library import finetune, generate, grade, prepare, report

    __version__: str

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "ENGINES",
    "OBJECTIVES",
    "TEMPLATES",
    "Chat",
    "Completion",
    "DataConfig",
    "Dataset",
    "DocumentLoss",
    "Documents",
    "Encoder",
    "EngineConfig",
    "Example",
    "FinetuneConfig",
    "GradeConfig",
    "Item",
    "Message",
    "ObjectiveConfig",
    "Recipe",
    "Request",
    "ResponseTrainer",
    "ResponseTuningError",
    "Sampling",
    "Score",
    "Scored",
    "Segment",
    "Term",
    "UnfitError",
    "answered",
    "failed",
    "finetune",
    "generate",
    "grade",
    "install",
    "open_engine",
    "prepare",
    "report",
]

_VERBS = ("finetune", "generate", "grade", "prepare", "report")
_HOMES = {
    "artifacts": ("Completion", "Example", "Message", "Request", "Sampling", "Score"),
    "configs": ("DataConfig", "EngineConfig", "FinetuneConfig", "GradeConfig"),
    "data": ("DATASETS", "Dataset"),
    "errors": ("ResponseTuningError",),
    "finetune.encoding": ("Encoder",),
    "finetune.losses": ("DocumentLoss", "Scored", "Term"),
    "finetune.objectives": ("OBJECTIVES", "ObjectiveConfig", "Segment", "UnfitError"),
    "finetune.steps": ("Documents",),
    "finetune.trainer": ("ResponseTrainer",),
    "generate": ("ENGINES", "open_engine"),
    "generate.engine": ("answered", "failed"),
    "grade": ("BENCHMARKS", "Item"),
    "recipe": ("Recipe",),
    "templates": ("TEMPLATES", "Chat", "install"),
    "workflows.library": _VERBS,
}


class _Verb(ModuleType):
    """A stage's package that is called as its verb."""

    def __call__(self, *arguments: object, **settings: object) -> object:
        return _verb(self.__name__)(*arguments, **settings)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(_verb(self.__name__), "__doc__", None)

    @property
    def __signature__(self) -> object:
        from inspect import signature

        return signature(_verb(self.__name__))


class _Library(ModuleType):
    """This package. Python sets each sub-package as an attribute, and so replaces a function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


def _verb(package: str) -> Any:  # noqa: ANN401 - one of the verbs
    name = package.rpartition(".")[2]
    return getattr(import_module("response_tuning.workflows.library"), name)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name == "__version__":
        from importlib.metadata import version

        return version("response-tuning")
    if name in _VERBS and name != "prepare":
        return import_module(f"response_tuning.{name}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"response_tuning.{module}"), name)
    raise AttributeError(f"module 'response_tuning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


sys.modules[__name__].__class__ = _Library
