internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Platform
internal import TestSupport

/// A real supervisor with one device, in a directory of its own. Nothing of it is left when it is let go of.
struct SupervisedDevice: ~Copyable {
    /// Where the front-end connects.
    let socketPath: String
    private let directory: TemporaryDirectory
    private var supervisor: Program
    private var control: ControlConnection
    private let workerPath: String
    private let device: LoopDevice?
    private let throttle: WriteThrottle?
    private let slow: SlowDisk?

    static let name = "chaos"
    static let size = 32 << 20

    /// A supervisor with a disk.
    ///
    /// - Throws: what the supervisor printed, when it does not serve.
    init(_ options: ChaosOptions) throws {
        let directory = try TemporaryDirectory()
        let file = directory.file("image")
        try TestFile.create(file, count: Self.size)
        let device = options.isThrottled ? try LoopDevice(file, in: directory) : nil
        let throttle = try device.map { try WriteThrottle($0, bytes: 8 << 20, operations: 20) }
        let latency = UInt64(options.latencyMilliseconds) * 1_000_000
        let slow = latency > 0 ? try SlowDisk(bytes: Self.size, latency: latency, in: directory) : nil
        let isDirect = options.isDirect || options.isThrottled || slow != nil
        let disk = DeviceParameters(
            name: Self.name, file: device?.path ?? slow?.path ?? file, queues: options.queueCount,
            threads: options.threadCount, cache: isDirect ? "direct" : "buffered")
        try self.init(disk, options, directory, device, throttle, slow)
    }

    /// A supervisor with a share.
    init(sharing options: ChaosOptions) throws {
        let directory = try TemporaryDirectory()
        let shared = directory.file("share")
        guard unsafe mkdir(shared, 0o755) == 0 else { throw SystemError(cannot: "make", shared, .current) }
        var share = ShareParameters(directory: shared, tag: Self.name)
        share.xattr = true
        var device = DeviceParameters(
            name: Self.name, file: nil, queues: options.queueCount, threads: options.threadCount)
        device.share = share
        try self.init(device, options, directory)
    }

    private init(
        _ device: DeviceParameters, _ options: ChaosOptions, _ directory: consuming TemporaryDirectory,
        _ loop: LoopDevice? = nil, _ throttle: WriteThrottle? = nil, _ slow: SlowDisk? = nil
    ) throws {
        let worker = WorkerProcess.executable
        let socket = directory.file("control.sock")
        let batond = worker.replacing("/baton-worker", with: "/batond")
        var supervisor = try Program(
            batond, ["--control-socket", socket, "--state-directory", directory.path, "--worker", worker], in: directory
        )
        try supervisor.waitForFile(socket)
        if options.separatesCPUs {
            let others = ["--all-tasks", "--cpu-list", "--pid", "0-\(onlineCPUCount() - 2)", "\(supervisor.pid)"]
            let result = try run("taskset", others, in: directory)
            guard result.code == 0 else { throw SystemError(cannot: "run", "taskset", nil, advice: result.output) }
        }
        var control = try ControlConnection(socket)
        let made = try control.call(.create, device, as: DeviceInfo.self)
        guard let socketPath = made.disk.socket else { throw SystemError(cannot: "find", "the device's socket", nil) }
        self.socketPath = socketPath
        self.directory = directory
        self.supervisor = supervisor
        self.control = control
        workerPath = worker
        self.device = loop
        self.throttle = throttle
        self.slow = slow
    }

    /// Puts processes under the throttle, if there is one.
    func throttle(_ processes: [Int32]) {
        // One that has ended meanwhile needs none.
        for process in processes { try? throttle?.hold(process) }
    }

    var supervisorProcess: Int32 { supervisor.pid }

    /// How the device is.
    mutating func status(statistics: Bool = false) throws -> DeviceInfo {
        let parameters = StatusParameters(name: Self.name, statistics: statistics)
        let devices = try control.call(.status, parameters, as: [DeviceInfo].self)
        guard let device = devices.first else { throw SystemError(cannot: "find", "the device", nil) }
        return device
    }

    /// Waits until front-ends can connect.
    func waitForSocket() throws {
        let end = monotonicNanoseconds() + 10_000_000_000
        while !TestFile.exists(socketPath) {
            guard monotonicNanoseconds() < end else { throw SystemError(cannot: "find", socketPath, nil) }
            pause(milliseconds: 2)
        }
    }

