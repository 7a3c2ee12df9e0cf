internal import Custody
internal import Platform
public import Telemetry

/// What an operator has asked a device to be.
public struct DeviceConfiguration: Codable, Hashable, Sendable {
    /// 1 to 64 letters, digits, dots, dashes and underscores.
    public var name: String
    /// Where front-ends connect.
    public var socketPath: String
    /// The image; nil for a disk that keeps nothing (`--backend=null`), for measurements.
    public var imagePath: String?
    public var isReadOnly = false
    /// The host's page cache is used.
    public var isBuffered = false
    /// 1 to 64.
    public var queueCount = 1
    /// 2 to 1024 descriptors.
    public var queueSize = 256
    /// 1 to 15, at most `queueCount`.
    public var threadCount = 1
    /// At most 20 bytes.
    public var serial = ""
    /// 512 or 4096 bytes; nil takes what the storage has.
    public var blockSize: Int?

    // Later than the first version, whose state a supervisor may have to go on with: nil there.

    /// Packed rings are not offered; nil: they are.
    public var hasSplitRingsOnly: Bool?
    /// All guest memory is kept present; nil: it is not.
    public var pinsMemory: Bool?
    /// The longest that a loop polls, 0 to 1000000 microseconds; nil leaves it to the worker.
    public var pollMicroseconds: Int?
    /// CPUs for the loop threads, in turn; nil or empty: any.
    public var cpus: [Int]?
    /// Who may connect: permission bits, user and group. nil: as the process makes a socket.
    public var socketMode: UInt32?
    public var socketOwner: UInt32?
    public var socketGroup: UInt32?
    /// nil: none.
    public var limits: ResourceLimits?
    /// How much its front-end may have done in a second; nil: no limit.
    public var rates: RateLimits?
    /// Requests that find no room on the host wait for it; nil: they are answered with an error.
    public var holdsForRoom: Bool?
    /// The directory that is shared; nil: the device is a disk.
    public var share: ShareSettings?
    /// The configuration file that asks for the device; nil: somebody has asked for it by a command.
    public var origin: String?

    public init(name: String, socketPath: String, imagePath: String?) {
        self.name = name
        self.socketPath = socketPath
        self.imagePath = imagePath
    }

    /// - Throws: a sentence for the first thing that is wrong.
    public func validate() throws(SupervisorError) {
        let isNamed = (1...64).contains(name.utf8.count) && name.utf8.allSatisfy(Self.isNameByte) && name.first != "."
        guard isNamed else {
            throw .invalid("a name is 1 to 64 letters, digits, dots, dashes and underscores, not '\(name)'")
        }
        guard socketPath.hasPrefix("/"), socketPath.utf8.count <= 106 else {
            throw .invalid("a socket's path begins with / and has at most 106 bytes, not '\(socketPath)'")
        }
        if let imagePath {
            guard imagePath.hasPrefix("/"), !imagePath.contains("\n") else {
                throw .invalid("an image's path begins with / and has no line feed")
            }
        }
        let most = share == nil ? 64 : 63
        guard (1...most).contains(queueCount) else {
            throw .invalid("a \(kind) has 1 to \(most) queues, not \(queueCount)")
        }
        guard (2...1024).contains(queueSize) else {
            throw .invalid("a queue has 2 to 1024 descriptors, not \(queueSize)")
        }
        guard (1...min(queueCount, maximumThreads)).contains(threadCount) else {
            throw .invalid(
                "a \(kind) has at least 1 thread, and at most as many as queues or \(maximumThreads), "
                    + "not \(threadCount)")
        }
        guard serial.utf8.count <= 20, serial.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) else {
            throw .invalid("a serial number is at most 20 printable ASCII characters")
        }
        guard blockSize == nil || blockSize == 512 || blockSize == 4096 else {
            throw .invalid("a block has 512 or 4096 bytes")
        }
        try share?.validate()
        // Each loop takes requests from the one stream that there is.
        guard share?.mountPoint == nil || queueCount == threadCount else {
            throw .invalid("a mount has a queue for each thread, not \(queueCount) for \(threadCount)")
        }
        try validateRunning()
    }

    private var kind: String { share == nil ? "disk" : "share" }

    /// What concerns how it runs, not what it is.
    private func validateRunning() throws(SupervisorError) {
        if let pollMicroseconds, !(0...1_000_000).contains(pollMicroseconds) {
            throw .invalid("a loop polls 0 to 1000000 microseconds, not \(pollMicroseconds)")
        }
        if let cpus {
            guard cpus.count <= 64, cpus.allSatisfy({ (0..<4096).contains($0) }) else {
                throw .invalid("CPUs are at most 64 numbers from 0 to 4095")
            }
        }
        if let socketMode, socketMode > 0o777 {
            throw .invalid("a socket's mode is octal, such as 0660, not \(String(socketMode, radix: 8))")
        }
        try limits?.validate()
        try rates?.validate()
        if share != nil, holdsForRoom == true {
            throw .invalid("a share tells its guest that there is no room; it holds nothing")
        }
    }

    /// A session record has room for 16 rings; the connection has one, and a share's open files another.
    /// Of its session record. It stays as it is for as long as the device exists.
    func recordGeometry() throws(SessionRecordError) -> RecordGeometry {
        try RecordGeometry(queueCount: virtqueueCount, queueSize: queueSize, ringCount: ringCount)
    }

    private var maximumThreads: Int { share == nil ? 15 : 14 }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// As a worker's options, one a line: the text of `prepare`.
    var workerOptions: String {
        var lines: [String] = []
        if let share {
            lines += share.workerOptions
        } else if let imagePath {
            lines.append("--blk-file=\(imagePath)")
            lines.append("--cache=\(isBuffered ? "buffered" : "direct")")
        } else {
            lines.append("--backend=null")
        }
        lines.append("--queues=\(queueCount)")
        lines.append("--queue-size=\(queueSize)")
        lines.append("--threads=\(threadCount)")
        if !serial.isEmpty { lines.append("--serial=\(serial)") }
        if isReadOnly { lines.append("--read-only") }
        if let blockSize { lines.append("--block-size=\(blockSize)") }
        if hasSplitRingsOnly == true { lines.append("--split-rings") }
        if pinsMemory == true { lines.append("--pin-memory") }
        if let pollMicroseconds { lines.append("--poll-us=\(pollMicroseconds)") }
        if let cpus, !cpus.isEmpty { lines.append("--cpus=\(cpus.map(String.init).joined(separator: ","))") }
        return lines.joined(separator: "\n")
    }

    /// What its loops are to hold, from this moment on.
    var policy: DevicePolicy { DevicePolicy(limits: rates ?? RateLimits(), holdsForRoom: holdsForRoom ?? false) }

    var socketAccess: SocketAccess { SocketAccess(mode: socketMode, owner: socketOwner, group: socketGroup) }

    /// Completions that a loop's ring has room for: each request of its queues has one under way.
    var ringCompletions: UInt32 {
        let queuesOfALoop = (virtqueueCount + threadCount - 1) / threadCount
        return UInt32(max(512, queuesOfALoop * queueSize))
    }
}

/// Why the supervisor does not do what it was asked.
public enum SupervisorError: Error, Hashable, Sendable, CustomStringConvertible {
    case invalid(String)
    case noSuchDevice(String)
    case deviceExists(String)
    case failed(String)

    public var description: String {
        switch self {
        case .invalid(let what), .failed(let what): what
        case .noSuchDevice(let name): "there is no device '\(name)'"
        case .deviceExists(let name): "there is a device '\(name)' already"
        }
    }
}
