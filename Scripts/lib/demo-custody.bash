# shellcheck shell=bash disable=SC2154
# The parts of Scripts/demo in which a supervisor has custody of the disk; to be sourced by it.

control=$work/control.sock
# All that the supervisor starts inherits this: so they are found again, whoever lives and whoever does not.
export BATON_DEMO=$work
baton() { "$programs/baton" "$@" --control-socket "$control"; }

start_supervisor() {
    local limit
    rm -f "$control"
    "$programs/batond" --control-socket "$control" --state-directory "$work/state" --worker "$work/worker" \
        >>"$work/worker.log" 2>&1 </dev/null &
    supervisor_process=$!
    for ((limit = 200; limit > 0; limit--)); do
        [ ! -S "$control" ] || return 0
        kill -0 "$supervisor_process" 2>/dev/null || break
        sleep 0.05
    done
    fail "batond did not open its socket. It said: $(tail -20 "$work/worker.log")"
}

create_disk() {
    # A file of our own: an upgrade without --worker takes what lies there.
    cp "$worker" "$work/worker"
    start_supervisor
    baton create disk disk-a --file "$work/disk.img" --socket "$work/disk-a.sock" --queues "$queues" >/dev/null ||
        fail "the disk was not made. batond said: $(tail -20 "$work/worker.log")"
    next_worker=$programs/next-worker
    staffed || fail "nobody serves the disk. batond said: $(tail -20 "$work/worker.log")"
    first_version=$version
}

# Every process that the supervisor has started, and itself, as far as they live.
supervised_processes() {
    local file
    for file in $(grep -lzsFx "BATON_DEMO=$work" /proc/[0-9]*/environ || true); do
        file=${file#/proc/}
        [ "$(cat "/proc/${file%/environ}/comm" 2>/dev/null)" != "" ] || continue
        case $(tr '\0' ' ' <"/proc/${file%/environ}/cmdline" 2>/dev/null) in
        "$programs/batond "* | "batond "* | baton-worker*) printf '%s ' "${file%/environ}" ;;
        esac
    done
}

# staffed [PROCESS]: waits until one worker, not that process, has the disk, one stands by and nothing is under way. Sets $active, $standby,
# $version and $connections.
staffed() {
    local answer limit
    for ((limit = 600; limit > 0; limit--)); do
        answer=$(baton status disk-a --json 2>/dev/null | jq -r --argjson but "${1:-0}" '
            (.workers | map(select(.phase == "active")) | first) as $active
            | (.workers | map(select(.phase == "standby")) | first) as $standby
            | select($active and $standby and .upgrade == null and $active.pid != $but)
            | "\($active.pid) \($standby.pid) \($active.version) \(.connections)"' || true)
        if [ -n "$answer" ]; then
            read -r active standby version connections <<<"$answer"
            return 0
        fi
        sleep 0.05
    done
    problem "the disk has no worker and standby after 30 s: $(baton status disk-a 2>&1 || true)"
    return 1
}

# --- What is done to it

blow_kill() {
    local victim=$active
    kill -KILL "$victim"
    staffed "$victim" || return 0
    tell "worker $victim was killed (SIGKILL); worker $active has the disk"
}

blow_upgrade() {
    local target=$next_worker before=$version
    [ "$before" = "$first_version" ] || target=$worker
    if ! baton upgrade disk-a --worker "$target" >"$work/upgrade" 2>&1; then
        problem "the upgrade failed: $(cat "$work/upgrade")"
        return
    fi
    staffed || return 0
    [ "$version" != "$before" ] || problem "the upgrade left version $version"
    tell "the worker was upgraded from version $before to $version: process $active"
}

blow_supervisor() {
    local before="$active $standby"
    kill -KILL "$supervisor_process"
    wait "$supervisor_process" 2>/dev/null || true
    start_supervisor
    staffed || return 0
    [ "$active $standby" = "$before" ] || problem "the supervisor's death has cost workers: $before, now $active $standby"
    tell "the supervisor was killed and started again: process $supervisor_process has the same workers"
}

# Nothing but the image, the saved description and QEMU are left.
blow_disaster() {
    local processes
    processes=$(supervised_processes)
    # shellcheck disable=SC2086 # several numbers
    kill -KILL $processes
    wait "$supervisor_process" 2>/dev/null || true
    start_supervisor
    staffed || return 0
    tell "supervisor, keeper and workers were killed ($processes) and started again: QEMU connects anew"
}

# Ends the disk as an operator would.
end_custody() {
    staffed || return 0
    [ "$connections" = 1 ] || problem "QEMU has connected $connections times"
    baton delete disk-a >/dev/null || problem "the disk was not deleted"
    end_process "$supervisor_process"
    supervisor_process=''
    tell "the disk was deleted; QEMU had connected $connections time$([ "$connections" = 1 ] || printf s)"
}
