"""How fast does the engine ``hf`` answer AlpacaEval, beside one by one and plain batches?

    python benchmarks/generate.py --data FOLDER [--model FOLDER --template NAME] [--toy]

``one-by-one`` is the way of the paper's own code: ``generate`` of transformers for one prompt after
another. ``file-order`` is what most scripts do: left-padded batches of ``--rows`` prompts in the
order of the file. ``continuous``, left out unless asked for, is the continuous batching of
transformers: its cache has ``--tokens-per-batch``, and ``--step`` tokens are computed at once.

All decode greedily with the same weights in float32, the precision of a CPU, and must give the
same replies; ``differ`` counts the prompts at which they do not. What a prompt costs alone does not
depend on the others, so that is measured with the first ``--alone`` of them; ``times_slower`` is
per token. The systems take turns. With one thread and no GPU, times are processor time, which other
work on the machine hardly changes; otherwise they are wall-clock time. Numbers are medians.

Without ``--model`` the weights are random, 75 million of them with a vocabulary of 50,000
(``--tokenizer`` names the folder of a tokenizer for them). They end a reply as a real model does,
early or late: one token in ``--mean-length`` of the vocabulary ends a reply.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from table import Row, markdown, write

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.generate.engines.hf import HfEngine
from response_tuning.models.inference import load
from response_tuning.models.local import LocalModel

PROMPTS = "alpaca_eval/reference_gpt4_1106_preview.json"
PAGE = 32
"""Tokens of a block of the cache of ``continuous``."""


class Reply(NamedTuple):
    """A reply: its text up to what ends it, and how many tokens it took."""

    text: str
    tokens: int


Answers = dict[str, Reply]
System = Callable[[LocalModel, Sequence[Request], Sampling], Answers]


def rtune(local: LocalModel, requests: Sequence[Request], sampling: Sampling) -> Answers:
    """Answer with the engine."""
    completions = HfEngine(local, ARGUMENTS.tokens_per_batch).complete(requests, sampling)
    return {c.item_id: Reply(c.response or "", c.tokens or 0) for c in completions}


def one_by_one(local: LocalModel, requests: Sequence[Request], sampling: Sampling) -> Answers:
    """Answer each of some prompts alone."""
    return _plain(local, requests[: ARGUMENTS.alone], sampling, rows=1)


def file_order(local: LocalModel, requests: Sequence[Request], sampling: Sampling) -> Answers:
    """Answer batches of prompts in the order of the file."""
    return _plain(local, requests, sampling, rows=ARGUMENTS.rows)


def _plain(
    local: LocalModel, requests: Sequence[Request], sampling: Sampling, rows: int
) -> Answers:
    import torch

    replies = {}
    for start in range(0, len(requests), rows):
        batch = requests[start : start + rows]
        prompts = [local.draft(request.prompt, sampling).prompt for request in batch]
        width = max(map(len, prompts))
        room = sampling.max_new_tokens
        if local.context is not None:
            room = min(room, local.context - width)
        pad = local.stop_ids[0]
        out = local.model.generate(
            input_ids=torch.tensor([[pad] * (width - len(p)) + p for p in prompts]).to(
                local.model.device
            ),
            attention_mask=torch.tensor(
                [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
            ).to(local.model.device),
            max_new_tokens=room,
            do_sample=False,
            eos_token_id=list(local.stop_ids),
            pad_token_id=pad,
        )
        for request, prompt, new in zip(batch, prompts, out[:, width:].tolist(), strict=True):
            ends = [place for place, token in enumerate(new, start=1) if token in local.stop_ids]
            kept = new[: ends[0]] if ends else new
            replies[request.item_id] = Reply(local.text(prompt, kept), len(kept))
    return replies


def continuous(local: LocalModel, requests: Sequence[Request], sampling: Sampling) -> Answers:
    """Answer with the continuous batching of transformers."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    prompts = [local.draft(request.prompt, sampling).prompt for request in requests]
    settings: Any = GenerationConfig.from_dict(
        {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": False,
            "eos_token_id": list(local.stop_ids),
            "pad_token_id": local.stop_ids[0],
        }
    )
    sized = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=ARGUMENTS.tokens_per_batch // PAGE,
        max_batch_tokens=ARGUMENTS.step,
    )
    found = local.model.generate_batch(
        prompts, generation_config=settings, continuous_batching_config=sized
    )
    replies = {}
    for place, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        new = found[f"req_{place}"].generated_tokens
        replies[request.item_id] = Reply(local.text(prompt, new), len(new))
    return replies


