"""Pre-training of the miniature's base model: a plain loop that resumes after a kill.

The model is so small that a step is a handful of small matrix products. On a CPU the largest other
cost is the optimizer: ``torch.optim.Muon`` orthogonalises in bfloat16, which processors without
bfloat16 arithmetic emulate at several times the cost of the step itself. The ``Muon`` here does the
same update in float32.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from response_tuning import seals
from response_tuning.artifacts import digest, sync_folder
from response_tuning.configs import Config
from response_tuning.limits import Seed

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import LlamaForCausalLM


STATE = "state.safetensors"
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024, Muon)."""


class PretrainConfig(Config):
    """The architecture and the schedule. The shipped base uses the defaults."""

    hidden_size: PositiveInt = 192
    layers: PositiveInt = 4
    heads: PositiveInt = 6
    intermediate_size: PositiveInt = 512
    vocabulary: int = Field(default=2048, ge=257, le=2**16)
    """At least all 256 bytes and the end of text."""
    context: PositiveInt = 256
    """Tokens in a row, and positions of the model."""
    rows_per_step: PositiveInt = 16
    tokens: PositiveInt = 20_000_000
    """Tokens to train on, each once."""
    matrix_learning_rate: float = 0.02
    """Learning rate of Muon, for the matrices inside the blocks."""
    other_learning_rate: float = 3e-3
    """Learning rate of AdamW, for embeddings and norms."""
    weight_decay: float = 0.01
    momentum: float = 0.95
    warmup: float = 0.02
    decay: float = 0.35
    """Share of the steps, at the end, in which the rates decay linearly to zero."""
    save_steps: PositiveInt = 200
    threads: PositiveInt = 1
    """CPU threads: two are faster on idle cores, and far slower on shared ones."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if not self.steps:
            raise ValueError(
                f"a step takes {self.rows_per_step * self.context:,} tokens; raise tokens to that"
            )
        if self.hidden_size % self.heads:
            raise ValueError(f"{self.heads} heads cannot share hidden_size {self.hidden_size}")
        return self

    @property
    def steps(self) -> int:
        """Total optimizer steps."""
        return self.tokens // (self.rows_per_step * self.context)


def new_model(config: PretrainConfig, eos: int) -> "LlamaForCausalLM":
    """Return the untrained model, whose end-of-text token is also the start of every text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=eos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng():  # leaves the caller's generator as it was
        torch.manual_seed(config.seed)
        return LlamaForCausalLM(shape)


class Muon:
    """Momentum with orthogonalised updates of matrices (Jordan et al. 2024), in float32."""

    def __init__(self, matrices: list["Parameter"], config: PretrainConfig) -> None:
        import torch

        self.matrices = matrices
        self.config = config
        self.momenta = [torch.zeros_like(matrix) for matrix in matrices]

    def step(self, rate: float) -> None:
        """Update every matrix, at ``rate`` times the base rate."""
        import torch

        with torch.no_grad():
            for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
                assert matrix.grad is not None
                momentum.lerp_(matrix.grad, 1 - self.config.momentum)
                nesterov = matrix.grad.lerp(momentum, self.config.momentum)
                # An orthogonal update has entries of about the same size whatever the gradient's
                # scale; tall matrices get the factor of torch.optim.Muon's adjust_lr_fn "original".
                lr = rate * self.config.matrix_learning_rate
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - lr * self.config.weight_decay)
                matrix.add_(orthogonal(nesterov), alpha=-lr * scale)
                matrix.grad = None


