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
        guard (1...64).contains(queueCount) else { throw .invalid("a disk has 1 to 64 queues, not \(queueCount)") }
        guard (2...1024).contains(queueSize) else {
            throw .invalid("a queue has 2 to 1024 descriptors, not \(queueSize)")
        }
        guard (1...min(queueCount, Self.maximumThreads)).contains(threadCount) else {
            throw .invalid(
                "a disk has at least 1 thread, and at most as many as queues or \(Self.maximumThreads), "
                    + "not \(threadCount)")
        }
        guard serial.utf8.count <= 20, serial.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) else {
            throw .invalid("a serial number is at most 20 printable ASCII characters")
        }
        guard blockSize == nil || blockSize == 512 || blockSize == 4096 else {
            throw .invalid("a block has 512 or 4096 bytes")
        }
    }

    /// A session record has room for 16 rings, and the connection has one.
    public static let maximumThreads = 15

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
        if let imagePath {
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
        return lines.joined(separator: "\n")
    }

    /// Completions that a loop's ring has room for: each request of its queues has one under way.
    var ringCompletions: UInt32 {
        let queuesOfALoop = (queueCount + threadCount - 1) / threadCount
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
