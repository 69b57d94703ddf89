#!/bin/sh
# A Slurm of this one machine, to try docs/engines/slurm.md without a cluster: Debian, as root, in a container as well.
#   sh tests/clusters/slurm.sh         installs what is missing, configures, starts, waits until the node is idle
#   sh tests/clusters/slurm.sh stop    ends the daemons
# An /etc/slurm/slurm.conf that this script did not write is left alone, and nothing is started.
set -eu
CONFIG=/etc/slurm/slurm.conf
MARK="# written by lemlight's tests/clusters/slurm.sh"
STATE=/var/lib/slurm
RUN=/run/lemlight-slurm

say() { echo "slurm.sh: $*" >&2; }

install_packages() {
    for name in slurmctld slurmd munged sinfo; do
        command -v "$name" >/dev/null && continue
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y slurm-wlm munge
        return
    done
}

configure() {
    if [ -e "$CONFIG" ] && ! grep -qF "$MARK" "$CONFIG"; then
        say "$CONFIG is another Slurm's: nothing was changed"
        exit 1
    fi
    if [ ! -s /etc/munge/munge.key ]; then
        dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none
    fi
    chown munge: /etc/munge /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
    # linuxproc and task/none need no cgroups; cons_tres lets jobs of one core run side by side
    cat >"$CONFIG.new" <<END
$MARK
ClusterName=lemlight
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=5,batch_sched_delay=0
KillWait=10
MinJobAge=300
StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
$(slurmd -C | grep '^NodeName=') NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    mv "$CONFIG.new" "$CONFIG"
}

is_running() { # of this name, and no zombie: a container may have nobody who collects those
    for id in $(pgrep -x "$1"); do
        grep -q '^State:[[:space:]]*Z' "/proc/$id/status" 2>/dev/null || return 0
    done
    return 1
}

start() {
    install -d -o slurm -g slurm "$RUN" "$STATE" "$STATE/slurmctld" /var/log/slurm
    install -d "$STATE/slurmd"
    install -d -o munge -g munge -m 755 /run/munge
    install -d -o munge -g munge -m 700 /var/lib/munge /var/log/munge
    is_running munged || setpriv --reuid munge --regid munge --clear-groups munged
    is_running slurmctld || slurmctld
    is_running slurmd || slurmd
}

wait_until_idle() {
    for _ in $(seq 60); do
        case "$(sinfo --noheader --format=%T 2>/dev/null)" in
        idle | mixed | allocated) sinfo && return ;;
        down* | drain*) scontrol update nodename="$(hostname -s)" state=resume || true ;;
        esac
        sleep 1
    done
    say "the node did not come up: see /var/log/slurm"
    exit 1
}

stop() {
    for name in slurmd slurmctld munged; do
        for file in "$RUN/$name.pid" "/run/munge/$name.pid"; do
            [ -s "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
        done
        for _ in $(seq 20); do
            is_running "$name" || break
            sleep 0.5
        done
    done
}

case "${1-start}" in
start)
    install_packages
    configure
    start
    wait_until_idle
    ;;
stop) stop ;;
*)
    say "start or stop"
    exit 2
    ;;
esac
