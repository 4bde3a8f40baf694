import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from response_tuning.errors import ConfigError
from response_tuning.miniature.pretrain import Muon, PretrainConfig, Run, new_model, orthogonal
from response_tuning.validation import build

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 64,
    "vocabulary": 300,
    "context": 32,
    "rows_per_step": 2,
    "tokens": 1500,
    "save_steps": 3,
}


def configured(**changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(TINY | changes)


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 300, 1500).astype(np.uint16)


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (16, 64), (1, 9)])
def test_an_update_is_made_nearly_orthogonal_whatever_its_shape_and_size(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.linspace(0.5, 5, len(values))) @ right
    for scale in (1e-4, 1.0, 1e4):
        result = orthogonal(matrix * scale)
        assert result.shape == shape
        values = torch.linalg.svdvals(result)
        assert 0.67 < values.min() <= values.max() < 1.21


def test_an_orthogonal_update_keeps_the_directions_of_the_matrix() -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(12, 20), full_matrices=False)
    rotated = left.T @ orthogonal(left @ torch.diag(torch.linspace(1, 5, 12)) @ right) @ right.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=1e-4)
    assert bool((rotated.diagonal() > 0).all())


def test_the_step_of_muon_is_that_of_torch_up_to_the_precision_of_bfloat16() -> None:
    config = configured(matrix_learning_rate=0.1, weight_decay=0.1)
    torch.manual_seed(0)
    shapes = [(32, 8), (8, 32)]
    mine = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in mine]
    muon = Muon(mine, config)
    reference = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1, momentum=0.95)
    for _ in range(3):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.step(0.5)
        reference.step()  # type: ignore[no-untyped-call]
    for one, other in zip(mine, theirs, strict=True):
        assert one.grad is None
        assert float((one - other).detach().abs().max()) < 0.005


def test_a_fresh_model_follows_from_its_seed_and_disturbs_no_other_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = [new_model(configured(seed=seed), eos=0) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    first, same, other = (model.model.embed_tokens.weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert models[0].config.bos_token_id == models[0].config.eos_token_id == 0


def test_the_rates_rise_hold_and_fall_to_zero(tokens: np.ndarray, tmp_path: Path) -> None:
    run = Run(configured(tokens=6400, warmup=0.1, decay=0.2), 0, tmp_path)
    rates = []
    for step in range(run.config.steps):
        run.step = step
        rates.append(run._rate())
    assert run.config.steps == 100
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert set(rates[9:80]) == {1.0}
    assert rates[80:] == pytest.approx([n / 20 for n in range(20, 0, -1)])


def test_every_step_is_noted_and_what_is_learnt_lowers_the_loss(tmp_path: Path) -> None:
    run = Run(configured(tokens=6400), 0, tmp_path)
    reports: list[tuple[int, int]] = []
    tokens = np.tile(np.arange(8, dtype=np.uint16), 800)
    run.train(tokens, lambda done, total: reports.append((done, total)))
    losses = list(run.losses())
    assert [step for step, _ in losses] == list(range(1, 101))
    assert reports == [(step, 100) for step, _ in losses]
    assert losses[0][1] > 5
    assert losses[-1][1] < 1


def test_every_row_is_seen_once_in_an_order_of_the_seed(
    tokens: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[list[int]]] = {}
    for seed in (0, 1):
        rows = seen.setdefault(seed, [])

        def note(_: Run, ids: torch.Tensor, rows: list[list[int]] = rows) -> float:
            rows.extend(ids.tolist())
            return 0.0

        monkeypatch.setattr(Run, "_update", note)
        Run(configured(seed=seed, tokens=1472), 0, tmp_path / str(seed)).train(
            tokens, lambda done, total: None
        )
    packed = tokens[:1472].reshape(-1, 32).tolist()
    assert len(packed) == 46
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(packed)
    assert seen[0] != seen[1]


class KilledError(Exception):
    pass


def killed_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise KilledError

    return progress


@pytest.mark.parametrize("step", [1, 5, 6, 23])
def test_a_killed_run_goes_on_to_the_weights_of_an_uninterrupted_one(
    step: int, tokens: np.ndarray, tmp_path: Path
) -> None:
    whole = Run(configured(), 0, tmp_path / "whole")
    whole.train(tokens, lambda done, total: None)
    with pytest.raises(KilledError):
        Run(configured(), 0, tmp_path / "killed").train(tokens, killed_at(step))
    resumed = Run(configured(), 0, tmp_path / "killed")
    steps: list[int] = []
    resumed.train(tokens, lambda done, total: steps.append(done))
    assert steps == list(range((step - 1) // 3 * 3 + 1, 24))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for name in ("checkpoint-23/state.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damaged", "first"), [([6], 4), ([6, 3], 1)])
def test_a_flipped_bit_in_a_checkpoint_falls_back_to_the_one_before_it(
    damaged: list[int],
    first: int,
    tokens: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = Run(configured(), 0, tmp_path / "whole")
    whole.train(tokens, lambda done, total: None)
    with pytest.raises(KilledError):
        Run(configured(), 0, tmp_path / "killed").train(tokens, killed_at(8))
    for step in damaged:
        flip(tmp_path / "killed" / f"checkpoint-{step}" / "state.safetensors")
    resumed = Run(configured(), 0, tmp_path / "killed")
    steps: list[int] = []
    resumed.train(tokens, lambda done, total: steps.append(done))
    where = "going on from checkpoint-3" if first > 1 else "no other checkpoint, so starting over"
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'killed' / f'checkpoint-{step}'}: state.safetensors is no longer what was "
        f"written; {where}"
        for step in damaged
    ]
    assert steps == list(range(first, 24))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_run_is_refused(tokens: np.ndarray, tmp_path: Path) -> None:
    Run(configured(), 0, tmp_path).train(tokens, lambda done, total: None)
    with pytest.raises(ConfigError, match="checkpoint-23 is of another run; choose another --out"):
        Run(configured(seed=1), 0, tmp_path).train(tokens, lambda done, total: None)


def test_what_a_run_without_a_checkpoint_noted_is_forgotten(
    tokens: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 9}) + "\n")
    run = Run(configured(), 0, tmp_path)
    run.train(tokens, lambda done, total: None)
    assert [step for step, _ in run.losses()] == list(range(1, 24))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 63}, "a step takes 64 tokens"),
        ({"heads": 5}, "5 heads cannot share hidden_size 32"),
        ({"vocabulary": 256}, "vocabulary: Input should be greater than or equal to 257"),
        ({"vocabulary": 65537}, "vocabulary: Input should be less than or equal to 65536"),
        ({"heads": 0}, "heads: Input should be greater than 0"),
    ],
)
def test_an_impossible_model_or_run_is_refused_in_one_line(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(PretrainConfig, TINY | changes, "tests")
    assert "\n" not in str(caught.value)
