"""Freed memory is kept for the next micro-batch.

glibc requests memory from the system for each large tensor and returns it when the tensor is freed;
the system clears the pages each time. On a CPU that takes a sixth of a step, and more than a third
if the model is small compared with its vocabulary.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Parameters of mallopt, from glibc's malloc.h, and their values after training. glibc by itself
# raises its thresholds up to these as large tensors are freed. Setting one ends that, and with the
# defaults glibc would return tensors from 128 KiB on after training.
_TRIM_THRESHOLD, _SETTLED_TRIM_THRESHOLD = -1, 2**26
_MMAP_THRESHOLD, _SETTLED_MMAP_THRESHOLD = -3, 2**25
_MMAP_MAX, _DEFAULT_MMAP_MAX = -4, 65536


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory inside the block if ``device`` is a CPU and the C library is glibc."""
    libc: Any = ctypes.CDLL(None) if device.type == "cpu" and sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    # No allocation by mmap, which would be returned when freed, and no trimming of the heap's end.
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _SETTLED_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _SETTLED_TRIM_THRESHOLD)
        libc.malloc_trim(0)
