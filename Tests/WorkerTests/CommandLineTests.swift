import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// What baton-worker says before it serves anything.
@Suite struct CommandLineTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    func worker(_ arguments: [String]) throws -> (code: Int32, output: String) {
        // Each run has a log of its own.
        let own = try TemporaryDirectory()
        return try run(WorkerProcess.executable, arguments, in: own)
    }

    @Test(arguments: [
        ([], "say where to meet the front-end: --socket-path=PATH or --fd=N"),
        (["--socket-path=/tmp/x"], "say what to serve: --blk-file=PATH"),
        (["--socket-path=/tmp/x", "--fd=3", "--backend=null"], "--fd and --socket-path exclude each other"),
        (["--fd=three", "--backend=null"], "--fd is the number of an open file descriptor, not 'three'"),
        (["--frobnicate"], "the option --frobnicate is not known"),
        (["--socket-path"], "--socket-path needs a value"),
        (["--read-only", "--read-only"], "--read-only is given twice"),
        (["disk.img"], "'disk.img' is no option"),
        (["--socket-path=/tmp/x", "--backend=tape"], "--backend is file, memory or null, not 'tape'"),
        (["--socket-path=/tmp/x", "--backend=null", "--blk-file=/x"], "--blk-file does not go with --backend=null"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--size=1G"], "a file has its own size"),
        (["--socket-path=/tmp/x", "--backend=null", "--size=12x"], "--size is a number of bytes such as"),
        (["--socket-path=/tmp/x", "--backend=null", "--size=100"], "--size is a multiple of 4096"),
        (
            ["--socket-path=/tmp/x", "--backend=null", "--size=99999999999T"],
            "--size is a multiple of 4096 below 8 EiB"
        ),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--cache=maybe"], "--cache is direct or buffered, not 'maybe'"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--block-size=1024"], "--block-size is 512 or 4096, not '1024'"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--serial=123456789012345678901"], "has at most 20 bytes"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--queues=65"], "--queues is a number from 1 to 64, not '65'"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--queue-size=1"], "--queue-size is a number from 2 to 1024"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--threads=2"], "more than the 1 queues there are: raise --queues"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--cpus=0,a"], "--cpus is a list of CPU numbers such as 0,2,4"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--poll-us=-1"], "--poll-us is a number from 0 to 1000000"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--log-level=loud"], "--log-level is one of trace, debug"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--socket-mode=0999"], "--socket-mode is octal, such as 0660"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--socket-owner=nobody-here"], "there is no user 'nobody-here'"),
        (["--socket-path=/tmp/x", "--blk-file=/x", "--socket-group=nobody-here"], "there is no group 'nobody-here'"),
    ])
    func `a wrong option gets one sentence and status 2`(arguments: [String], sentence: String) throws {
        let result = try worker(arguments)
        #expect(result.code == 2)
        #expect(result.output.contains(sentence), "\(result.output)")
        #expect(result.output.split(separator: "\n").count == 1)
    }

    @Test func `an image that cannot be served gets a sentence with advice and status 1`() throws {
        let empty = directory.value.file("empty.img")
        try TestFile.create(empty, count: 0)
        let odd = directory.value.file("odd.img")
        try TestFile.create(odd, count: 512 * 3)
        let cases: [(String, [String], String)] = [
            ("/nonexistent.img", [], "No such file or directory. Make it first"),
            (empty, [], "It has 0 bytes, less than a sector"),
            ("/tmp", [], "It is a directory"),
            ("/dev/null", ["--cache=buffered"], "neither a regular file nor a block device"),
            (odd, ["--block-size=4096"], "no multiple of the block size 4096"),
        ]
        for (path, more, sentence) in cases {
            let socket = directory.value.file("x.sock")
            let result = try worker(["--socket-path=\(socket)", "--blk-file=\(path)"] + more)
            #expect(result.code == 1, "\(result.output)")
            #expect(result.output.contains(sentence), "\(result.output)")
            #expect(!TestFile.exists(socket))
        }
    }

    @Test func `direct access never has to go with requests that are too small for it`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let device = try LoopDevice(image, sectorSize: 4096, in: directory.value)
        defer { withExtendedLifetime(device) {} }
        let socket = directory.value.file("x.sock")
        let result = try worker(["--socket-path=\(socket)", "--blk-file=\(device.path)", "--block-size=512"])
        #expect(result.code == 1)
        #expect(result.output.contains("use --cache=buffered or --block-size=4096"), "\(result.output)")
        let small = ["--blk-file=\(device.path)", "--block-size=512", "--cache=buffered"]
        let worker = try WorkerProcess(small, in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 1, count: 512), sector: 1).status == .ok)
    }

    @Test func `it says what it can do, its version, and how it is used`() throws {
        let capabilities = try worker(["--print-capabilities"])
        #expect(capabilities.code == 0)
        #expect(capabilities.output.contains(#""type": "block""#))
        #expect(capabilities.output.contains(#""read-only""#) && capabilities.output.contains(#""blk-file""#))
        #expect(try worker(["--version"]).output.hasPrefix("baton-worker "))
        let help = try worker(["--help"])
        #expect(help.code == 0)
        #expect(help.output.contains("usage: baton-worker --socket-path=PATH --blk-file=PATH"))
    }

    @Test func `a socket that somebody listens on is not taken, one that is left over is`() throws {
        var first = try WorkerProcess(["--backend=null"], in: directory.value)
        let second = try worker(["--backend=null", "--socket-path=\(first.socketPath)"])
        #expect(second.code == 1)
        #expect(second.output.contains("Another process listens there"), "\(second.output)")
        first.program.send(signal: SIGKILL)
        first.program.wait(milliseconds: 10_000)
        #expect(TestFile.exists(first.socketPath))
        var successor = try WorkerProcess(["--backend=null"], in: directory.value)
        // The socket that was left over is there from the start: what tells that it has been replaced is the log.
        while !successor.program.output.contains("listening"), successor.program.wait(milliseconds: 5) == nil {}
        _ = try Rig(connectingTo: successor.socketPath)
    }

    @Test func `the socket has the owner, the group and the mode that were asked for`() throws {
        let worker = try WorkerProcess(
            ["--backend=null", "--socket-mode=0640", "--socket-owner=nobody", "--socket-group=65534"],
            in: directory.value)
        var status = stat()
        #expect(unsafe stat(worker.socketPath, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o640)
        #expect(status.st_uid == 65534)
        #expect(status.st_gid == 65534)
    }
}
