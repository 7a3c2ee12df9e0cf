internal import FrontendKit
internal import Glibc
internal import Platform

/// What the server reads and writes.
enum Backing: Hashable {
    case null
    case file(String)
}

/// A back-end that is measured.
enum Subject: Hashable, CustomStringConvertible {
    /// Baton's worker, at this path.
    case baton(String)
    /// The same under a supervisor: of the programs in this folder.
    case custody(String)
    case storageDaemon
    /// A back-end that runs already, under this name at this socket.
    case peer(name: String, socket: String)

    var description: String {
        switch self {
        case .baton: "baton"
        case .custody: "in custody"
        case .storageDaemon: "qemu-storage-daemon"
        case .peer(let name, _): name
        }
    }

    /// Program and arguments; nil for one that runs already.
    func command(_ backing: Backing, socket: String, queueCount: Int, queueSize: Int) -> (String, [String])? {
        switch (self, backing) {
        case (.peer, _):
            return nil
        case (.baton(let worker), .null):
            return (worker, common(socket, queueCount, queueSize) + ["--backend=null"])
        case (.baton(let worker), .file(let path)):
            return (worker, common(socket, queueCount, queueSize) + ["--blk-file=\(path)", "--cache=buffered"])
        case (.custody(let programs), let backing):
            let storage =
                if case .file(let path) = backing { ["--file=\(path)", "--cache=buffered"] } else { ["--null"] }
            let size = ["--queues=\(queueCount)", "--queue-size=\(queueSize)"]
            return commandInCustody(programs, socket: socket, device: ["disk", "bench"] + storage + size)
        case (.storageDaemon, let backing):
            let driver =
                switch backing {
                case .null: "driver=null-co,node-name=disk,size=68719476736,read-zeroes=off"
                case .file(let path): "driver=file,node-name=disk,filename=\(path),aio=io_uring"
                }
            let export =
                "type=vhost-user-blk,id=export,addr.type=unix,addr.path=\(socket),node-name=disk,writable=on,"
                + "num-queues=\(queueCount)"
            return ("qemu-storage-daemon", ["--blockdev", driver, "--export", export])
        }
    }

    private func common(_ socket: String, _ queueCount: Int, _ queueSize: Int) -> [String] {
        ["--socket-path=\(socket)", "--queues=\(queueCount)", "--queue-size=\(queueSize)"]
    }
}

/// A subject that serves, pinned to a CPU if we started it.
struct Server: ~Copyable {
    let socketPath: String
    private var process: ChildProcess?

    /// Starts the subject on `cpu`; the calling thread stays there.
    init(
        _ subject: Subject, _ backing: Backing, queueCount: Int, queueSize: Int, cpu: Int, directory: String
    ) throws {
        if case .peer(_, let socket) = subject {
            self.init(servingAt: socket)
            return
        }
        let socket = "\(directory)/bench.sock"
        let command = subject.command(backing, socket: socket, queueCount: queueCount, queueSize: queueSize)
        guard let command else { preconditionFailure("only a peer has no command") }
        try self.init("\(subject)", command, socket: socket, cpu: cpu, directory: directory)
    }

    /// One that serves already, and is not ours to end.
    private init(servingAt socketPath: String) {
        self.socketPath = socketPath
        process = nil
    }

    /// Starts a program on `cpu`; the calling thread stays there.
    init(
        _ subject: String, _ command: (program: String, arguments: [String]), socket socketPath: String, cpu: Int,
        directory: String
    ) throws {
        unsafe unlink(socketPath)
        // The child inherits where its parent may run.
        try pinCurrentThread(toCPU: cpu)
        let logPath = "\(directory)/server.log"
        let log = try openFile(logPath, O_WRONLY | O_CREAT | O_TRUNC)
        var process = try ChildProcess(command.program, command.arguments, output: log)
        let end = monotonicNanoseconds() + 10_000_000_000
        while unsafe access(socketPath, F_OK) != 0 {
            guard process.wait(milliseconds: 2) == nil, monotonicNanoseconds() < end else {
                throw BenchmarkError("\(subject) ended, or did not listen within 10 s: \(readSmallFile(logPath) ?? "")")
            }
        }
        self.process = consume process
        self.socketPath = socketPath
    }

    /// Asks the server to end, and waits for it.
    consuming func stop() {
        guard var process = process.take() else { return }
        process.send(signal: SIGTERM)
        if process.wait(milliseconds: 5_000) == nil { process.send(signal: SIGKILL) }
        process.wait(milliseconds: 5_000)
    }
}

/// Opens a file, close-on-exec.
func openFile(_ path: String, _ flags: Int32) throws(SystemError) -> OwnedFD {
    let number = unsafe open(path, flags | O_CLOEXEC, 0o600)
    guard number >= 0 else { throw SystemError(cannot: "open", path, .current) }
    return OwnedFD(owning: number)
}

/// How long the calling thread has stood in a CPU's queue, ready to run, in nanoseconds.
func threadWaitNanoseconds() -> UInt64 {
    let fields = readSmallFile("/proc/thread-self/schedstat")?.split(separator: " ") ?? []
    return fields.count > 1 ? UInt64(fields[1]) ?? 0 : 0
}

/// CPU time that all threads of a process have used, in nanoseconds; nil when it cannot be read.
func processCPUNanoseconds(_ pid: Int32) -> UInt64? {
    guard let tasks = unsafe opendir("/proc/\(pid)/task") else { return nil }
    defer { unsafe closedir(tasks) }
    var sum: UInt64 = 0
    while let entry = unsafe readdir(tasks) {
        let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
            unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
        }
        guard Int(name) != nil else { continue }
        // schedstat: nanoseconds on the CPU, nanoseconds in the run queue, time slices. A thread may end meanwhile.
        let text = readSmallFile("/proc/\(pid)/task/\(name)/schedstat") ?? ""
        sum += text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
    }
    return sum > 0 ? sum : nil
}
