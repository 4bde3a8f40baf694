import pytest
import torch
from torch import Tensor, nn

from response_tuning.finetune.attention import computed_in, document_attention

# Shapes: 1 batch, 4 query heads, 2 key-value heads, 12 tokens in documents of 5, 1 and 6, size 8.
BOUNDS = torch.tensor([0, 5, 6, 12], dtype=torch.int32)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 12, 8), (1, 2, 12, 8), (1, 2, 12, 8))
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    return query, key, value


def dense(window: int | None, softcap: float | None) -> Tensor:
    """The same attention written as one masked softmax over all tokens."""
    query, key, value = drawn()
    key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    scores = query @ key.transpose(2, 3) / 8**0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    place = torch.arange(12)
    document = torch.bucketize(place, BOUNDS[1:-1], right=True)
    ahead = place[:, None] - place[None, :]
    allowed = (document[:, None] == document[None, :]) & (ahead >= 0) & (ahead < (window or 12))
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 1, 3, 12])
def test_each_token_sees_its_own_document_up_to_itself(
    window: int | None, softcap: float | None
) -> None:
    found, _ = document_attention(
        nn.Module(), *drawn(), None, cu_seq_lens_q=BOUNDS, sliding_window=window, softcap=softcap
    )
    torch.testing.assert_close(found, dense(window, softcap))


@pytest.mark.parametrize(
    "argument",
    [
        {"s_aux": torch.zeros(4)},
        {"position_bias": torch.zeros(1)},
        {"is_causal": False},
        {"something_new": 3},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_an_argument_that_it_does_not_implement_is_refused(argument: dict[str, object]) -> None:
    with pytest.raises(NotImplementedError, match=next(iter(argument))):
        document_attention(nn.Module(), *drawn(), None, cu_seq_lens_q=BOUNDS, **argument)  # type: ignore[arg-type]


def test_a_batch_without_boundaries_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="without document boundaries"):
        document_attention(nn.Module(), *drawn(), None)


def test_a_padding_mask_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="padding masks"):
        document_attention(nn.Module(), *drawn(), torch.ones(1, 1, 12, 12), cu_seq_lens_q=BOUNDS)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 3])
def test_the_gpu_kernel_agrees_with_one_document_at_a_time(window: int | None) -> None:
    query, key, value = (part.to("cuda", torch.bfloat16) for part in drawn())
    found, _ = document_attention(
        nn.Module(),
        query,
        key,
        value,
        None,
        cu_seq_lens_q=BOUNDS.cuda(),
        max_length_q=6,
        sliding_window=window,
    )
    torch.testing.assert_close(found.float().cpu(), dense(window, None), atol=3e-2, rtol=3e-2)


def test_a_product_is_computed_in_the_precision_of_autocast_if_that_is_on() -> None:
    tensor = torch.ones(1)
    assert computed_in(tensor) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_in(tensor) == torch.bfloat16
