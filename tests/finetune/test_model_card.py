from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import finetune

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def chatty(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose own template ends a turn with a token that is not its EOS."""
    folder = tmp_path_factory.mktemp("chatty")
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    rows = model.get_input_embeddings().weight.shape[0]
    # As transformers starts them, at the mean of all rows, an adapter could not tell them apart.
    model.resize_token_embeddings(max(rows, len(tokenizer)), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tuned(chatty: Path, tmp_path: Path) -> Any:
    """Tune the base for one step; keywords are settings."""

    def tune(data: Path, **settings: Any) -> Path:
        data.mkdir(parents=True)
        write_jsonl(data / "examples.jsonl", [Example(row=0, response="It boils.")])
        audit = {"rows": 1, "rows_kept": 1, "examples": 1, "dropped": {}}
        write_json(data / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
        values = {"base_model": str(chatty), "max_steps": 1, "window": 64, "device": "cpu"}
        config = FinetuneConfig.model_validate(values | settings)
        return finetune(config, data, tmp_path / "out", Console(width=400))

    return tune


def use(folder: Path) -> str:
    """What the card says of the model's use, on one line."""
    text = (folder / "README.md").read_text(encoding="utf-8").partition("## Use")[2]
    return " ".join(text.split())


OTHERS = "A reply ends at `<|im_end|>` and `rtune` stops there, but **other tools do not stop**"


def test_an_adapter_that_stops_elsewhere_than_its_base_says_what_other_tools_do(
    tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tuned(tmp_path / "data", method="lora", template="native")
    assert OTHERS in use(folder)
    assert "a reply stops at <|im_end|>, where other tools" in caplog.text
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    # What the card tells to hand over.
    assert GenerationConfig.from_pretrained(folder).eos_token_id == stop


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "template": "tulu"},
        {"method": "full", "template": "native"},
        {"method": "lora", "template": "native", "merge": True},
    ],
)
def test_what_stops_where_plain_tools_stop_has_no_warning(
    tuned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    folder = tuned(tmp_path / "data", **settings)
    assert "any server that loads a Hugging Face folder uses the model as it was trained" in use(
        folder
    )
    assert "other tools" not in caplog.text + use(folder)
    if settings["template"] == "native":
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        stop = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")
        assert model.generation_config.eos_token_id == stop


@pytest.mark.parametrize("merge", [False, True])
def test_the_card_and_the_last_line_say_that_the_rows_are_in_the_folder(
    tuned: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], merge: bool
) -> None:
    folder = tuned(tmp_path / "out" / "data", merge=merge)
    last = capsys.readouterr().out.splitlines()[-1]
    what = "it holds the training rows in clear text"
    assert last == f"{folder}: before you share it, delete {folder / 'data'}: {what}"
    assert "delete `data/`: it holds the training rows in clear text" in use(folder)


def test_rows_that_are_elsewhere_are_not_spoken_of(
    tuned: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tuned(tmp_path / "data")
    assert "clear text" not in capsys.readouterr().out + use(folder)
