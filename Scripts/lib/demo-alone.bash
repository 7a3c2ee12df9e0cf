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

# Live migration: the guest goes on in the other QEMU, in the middle of its load, on the memory that came along.
blow_move() {
    local limit answer='' told=$work/qmp-a
    source_worker=$worker_process
    source_guest=$guest_process
    side=b
    start_worker
    boot_guest -incoming "unix:$work/move"
    for ((limit = 300; limit > 0; limit--)); do
        [ ! -S "$work/move" ] || break
        sleep 0.1
    done
    exec 4<>"$told.out" 5<>"$told.in"
    printf '%s\n' '{"execute": "qmp_capabilities"}' \
        '{"execute": "migrate-set-capabilities", "arguments": {"capabilities": [{"capability": "events", "state": true}]}}' \
        '{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1073741824, "downtime-limit": 1000}}' \
        '{"execute": "migrate", "arguments": {"uri": "unix:'"$work/move"'"}}' >&5
    until [[ $answer == *'"completed"'* ]]; do
        IFS= read -r -t 120 answer <&4 || fail "the guest did not move within 120 s; the last word: $answer"
        [[ $answer != *'"error"'* && $answer != *'"failed"'* ]] || fail "the guest does not move: $answer"
    done
    printf '%s\n' '{"execute": "query-migrate"}' >&5
    until [[ $answer == *'"downtime"'* ]]; do
        IFS= read -r -t 10 answer <&4 || fail "QEMU does not tell how long the guest stood still"
    done
    downtime=$(jq .return.downtime <<<"$answer")
    printf '%s\n' '{"execute": "quit"}' >&5
    exec 4<&- 5>&-
    wait "$source_guest" 2>/dev/null || true
    source_guest=''
    tell "the guest moved to another QEMU and process $worker_process; it stood still for $downtime ms"
    stop_worker "$source_worker"
    source_worker=''
}
