"""Whether prompts fit into the context of the models that will answer them, before any tuning."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError, ModelError
from response_tuning.models.location import is_here
from response_tuning.workflows.experiment import Cell, Experiment

if TYPE_CHECKING:
    from response_tuning.grade import Item


def check_context(chosen: Iterable[Cell], experiment: Experiment) -> None:
    """Refuse a benchmark with a prompt that leaves no room for a reply in a model's context.

    Models that are not on this machine, and those behind a server, are not checked.

    Raises:
        ConfigError: one line that names the first such prompt.
        TemplateError: a chat template cannot render a prompt.
    """
    from response_tuning.models.inference import context_of, load_chat

    seen = set()
    for cell in chosen:
        base, revision = cell.finetune.base_model, cell.finetune.base_revision
        asked_in = None if cell.tuned else cell.generate.template
        model = base, asked_in or cell.finetune.template, revision
        if (model, cell.benchmarks) in seen or not (cell.local and is_here(base, revision)):
            continue
        seen.add((model, cell.benchmarks))
        items = [*_items(cell, experiment)]
        try:
            context = context_of(base, revision) if items else None
        except ModelError:  # what loads the model says why
            continue
        if context is None:
            continue
        chat = load_chat(*model)
        for name, item in items:
            tokens = len(chat.encode(chat.prompt(item.prompt)))
            if tokens >= context:
                raise ConfigError(
                    f"{name}: the prompt of {item.item_id} has {tokens:,} tokens under template "
                    f"'{model[1]}', which leaves no room for a reply in the context of {base}, "
                    f"{context:,} tokens: take another base, or leave {name} out"
                )


def _items(cell: Cell, experiment: Experiment) -> "Iterator[tuple[str, Item]]":
    from response_tuning.grade import open_benchmark, open_lm_eval

    for name in cell.benchmarks:
        if open_lm_eval(name) is None:
            for item in open_benchmark(name, experiment.grade).items():
                yield name, item
