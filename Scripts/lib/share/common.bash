# shellcheck shell=bash disable=SC2154
# A guest on a share, for Scripts/share/guest and Scripts/demo; to be sourced. Needs common.bash and $work, a folder of the caller's.

# make_share DIRECTORY: a directory to be shared, with a tree to be unpacked: the sources here, and one of each kind that they lack.
make_share() {
    local share=$1 tree=$work/tree
    mkdir -p "$share" "$tree/kinds/empty"
    (cd "$root" && find Scripts docs Sources Package.swift -type f -print0 | tar -c --null -T - --format=ustar -f -) | tar -x -C "$tree"
    printf 'text\n' >"$tree/kinds/file"
    ln "$tree/kinds/file" "$tree/kinds/hard-link"
    ln -s file "$tree/kinds/link"
    ln -s ../nowhere "$tree/kinds/broken-link"
    mkfifo "$tree/kinds/fifo"
    truncate -s 5M "$tree/kinds/sparse"
    head -c 3000000 /dev/urandom >"$tree/kinds/random"
    cp "$tree/kinds/file" "$tree/kinds/read-only"
    chmod 0400 "$tree/kinds/read-only"
    chmod 4755 "$tree/kinds/random"
    chmod 1777 "$tree/kinds/empty"
    : >"$tree/kinds/a name with spaces, ünd a long one: $(printf 'x%.0s' {1..150})"
    # As it was: what the host and the guest must find.
    tar -c -f "$share/tree.tar" --format=gnu --owner=0 --group=0 -C "$tree" .
    describe_tree "$tree" >"$share/tree.sums"
}

# describe_tree DIRECTORY: as the guest describes it, with busybox' programs and its order.
describe_tree() {
    busybox sh -c '
        cd "$1" || exit
        {
            busybox find . ! -type d ! -type l -exec busybox stat -c "%n %f %s %h" {} +
            busybox find . -type d -exec busybox stat -c "%n %f" {} +
            busybox find . -type l -exec busybox stat -c "%N" {} +
            busybox find . -type f -exec busybox sha256sum {} +
        } | LC_ALL=C busybox sort' sh "$1"
}

# boot_share_guest SOCKET TAG ROUNDS [QEMU ARGUMENTS...]: boots a guest that works on the share behind SOCKET; its words go to stdout.
boot_share_guest() {
    local socket=$1 tag=$2 rounds=$3
    shift 3
    { printf 'tag=%s\nrounds=%s\n' "$tag" "$rounds" && cat "$root/Scripts/lib/share/guest"; } >"$work/share-script"
    REPORT=$work/report exec "$root/Scripts/lib/run-guest" "$work/share-script" \
        -chardev "socket,id=share,path=$socket" -device "vhost-user-fs-pci,chardev=share,tag=$tag,queue-size=1024" "$@"
}

# check_share DIRECTORY ROUNDS: what the host finds when the guest is done; prints what is wrong.
check_share() {
    local share=$1 rounds=$2 round
    for ((round = 1; round <= rounds; round++)); do
        describe_tree "$share/tree-$round" >"$work/found" 2>&1 || true
        cmp -s "$work/found" "$share/tree.sums" ||
            printf 'the tree of round %s is not what was unpacked: %s\n' "$round" "$(diff "$work/found" "$share/tree.sums" | head -3)"
    done
    [ "$(find "$share" -mindepth 1 -maxdepth 1 | grep -vcE '/(tree-[0-9]+|tree.tar|tree.sums|go-[0-9]+|linked)$')" = 0 ] ||
        printf 'the share holds something else: %s\n' "$(ls "$share")"
}
