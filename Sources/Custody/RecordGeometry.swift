internal import CWire

/// How large a device's session record is, and where things lie in it. Fixed for the life of the device.
public struct RecordGeometry: Hashable, Sendable {
    /// Queues of the device, 1 to 256.
    public let queueCount: Int
    /// The most descriptors that a queue's ring may have, 1 to 32768.
    public let queueSize: Int
    /// Kernel rings, 1 to 16: one for each loop, and one for the connection.
    public let ringCount: Int

    /// - Throws: `geometry` when a number is out of range.
    public init(queueCount: Int, queueSize: Int, ringCount: Int) throws(SessionRecordError) {
        guard (1...WIRE_RECORD_MAX_QUEUES.asInt).contains(queueCount), (1...32768).contains(queueSize),
            (1...WIRE_RECORD_MAX_RINGS.asInt).contains(ringCount)
        else { throw .geometry(queueCount: queueCount, queueSize: queueSize, ringCount: ringCount) }
        self.queueCount = queueCount
        self.queueSize = queueSize
        self.ringCount = ringCount
    }

    static var controlBytes: Int { WIRE_RECORD_CONTROL_BYTES.asInt }
    var statisticsOffset: Int { WIRE_RECORD_HEADER_BYTES.asInt + 2 * Self.controlBytes }
    var requestsOffset: Int { statisticsOffset + queueCount * WIRE_RECORD_STATISTICS_BYTES.asInt }

    /// Bytes of the record.
    public var byteCount: Int { requestsOffset + queueCount * queueSize * WIRE_RECORD_REQUEST_BYTES.asInt }

    /// Bytes of the largest record that there can be.
    static var maximumBytes: Int {
        let queue = WIRE_RECORD_STATISTICS_BYTES.asInt + 32768 * WIRE_RECORD_REQUEST_BYTES.asInt
        return WIRE_RECORD_HEADER_BYTES.asInt + 2 * controlBytes + WIRE_RECORD_MAX_QUEUES.asInt * queue
    }

    func controlOffset(_ area: Int) -> Int { WIRE_RECORD_HEADER_BYTES.asInt + area * Self.controlBytes }

    func statisticsOffset(queue: Int) -> Int {
        precondition(queue >= 0 && queue < queueCount)
        return statisticsOffset + queue * WIRE_RECORD_STATISTICS_BYTES.asInt
    }

    func requestsOffset(queue: Int) -> Int {
        requestsOffset + queue * queueSize * WIRE_RECORD_REQUEST_BYTES.asInt
    }
}

extension FixedWidthInteger {
    /// A constant of the layout, which C's enums give in several types.
    var asInt: Int { Int(self) }
}

/// Why a session record is not believed, or cannot be had. The device is refused; nothing was changed.
public enum SessionRecordError: Error, Sendable, CustomStringConvertible {
    case geometry(queueCount: Int, queueSize: Int, ringCount: Int)
    case tooSmall(UInt64)
    case tooLarge(UInt64)
    case notARecord
    case version(UInt32, readable: ClosedRange<UInt32>)
    case size(UInt64, expected: Int)
    case control(String)
    case ownedBy(UInt64)
    case system(String)

    public var description: String {
        switch self {
        case .geometry(let queues, let size, let rings):
            "a session record of \(queues) queues of \(size) with \(rings) rings is out of range"
        case .tooSmall(let count): "the session record has \(count) bytes, fewer than its header"
        case .tooLarge(let count): "the session record has \(count) bytes, more than any has"
        case .notARecord: "the file is no session record"
        case .version(let version, let readable):
            "the session record has version \(version); this build reads \(readable.lowerBound) to "
                + "\(readable.upperBound)"
        case .size(let count, let expected): "the session record has \(count) bytes where it says \(expected)"
        case .control(let what): "the session record's control area \(what)"
        case .ownedBy(let generation): "worker \(generation) has the device"
        case .system(let what): what
        }
    }
}
