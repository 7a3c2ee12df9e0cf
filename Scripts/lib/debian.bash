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

# private_apt DIRECTORY PROGRAM ARGUMENTS...: runs apt-get or apt-cache with the state that fetch_debian_lists made in DIRECTORY.
private_apt() {
    local directory=$1 program=$2
    shift 2
    "$program" -qq -c "$directory/apt.conf" "$@"
}

# fetch_debian_lists SUITE DIRECTORY: makes DIRECTORY ready for private_apt, with fresh lists. The package state is empty, so that an
# installation would begin with the C library. What the system's configuration says of proxies holds; what it has apt do after an update
# (in containers, delete the system's caches) does not.
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
    cat >"$directory/apt.conf" <<-END
	Dir::Etc::SourceList "$directory/$suite.sources";
	Dir::Etc::SourceParts "/dev/null";
	Dir::State "$directory/state";
	Dir::State::status "$directory/status";
	Dir::Cache "$directory/cache";
	Dir::Cache::archives "$directory/archives";
	Acquire::Languages "none";
	Acquire::Retries "3";
	APT::Architecture "amd64";
	APT::Install-Recommends "false";
	APT::Sandbox::User "$(id -un)";
	Debug::NoLocking "true";
	#clear APT::Update::Pre-Invoke;
	#clear APT::Update::Post-Invoke;
	#clear APT::Update::Post-Invoke-Success;
	END
    private_apt "$directory" apt-get update
}

# unpack_debian ARCHIVES TREE: unpacks all packages of a folder, over one another.
unpack_debian() {
    local package
    mkdir -p "$2"
    for package in "$1"/*.deb; do dpkg -x "$package" "$2"; done
}
