#!/bin/sh
# A Ray cluster of this one machine, to try docs/engines/ray.md without a cluster: a head with two cores, no dashboard.
#   PYTHON=.venv/bin/python sh tests/clusters/ray.sh         starts it, waits until it answers, prints its address
#   PYTHON=.venv/bin/python sh tests/clusters/ray.sh stop    ends it, and no other Ray
# FOLDER is the cluster's own, with a short path: Ray makes sockets in it, and their paths have 107 bytes at most.
set -eu
PYTHON=$(command -v "${PYTHON-python}")
case "$PYTHON" in /*) ;; *) PYTHON=$PWD/$PYTHON ;; esac
FOLDER=${FOLDER-/tmp/lemlight-ray}
ID=$FOLDER/id
LOG=$FOLDER/log.txt
ADDRESS=$FOLDER/ray/ray_current_cluster # written by Ray once it has started
# the token is asked for by newer versions, which by themselves show it to a cluster but not to `ray health-check`
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_TMPDIR="$FOLDER"

say() { echo "ray.sh: $*" >&2; }

ray() { "$PYTHON" -m ray.scripts.scripts "$@"; }

is_running() { # the process of the file, and not another one that was given its number since
    [ -s "$ID" ] && grep -qs 'ray.scripts.scripts' "/proc/$(cat "$ID")/cmdline"
}

start() {
    mkdir -p "$FOLDER"
    rm -f "$ADDRESS"
    cd "$FOLDER" # here the jobs run: as on other machines, not in the folder that a command is started in
    ray get-auth-token --generate >/dev/null 2>&1 || true # older versions know of no token
    setsid "$PYTHON" -m ray.scripts.scripts start --head --block --num-cpus 2 --include-dashboard false \
        --port 0 >"$LOG" 2>&1 </dev/null &
    echo $! >"$ID"
}

wait_until_it_answers() {
    for _ in $(seq 180); do # a busy machine takes minutes
        is_running || break
        if [ -s "$ADDRESS" ] && ray health-check --address "$(cat "$ADDRESS")" >/dev/null 2>&1; then
            cat "$ADDRESS"
            echo
            return
        fi
        sleep 1
    done
    say "the cluster did not come up: see $LOG"
    stop
    exit 1
}

stop() {
    if is_running; then
        kill "$(cat "$ID")"
        for _ in $(seq 120); do # Ray gives what runs half a minute to end
            is_running || break
            sleep 0.5
        done
    fi
    rm -f "$ID" "$ADDRESS" # a later Ray would look for the dead one
}

case "${1-start}" in
start)
    is_running || start
    wait_until_it_answers
    ;;
stop) stop ;;
*)
    say "start or stop"
    exit 2
    ;;
esac
