#!/bin/bash
# 8 cells of the miniature as a job array of a real Slurm (cluster.sh). One cell is preempted, one is
# killed by SIGKILL, one node is drained. `results.csv` must equal that of a local run, byte for byte.
#
#   benchmarks/slurm/run.sh [PYTHON]     # exit code 77: Slurm is not installed here
set -euo pipefail
python=${1:-python}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"

say "the same cells on this machine"
rtune run "$here/grid.yaml" --out "$work/local" > "$work/local.txt"

say "on Slurm"
rtune run "$here/grid.yaml" --out "$work/run" --launcher slurm --resources time=1:00:00 \
    > "$work/slurm.txt" 2>&1 &
launcher=$!

read -r job pid first <<< "$(wait_for_tuning)"
say "preempted: SIGTERM, then submitit's warning, to job $job (${first#$work/run/})"
preempt "$job"
read -r job pid second <<< "$(wait_for_tuning "$first")"
say "killed: SIGKILL to process $pid of job $job (${second#$work/run/})"
kill -KILL "$pid"
say "drained: node n2"
scontrol update NodeName=n2 State=DRAIN Reason="a test"
rtune status "$work/run"
sleep 5
scontrol update NodeName=n2 State=RESUME

code=0; wait $launcher || code=$?
cat "$work/slurm.txt"
say "exit code $code: the killed cell is missing; the same command takes it up"
[ $code = 1 ]
rtune run "$here/grid.yaml" --out "$work/run" --launcher slurm --resources time=1:00:00
grep -ho "resuming from checkpoint-.*" -r "$work/run/.jobs" || true
cmp "$work/local/report/results.csv" "$work/run/report/results.csv"
say "results.csv: the same bytes as on this machine"
