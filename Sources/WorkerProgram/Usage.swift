/// What `--help` prints.
let usage = """
    usage: baton-worker --socket-path=PATH --blk-file=PATH [option...]

    Serves one virtio-blk disk over vhost-user: to QEMU, to anything else that speaks it, one front-end at a time.
    Stays in the foreground; SIGTERM ends it after the requests it has taken are finished. A file that grows is a disk
    that grows, seen when whoever made it grow closes it; SIGHUP makes it look, for block devices too.

    Where to meet the front-end (one of them):
      --socket-path=PATH    listen on a UNIX socket at PATH
      --fd=N                use the inherited socket N, which listens or is connected
      --socket-mode=MODE    permissions of the socket, octal (as the umask makes them)
      --socket-owner=USER   owner of the socket, a name or a number
      --socket-group=GROUP  group of the socket, a name or a number

    The disk:
      --blk-file=PATH       a raw image file or a block device
      --backend=KIND        file; memory or null for tests and measurements (file)
      --size=BYTES          capacity for memory and null; K, M, G and T are understood (1G)
      --read-only           refuse writes
      --cache=MODE          direct: past the host's page cache; buffered: through it (direct)
      --allow-lease-locks   take an image on NFS, SMB, FUSE and the like, whose locks fence nothing
      --predecessor-wait=S  wait at most S seconds for requests that a killed worker has left, 0 to 86400 (300)
      --block-size=BYTES    logical block size told to the guest, 512 or 4096 (what the storage has)
      --allow-shrink        let the disk become smaller when its file does: what lies behind is lost to the guest
      --serial=TEXT         serial number told to the guest, at most 20 bytes
      --queues=N            number of queues, 1 to 64 (1)
      --queue-size=N        largest ring that is accepted, 2 to 1024 (1024)
      --split-rings         offer split rings only; packed ones are for front-ends that ask for them (packed=on)

    How it runs:
      --threads=N           loop threads; queue Q is served by thread Q modulo N (1)
      --cpus=LIST           CPUs to bind the threads to, in turn, such as 0,2,4
      --poll-us=N           poll at most so long before sleeping, in microseconds, 0 to 1000000 (50)
      --pin-memory          keep all guest memory present while it is mapped (mlock)
      --park-requests       leave requests that have not begun in the inflight log when a front-end stops a queue
                            and allows it (for its migration with requests in flight)
      --sandbox=WHEN        give up gaining privileges and all system calls but those of serving: on, off, or auto,
                            which goes on with a warning where the kernel refuses (off)
      --log-level=LEVEL     trace, debug, info, notice, warning, error or critical (info)

      --print-capabilities  say in JSON what this program can do, and exit
      --version             print the version, and exit
      --help                print this, and exit

    """

/// What `--print-capabilities` prints (vhost-user: "Backend program conventions").
let capabilities = """
    {
      "type": "block",
      "features": [
        "read-only",
        "blk-file"
      ]
    }

    """
