# shellcheck shell=bash disable=SC2154
# The share of Scripts/demo; to be sourced by it.

what=share
. "$root/Scripts/lib/share/common.bash"
. "$root/Scripts/lib/demo-custody.bash"

create_share() {
    make_share "$work/share"
    cp "$worker" "$work/worker"
    start_supervisor
    baton create share "$device" --directory "$work/share" --socket "$work/share.sock" --queues "$queues" --xattr --flock >/dev/null ||
        fail "the share was not made. batond said: $(tail -20 "$work/worker.log")"
    next_worker=$programs/next-worker
    staffed || fail "nobody serves the share. batond said: $(tail -20 "$work/worker.log")"
    first_version=$version
}

# run_share_guest ROUNDS: in each round, while the guest unpacks a tree, a death and an upgrade, as long as there are some left.
run_share_guest() {
    local rounds=$1 line status=0 round deaths n
    mapfile -t deaths < <(for ((n = 0; n < kills || n < supervisor_kills; n++)); do
        [ $n -ge "$kills" ] || printf 'kill\n'
        [ $n -ge "$supervisor_kills" ] || printf 'supervisor\n'
    done)
    read -r line < <("${QEMU:-qemu-system-x86_64}" --version)
    tell "booting Linux on it: $line"
    mkfifo "$work/output"
    (boot_share_guest "$work/share.sock" demo "$rounds") >"$work/output" 2>&1 &
    guest_process=$!
    exec 3<"$work/output"
    while IFS= read -r line <&3; do
        if ! [[ $line =~ ^round\ ([0-9]+)$ ]]; then
            tell "guest: $line"
            continue
        fi
        round=${BASH_REMATCH[1]}
        tell "guest: unpacks the tree for the $round. time"
        [ "$round" -gt "${#deaths[@]}" ] || event "${deaths[round - 1]}"
        [ "$round" -gt "$upgrades" ] || event upgrade
        : >"$work/share/go-$round"
    done
    exec 3<&-
    wait "$guest_process" || status=$?
    guest_process=''
    [ $status = 0 ] || problem "the guest ended with status $status"
}

show_share() {
    local rounds kind line
    rounds=$((kills + supervisor_kills > upgrades ? kills + supervisor_kills : upgrades))
    [ $rounds -gt 0 ] || rounds=1
    build baton-worker next-worker batond baton
    worker=${worker:-$programs/baton-worker}
    create_share
    tell "batond, $supervisor_name, has custody of a share of $work/share; worker $active serves it, $standby stands by"
    run_share_guest $rounds
    end_custody
    while IFS= read -r line; do [ -z "$line" ] || problem "$line"; done < <(check_share "$work/share" $rounds)
    [ "$(fact finished)" = yes ] || problem "the guest did not finish its work"
    [ "$(fact wrong)" = 0 ] || problem "the guest found $(fact wrong) things wrong"
    [ "$(fact kernel_errors)" = 0 ] || problem "the guest's kernel complained: $(head -3 "$work/report/kernel-errors" 2>/dev/null)"
    for kind in kill:$kills upgrade:$upgrades supervisor:$supervisor_kills; do
        [ "$(count "${kind%:*}")" = "${kind#*:}" ] || problem "${kind%:*}: done $(count "${kind%:*}") times and not ${kind#*:}"
    done
    cat <<-END

	What the guest saw
	  trees             $rounds unpacked, $(wc -l <"$work/share/tree.sums") facts about each compared, in the guest and on the host
	  wrong             $(fact wrong)
	  worker killed     $(count kill) times, upgraded $(count upgrade) times while it served
	  supervisor killed $(count supervisor) times
	END
    [ -z "$json" ] || jq -n --argjson trees $rounds --argjson wrong "$(fact wrong)" --argjson kills "$(count kill)" \
        --argjson upgrades "$(count upgrade)" --argjson supervisor_kills "$(count supervisor)" \
        --argjson problems "${#problems[@]}" '$ARGS.named' >"$json"
    if [ ${#problems[@]} -gt 0 ]; then
        printf '\nThis is not as it should be:\n'
        printf '  %s\n' "${problems[@]}"
        exit 1
    fi
}
