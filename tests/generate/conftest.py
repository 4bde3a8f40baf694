import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Tell me a story about a little girl who plays outside in the park.",
    "Response tuning learns from answers alone; the instruction is never shown.",
    "What is the capital of France? Paris is the capital of France.",
    "<|user|>\n<|assistant|>\n",
]
END = "<|endoftext|>"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from response_tuning import templates

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END)  # type: ignore[no-untyped-call]
    templates.install(made, "tulu")
    return made


SaveModel = Callable[..., Path]


@pytest.fixture(scope="session")
def save_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """Save a tiny random model with wide weights, so that its text depends on its prompt."""

    def save(kind: str = "llama", context: int = 256, eos: Sequence[int] = (0,)) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

        common: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "initializer_range": 0.4,
            "eos_token_id": 0,
        }
        config = {
            "llama": LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                bos_token_id=None,
                **common,
            ),
            "gpt2": GPT2Config(
                n_embd=32, n_layer=2, n_head=4, n_positions=context, bos_token_id=None, **common
            ),
        }[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        model.generation_config.eos_token_id = list(eos)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def llama(save_model: SaveModel) -> Path:
    return save_model("llama")


@pytest.fixture(scope="session")
def gpt2(save_model: SaveModel) -> Path:
    return save_model("gpt2")


@pytest.fixture(scope="session")
def stories() -> Path:
    root = os.environ.get("RESPONSE_TUNING_DATA")
    if root is None:
        pytest.skip("RESPONSE_TUNING_DATA is not set")
    return Path(root) / "tiny_lm_stories260k" / "hf"


def _ask(item_id: str, *words: str) -> Request:
    roles = ("user", "assistant")
    turns = [Message(role=roles[i % 2], content=text) for i, text in enumerate(words)]  # type: ignore[arg-type]
    return Request(item_id=item_id, prompt=tuple(turns))


@pytest.fixture(scope="session")
def ask() -> Callable[..., Request]:
    return _ask


@pytest.fixture(scope="session")
def varied() -> list[Request]:
    """45 prompts of 1 to 45 words."""
    words = " ".join(SENTENCES[:4]).split()
    return [_ask(f"q{n}", " ".join(words[n % 7 :][:n])) for n in range(1, 46)]
