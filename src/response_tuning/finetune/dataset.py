"""Examples become encoded rows, which are encoded once and kept until the run has finished."""

import json
import logging
import random
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning import seals
from response_tuning.artifacts import Example, digest, read_json
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune import base, token_files
from response_tuning.finetune.encoding import Encoder
from response_tuning.finetune.example_file import ExampleFile, Examples
from response_tuning.finetune.objectives import Objective, ObjectiveConfig, build_objective
from response_tuning.finetune.rows import KEPT, TRUNCATED, EncodedRow
from response_tuning.finetune.run_folder import PARTIAL, TOKENS, move_into
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from response_tuning.finetune.store import StoredDocuments


logger = logging.getLogger(__name__)

LONG_WAIT = 20_000
"""From this many examples on, encoding takes seconds and a line announces it."""


class EncodedExamples(NamedTuple):
    """The examples as the model sees them, and counts of what became of each."""

    train: "StoredDocuments"
    held_out: "StoredDocuments"
    audit: dict[str, Any]
    examples: Examples
    """What they were, dropped ones included; documents know their positions."""


def encode(config: FinetuneConfig, chat: Chat, examples: Examples, store: Path) -> EncodedExamples:
    """Encode ``examples`` under the objective into ``store`` if needed, and hold some out.

    Tokens that were made ahead are read where they are, and nothing is encoded.

    Raises:
        DataError: no row is left to train on, or tokens made ahead are of another run or damaged.
    """
    from response_tuning.finetune.store import read

    if config.tokens is not None:
        assert isinstance(examples, ExampleFile)
        documents, counts = read(token_files.opened(config.tokens, config, chat, examples))
    else:
        _encode_once(config, chat, examples, store)
        documents, counts = read(store)
        if len(documents) == 0:
            shutil.rmtree(store)  # so that the same command counts again, and says why again
    _refuse_nothing(config, counts)
    _check_partners(config, documents, examples)
    held_out = _held_out(documents, config.eval_fraction, config.seed)
    audit = counts | {"held_out": len(held_out)}
    if not held_out:
        return EncodedExamples(documents, documents.part([]), audit, examples)
    train = array("i", (i for i in range(len(documents)) if i not in held_out))
    held = documents.part(sorted(held_out))
    return EncodedExamples(documents.part(train), held, audit, examples)


def _encode_once(config: FinetuneConfig, chat: Chat, examples: Examples, store: Path) -> None:
    from response_tuning.finetune.store import write

    # A store outlives a killed run, and a disk may have damaged it meanwhile: verify its seal.
    if store.exists() and (flaw := seals.flaw_of_sealed(store)[0]):
        logger.warning("%s: %s; the examples are encoded again", store, flaw)
        seals.discard(store)
    if not store.exists():
        write(base.with_known_ids(config, chat, rows(config, chat, examples)), store)


def tokenize(config: FinetuneConfig, chat: Chat, data: Path, out: Path) -> dict[str, Any]:
    """Encode ``data/examples.jsonl`` into ``out`` for the runs to come; return the counts.

    The seal comes last, and says what decided the tokens; see ``token_files``.

    Raises:
        DataError: no row is left to train on.
    """
    from response_tuning.finetune import store

    (out / seals.SEAL).unlink(missing_ok=True)
    examples = _WatchedFile(data / "examples.jsonl")
    partial = out / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with seals.saving(partial):
        encoded = base.with_known_ids(config, chat, rows(config, chat, examples))
        store.fill(partial, encoded)
        counts = read_json(partial / store.COUNTS_FILE)
        _refuse_nothing(config, counts)
        shutil.copyfile(data / token_files.AUDIT_FILE, partial / token_files.AUDIT_FILE)
        move_into(partial, out)
    about = token_files.identity(config, chat) | {"examples": examples.sha256}
    if not examples.drawn:
        about["seed"] = token_files.ANY_SEED
    seals.seal(out, token_files.names(), **about)
    return counts


class _WatchedFile(ExampleFile):
    """Knows whether an objective took another example: only these are read by their position."""

    drawn = False

    def __getitem__(self, position: int) -> Example:
        self.drawn = True
        return super().__getitem__(position)


def _refuse_nothing(config: FinetuneConfig, counts: dict[str, Any]) -> None:
    if counts[KEPT] + counts[TRUNCATED] == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        raise DataError(f"no example is left to train on with '{config.objective}': {reasons}")


def _check_partners(
    config: FinetuneConfig, documents: "StoredDocuments", examples: Examples
) -> None:
    """Refuse groups that the objective cannot train on, such as a pair with one answer.

    Raises:
        DataError: one line with the first such row.
    """
    objective = build_objective(config.objective, config.objective_settings)
    wanted = objective.partners if isinstance(objective, ObjectiveConfig) else None
    for unit in documents.units or () if wanted is not None else ():
        if len(unit) != wanted:
            row = examples[documents.examples[unit[0]]].row
            raise DataError(
                f"row {row}: '{config.objective}' learns from {wanted} examples of a row, and "
                f"this one has {len(unit)}{_advice(objective)}"
            )


def _advice(objective: Objective) -> str:
    section = objective.section if isinstance(objective, ObjectiveConfig) else None
    return f"; prepare the data with --set data.{section}={{}}" if section else ""


def store_folder(config: FinetuneConfig, chat: Chat, manifest: dict[str, Any], data: Path) -> Path:
    """Return the folder of a run's encoded examples, named after everything that decides them."""
    from response_tuning.finetune.store import VERSION

    settings = {"objective", "objective_settings", "twins", "window"}
    settings |= {"train_on_final_newline", "seed"}
    parts = [manifest["base"], manifest["examples_sha256"], manifest["packages"], chat.digest]
    parts += [config.model_dump(mode="json", include=settings), VERSION]
    return data.with_name(TOKENS) / digest(json.dumps(parts, sort_keys=True))


def rows(config: FinetuneConfig, chat: Chat, examples: Examples) -> Iterator[EncodedRow]:
    """Yield one row for each example, as this run trains on it."""
    encoder = Encoder(
        chat,
        config.objective,
        config.window,
        settings=config.objective_settings,
        twins=config.twins,
        final_newline=config.train_on_final_newline,
        seed=config.seed,
    )
    return encoder.rows(examples)


def read_examples(data: Path) -> ExampleFile:
    """Return the examples of the data stage; they are read later, when they are needed."""
    return ExampleFile(data / "examples.jsonl")


def _held_out(documents: "StoredDocuments", fraction: float, seed: int) -> set[int]:
    """Draw the documents that are held out; partners are held out together."""
    if fraction == 0:
        return set()
    units = documents.units
    count = len(documents if units is None else units)
    size = max(1, round(count * fraction))
    if size >= count:
        raise ConfigError(
            f"eval_fraction {fraction} of {len(documents)} examples leaves none to train on"
        )
    chosen = random.Random(seed).sample(range(count), size)
    return {place for unit in chosen for place in (units[unit] if units else [unit])}
