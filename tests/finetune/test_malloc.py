import platform
import subprocess
import sys

import pytest
import torch

from response_tuning.finetune import malloc

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library of Linux")

# In a process of its own: in this one, what earlier tests have freed would be taken first.
SCRIPT = """
import resource
from pathlib import Path
import torch
from response_tuning.finetune import malloc

def resident():
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * resource.getpagesize() // 2**20

def after_a_large_tensor():
    before = resident()
    tensor = torch.ones(2**24)  # 64 MiB
    del tensor
    return resident() - before

torch.ones(9)
before = resident()
with malloc.kept(torch.device("{device}")):
    print(after_a_large_tensor())
    kept = resident()
    tensor = torch.ones(2**23)
    print(resident() - kept)
    del tensor
print(resident() - before)
print(after_a_large_tensor())
"""


def grown(device: str) -> list[int]:
    """MiB: after a large tensor, with a second one, at the end, and after one more."""
    script = SCRIPT.replace("{device}", device)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return [int(line) for line in done.stdout.split()]


def test_freed_memory_is_kept_for_the_next_tensor_and_given_back_at_the_end() -> None:
    after, second, end, later = grown("cpu")
    assert after > 48
    assert max(second, end, later) < 16


def test_afterwards_tensors_of_middling_size_still_take_the_place_of_those_before() -> None:
    script = """
import resource
import torch
from response_tuning.finetune import malloc

with malloc.kept(torch.device("cpu")):
    torch.ones(2**20)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**18) for _ in range(40)]  # 1 MiB each, which is 256 pages
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 10 * 256


def test_a_gpu_has_an_allocator_of_its_own() -> None:
    after, _, end, later = grown("cuda")
    assert max(after, end, later) < 16


def test_what_fails_meanwhile_is_heard() -> None:
    with pytest.raises(ValueError, match="why"), malloc.kept(torch.device("cpu")):
        raise ValueError("why")
