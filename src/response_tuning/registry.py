"""A table of named things: one instance for each extension point."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from response_tuning import plugins
from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Named things of one kind, including installed plug-ins.

    With ``package``, the first look-up imports every module of that package, so a new file needs no
    entry in a list. The first look-up imports the plug-ins too, never the start of a command. An
    import that fails is an error of every look-up.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that enters its argument as ``name``."""

        def enter(entry: Entry) -> Entry:
            if name in self._entries:
                raise ConfigError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def get(self, name: str) -> Entry:
        """Return the entry called ``name``.

        Raises:
            ConfigError: there is no such entry (the message lists all), or a plug-in is broken.
        """
        self._fill()
        if name not in self._entries:
            error = unknown(self.kind, name, self.names())
            if suggestion(name, self.names()):
                raise error
            raise ConfigError(f"{error}; one of your own needs --import MODULE")
        return self._entries[name]

    def names(self) -> list[str]:
        """Return the names, sorted."""
        self._fill()
        return sorted(self._entries)

    def _fill(self) -> None:
        if self._package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._package = None  # only now: after a failure the next look-up fails again
        # After our own names: a plug-in that takes one of them is the one that is refused.
        plugins.load_installed()


NAMES_LISTED = 12
"""How many known names follow a suggestion; without a suggestion, all of them are listed."""

CLOSE = 0.65
"""Similarity from which a name is suggested: ``tune`` has .67 with ``finetune``; ``nonsense``, .62
with ``notes``."""


def unknown(kind: str, name: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a name that is not in ``known``, with the most similar name that is."""
    hint = suggestion(name, known)
    shown = [hint] if hint else []
    if not hint or len(known) <= NAMES_LISTED:
        shown.append(f"known are {', '.join(known)}")
    # Someone may have pasted a key where a name belongs.
    return ConfigError(f"unknown {kind} '{redacted(name)}': {' '.join(shown)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the known name most similar to ``name``, or nothing.

    A dotted name, such as ``section.key``, is similar to its own last part.
    """
    known = [*known]
    if inside := [other for other in known if other.endswith(f".{name}")]:
        return f"did you mean '{inside[0]}'?"
    # The dashes that all flags share would make any two short ones similar.
    spelt = {other.casefold().lstrip("-"): other for other in known}
    near = difflib.get_close_matches(name.casefold().lstrip("-"), spelt, n=1, cutoff=CLOSE)
    return f"did you mean '{spelt[near[0]]}'?" if near else ""
