"""Response Tuning: a base language model becomes an assistant from responses alone.

The names below are the library; they are imported when first used, so that importing the package
costs nothing. The stages are functions: ``prepare`` (data), ``finetune`` and ``generate``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from response_tuning.artifacts import Completion, Example, Message, Request, Sampling
    from response_tuning.configs import DataConfig, FinetuneConfig, Recipe
    from response_tuning.data import prepare
    from response_tuning.errors import ResponseTuningError
    from response_tuning.finetune.encoding import Encoder
    from response_tuning.finetune.run import finetune
    from response_tuning.finetune.steps import Documents
    from response_tuning.finetune.trainer import ResponseTrainer
    from response_tuning.generate import EngineConfig, generate, open_engine
    from response_tuning.templates import Chat, install

__all__ = [
    "Chat",
    "Completion",
    "DataConfig",
    "Documents",
    "Encoder",
    "EngineConfig",
    "Example",
    "FinetuneConfig",
    "Message",
    "Recipe",
    "Request",
    "ResponseTrainer",
    "ResponseTuningError",
    "Sampling",
    "finetune",
    "generate",
    "install",
    "open_engine",
    "prepare",
]

_HOMES = {
    "artifacts": ("Completion", "Example", "Message", "Request", "Sampling"),
    "configs": ("DataConfig", "FinetuneConfig", "Recipe"),
    "data": ("prepare",),
    "errors": ("ResponseTuningError",),
    "finetune.encoding": ("Encoder",),
    "finetune.run": ("finetune",),
    "finetune.steps": ("Documents",),
    "finetune.trainer": ("ResponseTrainer",),
    "generate": ("EngineConfig", "generate", "open_engine"),
    "templates": ("Chat", "install"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"response_tuning.{module}"), name)
    raise AttributeError(f"module 'response_tuning' has no attribute {name!r}")
