# shellcheck shell=bash disable=SC2154
# The parts of Scripts/demo in which a worker runs on its own (--alone); to be sourced by it.

# The one place that knows the command line of a worker on its own.
start_worker() {
    local limit
    setpriv --pdeathsig TERM "$worker" --socket-path="$work/disk-$side.sock" --blk-file="$work/disk.img" --queues="$queues" \
        >>"$work/worker.log" 2>&1 </dev/null &
    worker_process=$!
    for ((limit = 100; limit > 0; limit--)); do
        [ ! -S "$work/disk-$side.sock" ] || return 0
        kill -0 "$worker_process" 2>/dev/null || break
        sleep 0.1
    done
    fail "the worker did not open its socket. It said: $(tail -20 "$work/worker.log")"
}

# What a crash or a careless hand does. The next worker finds in the inflight log, which QEMU keeps, what this one had begun.
blow_kill() {
    kill -KILL "$worker_process"
    wait "$worker_process" 2>/dev/null || true
    rm -f "$work/disk-$side.sock"
    start_worker
    tell "the worker was killed and started again: QEMU connects to process $worker_process"
}

# Ends a worker as an operator would; it has to obey, and with status 0.
stop_worker() { # PROCESS
    local status=0
    kill -0 "$1" 2>/dev/null || problem "the worker ended before the guest did"
    end_process "$1"
    wait "$1" || status=$?
    if [ $status = 0 ]; then
        tell "the worker ended with status 0"
    else
        problem "the worker ended with status $status; its last words: $(tail -3 "$work/worker.log")"
    fi
}

# tell_qemu COMMAND [ARGUMENTS]: to QEMU at descriptor 5.
tell_qemu() {
    printf '{"execute": "%s", "arguments": %s}\n' "$1" "${2:-{\}}" >&5
}

# At most so many bytes in a second are sent; the guest may stand still for so many milliseconds.
set_pace() { # BYTES MILLISECONDS
    tell_qemu migrate-set-parameters "{\"max-bandwidth\": $1, \"downtime-limit\": $2}"
}

# How far the migration is, in `answer`.
query_migration() {
    answer=''
    tell_qemu query-migrate
    until [[ $answer == *'"return": {'*'"status"'* ]]; do
        IFS= read -r -t 120 answer <&4 || fail "QEMU does not tell how far the guest has moved; its last word: $answer"
        [[ $answer != *'"error"'* && $answer != *'"failed"'* ]] || fail "the guest does not move: $answer"
    done
}

# wait_for_migration CONDITION: of jq, on what query-migrate returns.
wait_for_migration() {
    local limit
    for ((limit = 1200; limit > 0; limit--)); do
        query_migration
        ! jq --exit-status ".return | $1" <<<"$answer" >/dev/null || return 0
        sleep 0.1
    done
    fail "the guest did not move within 120 s; the last word: $answer"
}

# Live migration: the guest goes on in the other QEMU, in the middle of its load, on the memory that came along. Its memory is sent once
# while it works, and that is kept from ending until the disk has written to what was sent already: those pages have to be sent again,
# and only the disk's log tells of them.
#
# For that second time the guest stands still. QEMU looks for pages that the guest's processors have changed each time that it begins
# to send anew; without KVM, it loses some if they are changing them meanwhile (of 3 guests without any vhost-user device, one that
# worked on in a tmpfs moved well), and the guest's kernel dies of it. The first time it loses nothing: all is sent.
blow_move() {
    local limit line stopped answer=''
    source_worker=$worker_process
    source_guest=$guest_process
    side=b
    start_worker
    boot_guest -incoming "unix:$work/move"
    for ((limit = 300; limit > 0; limit--)); do
        [ ! -S "$work/move" ] || break
        sleep 0.1
    done
    exec 4<>"$work/qmp-a.out" 5<>"$work/qmp-a.in"
    tell_qemu qmp_capabilities
    set_pace 67108864 1
    tell_qemu migrate '{"uri": "unix:'"$work/move"'"}'
    wait_for_migration '.ram != null and .ram.remaining * 5 < .ram.total'
    set_pace 262144 1
    # One may have been on its way before.
    for ((limit = 4; limit > 0; )); do
        IFS= read -r -t 60 line <&3 || fail "the guest reads nothing into memory while it moves"
        if [[ $line == "into memory: "* ]]; then limit=$((limit - 1)); else hear "$line"; fi
    done
    stopped=${EPOCHREALTIME/./}
    tell_qemu stop
    query_migration
    jq --exit-status '.return | .status == "active" and .ram["dirty-sync-count"] == 1' <<<"$answer" >/dev/null ||
        problem "the guest's memory was not being sent for the first time any more: $answer"
    set_pace 1073741824 1000
    wait_for_migration '.status == "completed"'
    tell_qemu quit
    exec 4<&- 5>&-
    wait "$source_guest" 2>/dev/null || true
    exec 4<>"$work/qmp-b.out" 5<>"$work/qmp-b.in"
    tell_qemu qmp_capabilities
    tell_qemu cont
    downtime=$(((${EPOCHREALTIME/./} - stopped) / 1000))
    exec 4<&- 5>&-
    source_guest=''
    tell "the guest moved to another QEMU and process $worker_process; it stood still for $downtime ms"
    stop_worker "$source_worker"
    source_worker=''
}
