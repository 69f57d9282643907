#!/bin/sh
# A Slurm of one host for tests: `slurm.sh start FOLDER` as root, with two nodes of two cores by name; `slurm.sh stop FOLDER`.
# Needs Debian's slurm-wlm and munge. Prints nothing when it is ready; its logs are in FOLDER.
set -eu
folder=$2
# The first of three, for a host that has another one of these already.
port=${TUNEMARK_SLURM_PORT:-16817}
export SLURM_CONF=$folder/slurm.conf
case $1 in
start)
    mkdir -p "$folder/state" "$folder/spool1" "$folder/spool2" /run/munge
    if [ ! -s /etc/munge/munge.key ]; then dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null; fi
    chown munge: /etc/munge/munge.key /run/munge; chmod 400 /etc/munge/munge.key
    # Only a munged that was started here is ended again. One that is just ending is none.
    for _ in $(seq 50); do
        if munge -n >/dev/null 2>&1; then break; fi
        if ! pgrep -x munged >/dev/null; then
            setpriv --reuid=munge --regid=munge --clear-groups munged
            touch "$folder/munged.ours"
        fi
        sleep 0.1
    done
    cat > "$SLURM_CONF" <<CONF
ClusterName=tunemark
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
SlurmctldPort=$port
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=30
KillWait=10
MpiDefault=none
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=4
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=4
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=60 State=UP
CONF
    sed -i "s#spool%n#spool-%n#" "$SLURM_CONF"
    mkdir -p "$folder/spool-n1" "$folder/spool-n2"
    slurmctld
    # Both hosts are this one, so each has cores of its own where there are enough.
    last=$(($(nproc) - 1))
    taskset -c 0 slurmd -N n1
    taskset -c "$last" slurmd -N n2
    # At once, but where the host is slow.
    for _ in $(seq 600); do
        if [ "$(sinfo --noheader --format=%t --Node | sort -u)" = idle ]; then exit 0; fi
        sleep 0.1
    done
    sinfo >&2
    exit 1
    ;;
stop)
    scancel --quiet --user=root || true
    for _ in $(seq 50); do
        if [ -z "$(squeue --noheader 2>/dev/null)" ]; then break; fi
        sleep 0.1
    done
    for name in slurmctld slurmd.n1 slurmd.n2; do
        if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
    done
    if [ -f "$folder/munged.ours" ]; then kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true; fi
    # A slurmstepd outlives the slurmd that started it, and what it runs may outlive it. Both are told from another
    # Slurm's by what they have open or were told.
    sleep 0.5
    for process in /proc/[0-9]*; do
        case $(cat "$process/comm" 2>/dev/null) in
        slurmd | slurmctld | slurmstepd | slurm_script) ;;
        *) grep -qsz "^SLURM_JOB_ID=" "$process/environ" || continue ;;
        esac
        if grep -qsz "^SLURM_CONF=$folder/" "$process/environ" ||
            readlink "$process/cwd" "$process"/fd/* 2>/dev/null | grep -q "^$folder/"; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
    ;;
esac
