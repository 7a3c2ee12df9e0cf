/// What `baton-virtiofsd --help` prints.
let shareUsage = """
    usage: baton-virtiofsd --socket-path=PATH --shared-dir=PATH [option...]

    Shares one directory over vhost-user (virtio-fs), one front-end at a time, with the options of virtiofsd. This is
    baton-worker by another name: libvirt starts it where it would start virtiofsd. Stays in the foreground; SIGTERM
    ends it after the requests it has taken are finished.

    Where to meet the front-end (one of them):
      --socket-path=PATH      listen on a UNIX socket at PATH
      --fd=N                  use the inherited socket N, which listens or is connected
      --mount=PATH            no front-end: mount the share on this host, until it is unmounted or SIGTERM comes
      --socket-mode=MODE, --socket-owner=USER, --socket-group=GROUP  who can connect

    The share:
      --shared-dir=PATH       the directory; -o source=PATH
      --tag=TAG               the name that a guest mounts it by, 1 to 36 bytes (share; QEMU has one of its own)
      --read-only             refuse all changes
      --cache=MODE            what a guest may keep: never, metadata, auto or always (auto)
      --writeback             let the guest collect writes
      --allow-direct-io       O_DIRECT of the guest reaches the host's files
      --xattr                 extended attributes
      --xattrmap=RULES        how their names are changed on their way, as virtiofsd spells it
      --posix-acl             access control lists (with --xattr)
      --security-label        new files get the label that the guest sends
      --flock, --posix-lock   locks of the guest are the host's, too
      --no-announce-submounts do not tell the guest where other file systems begin
      --no-readdirplus        read directories without attributes
      --no-killpriv-v2        leave set-user-ID bits to the guest's kernel
      --translate-uid=G:H:N   the guest's users from G are the host's from H, N of them; several with commas between
      --translate-gid=G:H:N   the same of groups
      --inode-file-handles=W  never, prefer or mandatory: handles of the kernel instead of open descriptors (prefer)
      --queues=N              request queues, 1 to 63 (1)
      --queue-size=N          largest ring that is accepted, 2 to 1024 (1024)
      --max-nodes=N           files that a guest may know at once (2097152)
      --max-files=N           files that it may have open at once (16384)

    How it runs:
      --threads=N             loop threads; queue Q is served by thread Q modulo N (1); --thread-pool-size=N, too
      --cpus=LIST, --poll-us=N, --pin-memory, --split-rings  as of a disk: baton-worker --help
      --sandbox=HOW           namespace: namespaces of its own, with the directory as root; chroot; none; auto, which
                              goes on with a warning where the first is not allowed (auto)
      --modcaps=LIST          taken for virtiofsd's sake; no capability more is given than those of docs/threat-model.md
      --rlimit-nofile=N       files that this process may have open (what it may ask for)
      --syslog                taken for virtiofsd's sake: the log goes to standard error
      --log-level=LEVEL       trace, debug, info, notice, warning, error or critical (info); -d is debug

      -o NAME[=VALUE],...     the same options as the C virtiofsd packs them
      --print-capabilities    say in JSON what this program can do, and exit
      --version, --help       print that, and exit

    """

/// What `baton-virtiofsd --print-capabilities` prints (vhost-user: "Backend program conventions").
let shareCapabilities = """
    {
      "type": "fs",
      "features": [
        "separate-options"
      ]
    }

    """
