# shellcheck shell=bash disable=SC2034
# What the scripts share; to be sourced. The sourcing script has `set -euo pipefail` on.

# The tree that the scripts belong to.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What was fetched or made once and may be deleted at any time.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/baton

say() { printf '%s\n' "$*"; }

# fail SENTENCE: ends the script; the sentence says what is wrong and, where there is something, what to do about it.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# usage_error SENTENCE: the command line was wrong.
usage_error() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    printf 'Try: %s --help\n' "$0" >&2
    exit 2
}

# help: prints the comment that the script starts with.
help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

milliseconds() { local now=${EPOCHREALTIME/[.,]/}; printf '%s' "$((now / 1000))"; }

# seconds_since MILLISECONDS: with one decimal.
seconds_since() {
    local tenths=$((($(milliseconds) - $1) / 100))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# locked FILE COMMAND...: one caller at a time, whatever the process; the lock goes with the process.
locked() {
    local lock=$1 descriptor
    shift
    mkdir -p "$(dirname "$lock")"
    exec {descriptor}>"$lock"
    flock "$descriptor"
    "$@" {descriptor}>&-
    exec {descriptor}>&-
}

# source_date: when what is here was last committed, in seconds since 1970: the date of what is made from it. 0 without git.
source_date() { git -C "$root" log -1 --format=%ct 2>/dev/null || printf 0; }
