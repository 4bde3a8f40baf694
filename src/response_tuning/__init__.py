"""Response Tuning: a base language model becomes an assistant from responses alone.

The names below are the library; they are imported when first used, so that importing the package
costs nothing. Each stage is a function of the package that bears its name:
``response_tuning.data.prepare``, ``response_tuning.finetune.finetune`` and
``response_tuning.generate.generate``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from response_tuning.artifacts import Completion, Example, Message, Request, Sampling
    from response_tuning.configs import DataConfig, EngineConfig, FinetuneConfig
    from response_tuning.errors import ResponseTuningError
    from response_tuning.finetune.encoding import Encoder
    from response_tuning.finetune.steps import Documents
    from response_tuning.finetune.trainer import ResponseTrainer
    from response_tuning.generate import open_engine
    from response_tuning.recipe import Recipe
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
    "install",
    "open_engine",
]

_HOMES = {
    "artifacts": ("Completion", "Example", "Message", "Request", "Sampling"),
    "configs": ("DataConfig", "EngineConfig", "FinetuneConfig"),
    "errors": ("ResponseTuningError",),
    "finetune.encoding": ("Encoder",),
    "finetune.steps": ("Documents",),
    "finetune.trainer": ("ResponseTrainer",),
    "generate": ("open_engine",),
    "recipe": ("Recipe",),
    "templates": ("Chat", "install"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"response_tuning.{module}"), name)
    raise AttributeError(f"module 'response_tuning' has no attribute {name!r}")
