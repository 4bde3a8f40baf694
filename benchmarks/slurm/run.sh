#!/bin/bash
# A real Slurm of two virtual nodes on this host: 8 cells of the miniature as a job array. One cell is
# preempted, one is killed by SIGKILL, one node is drained. `results.csv` must equal that of a local
# run, byte for byte. Needs root and Debian's slurm-wlm and munge; writes below a temporary folder and
# stops its daemons at the end.
#
#   benchmarks/slurm/run.sh [PYTHON]     # exit code 77: Slurm is not installed here
set -euo pipefail
python=${1:-python}
here=$(cd "$(dirname "$0")" && pwd)
for tool in slurmctld slurmd munged sbatch; do
    command -v $tool >/dev/null || { echo "no $tool here: apt-get install slurm-wlm munge"; exit 77; }
done
work=$(mktemp -d) && export SLURM_CONF=$work/slurm.conf
rtune() { "$python" -m response_tuning "$@"; }
say() { echo "[$SECONDS s] $*"; }

host=$(hostname -s)
mkdir -p "$work"/{state,spool-n1,spool-n2,munge}
cat > "$SLURM_CONF" <<CONF
ClusterName=rtune
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerParameters=batch_sched_delay=1,sched_interval=2,requeue_delay=1
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=26818-26819 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 700 "$work/munge" && chmod 400 "$work/munge/key"
chmod 755 "$work"
daemons=()
stop() { [ ${#daemons[@]} -eq 0 ] || kill "${daemons[@]}" 2>/dev/null || true; }
trap stop EXIT
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" \
    --pid-file="$work/munge/pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed" \
    2>"$work/munge/err" & daemons+=($!)
sleep 2
slurmctld -D -c 2>/dev/null & daemons+=($!)
slurmd -D -N n1 2>/dev/null & daemons+=($!)
slurmd -D -N n2 2>/dev/null & daemons+=($!)
for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --format %T 2>/dev/null | grep -c idle)" = 2 ] && break
    sleep 1
done
sinfo --Node --format "%N %T"

say "the same cells on this machine"
rtune run "$here/grid.yaml" --out "$work/local" > "$work/local.txt"

say "on Slurm"
rtune run "$here/grid.yaml" --out "$work/run" --launcher slurm --resources time=1:00:00 \
    > "$work/slurm.txt" 2>&1 &
launcher=$!

# The job and the process of a cell that is being tuned and has saved a checkpoint, and its folder.
tuning() {
    for file in "$work"/run/*/seed-*/.holder.json; do
        cell=${file%/.holder.json}
        [ "$cell" != "${1:-}" ] && compgen -G "$cell/finetune/checkpoints/*/complete" >/dev/null || continue
        tr -d '\n' < "$file" | sed -E "s|.*\"pid\": ([0-9]+).*\"job\": \"([^\"]*)\".*|\2 \1 $cell|"
        echo && return
    done
}
wait_for_tuning() { for _ in $(seq 1800); do tuning "${1:-}" | grep . && return; sleep 0.5; done; return 1; }

read -r job pid first <<< "$(wait_for_tuning)"
say "preempted: SIGTERM, then submitit's warning, to job $job (${first#$work/run/})"
scancel --signal TERM "$job"; scancel --signal USR2 "$job" 2>/dev/null || true  # it may be requeued by now
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
