# shellcheck shell=bash
# Packages of any Debian suite, fetched and unpacked without installing them: apt runs on lists and folders of its own, so
# neither root is needed nor the system's package state touched. To be sourced after common.bash.

# The suite of this system, where it is one that guests are made of.
host_suite() {
    local name
    name=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
    case $name in
    bookworm | trixie) printf '%s' "$name" ;;
    *) printf bookworm ;;
    esac
}

# The mirror that this system uses, if it is a Debian one.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # the dollar is apt's
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)
    printf '%s' "${mirror:-http://deb.debian.org/debian/}"
}

# private_apt SUITE DIRECTORY PROGRAM ARGUMENTS...: runs apt-get or apt-cache for SUITE with all of its state in DIRECTORY.
# The package state is empty, so an installation would begin with the C library.
private_apt() {
    local suite=$1 directory=$2 program=$3
    shift 3
    "$program" -qq -o "Dir::Etc::SourceList=$directory/$suite.sources" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State=$directory/state" -o "Dir::State::status=$directory/status" \
        -o "Dir::Cache=$directory/cache" -o "Dir::Cache::archives=$directory/archives" \
        -o Acquire::Languages=none -o APT::Install-Recommends=0 -o Debug::NoLocking=1 \
        -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64 -o Acquire::Retries=3 "$@"
}

# fetch_debian SUITE DIRECTORY: makes DIRECTORY ready for private_apt, with fresh lists.
fetch_debian_lists() {
    local suite=$1 directory=$2
    mkdir -p "$directory"/{state/lists,cache,archives}/partial
    : >"$directory/status"
    cat >"$directory/$suite.sources" <<-END
	Types: deb
	URIs: $(debian_mirror)
	Suites: $suite
	Components: main
	Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	END
    private_apt "$suite" "$directory" apt-get update
}

# unpack_debian ARCHIVES TREE: unpacks all packages of a folder, over one another.
unpack_debian() {
    local package
    mkdir -p "$2"
    for package in "$1"/*.deb; do dpkg -x "$package" "$2"; done
}
