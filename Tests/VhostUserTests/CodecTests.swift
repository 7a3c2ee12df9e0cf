import Testing
import VhostUser
import Virtio

/// The form of messages: what is refused before anybody asks what it means.
@Suite struct CodecTests {
    @Test func `a payload that is one byte short or long is refused`() {
        for (message, bytes) in goldenMessages {
            let payload = Array(bytes.dropFirst(MessageHeader.size))
            for wrong in [payload.dropLast(), payload + [0]] where wrong.count != payload.count {
                let error = #expect(throws: ProtocolError.self, "\(message.kind)") {
                    try decode(wire(message.kind.rawValue, Array(wrong)), fdCount: message.fdCount.lowerBound)
                }
                #expect(error?.kind == message.kind)
            }
        }
    }

    @Test func `a payload of any wrong length is refused`() {
        for (message, bytes) in goldenMessages {
            let size = bytes.count - MessageHeader.size
            for length in 0...320 where length != size {
                let payload = bytes.dropFirst(MessageHeader.size).prefix(length)
                let padding = [UInt8](repeating: 0, count: length - payload.count)
                #expect(throws: ProtocolError.self, "\(message.kind), \(length) bytes") {
                    try decode(wire(message.kind.rawValue, payload + padding), fdCount: message.fdCount.lowerBound)
                }
            }
        }
    }

    @Test func `a reply one byte short or long is refused`() {
        for (kind, reply, bytes) in goldenReplies where reply != .empty {
            let payload = Array(bytes.dropFirst(MessageHeader.size))
            for wrong in [payload.dropLast(), payload + [0]] {
                #expect(throws: ProtocolError.self, "\(kind)") {
                    try decodeReply(wire(kind.rawValue, Array(wrong), flags: 5), fdCount: reply.fdCount, to: kind)
                }
            }
        }
    }

    @Test func `one file descriptor more or less than the message takes is refused`() {
        for (message, bytes) in goldenMessages {
            let allowed = message.fdCount
            for count in 0...9 {
                let decoded = try? decode(bytes, fdCount: count)
                #expect((decoded != nil) == allowed.contains(count), "\(message.kind), \(count) file descriptors")
            }
        }
    }

    @Test func `the number of file descriptors follows the specification`() throws {
        func fdCount(_ number: UInt32) -> ClosedRange<Int>? {
            goldenMessages.first { $0.message.kind.rawValue == number }?.message.fdCount
        }
        #expect(fdCount(5) == 2...2)  // one for each region
        for number: UInt32 in [6, 7, 12, 14, 21, 32, 37] { #expect(fdCount(number) == 1...1) }
        #expect(fdCount(13) == 0...0)  // its bit 8 is set
        #expect(fdCount(38) == 0...1)  // libblkio sends one
        for number: UInt32 in [1, 2, 3, 4, 8, 9, 10, 11, 15, 16, 17, 18, 24, 25, 31, 34, 36, 39, 40] {
            #expect(fdCount(number) == 0...0)
        }
        for kind in [RequestKind.setGPUSocket, .setDeviceStateFD] {
            #expect(FrontendMessage.other(kind, payload: []).fdCount == 1...1)
        }
        #expect(FrontendMessage.other(.sendRARP, payload: []).fdCount == 0...0)
        #expect(FrontendMessage.other(RequestKind(rawValue: 99), payload: []).fdCount.contains(8))
    }

    @Test(arguments: [UInt32(0), 2, 3, 0xffff_fffc])
    func `another version than 1 is refused`(flags: UInt32) {
        let error = #expect(throws: ProtocolError.self) { try decode(wire(1, flags: flags)) }
        #expect(error == ProtocolError(.getFeatures, .unsupportedVersion(flags & 3)))
    }

    @Test func `the flag to ask for an acknowledgement is read, flags without a meaning are kept`() throws {
        let header = try MessageHeader(decoding: wire(3, flags: 0x8000_0009).span)
        #expect(header.flags == [.needReply, MessageFlags(rawValue: 0x8000_0000)])
        #expect(header.encode() == wire(3, flags: 0x8000_0009))
    }

    @Test func `a request that claims to be a reply is refused`() {
        let error = #expect(throws: ProtocolError.self) { try decode(wire(1, flags: 5)) }
        #expect(error == ProtocolError(.getFeatures, .replyInsteadOfRequest))
    }

    @Test func `a reply must answer the request that was sent`() {
        let other = #expect(throws: ProtocolError.self) {
            try decodeReply(wire(1, le(UInt64(0)), flags: 5), to: .getStatus)
        }
        #expect(other == ProtocolError(.getFeatures, .wrongReply(to: .getStatus)))
        let request = #expect(throws: ProtocolError.self) { try decodeReply(wire(40, le(UInt64(0))), to: .getStatus) }
        #expect(request == ProtocolError(.getStatus, .requestInsteadOfReply))
    }

    @Test func `a payload longer than any message is refused by its header`() throws {
        let limit = UInt32(MessageHeader.maximumPayloadSize)
        let longest = le(UInt32(1)) + le(UInt32(1)) + le(limit)
        #expect(try MessageHeader(decoding: longest.span).payloadSize == 4096)
        for size in [limit + 1, .max] {
            let bytes = le(UInt32(1)) + le(UInt32(1)) + le(size)
            let error = #expect(throws: ProtocolError.self) { try MessageHeader(decoding: bytes.span) }
            #expect(error == ProtocolError(.getFeatures, .payloadTooLong(size)))
        }
    }

    @Test(arguments: [UInt32(0), 9, 0x0800_0001, .max])
    func `a memory table has 1 to 8 regions`(count: UInt32) {
        let error = #expect(throws: ProtocolError.self) { try decode(wire(5, le(count) + le(UInt32(0)))) }
        #expect(error == ProtocolError(.setMemoryTable, .wrongRegionCount(count)))
    }

    @Test func `a table of 8 regions is the longest`() throws {
        let table = FrontendMessage.setMemoryTable([MemoryRegion](repeating: highRegion, count: 8))
        let bytes = table.encode()
        #expect(bytes.count == 12 + 8 + 8 * 32)
        #expect(try decode(bytes, fdCount: 8) == table)
    }

    @Test func `the configuration space is accessed in at most 256 bytes`() throws {
        let longest = FrontendMessage.getConfiguration(
            ConfigurationAccess(offset: 0, bytes: [UInt8](repeating: 0xa5, count: 256)))
        #expect(longest.encode().count == 12 + 268)
        #expect(try decode(longest.encode()) == longest)
        for size in [UInt32(257), .max] {
            let payload = le(UInt32(0)) + le(size) + le(UInt32(0)) + [UInt8](repeating: 0, count: 257)
            for kind in [RequestKind.getConfiguration, .setConfiguration] {
                let error = #expect(throws: ProtocolError.self) { try decode(wire(kind.rawValue, payload)) }
                #expect(error == ProtocolError(kind, .configurationTooLong(size)))
            }
        }
    }

    @Test(arguments: [UInt64(0x200), 1 << 63, 0x1_0000_0000])
    func `reserved bits beside a vring's index are refused`(bits: UInt64) {
        for kind in [RequestKind.setVringKick, .setVringCall, .setVringError] {
            let error = #expect(throws: ProtocolError.self) {
                try decode(wire(kind.rawValue, le(bits | 1)), fdCount: 1)
            }
            #expect(error == ProtocolError(kind, .reservedBits(bits)))
        }
    }

    @Test(arguments: [UInt32(0), 46, 1000, .max])
    func `a message that nobody knows is kept as it came`(number: UInt32) throws {
        let message = try decode(wire(number, [1, 2, 3]), fdCount: 3)
        #expect(message == .other(RequestKind(rawValue: number), payload: [1, 2, 3]))
        #expect(message.encode() == wire(number, [1, 2, 3]))
    }

    @Test func `an error says which message and which numbers`() {
        #expect(
            ProtocolError(.setVringAddress, .wrongPayloadSize(39, expected: 40)).description
                == "SET_VRING_ADDR: 39 bytes of payload instead of 40")
        #expect(
            ProtocolError(.removeMemoryRegion, .wrongFDCount(2, expected: 0...1)).description
                == "REM_MEM_REG: 2 file descriptors instead of 0 to 1")
        #expect(
            ProtocolError(RequestKind(rawValue: 77), .payloadTooLong(5000)).description
                == "message 77: the header announces 5000 bytes of payload, more than 4096")
        #expect(
            ProtocolError(.setVringKick, .reservedBits(0x300)).description
                == "SET_VRING_KICK: reserved bits are set: 0x300")
    }
}
