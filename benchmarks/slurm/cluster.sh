# A real Slurm of two virtual nodes on this host, for the scripts beside this one, which source it.
# Needs root and Debian's slurm-wlm and munge; writes below a temporary folder and stops its daemons
# at the end. Exit code 77: Slurm is not installed here.
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
MessageTimeout=100
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

# The job and the process of a cell that is being tuned and has saved a checkpoint, and its folder.
tuning() {
    for file in "$work"/run/*/seed-*/.holder.json; do
        [ -e "$file" ] || continue  # nobody is at work, or no longer
        cell=${file%/.holder.json}
        [ "$cell" != "${1:-}" ] && compgen -G "$cell/finetune/checkpoints/*/complete" >/dev/null || continue
        tr -d '\n' < "$file" | sed -E "s|.*\"pid\": ([0-9]+).*\"job\": \"([^\"]*)\".*|\2 \1 $cell|"
        echo && return
    done
}
wait_for_tuning() { for _ in $(seq 1800); do tuning "${1:-}" | grep . && return; sleep 0.5; done; return 1; }
preempt() {  # a job: as Slurm does before it takes the nodes away
    # It may say that the job cannot be altered now, after the signal has reached the job's step, and
    # try again for minutes, until it meets the job that was requeued.
    timeout 5 scancel --signal TERM "$1" || true
    timeout 5 scancel --signal USR2 "$1" 2>/dev/null || true  # submitit's warning
}
