/// What a supervisor and a worker tell each other. One message is one datagram on a SOCK_SEQPACKET pair, with at most
/// one descriptor.
///
/// Layout, little-endian: kind (2 bytes), version of the layout (2), role (2), index (2), value (8), then UTF-8 text to
/// the end. Whoever does not know a kind ignores it, so that another version may add some.
public struct CustodyMessage: Hashable, Sendable {
    public var kind: CustodyMessageKind
    public var key: CustodyKey
    public var value: UInt64
    /// At most `maximumTextBytes`; longer ones are cut.
    public var text: String

    public init(
        _ kind: CustodyMessageKind, _ key: CustodyKey = CustodyKey(CustodyRole(rawValue: 0)), value: UInt64 = 0,
        text: String = ""
    ) {
        self.kind = kind
        self.key = key
        self.value = value
        self.text = text
    }
}

/// What a message says. Supervisor to worker below 100, worker to supervisor from 100 on.
public struct CustodyMessageKind: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    // MARK: Supervisor to worker

    /// With a descriptor: the worker keeps it under the key; one that it had under that key is replaced.
    public static let give = CustodyMessageKind(rawValue: 1)
    /// The descriptor under the key is gone.
    public static let drop = CustodyMessageKind(rawValue: 2)
    /// Everything has been given. Text: the device's configuration, as the worker's options are spelt, one a line. The
    /// worker prepares itself, answers `ready`, and takes the device up when nobody has it. Value: the worker's process
    /// as the supervisor numbers it, under which the record knows it; 0: as it does itself.
    public static let prepare = CustodyMessageKind(rawValue: 3)
    /// Answers `keep`: the descriptor is in custody, and whoever stands by has it. Value: that of `keep`. Like every
    /// message of the supervisor, it comes a second time if the supervisor died between sending it and noting that it
    /// has: whoever does not wait for this value ignores it.
    public static let kept = CustodyMessageKind(rawValue: 4)
    /// Stop taking requests, and give the device up without waiting for those in flight. Answered by `frozen` or
    /// `busy`.
    public static let freeze = CustodyMessageKind(rawValue: 5)
    /// Take the device up again.
    public static let thaw = CustodyMessageKind(rawValue: 6)
    /// End. The worker that has the device finishes its requests first, unless it is frozen.
    public static let quit = CustodyMessageKind(rawValue: 7)
    /// The disk has another size. Value: bytes; the image has at least so many. Index of the key: bit 0 if it may be
    /// less than it was, bit 1 if the image has its last size already (`ResizeOrder`). The worker tells the front-end
    /// in any case, then answers `resized`. To whoever has the device, and again to its successor until it is answered.
    public static let resize = CustodyMessageKind(rawValue: 8)

    // MARK: Worker to supervisor

    /// Prepared. Text: the build's version. Value: the lowest record version that it reads (bits 0-15), the highest
    /// (bits 16-31) and the one that it writes (bits 32-47).
    public static let ready = CustodyMessageKind(rawValue: 100)
    /// Cannot serve the device. Text: why. The worker ends.
    public static let refused = CustodyMessageKind(rawValue: 101)
    /// The worker has the device and serves it. Value: its generation. Text: what it found, for the log.
    public static let active = CustodyMessageKind(rawValue: 102)
    /// With a descriptor: take it into custody under the key. Answered by `kept`. Value: any, given back.
    public static let keep = CustodyMessageKind(rawValue: 103)
    /// The descriptor under the key is needed no more; no answer.
    public static let release = CustodyMessageKind(rawValue: 104)
    /// Answers `freeze`: the device is nobody's.
    public static let frozen = CustodyMessageKind(rawValue: 105)
    /// The front-end's connection has ended: the device was reset, the next front-end may be given. Text: why.
    public static let disconnected = CustodyMessageKind(rawValue: 106)
    /// Everything that earlier workers had in flight has completed: they may end.
    public static let settled = CustodyMessageKind(rawValue: 107)
    /// For the log and for `events`. Text: what.
    public static let event = CustodyMessageKind(rawValue: 108)
    /// Answers `resize`. Key and value: those of `resize`. Text: why the disk keeps its size; empty when it has the new
    /// one.
    public static let resized = CustodyMessageKind(rawValue: 109)
    /// Answers `freeze`: the worker cannot give the device up now, and goes on serving it. Text: why.
    public static let busy = CustodyMessageKind(rawValue: 110)
    /// A worker that takes the device up has to wait, and says so again at least every 2 s. Text: for what.
    public static let waiting = CustodyMessageKind(rawValue: 111)
}

/// Why a datagram is no message.
public enum CustodyMessageError: Error, Sendable, CustomStringConvertible {
    case tooShort(Int)
    case version(UInt16)
    case textNotUTF8

    public var description: String {
        switch self {
        case .tooShort(let count): "a custody message has \(count) bytes; \(CustodyMessage.headerBytes) are the least"
        case .version(let version): "a custody message has layout version \(version); 1 is known here"
        case .textNotUTF8: "a custody message's text is not UTF-8"
        }
    }
}

extension CustodyMessage {
    static let headerBytes = 16
    static let layoutVersion: UInt16 = 1
    public static let maximumTextBytes = 4080
    static let maximumBytes = headerBytes + maximumTextBytes

    /// The datagram.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headerBytes + text.utf8.count)
        for word in [kind.rawValue, Self.layoutVersion, key.role.rawValue, key.index] {
            bytes.append(UInt8(truncatingIfNeeded: word))
            bytes.append(UInt8(truncatingIfNeeded: word >> 8))
        }
        for shift in stride(from: 0 as UInt64, to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
        var room = Self.maximumTextBytes
        for character in text {
            room -= character.utf8.count
            if room < 0 { break }
            bytes.append(contentsOf: character.utf8)
        }
        return bytes
    }

    /// Reads a datagram.
    public init(decoding bytes: ArraySlice<UInt8>) throws(CustodyMessageError) {
        guard bytes.count >= Self.headerBytes else { throw .tooShort(bytes.count) }
        let bytes = Array(bytes)
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        let version = UInt16(number(2, 2))
        guard version == Self.layoutVersion else { throw .version(version) }
        guard let text = String(validating: bytes[Self.headerBytes...], as: UTF8.self) else { throw .textNotUTF8 }
        self.init(
            CustodyMessageKind(rawValue: UInt16(number(0, 2))),
            CustodyKey(CustodyRole(rawValue: UInt16(number(4, 2))), UInt16(number(6, 2))), value: number(8, 8),
            text: text)
    }
}
