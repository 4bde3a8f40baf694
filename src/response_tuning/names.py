"""Everything that can be asked for by name."""


def registered() -> dict[str, list[str]]:
    """Return the names of everything that can be asked for by name."""
    from response_tuning import templates
    from response_tuning.data import DATASETS
    from response_tuning.evaluation import CORE, SUITES
    from response_tuning.finetune.objectives import OBJECTIVES
    from response_tuning.generate import ENGINES
    from response_tuning.grade import BENCHMARKS
    from response_tuning.recipe import PRESETS

    return {
        "datasets": DATASETS.names(),
        "objectives": OBJECTIVES.names(),
        "templates": templates.names(),
        "engines": ENGINES.names(),
        "benchmarks": [*BENCHMARKS.names(), *CORE],
        "suites": [*SUITES],
        "presets": sorted(PRESETS),
    }
