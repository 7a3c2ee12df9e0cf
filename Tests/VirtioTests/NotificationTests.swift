import CKernelHeaders
import SimulationKit
import Testing
import Virtio

/// Interrupts and kicks: VIRTIO 1.2, sections 2.7.7 and 2.7.10.
@Suite("Notifications")
struct NotificationTests {
    @Test(
        "with EVENT_IDX the guest is interrupted exactly when the entry it names is among those shown",
        arguments: [0, 7, 32767, 32768, 65530, 65535] as [UInt16])
    func eventIndex(start: UInt16) throws {
        let guest = try World.makeGuest(queueSize: 256, startingAt: start)
        for count in [1, 2, 3, 64, 255, 256] {
            let near = (-4...count + 4).map { UInt16(truncatingIfNeeded: Int(start) + $0) }
            let far = [0x3fff, 0x7fff, 0x8000, 0x8001, 0xff00, 0xfffe].map { start &+ UInt16($0) }
            for event in near + far {
                // The definition, without the arithmetic: entries are numbered, and one of the new ones has this
                // number.
                let named = (0..<count).contains { start &+ UInt16($0) == event }
                guest.setUsedEvent(event)
                guest.write([UInt8(truncatingIfNeeded: start), UInt8(start >> 8)], at: guest.ring.used + 2)
                var ring = guest.makeVirtqueue(features: RingFeatures.eventIndex)
                for _ in 0..<count { ring.writeUsed(head: 0, written: 0) }
                let interrupted = ring.publish()
                #expect(interrupted == named, "from \(start), \(count) entries, event \(event)")
                let asTheKernelSays = kernel_need_event(event, start &+ UInt16(count), start) != 0
                #expect(interrupted == asTheKernelSays, "from \(start), \(count) entries, event \(event)")
            }
        }
    }

    @Test("without EVENT_IDX the driver's flag decides")
    func flag() throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: 0)
        for (flags, expected) in [(0, true), (1, false), (0xfffe, true), (0xffff, false)] as [(UInt16, Bool)] {
            guest.setAvailableFlags(flags)
            ring.writeUsed(head: 0, written: 0)
            let interrupted = ring.publish()
            #expect(interrupted == expected, "flags \(flags)")
        }
    }

    @Test("showing nothing new interrupts nobody", arguments: [0, RingFeatures.eventIndex])
    func nothingNew(features: UInt64) throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: features)
        let first = ring.publish()
        #expect(!first)
        ring.writeUsed(head: 0, written: 0)
        let second = ring.publish()
        let third = ring.publish()
        #expect(second)
        #expect(!third)
    }

    @Test("with EVENT_IDX a wish for kicks names the next entry", arguments: [0, 65535] as [UInt16])
    func kicksByEventIndex(start: UInt16) throws {
        let guest = try World.makeGuest(queueSize: 100, startingAt: start)
        var ring = guest.makeVirtqueue(features: RingFeatures.eventIndex)
        let mustLook = ring.enableKicks()
        #expect(!mustLook)
        #expect(guest.availableEvent == start)
        guest.makeAvailable(0)
        _ = ring.availableCount()
        _ = ring.takeAvailable()
        ring.disableKicks()
        #expect(guest.availableEvent == start, "the event index stays behind: the driver does not cross it again")
        #expect(guest.usedFlags == 0, "with EVENT_IDX the flag stays 0 (2.7.10.1)")
        _ = ring.enableKicks()
        #expect(guest.availableEvent == start &+ 1)
    }

    @Test("without EVENT_IDX a wish for kicks is a flag")
    func kicksByFlag() throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: 0)
        ring.disableKicks()
        #expect(guest.usedFlags == 1)
        let mustLook = ring.enableKicks()
        #expect(!mustLook)
        #expect(guest.usedFlags == 0)
    }

    @Test("a request that came before the wish was seen is found", arguments: [0, RingFeatures.eventIndex])
    func handshake(features: UInt64) throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: features)
        ring.disableKicks()
        guest.makeAvailable(3)
        let mustLook = ring.enableKicks()
        #expect(mustLook)
        let waiting = ring.availableCount()
        #expect(waiting == 1)
    }

    @Test("a nonsensical index is a reason to look, too")
    func handshakeWithNonsense() throws {
        let guest = try World.makeGuest(queueSize: 8)
        var ring = guest.makeVirtqueue(features: 0)
        guest.claimAvailable(9)
        let mustLook = ring.enableKicks()
        #expect(mustLook)
    }
}
