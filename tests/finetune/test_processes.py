import re
import sys

import pytest

from response_tuning.errors import ConfigError
from response_tuning.finetune.processes import check_launcher, first_process_first, is_first


def test_one_process_is_the_first_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_first()
    with first_process_first(on_cpu=True):
        pass
    monkeypatch.setenv("RANK", "1")
    assert not is_first()


@pytest.mark.parametrize(
    ("started", "works"),
    [
        ("/lib/response_tuning/__main__.py", "-m response_tuning finetune --out x"),
        ("/bin/rtune", "-m response_tuning finetune --out x"),
        ("train.py", "train.py finetune --out x"),
    ],
)
def test_several_processes_on_cpus_are_not_one(
    monkeypatch: pytest.MonkeyPatch, started: str, works: str
) -> None:
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", [started, "finetune", "--out", "x"])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    check_launcher()  # accelerate launch --cpu, with one process
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match=f"{re.escape(f'--nproc-per-node 2 {works}')}$"):
        check_launcher()
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launcher()