    /// Waits until another worker than the last victim has the device, and one stands by.
    ///
    /// - Parameter patience: how long, in nanoseconds.
    /// - Returns: the process that has the device.
    mutating func waitForActive(after victim: Int32, withStandby: Bool, patience: UInt64) throws -> Int32 {
        let end = monotonicNanoseconds() + patience
        while true {
            let status = try status()
            throttle(status.workers.map(\.pid))
            let active = status.workers.first { $0.phase == "active" && $0.pid != victim }
            let isStaffed = !withStandby || status.workers.contains { $0.phase == "standby" }
            if let active, isStaffed, status.upgrade == nil { return active.pid }
            guard monotonicNanoseconds() < end else {
                throw SystemError(cannot: "find", "a worker to kill", nil, advice: "The device is \(status.state)")
            }
            pause(milliseconds: 1)
        }
    }

    /// Replaces the worker's program by another one.
    ///
    /// - Returns: why it was not replaced; nil when it was.
    mutating func upgrade(to program: String) throws -> String? {
        let parameters = UpgradeParameters(devices: [Self.name], worker: program, canary: 0, dryRun: false)
        do {
            let result = try control.call(.upgrade, parameters, as: UpgradeResult.self)
            return result.devices.first?.failure
        } catch let fault as JSONRPC.Fault {
            return fault.message
        }
    }

    /// Copies of the worker under paths of their own: to the supervisor, different programs.
    func copyWorker(as name: String) throws -> String {
        let path = directory.file(name)
        try FileManager.default.copyItem(atPath: workerPath, toPath: path)
        return path
    }

    /// Everything that supervisor and workers have printed.
    func log() throws -> String {
        var text: [UInt8] = []
        while true {
            let part = try TestFile.read(directory.file("batond.log"), at: text.count, count: 1 << 20)
            if part.isEmpty { return String(decoding: text, as: UTF8.self) }
            text += part
        }
    }

    /// Ends device and supervisor. Workers that do not go are killed: they outlive a supervisor.
    mutating func end() {
        let workers = (try? status().workers.map(\.pid)) ?? []
        _ = try? control.call(.delete, NameParameters(name: Self.name), as: Empty.self)
        let end = monotonicNanoseconds() + 10_000_000_000
        while workers.contains(where: isRunning), monotonicNanoseconds() < end { pause(milliseconds: 5) }
        for worker in workers where isRunning(worker) { kill(worker, SIGKILL) }
        supervisor.stop()
        slow?.end()
    }
}

/// Not a zombie, either.
private func isRunning(_ process: Int32) -> Bool {
    guard let stat = readSmallFile("/proc/\(process)/stat") else { return false }
    return !stat.contains(") Z")
}

/// The supervisor's control socket.
struct ControlConnection: ~Copyable {
    private let stream: UnixStream
    private var pending: [UInt8] = []
    private var lastID = 0

    init(_ path: String) throws {
        stream = try UnixStream(connectingTo: path, milliseconds: 5_000)
    }

    /// Asks, and waits for the answer; notifications are passed over.
    mutating func call<Result: Decodable>(
        _ method: ControlMethod, _ parameters: some Encodable, as type: Result.Type
    ) throws -> Result {
        lastID += 1
        let request = try JSONRPC.encode(method.rawValue, parameters, id: lastID)
        try unsafe request.withUnsafeBytes { try unsafe stream.send($0) }
        while true {
            let line = try nextLine()
            if (try? JSONRPC.head(of: line)) == nil { return try JSONRPC.result(of: line, as: type) }
        }
    }

    private mutating func nextLine() throws -> Data {
        while true {
            if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = Data(pending[..<end])
                pending.removeSubrange(...end)
                return line
            }
            var buffer = [UInt8](repeating: 0, count: 65536)
            guard waitForInput(stream.fd.number, milliseconds: 60_000) else {
                throw SystemError(cannot: "hear", "the supervisor", nil, advice: "It does not answer")
            }
            let count = try unsafe buffer.withUnsafeMutableBytes { bytes throws(Errno) in
                try unsafe stream.receive(into: bytes).byteCount
            }
            guard count > 0 else { throw SystemError(cannot: "hear", "the supervisor", nil, advice: "It has hung up") }
            pending += buffer[..<count]
        }
    }
}
