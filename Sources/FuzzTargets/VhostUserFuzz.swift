internal import Platform
import VhostUser
import Virtio

/// Feeds a session with the messages that a fuzzer made, and checks after each what must hold whatever a peer sends.
///
/// The input is a sequence of messages, each: the request, flags, how many descriptors come with it, two bytes for the
/// length of the payload, the payload. Of the flags the lowest four go into the header (version 1 turned over, so that
/// 0 is right); bit 7 makes the device refuse its first call, bit 6 all others.
public func fuzzVhostUser(_ bytes: Span<UInt8>) {
    var input = FuzzInput(bytes)
    var model = SessionModel()
    while !input.isEmpty, model.isOpen {
        let request = input.nextByte()
        let flags = input.nextByte()
        let fdCount = Int(input.nextByte())
        let length = Int(input.nextByte()) | Int(input.nextByte()) << 8
        let payload = input.next(length)
        let message: [UInt8] =
            [request, 0, 0, 0, flags & 0xf ^ 1, 0, 0, 0, UInt8(payload.count & 0xff), UInt8(payload.count >> 8), 0, 0]
            + payload
        checkReply(message, fdCount: fdCount)
        guard let decoded = decodeRequest(message, fdCount: fdCount) else { continue }
        model.carryOut(
            decoded, needsReply: flags & 8 != 0, refusesFirst: flags & 0x80 != 0, refusesOthers: flags & 0x40 != 0)
    }
}

/// Decodes a request; what was decoded is the same after it was encoded and decoded again.
private func decodeRequest(_ bytes: [UInt8], fdCount: Int) -> FrontendMessage? {
    func decode(_ bytes: [UInt8]) throws(ProtocolError) -> FrontendMessage {
        let header = try MessageHeader(decoding: bytes.span.extracting(first: MessageHeader.size))
        let payload = bytes.span.extracting(droppingFirst: MessageHeader.size)
        return try FrontendMessage(decoding: header, payload: payload, fdCount: fdCount)
    }
    do throws(ProtocolError) {
        let message = try decode(bytes)
        let again = try decode(message.encode())
        precondition(again == message, "\(message) is \(again) after a round trip")
        precondition(message.fdCount.contains(fdCount), "\(message) with \(fdCount) descriptors")
        return message
    } catch {
        precondition(!error.description.isEmpty, "an error without a sentence")
        return nil
    }
}

/// The same bytes, read as a reply to the request that they name.
private func checkReply(_ bytes: [UInt8], fdCount: Int) {
    do throws(ProtocolError) {
        let header = try MessageHeader(decoding: bytes.span.extracting(first: MessageHeader.size))
        let payload = bytes.span.extracting(droppingFirst: MessageHeader.size)
        let reply = try BackendReply(decoding: header, payload: payload, fdCount: fdCount, to: header.kind)
        let encoded = reply.encode(to: header.kind)
        let again = try BackendReply(
            decoding: try MessageHeader(decoding: encoded.span.extracting(first: MessageHeader.size)),
            payload: encoded.span.extracting(droppingFirst: MessageHeader.size), fdCount: fdCount, to: header.kind)
        precondition(again == reply, "\(reply) is \(again) after a round trip")
    } catch {
        precondition(!error.description.isEmpty, "an error without a sentence")
    }
}

/// A session, and beside it what a device would know: it believes nothing, and checks every call.
private struct SessionModel {
    private static let offer = DeviceOffer(
        features: 1 << 32 | 1 << 29 | 1 << 28 | 0xff, queueCount: 3, maximumQueueSize: 256, maximumMemoryRegions: 12)
    private var session = Session(offer: Self.offer)
    private var running = [QueueSetup?](repeating: nil, count: 3)
    private var regions: [MemoryRegion] = []
    private var stops: UInt32 = 0
    private(set) var isOpen = true

    mutating func carryOut(_ message: FrontendMessage, needsReply: Bool, refusesFirst: Bool, refusesOthers: Bool) {
        let acknowledges = session.protocolFeatures.contains(.replyAck) && needsReply && !message.kind.hasReply
        var step = session.receive(message, needsReply: needsReply)
        var calls = 0
        while case .call(let call) = step {
            calls += 1
            precondition(calls <= 2 * running.count + 1, "no end of calls for \(message)")
            let refuses = calls == 1 ? refusesFirst : refusesOthers
            step = session.resume(refuses ? .refused(DeviceRefusal("no")) : answer(call))
        }
        switch step {
        case .call: preconditionFailure("a call is not the end")
        case .reply(let reply):
            precondition(message.kind.hasReply || (acknowledges && reply == .success), "\(reply) to \(message)")
        case .done: precondition(!message.kind.hasReply && !acknowledges, "no answer to \(message)")
        case .refuse: precondition(acknowledges, "a refusal of \(message) that nobody waits for")
        case .close:
            precondition(!acknowledges, "closed though \(message) could have been refused")
            isOpen = false
        }
        check(after: message)
    }

