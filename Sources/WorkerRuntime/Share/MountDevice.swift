internal import BlockTarget
internal import FileTarget
internal import Glibc
internal import Logging
internal import Platform
internal import VhostUser
internal import Virtio

/// A share that this host's kernel uses, by a mount: its requests come from /dev/fuse, into memory that a successor
/// finds them in.
final class MountDevice: ShareDevice {
    /// What its queues are served with while it is mounted.
    private final class Seat {
        let fuse: SharedFD
        /// Rung when a queue finds that the file system is mounted no more.
        let gone: SharedFD
        /// Of each loop.
        let requests: [SharedMapping]

        init(_ fuse: consuming OwnedFD, _ requests: [SharedMapping]) throws(Errno) {
            self.fuse = SharedFD(EventFD(owning: fuse))
            gone = SharedFD(try EventFD())
            self.requests = requests
        }
    }

    private var seat: Seat?

    override var mount: MountDevice? { self }

    /// Readable when it is mounted no more; -1 when it has not been mounted.
    var goneNumber: Int32 { seat?.gone.number ?? -1 }

    /// Bytes of memory for the requests of a loop.
    static var requestBytes: Int { FuseDeviceRing.byteCount }

    /// Serves requests of /dev/fuse from now on, beginning with those that a worker before has left.
    ///
    /// - Parameters:
    ///   - fuse: mounted, non-blocking.
    ///   - requests: memory for each loop, of `requestBytes`.
    func serve(_ fuse: consuming OwnedFD, _ requests: [SharedMapping]) throws(SystemError) {
        do throws(Errno) {
            seat = try Seat(fuse, requests)
        } catch {
            throw SystemError(cannot: "mount", "the share", error)
        }
        guard let seat else { return }
        for (number, memory) in requests.enumerated() {
            let place = unsafe UInt(bitPattern: memory.base)
            let attachment = QueueAttachment(
                // hiprio is for virtqueues: /dev/fuse has one stream of requests, for all loops.
                index: number + 1, size: UInt16(FuseDeviceRing.slotCount), features: 0, descriptors: place,
                available: place, used: place, base: UInt32(bitPattern: seat.fuse.number), memory: GuestMemory([]),
                inflight: nil, writesThrough: false,
                signals: QueueSignals(kick: seat.fuse, call: nil, error: seat.gone), ownership: ownership,
                marks: nil, statistics: statistics)
            do throws(DeviceRefusal) {
                try attach(attachment)
            } catch {
                throw SystemError(cannot: "mount", "the share", nil, advice: "\(error)")
            }
        }
    }

    /// Lets go of the mount when what was taken of it is finished.
    func leave() {
        guard let seat = seat.take() else { return }
        let deadline = monotonicNanoseconds() + 1_000_000_000
        let commands = seat.requests.indices.map { ($0 + 1, loop(of: $0 + 1).post(.detach(queue: $0 + 1))) }
        for (queue, number) in commands {
            let mailbox = loop(of: queue).mailbox
            if mailbox.answer(to: number, until: deadline) != nil { continue }
            mailbox.abandon(number)
            log.error("a request of the mount does not end", metadata: ["queue": "\(queue)"])
            // The loop goes on waiting, and the memory is its.
            for memory in seat.requests { memory.keepForGood() }
        }
    }
}

/// Memory that a loop and the session both use: the last one to let go unmaps it.
@safe final class SharedMapping: Sendable {
    private let mapping: Mapping

    init(_ mapping: consuming Mapping) { self.mapping = mapping }

    var base: UnsafeMutableRawPointer { unsafe mapping.base }

    /// It stays mapped as long as this process lives.
    func keepForGood() { _ = unsafe Unmanaged.passRetained(self) }
}
