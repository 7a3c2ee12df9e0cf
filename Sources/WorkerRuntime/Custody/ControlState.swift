internal import VhostUser

/// What a worker commits to the session record for its successor: what the front-end has set up, and the message that
/// is being answered.
///
/// Layout, little-endian: version (4 bytes); number of entries (4); each entry: number of slots (2), each slot's role
/// (1), padding (1) and index (2); the message's length (4) and its bytes as the front-end would send them. Then the
/// exchange: 1 if there is one (4), bytes to take from the socket (4), serial number (8), index in the journal ring
/// (4), slot of the reply's descriptor as above or role 0 (4), length (4) and bytes of the reply.
struct ControlState: Hashable {
    var journal: [SessionJournal.Entry] = []
    var exchange: Exchange?

    /// A message whose effect is committed, and which is yet to be taken from the socket and answered.
    struct Exchange: Hashable {
        /// Bytes of the message that are still in the socket.
        var unread: Int
        /// Names the two operations that follow: taking is 2 * serial, answering 2 * serial + 1.
        var serial: UInt64
        /// Where in the journal ring the next operation goes.
        var index: UInt32
        /// Empty: nobody waits for an answer.
        var reply: [UInt8]
        /// The descriptor that goes with the reply.
        var slot: JournalSlot?

        var takingToken: UInt64 { 2 * serial }
        var answeringToken: UInt64 { 2 * serial + 1 }
    }

    private static let version: UInt32 = 1

    init() {}

    // MARK: Coding

    func encode() -> [UInt8] {
        var bytes = ByteWriter()
        bytes.put(Self.version)
        bytes.put(UInt32(journal.count))
        for entry in journal {
            bytes.put(UInt16(entry.slots.count))
            for slot in entry.slots { bytes.put(slot) }
            let message = entry.message.encode()
            bytes.put(UInt32(message.count))
            bytes.bytes += message
        }
        bytes.put(UInt32(exchange == nil ? 0 : 1))
        guard let exchange else { return bytes.bytes }
        bytes.put(UInt32(exchange.unread))
        bytes.put(exchange.serial)
        bytes.put(exchange.index)
        if let slot = exchange.slot { bytes.put(slot) } else { bytes.put(UInt32(0)) }
        bytes.put(UInt32(exchange.reply.count))
        bytes.bytes += exchange.reply
        return bytes.bytes
    }

    /// - Throws: what is wrong with the bytes; a device whose record says such a thing is refused.
    init(decoding bytes: [UInt8]) throws(ControlStateError) {
        // Nothing was committed yet.
        if bytes.isEmpty { return }
        var reader = ByteReader(bytes)
        let version = try reader.word32()
        guard version == Self.version else { throw ControlStateError("has version \(version); 1 is known here") }
        let count = try reader.word32()
        guard count <= 4096 else { throw ControlStateError("has \(count) entries") }
        for _ in 0..<count {
            var slots: [JournalSlot] = []
            for _ in 0..<(try reader.word16()) { slots.append(try reader.slot()) }
            journal.append(SessionJournal.Entry(try reader.message(fdCount: slots.count), slots))
        }
        guard try reader.word32() != 0 else { return }
        let unread = Int(try reader.word32())
        let serial = try reader.word64()
        let index = try reader.word32()
        let slot = try reader.optionalSlot()
        exchange = Exchange(
            unread: unread, serial: serial, index: index, reply: try reader.take(Int(try reader.word32())), slot: slot)
    }
}

/// Why a control state is not believed.
struct ControlStateError: Error, CustomStringConvertible {
    var description: String

    init(_ what: String) { description = "what the session record has of the front-end \(what)" }
}

private struct ByteWriter {
    var bytes: [UInt8] = []

    mutating func put<Word: FixedWidthInteger>(_ word: Word) {
        for shift in stride(from: 0, to: Word.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: word >> shift))
        }
    }

    mutating func put(_ slot: JournalSlot) {
        put(UInt16(slot.role.rawValue) + 1)
        put(UInt16(slot.index))
    }
}

private struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func take(_ count: Int) throws(ControlStateError) -> [UInt8] {
        guard count >= 0, count <= bytes.count - position else { throw ControlStateError("ends too early") }
        defer { position += count }
        return Array(bytes[position..<position + count])
    }

    private mutating func number(_ count: Int) throws(ControlStateError) -> UInt64 {
        try take(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    mutating func word16() throws(ControlStateError) -> UInt16 { UInt16(try number(2)) }
    mutating func word32() throws(ControlStateError) -> UInt32 { UInt32(try number(4)) }
    mutating func word64() throws(ControlStateError) -> UInt64 { try number(8) }

    mutating func optionalSlot() throws(ControlStateError) -> JournalSlot? {
        let (role, index) = (try word16(), try word16())
        guard role != 0 else { return nil }
        guard role <= 256, let known = JournalSlot.Role(rawValue: UInt8(role - 1)) else {
            throw ControlStateError("names a descriptor of an unknown kind, \(role)")
        }
        return JournalSlot(known, Int(index))
    }

    mutating func slot() throws(ControlStateError) -> JournalSlot {
        guard let slot = try optionalSlot() else { throw ControlStateError("names no descriptor where one must be") }
        return slot
    }

    mutating func message(fdCount: Int) throws(ControlStateError) -> FrontendMessage {
        let whole = try take(Int(try word32()))
        guard whole.count >= MessageHeader.size else { throw ControlStateError("has half a message") }
        do throws(ProtocolError) {
            let header = try MessageHeader(decoding: whole.span.extracting(first: MessageHeader.size))
            guard whole.count == MessageHeader.size + header.payloadSize else {
                throw ProtocolError(header.kind, .payloadTooLong(UInt32(whole.count)))
            }
            let payload = whole.span.extracting(droppingFirst: MessageHeader.size)
            return try FrontendMessage(decoding: header, payload: payload, fdCount: fdCount)
        } catch {
            throw ControlStateError("has a message that is none: \(error)")
        }
    }
}
