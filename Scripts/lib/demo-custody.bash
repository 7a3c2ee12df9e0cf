# shellcheck shell=bash disable=SC2154
# The parts of Scripts/demo in which a supervisor has custody of the device; to be sourced by it.

# What the device is, and its name.
what=${what:-disk}
device=$what-a

control=$work/control.sock
# All that the supervisor starts inherits this: so they are found again, whoever lives and whoever does not.
export BATON_DEMO=$work
baton() { "$programs/baton" "$@" --control-socket "$control"; }

sandbox=$work/sandbox
# inside COMMAND...: where the supervisor and the workers run, and their process numbers mean something.
inside() { if [ "$systemd" = yes ]; then "$root/Scripts/lib/systemd-sandbox" run "$sandbox" "$@"; else "$@"; fi; }

# The units as they are shipped, with the places of the demonstration.
start_systemd() {
    local units=/run/systemd/system
    "$root/Scripts/lib/systemd-sandbox" start "$sandbox" "$work"
    mkdir -p "$work/units/baton.service.d"
    cp "$root"/share/systemd/* "$work/units"
    cat >"$work/units/baton.service.d/demo.conf" <<-END
	[Service]
	ExecStart=
	ExecStart=$programs/batond --control-socket $control --state-directory $work/state --worker $work/worker --fd-store systemd \
	    --worker-cgroup /sys/fs/cgroup/system.slice/baton-workers.service
	ExecReload=
	StandardOutput=append:$work/worker.log
	StandardError=append:$work/worker.log
	# The demonstration lies where batond sees nothing else.
	PrivateTmp=no
	ProtectHome=no
	END
    inside cp -r "$work/units/." "$units"
    inside systemctl daemon-reload
    inside systemctl start baton || fail "systemd does not start batond: $(inside systemctl status baton 2>&1 | tail -20)"
}

# What systemd knows of the supervisor.
main_process() { inside systemctl show --property MainPID --value baton; }

start_supervisor() {
    local limit
    if [ "$systemd" = yes ]; then
        start_systemd
        supervisor_name="process $(main_process) of systemd"
        return
    fi
    rm -f "$control"
    "$programs/batond" --control-socket "$control" --state-directory "$work/state" --worker "$work/worker" \
        >>"$work/worker.log" 2>&1 </dev/null &
    supervisor_process=$!
    supervisor_name="process $supervisor_process"
    for ((limit = 200; limit > 0; limit--)); do
        [ ! -S "$control" ] || return 0
        kill -0 "$supervisor_process" 2>/dev/null || break
        sleep 0.05
    done
    fail "batond did not open its socket. It said: $(tail -20 "$work/worker.log")"
}

create_disk() {
    local groups
    if [ "$systemd" = yes ]; then
        # What was built need not lie where the sandbox sees it.
        mkdir "$work/programs"
        cp "$programs"/{batond,baton,baton-worker,next-worker} "$work/programs"
        worker=${worker/#"$programs"/"$work/programs"}
        programs=$work/programs
    fi
    # A file of our own: an upgrade without --worker takes what lies there.
    cp "$worker" "$work/worker"
    start_supervisor
    baton create disk "$device" --file "$work/disk.img" --socket "$work/disk-a.sock" --queues "$queues" >/dev/null ||
        fail "the disk was not made. batond said: $(tail -20 "$work/worker.log")"
    next_worker=$programs/next-worker
    staffed || fail "nobody serves the disk. batond said: $(tail -20 "$work/worker.log")"
    first_version=$version
    if [ "$systemd" = yes ]; then
        groups=$(inside cat "/proc/$active/cgroup")
        [[ $groups == *baton-workers.service/device-"$device" ]] || problem "the worker is in the control group $groups"
    fi
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
        answer=$(baton status "$device" --json 2>/dev/null | jq -r --argjson but "${1:-0}" '
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
    problem "the $what has no worker and standby after 30 s: $(baton status "$device" 2>&1 || true)"
    return 1
}

# --- What is done to it

blow_kill() {
    local victim=$active
    inside kill -KILL "$victim"
    staffed "$victim" || return 0
    tell "worker $victim was killed (SIGKILL); worker $active has the $what"
}

blow_upgrade() {
    local target=$next_worker before=$version
    [ "$before" = "$first_version" ] || target=$worker
    if ! baton upgrade "$device" --worker "$target" >"$work/upgrade" 2>&1; then
        problem "the upgrade failed: $(cat "$work/upgrade")"
        return
    fi
    staffed || return 0
    [ "$version" != "$before" ] || problem "the upgrade left version $version"
    tell "the worker was upgraded from version $before to $version: process $active"
}

# Killed and started again; where systemd does that, one time after the other by SIGKILL, by a restart and by an upgrade.
blow_supervisor() {
    local before="$active $standby" process how="killed and started again"
    if [ "$systemd" = yes ]; then
        process=$(main_process)
        case $(($(count supervisor) % 3)) in
        0) inside systemctl kill --signal KILL baton || true; how="killed by systemctl and started again by systemd" ;;
        1) inside systemctl restart baton; how="restarted by systemctl" ;;
        2) baton upgrade --supervisor >/dev/null; how="upgraded" ;;
        esac
        until [[ $(main_process) != "$process" && $(main_process) != 0 ]]; do sleep 0.05; done
        supervisor_name="process $(main_process)"
    else
        kill -KILL "$supervisor_process"
        wait "$supervisor_process" 2>/dev/null || true
        start_supervisor
    fi
    staffed || return 0
    [ "$active $standby" = "$before" ] || problem "the supervisor's death has cost workers: $before, now $active $standby"
    tell "the supervisor was $how: $supervisor_name has the same workers"
}

# Nothing but the image, the saved description and QEMU are left.
blow_disaster() {
    local processes before=$active
    if [ "$systemd" = yes ]; then
        inside systemctl kill --signal KILL baton baton-workers || true
    else
        processes=$(supervised_processes)
        # shellcheck disable=SC2086 # several numbers
        kill -KILL $processes
        wait "$supervisor_process" 2>/dev/null || true
        start_supervisor
    fi
    staffed "$before" || return 0
    tell "supervisor, keeper and workers were killed all at once and started again: QEMU connects anew, worker $active has the $what"
}

# Ends the device as an operator would.
end_custody() {
    staffed || return 0
    [ "$connections" = 1 ] || problem "QEMU has connected $connections times"
    baton delete "$device" >/dev/null || problem "the $what was not deleted"
    if [ "$systemd" = yes ]; then inside systemctl stop baton baton-workers; else end_process "$supervisor_process"; fi
    supervisor_process=''
    tell "the $what was deleted; QEMU had connected $connections time$([ "$connections" = 1 ] || printf s)"
}
