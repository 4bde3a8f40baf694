"""``rtune finetune``: a source and a base model become a tuned model.

Stages do not import each other. They meet on disk, and the files of this folder pass the output of
one stage to the next.
"""

import logging
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.folders import locked
from response_tuning.recipe import Recipe
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows.data import DATA, run_data
from response_tuning.workflows.names import check_names
from response_tuning.workflows.own_answers import print_next, with_held_out
from response_tuning.workflows.refine import SOURCE_FOLDER, Rewriting, check_refiner, unrefined
from response_tuning.workflows.show import show_data

if TYPE_CHECKING:
    from rich.console import Console


logger = logging.getLogger(__name__)


def run_finetune(
    recipe: Recipe,
    out: Path,
    console: "Console",
    *,
    resume: bool = True,
    holds_out: bool = False,
) -> None:
    """Run stages 1 and 2: a source and a base model become a tuned model in ``out``.

    Its data are beside it, in ``OUT.training``. With ``holds_out``, a share of the user's own
    answers is held out unless the recipe sets ``eval_fraction``.

    Raises:
        ConfigError: a name is unknown, or ``out`` belongs to another run or is in use.
    """
    from response_tuning.finetune import finetune
    from response_tuning.finetune.checks import check
    from response_tuning.finetune.manifest import check_manifest
    from response_tuning.finetune.processes import first_process_first, is_first
    from response_tuning.finetune.run_folder import (
        forget,
        nothing_of_a_refused_run,
        training_folder,
    )

    quiet_libraries()
    check_names(recipe.finetune)
    check_refiner(recipe.data)
    training = training_folder(out)
    data, read = training / DATA, (recipe.data, recipe.finetune)
    with (
        locked(out, *read),
        nullcontext() if training == out else locked(training, *read),
        nothing_of_a_refused_run(data, out),
    ):
        check(recipe.finetune, out)  # before the data: preparing a large source takes long
        if resume:
            check_manifest(out)
        elif is_first():
            forget(out, data)
        # Under torchrun, the first process prepares the data and the others find them complete.
        with first_process_first(on_cpu=recipe.finetune.device == "cpu"):
            run_data(recipe.data, data, Rewriting(training / SOURCE_FOLDER, console))
        config = recipe.finetune
        if holds_out:
            config = with_held_out(recipe, data, out)
        finetune(config, data, out, console)
    if is_first():
        print_next(out, console)


def plan_finetune(recipe: Recipe, console: "Console", *, holds_out: bool = False) -> None:
    """Print what ``run_finetune`` would do and cost, and the first row; write nothing."""
    from response_tuning.finetune.base import fitted
    from response_tuning.finetune.dataset import read_examples
    from response_tuning.finetune.plan import print_plan

    quiet_libraries()
    check_names(recipe.finetune)
    check_refiner(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        run_data(unrefined(recipe.data), Path(folder))
        tuning = with_held_out(recipe, Path(folder), None) if holds_out else recipe.finetune
        config = fitted(tuning)
        print_plan(config, read_examples(Path(folder)), console)
        show_data(config, Path(folder), console, rows=1)