    private mutating func answer(_ call: DeviceCall) -> DeviceAnswer {
        switch call {
        case .readConfiguration: return .configuration([UInt8](repeating: 0xc0, count: 60))
        case .writeConfiguration(let bytes, let offset):
            precondition(!bytes.isEmpty && offset >= 0 && offset + bytes.count <= 256, "a write outside")
        case .replaceMemory(let table): regions = table
        case .addMemory(let region): regions.append(region)
        case .removeMemory(let region):
            let place = regions.firstIndex {
                $0.guestAddress == region.guestAddress && $0.size == region.size
                    && $0.frontendAddress == region.frontendAddress
            }
            guard let place else { preconditionFailure("a region goes that never came") }
            regions.remove(at: place)
        case .makeInflight(let queueCount, let queueSize, _):
            precondition(queueCount >= 1 && queueCount <= running.count && queueSize >= 1 && queueSize <= 32768)
            do throws(Errno) {
                return .inflight(InflightFile(size: 16, fd: try makeMemoryFile(name: "fuzz", count: 16)))
            } catch {
                return .refused(DeviceRefusal("\(error)"))
            }
        case .setInflight(let description):
            precondition(description.queueCount >= 1 && Int(description.queueCount) <= running.count)
        case .setKick(let queue), .setCall(let queue), .setError(let queue):
            precondition(running.indices.contains(queue), "a queue that does not exist")
        case .startQueue(let queue, let setup):
            precondition(running[queue] == nil, "started twice")
            running[queue] = setup
        case .stopQueue(let queue):
            precondition(running[queue] != nil, "stopped twice")
            running[queue] = nil
            stops = (stops + 1) & 0xffff
            return .stopped(base: stops)
        case .resetKeepingMemory:
            precondition(running.allSatisfy { $0 == nil }, "reset while a queue runs")
        }
        return .done
    }

    private func check(after message: FrontendMessage) {
        precondition(session.memory.regions == regions, "the memory is not what the device knows after \(message)")
        checkRegions()
        for queue in running.indices {
            let setup = running[queue]
            precondition(session.setup(ofRunning: queue) == setup, "queue \(queue) is another after \(message)")
            guard let setup else { continue }
            precondition(session.missing(queue: queue).isEmpty, "queue \(queue) runs too early after \(message)")
            precondition(setup.features & ~Self.offer.features == 0, "features that nobody offered")
            precondition((1...Self.offer.maximumQueueSize).contains(setup.size), "a size beyond the limit")
            precondition(
                setup.descriptorTable % 16 == 0 && setup.availableRing % 2 == 0 && setup.usedRing % 4 == 0, "misaligned"
            )
            let frame = setup.features & 1 << 29 == 0 ? 4 : 6
            for (address, count) in [
                (setup.descriptorTable, 16 * setup.size), (setup.availableRing, frame + 2 * setup.size),
                (setup.usedRing, frame + 8 * setup.size),
            ] {
                let range = wide(address, UInt64(count))
                let holder = regions.first { wide($0.frontendAddress, $0.size).contains(range) }
                precondition(holder != nil, "queue \(queue) runs outside memory after \(message)")
            }
        }
    }

    /// In numbers so wide that nothing can overflow.
    private func checkRegions() {
        precondition(regions.count <= Self.offer.maximumMemoryRegions, "too many regions")
        for (index, region) in regions.enumerated() {
            let guest = wide(region.guestAddress, region.size)
            let frontend = wide(region.frontendAddress, region.size)
            precondition(!guest.isEmpty, "an empty region")
            precondition(guest.upperBound <= 1 << 64 && frontend.upperBound <= 1 << 64, "a region without end")
            precondition(wide(region.fileOffset, region.size).upperBound < 1 << 63, "a file without end")
            for other in regions[..<index] {
                precondition(!guest.overlaps(wide(other.guestAddress, other.size)), "guest addresses twice")
                precondition(!frontend.overlaps(wide(other.frontendAddress, other.size)), "front-end addresses twice")
            }
        }
    }

    private func wide(_ start: UInt64, _ count: UInt64) -> Range<UInt128> {
        UInt128(start)..<UInt128(start) + UInt128(count)
    }
}
