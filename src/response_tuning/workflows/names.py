"""Names that settings may have: of datasets, objectives, templates, engines and the like."""

from collections.abc import Iterable
from pathlib import Path

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.workflows.experiment import Cell


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
    base = Path(resolved(config.base_model))
    if config.base_revision != "main" and base.exists():
        what = "folder" if base.is_dir() else "file"
        raise ConfigError(f"base_revision: {config.base_model} is a {what}, which has none")
    templates.check(config.template)


def check_cell(cell: Cell) -> None:
    """Refuse a base, an optimizer or a tracker that no cell can use, and what ``check_names`` does.

    Raises:
        ConfigError: a name is not known.
        ModelError: the base is no folder and no hub id.
    """
    from response_tuning.models.location import check_name

    check_names(cell.finetune)
    if cell.tuned or cell.local:
        check_name(cell.finetune.base_model)
    defaults = FinetuneConfig.model_fields
    chosen = (key for key in ("optimizer", "report_to") if cell.tuned)
    if any(getattr(cell.finetune, key) != defaults[key].default for key in chosen):
        # Only now, because transformers takes seconds to import.
        from response_tuning.finetune.checks import check_trainer

        check_trainer(cell.finetune)


def has_own_template(cell: Cell) -> bool:
    """Whether a base is asked in a chat template of its own."""
    from response_tuning import templates
    from response_tuning.models.inference import has_native_template

    template = cell.generate.template or cell.finetune.template
    if template != templates.NATIVE:  # `native:NAME` is refused later where there is no such one
        return templates.is_native(template)
    return has_native_template(cell.finetune.base_model, cell.finetune.base_revision)


def check_template(cell: Cell) -> None:
    """Refuse a base without a chat template, unless lm-eval alone asks it.

    Raises:
        TemplateError: the base has no template of its own, and ``template`` is ``native``.
    """
    from response_tuning import templates
    from response_tuning.grade import open_lm_eval
    from response_tuning.models.inference import load_chat

    template = cell.generate.template or cell.finetune.template
    asked = any(open_lm_eval(name) is None for name in cell.benchmarks)
    if asked and templates.is_native(template):
        load_chat(cell.finetune.base_model, template, cell.finetune.base_revision)


def check_sources(cells: Iterable[Cell]) -> None:
    """Refuse sources of data that cannot be found, without reading them or asking the hub.

    For a dry run only: a run whose data are prepared goes on without their source.

    Raises:
        DataError: one line with the variant, the key and the most similar name.
    """
    from response_tuning.data import check_source

    for cell in cells:
        if cell.data is None:
            continue
        sources = {"source": cell.data.source}
        if cell.data.mixture.refusals:
            sources["mixture.source"] = cell.data.mixture.source
        for key, source in sources.items():
            try:
                check_source(source)
            except DataError as error:
                raise DataError(f"variant '{cell.variant}': data.{key}: {error}") from error
