#!/bin/sh
# A Slurm of one host for tests: `slurm.sh start FOLDER` as root, with two nodes of two cores by name; `slurm.sh stop FOLDER`.
# Needs Debian's slurm-wlm and munge. Prints nothing when it is ready; its logs are in FOLDER.
set -eu
folder=$2
export SLURM_CONF=$folder/slurm.conf
case $1 in
start)
    mkdir -p "$folder/state" "$folder/spool1" "$folder/spool2" /run/munge
    if [ ! -s /etc/munge/munge.key ]; then dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null; fi
    chown munge: /etc/munge/munge.key /run/munge; chmod 400 /etc/munge/munge.key
    pgrep -x munged >/dev/null || setpriv --reuid=munge --regid=munge --clear-groups munged
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
SlurmctldPort=16817
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
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16818 CPUs=4
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16819 CPUs=4
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=60 State=UP
CONF
    sed -i "s#spool%n#spool-%n#" "$SLURM_CONF"
    mkdir -p "$folder/spool-n1" "$folder/spool-n2"
    slurmctld
    # Both hosts are this one, so each has cores of its own where there are enough.
    last=$(($(nproc) - 1))
    taskset -c 0 slurmd -N n1
    taskset -c "$last" slurmd -N n2
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --format=%t --Node | sort -u)" = idle ]; then exit 0; fi
        sleep 0.1
    done
    sinfo >&2
    exit 1
    ;;
stop)
    scancel --quiet --user=root || true
    for name in slurmctld slurmd.n1 slurmd.n2; do
        if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
    done
    ;;
esac
