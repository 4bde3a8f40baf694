"""The build of ``rtune miniature build``: corpus, tokenizer and base model from one seed."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from response_tuning import seals
from response_tuning.artifacts import package_versions, read_json, sync_file, write_json
from response_tuning.configs import Config
from response_tuning.errors import ConfigError
from response_tuning.folders import folder_state
from response_tuning.miniature.corpus import documents
from response_tuning.miniature.curve import draw_losses
from response_tuning.miniature.pretrain import PretrainConfig, Run
from response_tuning.miniature.writer import Mixture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


logger = logging.getLogger(__name__)

EOS = "</s>"
TOKENIZER_DOCUMENTS = 20_000
"""Documents that the tokenizer is trained on."""
ENCODED_AT_ONCE = 10_000
LAST_STEPS = 100
"""Steps whose mean loss is the loss of a build."""


class BuildConfig(Config):
    """Settings of the corpus and of pre-training."""

    mixture: Mixture = Mixture()
    pretrain: PretrainConfig = PretrainConfig()


def build_base(config: BuildConfig, out: Path, progress: Callable[[int, int], None]) -> float:
    """Build a base model in ``out`` and return its loss, the mean of the last hundred steps.

    Also writes the loss curve ``loss.svg``, and to ``out/work`` the tokens of the corpus, the
    checkpoints and the loss of every step; you may delete ``work`` afterwards. An interrupted build
    continues when called again.

    Raises:
        ConfigError: ``out`` holds another build.
    """
    # Each stage resumes from its own file in ``work``; the model is exported last.
    work = out / "work"
    _claim(work / "config.json", config)
    tokenizer = make_tokenizer(config)
    tokens = corpus_tokens(config, tokenizer, work / "tokens.npy")
    run = Run(config.pretrain, tokenizer.eos_token_id, work)
    run.train(tokens, progress)
    losses = [loss for _, loss in run.losses()]
    last = losses[-LAST_STEPS:]
    loss = sum(last) / len(last)
    draw_losses(losses, config.pretrain.rows_per_step * config.pretrain.context, out / "loss.svg")
    export(run, tokenizer, config, loss, out)
    return loss


def _claim(path: Path, config: BuildConfig) -> None:
    """Record the settings, so that another build cannot resume from this one's checkpoint."""
    wanted = config.model_dump(mode="json")
    state = folder_state(path.parent, read_json(path) if path.exists() else None, wanted)
    if not state.recorded:
        write_json(path, wanted)
    elif state.changed:
        raise ConfigError(
            f"{path} belongs to another build; choose another --out, or delete the folder"
        )


def make_tokenizer(config: BuildConfig) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on the beginning of the corpus; the end of text is also its start."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # Single digits, as in Llama's: 64 is the same tokens at the start of a line and inside it.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.pretrain.vocabulary,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = islice(documents(config.pretrain.seed, config.mixture), TOKENIZER_DOCUMENTS)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        model_max_length=config.pretrain.context,
        clean_up_tokenization_spaces=False,
    )


def corpus_tokens(
    config: BuildConfig, tokenizer: "PreTrainedTokenizerFast", path: Path
) -> np.ndarray:
    """Return the packed corpus as [tokens] ids, with an end of text before every document."""
    if path.exists():
        if not (flaw := seals.flaw_of_sealed(path.parent)[0]):
            stored: np.ndarray = np.load(path, mmap_mode="r")
            return stored
        logger.warning("%s/%s; encoding the corpus again", path.parent, flaw)
    # 16 bits hold the largest vocabulary that PretrainConfig allows. The corpus has no end: it is
    # encoded in batches until ``ids`` is full, and the last document is cut.
    ids = np.empty(config.pretrain.tokens, dtype=np.uint16)
    filled = 0
    eos = tokenizer.eos_token_id
    for batch in _encoded_batches(config, tokenizer):
        packed = np.fromiter((i for document in batch for i in (eos, *document)), dtype=np.uint16)
        taken = packed[: len(ids) - filled]
        ids[filled : filled + len(taken)] = taken
        filled += len(taken)
        if filled == len(ids):
            break
    partial = path.with_suffix(".partial.npy")
    np.save(partial, ids)
    sync_file(partial)
    partial.replace(path)
    seals.seal(path.parent, [path.name])
    return ids


def export(
    run: Run, tokenizer: "PreTrainedTokenizerFast", config: BuildConfig, loss: float, out: Path
) -> None:
    """Write the model as a Hugging Face folder in float16, and its settings to ``built.json``."""
    import torch

    model: Any = run.model
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    built = {
        **config.model_dump(mode="json"),
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
        "loss": round(loss, 4),
        "packages": package_versions(),
    }
    write_json(out / "built.json", built)


def _encoded_batches(
    config: BuildConfig, tokenizer: "PreTrainedTokenizerFast"
) -> Iterator[list[list[int]]]:
    texts = documents(config.pretrain.seed, config.mixture)
    while True:
        yield tokenizer(list(islice(texts, ENCODED_AT_ONCE)))["input_ids"]
