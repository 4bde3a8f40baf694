"""Freed memory, kept for the next micro-batch.

glibc asks the system for every large tensor and gives it back when it is freed; the system clears
its pages anew each time. On a CPU that is a sixth of a step, and more than a third where the model
is small beside its vocabulary.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Parameters of mallopt, from glibc's malloc.h, and what they are left at. By itself glibc raises
# its thresholds up to these as large tensors are freed. Once one is set it does so no longer, and
# the defaults would go on to give back tensors from 128 KiB on when training is over.
_TRIM_THRESHOLD, _SETTLED_TRIM_THRESHOLD = -1, 2**26
_MMAP_THRESHOLD, _SETTLED_MMAP_THRESHOLD = -3, 2**25
_MMAP_MAX, _DEFAULT_MMAP_MAX = -4, 65536


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory until the end, where ``device`` is a CPU and the C library is glibc."""
    libc: Any = ctypes.CDLL(None) if device.type == "cpu" and sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _SETTLED_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _SETTLED_TRIM_THRESHOLD)
        libc.malloc_trim(0)