SYSTEMS: dict[str, System] = {
    "continuous": continuous,
    "rtune": rtune,
    "one-by-one": one_by_one,
    "file-order": file_order,
}


def questions(data: Path, local: LocalModel, sampling: Sampling) -> list[Request]:
    """Return AlpacaEval's prompts, from the first on, that leave room for a reply."""
    rows = json.loads((data / PROMPTS).read_text(encoding="utf-8"))
    found = []
    for number, row in enumerate(rows):
        prompt = (Message(role="user", content=row["instruction"]),)
        length = len(local.chat.encode(local.chat.prompt(prompt)))
        room = ARGUMENTS.room or sampling.max_new_tokens
        if local.context is None or length + room <= local.context:
            found.append(Request(item_id=str(number), prompt=prompt))
    return found[: ARGUMENTS.prompts]


def random_model(folder: Path) -> Path:
    """Save a Llama of random parameters, spread wide enough for its prompt to matter."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(ARGUMENTS.tokenizer)
    small = ARGUMENTS.toy
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64 if small else 512,
        intermediate_size=128 if small else 1408,
        num_hidden_layers=2 if small else 8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    ends = range(0, len(tokenizer), ARGUMENTS.mean_length)
    model.generation_config.eos_token_id = list(ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(
    local: LocalModel, requests: Sequence[Request], sampling: Sampling, systems: Sequence[str]
) -> list[Row]:
    """Let the systems take turns, and return their rows."""
    import torch

    alone = local.model.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    replies: dict[str, Answers] = {}
    for system in systems:  # warms up
        SYSTEMS[system](local, requests[:1], sampling)
    for _, system in itertools.product(range(ARGUMENTS.repeats), systems):
        began = clock()
        replies[system] = SYSTEMS[system](local, requests, sampling)
        seconds[system].append(clock() - began)
        print(f"{system}: {seconds[system][-1]:.1f} s", file=sys.stderr)
    workload = f"{ARGUMENTS.name}, {len(requests)} prompts, limit {sampling.max_new_tokens}"
    found: list[Row] = []
    for system in systems:
        tokens, own = (sum(a.tokens for a in replies[name].values()) for name in (system, "rtune"))
        times = [
            (theirs / tokens) / (ours / own)
            for theirs, ours in zip(seconds[system], seconds["rtune"], strict=True)
        ]
        figures = {
            "tokens_per_s": tokens / statistics.median(seconds[system]),
            "times_slower": statistics.median(times),
            "prompts": len(replies[system]),
            "mean_tokens": tokens / len(replies[system]),
            "differ": sum(
                replies["rtune"][key] != answer for key, answer in replies[system].items()
            ),
        }
        found += [Row("generate", workload, system, key, value) for key, value in figures.items()]
    return found


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the public files")
    parser.add_argument("--model", help="folder or hub id; without it, random weights")
    parser.add_argument("--template", default="tulu")
    parser.add_argument("--tokenizer", help="folder of the tokenizer for random weights")
    parser.add_argument("--mean-length", type=int, default=100, help="of random replies")
    parser.add_argument("--name", default="random-75m", help="what the rows call the model")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--room", type=int, help="least room in the context; default: the limit")
    parser.add_argument("--alone", type=int, default=8, help="prompts that are asked one by one")
    parser.add_argument("--rows", type=int, default=16, help="of a batch in file order")
    parser.add_argument("--step", type=int, default=128, help="tokens, of 'continuous'")
    parser.add_argument("--tokens-per-batch", type=int, default=32768, help="of the engine")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS][1:])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--toy", action="store_true", help="a tiny model and few tokens")
    parser.add_argument("--out", type=Path, help="CSV file to add the rows to")
    found = parser.parse_args()
    if found.toy:
        found.name, found.prompts, found.max_new_tokens, found.repeats = "toy", 6, 16, 1
    if (found.model is None) == (found.tokenizer is None):
        parser.error("name either --model or --tokenizer")
    return found


def main() -> None:
    """Measure, and print a table."""
    sampling = Sampling(max_new_tokens=ARGUMENTS.max_new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        local = load(ARGUMENTS.model or str(random_model(Path(folder))), ARGUMENTS.template)
    systems = dict.fromkeys(["rtune", *ARGUMENTS.systems])
    rows = measure(local, questions(ARGUMENTS.data, local, sampling), sampling, [*systems])
    if ARGUMENTS.out:
        write(rows, ARGUMENTS.out)
    print(markdown(rows))


if __name__ == "__main__":
    ARGUMENTS = parse()
    main()
