"""Plug-ins: modules of the user's that enter names into the registries of this package.

An installed package announces its module in the entry-point group ``response_tuning.plugins``; any
other module is named with ``--import MODULE``, or under ``imports:`` in a recipe. Importing the
module is all that happens: it registers what it has, as the modules of this package do.
"""

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError, ResponseTuningError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType, TracebackType

GROUP = "response_tuning.plugins"

_versions: dict[str, str] = {}
_outcomes: dict[str, ConfigError | None] = {}
"""What came of importing each plug-in. A failure is kept: the modules that were imported before it
stay imported, so a second try would fail with a different and misleading error."""


def load_installed() -> None:
    """Import every installed plug-in, the first time that a name is looked up.

    Raises:
        ConfigError: one of them cannot be imported; one line that names it.
    """
    for point, package in _installed():
        _once(f"'{point.name}' of {package}", point.load, "fix it, or uninstall its package")
        _versions[point.name] = package


def import_modules(modules: Iterable[str], where: str) -> None:
    """Import modules that the user names, from the environment or the working directory.

    ``where`` is where the user names them, such as ``--import`` or the path of a recipe.

    Raises:
        ConfigError: a module cannot be imported; one line that names it.
    """
    for module in modules:
        if module.endswith(".py") or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
            raise ConfigError(
                f"{where}: '{module}' is not the name of a module; expected one such as tea or "
                "tea.benchmarks, without .py"
            )
        # At the end: a file of the working directory must not take the place of a library.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        _once(f"'{module}' ({where})", partial(_import, module), "fix the module, or its name")


def import_named(recipe: dict[str, object], where: str) -> None:
    """Take ``imports:`` out of a recipe and import the modules that it lists.

    Raises:
        ConfigError: it is not a list of names, or a module cannot be imported.
    """
    modules = recipe.pop("imports", [])
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise ConfigError(f"{where}: imports: expected a list of modules, such as [tea_plugin]")
    import_modules(modules, f"{where}: imports")


def versions() -> dict[str, str]:
    """Return the plug-ins that are loaded, with what identifies each: a version or a digest."""
    return dict(_versions)


def _import(module: str) -> None:
    from importlib import import_module

    imported = import_module(module)
    _versions.setdefault(module, _identity(imported))


def _identity(module: "ModuleType") -> str:
    """Return the version of a module's package; the digest of its file if it is not installed."""
    from hashlib import sha256
    from importlib.metadata import packages_distributions, version

    owners = packages_distributions().get(module.__name__.partition(".")[0])
    if owners:
        return f"{owners[0]} {version(owners[0])}"
    file = module.__file__
    return f"sha256 {sha256(Path(file).read_bytes()).hexdigest()}" if file else "unknown"


@cache
def _installed() -> "tuple[tuple[EntryPoint, str], ...]":
    """Return the entry points of the environment, each with its package and version."""
    from importlib.metadata import entry_points

    return tuple(
        (point, f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package")
        for point in entry_points(group=GROUP)
    )


def _once(plugin: str, load: Callable[[], object], remedy: str) -> None:
    """Load a plug-in unless that was tried before; a failure is raised every time.

    The outcome is entered before the import as well, because a plug-in may look up names itself.
    """
    if plugin not in _outcomes:
        _outcomes[plugin] = None
        try:
            load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module can raise anything
            ours = isinstance(error, ResponseTuningError)
            cause = str(error) if ours else f"{type(error).__name__}: {error}"
            line = " ".join(f"{cause}{_place(error.__traceback__)}".split())
            broken = ConfigError(f"plug-in {plugin}: {line}; {remedy}")
            broken.__cause__ = error
            _outcomes[plugin] = broken
    if outcome := _outcomes[plugin]:
        raise outcome


def _place(trace: "TracebackType | None") -> str:
    """Return the innermost line outside Python's import system and this package, if any."""
    from traceback import extract_tb

    ours = str(Path(__file__).parent)
    frames = [
        frame
        for frame in extract_tb(trace)
        if not frame.filename.startswith(("<frozen", ours)) and "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