def orthogonal(matrix: "Tensor", iterations: int = 5) -> "Tensor":
    """Approximate the orthogonal matrix nearest to ``matrix`` [rows, columns] (Newton-Schulz)."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # the smaller Gram matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    near: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return near


class Run:
    """A pre-training run in a folder: the model and optimizers, saved and resumed."""

    def __init__(self, config: PretrainConfig, eos: int, folder: Path) -> None:
        import torch

        self.config = config
        self.folder = folder
        self.model = new_model(config, eos)
        # Muon is for matrices inside the blocks; embeddings (here also the output layer) and norms
        # train with AdamW (Jordan et al. 2024).
        inside = {
            name: weight
            for name, weight in self.model.named_parameters()
            if weight.ndim == 2 and "embed" not in name
        }
        others = [w for name, w in self.model.named_parameters() if name not in inside]
        self.muon = Muon(list(inside.values()), config)
        self.adamw = torch.optim.AdamW(
            others, lr=config.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.step = 0
        self._run = digest(config.model_dump_json(), str(eos))

    def train(self, tokens: np.ndarray, progress: Callable[[int, int], None]) -> None:
        """Train to the last step, from the folder's newest whole checkpoint.

        Args:
            tokens: [tokens] ids of the packed corpus.
            progress: Called after each step with (steps done, total steps).
        """
        import torch

        torch.set_num_threads(self.config.threads)
        self._load()
        # [tokens] -> [rows, context]. The seed alone decides the order, so that a resumed run reads
        # the same rows as an uninterrupted one; within a step they are sorted to read in sequence.
        rows = tokens[: self.config.tokens // self.config.context * self.config.context]
        rows = rows.reshape(-1, self.config.context)
        order = np.random.default_rng(self.config.seed).permutation(len(rows))
        self.model.train()
        for step in range(self.step, self.config.steps):
            chosen = order[step * self.config.rows_per_step :][: self.config.rows_per_step]
            loss = self._update(torch.from_numpy(rows[np.sort(chosen)].astype(np.int64)))
            self.step = step + 1
            self._log(loss)
            progress(self.step, self.config.steps)
            if self.step % self.config.save_steps == 0 or self.step == self.config.steps:
                self._save()

    def losses(self) -> Iterator[tuple[int, float]]:
        """Yield (step, loss) of every step so far."""
        for line in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            yield entry["step"], entry["loss"]

    def _update(self, ids: "Tensor") -> float:
        from torch.nn.functional import cross_entropy
        from torch.nn.utils import clip_grad_norm_

        # ids: [rows, context]. A row packs several documents and attention crosses their borders;
        # the model has to learn that an end of text makes what came before irrelevant.
        logits = self.model(input_ids=ids, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self._rate()
        clip_grad_norm_([w for group in self.adamw.param_groups for w in group["params"]], 1.0)
        for group in self.adamw.param_groups:
            group["lr"] = rate * self.config.other_learning_rate
        self.adamw.step()
        self.adamw.zero_grad()
        self.muon.step(rate)
        return float(loss.detach())

    def _rate(self) -> float:
        """Return the factor of the base rates: linear warm-up, constant, linear decay to zero."""
        steps = self.config.steps
        up = (self.step + 1) / max(1, self.config.warmup * steps)
        down = (steps - self.step) / max(1, self.config.decay * steps)
        return min(1.0, up, down)

    def _log(self, loss: float) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "loss": round(loss, 4)}) + "\n")

    def _state(self) -> dict[str, Any]:
        """Return every tensor that the next step depends on, by name."""
        state: dict[str, Any] = {
            f"model.{name}": weight for name, weight in self.model.named_parameters()
        }
        state |= {f"muon.{i}": momentum for i, momentum in enumerate(self.muon.momenta)}
        for number, moments in self.adamw.state_dict()["state"].items():
            state |= {f"adamw.{number}.{name}": value for name, value in moments.items()}
        return {name: tensor.detach().contiguous() for name, tensor in state.items()}

    def _save(self) -> None:
        from safetensors.torch import save_file

        checkpoint = self.folder / f"checkpoint-{self.step}"
        with seals.saving(checkpoint):
            checkpoint.mkdir(exist_ok=True)
            save_file(self._state(), checkpoint / STATE)
            seals.seal(checkpoint, run=self._run)
            sync_folder(self.folder)
        seals.keep_newest(self.folder)

    def _load(self) -> None:
        """Resume from the newest whole checkpoint, if any, and cut the log back to its step.

        Raises:
            ConfigError: the checkpoint belongs to another run.
        """
        from safetensors.torch import load_file

        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "metrics.jsonl"
        checkpoint = seals.newest_checkpoint(self.folder, self._run)
        if checkpoint is None:
            log.unlink(missing_ok=True)
            return
        self.step = int(checkpoint.name.rpartition("-")[2])
        self._restore(load_file(checkpoint / STATE))
        kept = log.read_text(encoding="utf-8").splitlines()[: self.step]
        log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _restore(self, state: dict[str, Any]) -> None:
        import torch

        # AdamW has no state before its first step, so its state is loaded by number, not copied.
        moments: dict[int, dict[str, Any]] = {}
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(state[f"model.{name}"])
            for number, momentum in enumerate(self.muon.momenta):
                momentum.copy_(state[f"muon.{number}"])
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "adamw":
                place, _, name = rest.partition(".")
                moments.setdefault(int(place), {})[name] = value
        saved = self.adamw.state_dict()
        self.adamw.load_state_dict({**saved, "state": moments})
