"""Processes of a launcher such as torchrun, all of which run the same command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_first() -> bool:
    """Whether this process is the one that writes for all."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def first_process_first(*, on_cpu: bool) -> Iterator[None]:
    """Under torchrun, let one process prepare the data; the others wait and find it ready."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    with PartialState(
        cpu=on_cpu or not torch.accelerator.is_available()
    ).local_main_process_first():
        yield
