"""Names that settings may have: of datasets, objectives, templates, engines and the like."""

from pathlib import Path

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError


def registered() -> dict[str, list[str]]:
    """Return every registered name by its kind."""
    # Imported here: each registry loads its modules, and the command line has to start fast.
    from response_tuning import templates
    from response_tuning.data import DATASETS
    from response_tuning.finetune.objectives import OBJECTIVES
    from response_tuning.generate import ENGINES
    from response_tuning.grade import BENCHMARKS, suites
    from response_tuning.recipe import PRESETS

    return {
        "datasets": DATASETS.names(),
        "objectives": OBJECTIVES.names(),
        "templates": templates.names(),
        "engines": ENGINES.names(),
        "benchmarks": BENCHMARKS.names(),
        "suites": [*suites()],
        "presets": sorted(PRESETS),
    }


def loaded_plugins() -> dict[str, str]:
    """Return the plug-ins that are loaded, and the version of each."""
    from response_tuning import plugins

    plugins.load_installed()
    return plugins.versions()


def check_names(config: FinetuneConfig) -> None:
    """Refuse names that are not registered, before anything is read or written."""
    from response_tuning import templates
    from response_tuning.finetune.objectives import build_objective
    from response_tuning.miniature import resolved

    build_objective(config.objective, config.objective_settings)
    for name in config.twins:
        build_objective(name)
    if {*config.twins} == {config.objective}:
        raise ConfigError(f"twins: '{config.objective}' is the objective itself; name another")
    if config.base_revision != "main" and Path(resolved(config.base_model)).is_dir():
        raise ConfigError(f"base_revision: {config.base_model} is a folder, which has none")
    templates.check(config.template)
