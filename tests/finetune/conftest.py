from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from response_tuning.artifacts import Dropped, Example, write_json, write_jsonl

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA: dict[str, Any] = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
OTHERS: dict[str, Any] = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SMALL),
    "mistral": ("MistralConfig", SMALL | {"sliding_window": 16, "head_dim": 8}),
    "gemma2": ("Gemma2Config", SMALL | GEMMA),
    "gemma3": (
        "Gemma3TextConfig",
        SMALL | GEMMA | {"num_hidden_layers": 4, "sliding_window_pattern": 2},
    ),
    "qwen3": ("Qwen3Config", SMALL | {"head_dim": 8}),
    "olmo2": ("Olmo2Config", SMALL),
    "gpt-neox": ("GPTNeoXConfig", SMALL | {"rotary_pct": 0.25}),
    "phi3": ("Phi3Config", SMALL | {"sliding_window": 16}),
    "gpt2": ("GPT2Config", OTHERS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    # From here on flattened steps are not exact, or not possible.
    "qwen3.5": (
        "Qwen3_5TextConfig",
        SMALL
        | {
            "head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "gpt-oss": (
        "GptOssConfig",
        SMALL
        | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    ),
    "bloom": ("BloomConfig", OTHERS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("MptConfig", OTHERS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
    "gptj": (
        "GPTJConfig",
        OTHERS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4},
    ),
    "stablelm": ("StableLmConfig", SMALL),
    "falcon-h1": (
        "FalconH1Config",
        SMALL | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    ),
}


def build_model(name: str) -> Any:
    """A tiny random model with weights so large that attention matters."""
    kind, values = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**values)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


@pytest.fixture
def build() -> Callable[[str], Any]:
    return build_model


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the data stage leaves: 40 examples, the last without an instruction."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    examples = [
        Example(
            row=i, instruction=f"What is {i}?", response=f"It is {i}, of course. " * (1 + i % 5)
        )
        for i in range(39)
    ]
    write_jsonl(folder / "examples.jsonl", [*examples, Example(row=39, response="Just said.")])
    write_jsonl(folder / "dropped.jsonl", [Dropped(row=40, reason="empty response")])
    audit = {"rows": 41, "rows_kept": 40, "examples": 40, "dropped": {"empty response": 1}}
    write_json(folder / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
    return folder
