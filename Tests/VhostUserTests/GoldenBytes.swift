import VhostUser
import Virtio

/// A number in the byte order of the machines these tests run on.
func le<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
}

/// A message as the specification writes it: request, flags, size, payload.
func wire(_ request: UInt32, _ payload: [UInt8] = [], flags: UInt32 = 1) -> [UInt8] {
    le(request) + le(flags) + le(UInt32(payload.count)) + payload
}

let lowRegion = MemoryRegion(guestAddress: 0, size: 0xa0000, frontendAddress: 0x7f00_0000_0000, fileOffset: 0)
let highRegion = MemoryRegion(
    guestAddress: 0x1_0000_0000, size: 0x7620, frontendAddress: 0x7f10_0000_0000, fileOffset: 0x8000_0000)

private let lowRegionBytes = le(UInt64(0)) + le(UInt64(0xa0000)) + le(UInt64(0x7f00_0000_0000)) + le(UInt64(0))
private let highRegionBytes =
    le(UInt64(0x1_0000_0000)) + le(UInt64(0x7620)) + le(UInt64(0x7f10_0000_0000)) + le(UInt64(0x8000_0000))

private let inflight = InflightDescription(size: 0x2000, fileOffset: 0x1000, queueCount: 4, queueSize: 128)
private let inflightBytes = le(UInt64(0x2000)) + le(UInt64(0x1000)) + le(UInt16(4)) + le(UInt16(128)) + le(UInt32(0))

/// One example of every message that the codec reads, and its bytes.
let goldenMessages: [(message: FrontendMessage, bytes: [UInt8])] = [
    (.getFeatures, wire(1)),
    (.setFeatures(0x1_4000_0000), wire(2, le(UInt64(0x1_4000_0000)))),
    (.setOwner, wire(3)),
    (.resetOwner, wire(4)),
    (
        .setMemoryTable([lowRegion, highRegion]),
        wire(5, le(UInt32(2)) + le(UInt32(0)) + lowRegionBytes + highRegionBytes)
    ),
    (
        .setLogBase(LogDescription(size: 0x40000, fileOffset: 0x1000)),
        wire(6, le(UInt64(0x40000)) + le(UInt64(0x1000)))
    ),
    (.setLogEventFD, wire(7)),
    (.setVringSize(VringState(index: 3, value: 256)), wire(8, le(UInt32(3)) + le(UInt32(256)))),
    (
        .setVringAddress(
            VringAddress(
                index: 2, flags: .log, descriptorTable: 0x1000, usedRing: 0x3000, availableRing: 0x2000,
                logAddress: 0x9000)),
        wire(
            9,
            le(UInt32(2)) + le(UInt32(1)) + le(UInt64(0x1000)) + le(UInt64(0x3000)) + le(UInt64(0x2000))
                + le(UInt64(0x9000)))
    ),
    (.setVringBase(VringState(index: 1, value: 0xfffe)), wire(10, le(UInt32(1)) + le(UInt32(0xfffe)))),
    (.getVringBase(VringState(index: 1, value: 0)), wire(11, le(UInt32(1)) + le(UInt32(0)))),
    (.setVringKick(VringFile(index: 255, hasFD: true)), wire(12, le(UInt64(255)))),
    (.setVringCall(VringFile(index: 4, hasFD: false)), wire(13, le(UInt64(0x104)))),
    (.setVringError(VringFile(index: 0, hasFD: true)), wire(14, le(UInt64(0)))),
    (.getProtocolFeatures, wire(15)),
    (.setProtocolFeatures([.mq, .replyAck, .memorySlots]), wire(16, le(UInt64(0x8009)))),
    (.getQueueCount, wire(17)),
    (.setVringEnable(VringState(index: 7, value: 1)), wire(18, le(UInt32(7)) + le(UInt32(1)))),
    (.setBackendRequestFD, wire(21)),
    (
        .getConfiguration(ConfigurationAccess(offset: 0, bytes: [UInt8](repeating: 0, count: 60))),
        wire(24, le(UInt32(0)) + le(UInt32(60)) + le(UInt32(0)) + [UInt8](repeating: 0, count: 60))
    ),
    (
        .setConfiguration(ConfigurationAccess(offset: 32, flags: 1, bytes: [1])),
        wire(25, le(UInt32(32)) + le(UInt32(1)) + le(UInt32(1)) + [1])
    ),
    (.getInflightFD(inflight), wire(31, inflightBytes)),
    (.setInflightFD(inflight), wire(32, inflightBytes)),
    (.resetDevice, wire(34)),
    (.getMaximumMemorySlots, wire(36)),
    (.addMemoryRegion(highRegion), wire(37, le(UInt64(0)) + highRegionBytes)),
    (.removeMemoryRegion(lowRegion), wire(38, le(UInt64(0)) + lowRegionBytes)),
    (.setStatus(0xf), wire(39, le(UInt64(0xf)))),
    (.getStatus, wire(40)),
    (.getVringBaseWithoutDraining(VringState(index: 3, value: 0)), wire(45, le(UInt32(3)) + le(UInt32(0)))),
]

/// One example of every form of reply, and its bytes.
let goldenReplies: [(kind: RequestKind, reply: BackendReply, bytes: [UInt8])] = [
    (.getFeatures, .value(0x1_4000_0000), wire(1, le(UInt64(0x1_4000_0000)), flags: 5)),
    (.setMemoryTable, .success, wire(5, le(UInt64(0)), flags: 5)),
    (.setMemoryTable, .failure, wire(5, le(UInt64(1)), flags: 5)),
    (.getVringBase, .vringState(VringState(index: 1, value: 77)), wire(11, le(UInt32(1)) + le(UInt32(77)), flags: 5)),
    (
        .getVringBaseWithoutDraining, .vringState(VringState(index: 1, value: 0x8001_8002)),
        wire(45, le(UInt32(1)) + le(UInt32(0x8001_8002)), flags: 5)
    ),
    (
        .getConfiguration, .configuration(ConfigurationAccess(offset: 8, bytes: [1, 2])),
        wire(24, le(UInt32(8)) + le(UInt32(2)) + le(UInt32(0)) + [1, 2], flags: 5)
    ),
    (.getConfiguration, .empty, wire(24, flags: 5)),
    (.getInflightFD, .inflight(inflight), wire(31, inflightBytes, flags: 5)),
]

/// Decodes a whole request.
func decode(_ message: [UInt8], fdCount: Int = 0) throws(ProtocolError) -> FrontendMessage {
    let header = try MessageHeader(decoding: message.span.extracting(first: MessageHeader.size))
    let payload = message.span.extracting(droppingFirst: MessageHeader.size)
    return try FrontendMessage(decoding: header, payload: payload, fdCount: fdCount)
}

/// Decodes a whole reply.
func decodeReply(_ message: [UInt8], fdCount: Int = 0, to kind: RequestKind) throws(ProtocolError) -> BackendReply {
    let header = try MessageHeader(decoding: message.span.extracting(first: MessageHeader.size))
    let payload = message.span.extracting(droppingFirst: MessageHeader.size)
    return try BackendReply(decoding: header, payload: payload, fdCount: fdCount, to: kind)
}
