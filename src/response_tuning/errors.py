"""Errors that a user can fix. Every other exception is a bug and keeps its traceback.

ResponseTuningError
├── ConfigError     a flag, a recipe, a missing extra
├── DataError       a file or a row of the user's
├── TemplateError   a chat template that cannot render a conversation
├── ModelError      a base model that cannot be loaded or trained
└── EngineError     an engine that cannot answer
"""


class ResponseTuningError(Exception):
    """Base of all errors that the command line shows as one line, with exit code 2."""

    in_flags: str = ""
    """The message for the command line, where the error's own one names keywords."""


class ConfigError(ResponseTuningError, ValueError):
    """A flag or a recipe asks for something impossible."""


class DataError(ResponseTuningError, ValueError):
    """A file of the user's cannot be used."""


class TemplateError(ResponseTuningError, ValueError):
    """A chat template cannot render these messages."""


class ModelError(ResponseTuningError, ValueError):
    """A model cannot be loaded, or cannot be trained exactly."""


class EngineError(ResponseTuningError, RuntimeError):
    """An engine cannot answer at all (one failed item is a record, not this)."""


def unused(why: str, **flags: object) -> None:
    """Refuse flags that have no effect here; ignoring one would surprise its user.

    Raises:
        ConfigError: a flag is given, that is, neither None nor False nor empty.
    """
    for name, value in flags.items():
        if value is not None and value is not False and value != ():
            raise ConfigError(f"--{name.replace('_', '-')} has no effect: {why}; remove it")
