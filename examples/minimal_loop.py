"""Response tuning in one file: load, mask, loop, save. Only torch and transformers.

    python examples/minimal_loop.py BASE_MODEL ANSWERS.jsonl OUT

ANSWERS.jsonl has one object a line with a "response". The loop takes the same steps as `rtune
finetune --method full`, to 1e-5 in the loss; a test compares them. It pads, scores every position
and holds the whole data in memory, which is what makes it slow and short.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

Row = tuple[list[int], list[int]]  # token ids and labels

# What a server renders, so that the tuned folder works in any chat client.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
IGNORED = -100  # the label that cross-entropy skips


def encode(tokenizer: Tokenizer, response: str, window: int) -> Row:
    """Return (ids, labels) of one response: the loss is on the response and the stop token.

    The model sees the assistant's tag and nothing of an instruction: it learns p(response), not
    p(response | instruction) (the paper's section 3). The tag and the response are tokenized apart,
    so that no token straddles them: at inference, the prompt ends exactly there.
    """
    tag = tokenizer(f"{tokenizer.bos_token}<|assistant|>\n", add_special_tokens=False).input_ids
    answer = tokenizer(response, add_special_tokens=False).input_ids
    ids = [*tag, *answer, tokenizer.eos_token_id][
        :window
    ]  # a response that is cut loses its stop token
    return ids, [IGNORED] * len(tag) + ids[len(tag) :]


def padded(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, labels and attention mask of a batch, all (B, T), padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])
    # From the lengths, not from `ids != pad`: the pad token is often the stop token too.
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    return ids, labels, (torch.arange(longest) < lengths[:, None]).long()


def batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Yield lists of positions, epoch after epoch, each epoch in a new order."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for chosen in torch.randperm(count, generator=generator).split(size):
            yield chosen.tolist()
        epoch += 1


def main() -> None:
    """Tune BASE_MODEL on the responses and save it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base")
    parser.add_argument("answers", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    # Load.
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32).to(device)
    lines = options.answers.read_text(encoding="utf-8").strip().split("\n")

    # Mask.
    rows = [encode(tokenizer, json.loads(line)["response"], options.window) for line in lines]

    # Loop.
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.0)
    model.train()
    steps = batches(len(rows), options.batch_size, options.seed)
    for step in range(1, options.steps + 1):
        batch = padded([rows[i] for i in next(steps)], tokenizer.eos_token_id)
        ids, labels, mask = (tensor.to(device) for tensor in batch)
        logits = model(input_ids=ids, attention_mask=mask).logits  # (B, T, V)
        # The logits at position t predict token t + 1. One mean over all tokens of the batch: a
        # mean of each row's mean would give tokens of short responses more weight.
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"step": step, "loss": loss.item()}))

    # Save: the model stops at the token that it was trained to end with.
    tokenizer.chat_template = CHAT_TEMPLATE
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
