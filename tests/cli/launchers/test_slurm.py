import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "slurm" / "run.sh"


@pytest.mark.exhaustive  # minutes, and two daemons of a Slurm of its own
@pytest.mark.skipif(shutil.which("slurmctld") is None, reason="needs Debian's slurm-wlm and munge")
def test_a_grid_on_slurm_has_the_bytes_of_a_local_run() -> None:
    ran = subprocess.run([SCRIPT, sys.executable], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("results.csv: the same bytes as on this machine\n")
