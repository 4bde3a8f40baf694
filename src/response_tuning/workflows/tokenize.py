"""``rtune data tokenize SOURCE``: the tokens of a source, made once for many runs.

The data stage comes first, with the settings that the runs have: its examples and theirs are then
the same bytes.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.addresses import holds, is_address
from response_tuning.artifacts import read_json
from response_tuning.configs import DataConfig, FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.folders import locked
from response_tuning.recipe import Recipe
from response_tuning.terminal import printable, quiet_libraries
from response_tuning.workflows.data import (
    checked_processes,
    deliver,
    folder_of,
    is_prepared_from,
    print_audit,
    run_data,
)
from response_tuning.workflows.names import check_names
from response_tuning.workflows.refine import SOURCE_FOLDER, Rewriting, check_refiner

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.templates import Chat


logger = logging.getLogger(__name__)

_EXAMPLES = ".data"
"""Where the examples lie until their tokens are whole."""


def run_tokenize(recipe: Recipe, out: str, console: "Console", processes: int = 1) -> None:
    """Write the tokens of a source to ``out``, a folder or an address, unless they are there.

    For an address they are made in the cache of this machine and uploaded, the seal last.

    Raises:
        ConfigError: ``out`` has other tokens, or a setting is impossible.
        DataError: no example is left, or the address cannot be written to.
        ModelError: the base has no usable tokenizer.
    """
    from response_tuning.finetune import base, token_files
    from response_tuning.finetune.dataset import rows, tokenize
    from response_tuning.templates import Chat

    quiet_libraries()
    data, config = recipe.data, recipe.finetune
    check_names(config)
    check_refiner(data)
    processes = checked_processes(processes)
    folder = folder_of(out, "tokenized")
    config = base.fitted(config)
    chat = Chat(base.load_tokenizer(config))
    rows(config, chat, [])  # an encoder checks what every row has in common
    at_address = is_address(out) and holds(out, seals.SEAL)
    there = token_files.seal_of(out) if at_address else {}
    if there:
        _check_same(out, there, config, chat)
    with locked(folder, data, config):
        if _are_whole(folder, data, config, chat):
            console.print(f"{folder}: already tokenized", highlight=False, soft_wrap=True)
            counts = read_json(folder / "counts.json")
        else:
            examples = folder / _EXAMPLES
            run_data(data, examples, Rewriting(folder / SOURCE_FOLDER, console), processes)
            counts = tokenize(config, chat, examples, folder)
            shutil.rmtree(examples)
        made = seals.read_seal(folder)[1]["examples"]
        if there.get("examples", made) != made:
            raise _of_other_data(out)
        print_audit(folder, console)
        for line in _summary(counts):
            console.print(printable(line), highlight=False, soft_wrap=True)
        deliver(folder, out, token_files.names(), console)
    following = f"next: rtune finetune with the same settings and data, and --tokens {out}"
    console.print(printable(following), highlight=False, soft_wrap=True)


def _are_whole(folder: Path, data: DataConfig, config: FinetuneConfig, chat: "Chat") -> bool:
    """Whether ``folder`` holds the tokens that are asked for; False if it holds none, or damaged.

    Raises:
        ConfigError: it holds other ones.
    """
    if not (folder / seals.SEAL).exists():
        return False
    flaw, about = seals.flaw_of_sealed(folder)
    if about:
        _check_same(str(folder), about, config, chat)
    if not flaw and not is_prepared_from(read_json(folder / "audit.json"), data):
        raise _of_other_data(folder)
    if flaw:
        logger.warning("%s/%s; the tokens are made again", folder, flaw)
    return not flaw


def _check_same(where: str, about: dict[str, Any], config: FinetuneConfig, chat: "Chat") -> None:
    from response_tuning.finetune import token_files

    if found := token_files.difference(about, token_files.identity(config, chat)):
        raise ConfigError(f"{where}: holds other tokens: {found}; choose another --out")


def _of_other_data(where: object) -> ConfigError:
    return ConfigError(f"{where}: holds the tokens of other data; choose another --out")


def _summary(counts: dict[str, Any]) -> Iterator[str]:
    dropped = sum(counts["dropped"].values())
    yield (
        f"{counts['examples']:,} examples: {counts['kept']:,} kept, {counts['truncated']:,} "
        f"truncated, {dropped:,} dropped; {counts['supervised_tokens']:,} of "
        f"{counts['tokens']:,} tokens carry loss"
    )
    yield from (f"{count:>9,}  {reason}" for reason, count in counts["dropped"].items())
    yield from (f"{count:,} responses {remark}" for remark, count in counts["remarks"].items())
