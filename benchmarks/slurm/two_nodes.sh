#!/bin/bash
# One training over two nodes of a real Slurm (cluster.sh), data-parallel and sharded; each is preempted
# once. Losses and weights must be those of one process on this machine, to 1e-5.
#
#   benchmarks/slurm/two_nodes.sh [PYTHON]     # exit code 77: Slurm is not installed here
set -euo pipefail
python=${1:-python}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"

say "one process on this machine"
rtune run "$here/two_nodes.yaml" --out "$work/local" --only parallel > "$work/local.txt"

say "two nodes, one process on each"
rtune run "$here/two_nodes.yaml" --out "$work/run" --launcher slurm \
    --resources nodes=2,time=1:00:00 > "$work/slurm.txt" 2>&1 &
launcher=$!
first=
for _ in 1 2; do
    read -r job pid first <<< "$(wait_for_tuning "$first")"
    squeue --noheader --states R --format "job %i: %D nodes, %N"
    say "preempted: job $job (${first#$work/run/})"
    preempt "$job"
done
code=0; wait $launcher || code=$?
cat "$work/slurm.txt"
for log in "$work"/run/.jobs/*/*.log; do echo "== ${log#$work/run/.jobs/}"; cat "$log"; done
[ $code = 0 ]
"$python" "$here/compare.py" "$work/local/parallel/seed-0" "$work"/run/{parallel,sharded}/seed-0
