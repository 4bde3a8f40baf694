import platform
import resource
from pathlib import Path

import pytest
import torch

from response_tuning.finetune import heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library of Linux")
LARGE = 2**24
"""Numbers of a tensor; it takes 64 MiB."""
LITTLE, MOST = 16, 48
"""MiB: other things come and go meanwhile."""


def resident() -> int:
    """MiB of this process that are in memory."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * resource.getpagesize() // 2**20


def after_a_large_tensor() -> int:
    before = resident()
    tensor = torch.ones(LARGE)
    del tensor
    return resident() - before


def test_freed_memory_is_kept_for_the_next_tensor_and_given_back_at_the_end() -> None:
    before = resident()
    with heap.kept(torch.device("cpu")):
        assert after_a_large_tensor() > MOST
        kept = resident()
        tensor = torch.ones(LARGE // 4 * 3)  # whatever small has taken of the large one's place
        assert resident() < kept + LITTLE
        del tensor
    assert resident() < before + LITTLE
    assert after_a_large_tensor() < LITTLE


def test_a_gpu_has_an_allocator_of_its_own() -> None:
    with heap.kept(torch.device("cuda")):
        assert after_a_large_tensor() < LITTLE
