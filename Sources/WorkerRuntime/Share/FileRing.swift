internal import Custody
internal import FileTarget
internal import Glibc
internal import Platform
internal import Synchronization
internal import Uring

/// A share's open files, in the table of a kernel ring that outlives this worker, because the supervisor holds it: with
/// their positions, their locks, and those that have no name any more. A file is put there and taken out by one system
/// call, without a message to anybody, and a successor takes it from there.
///
/// | Last thing done | What is left | The successor |
/// |---|---|---|
/// | file opened | nothing: it was the dead worker's | carries the request out again |
/// | file in the ring's table | a slot that the share's tables do not know | empties it |
/// | slot noted in the share's tables | an open file that the driver may not know | it is closed with the driver |
/// | released in the share's tables | a file in the ring that nobody needs | as the second |
final class FileRing: OpenFileCustody, @unchecked Sendable {
    private let ring: Mutex<FileTableRing>

    init(_ ring: consuming sending FileTableRing) {
        self.ring = Mutex(ring)
        super.init()
    }

    override func keep(_ file: Int32, slot: UInt32) throws(Errno) {
        let result = ring.withLock { $0.put(file, slot: slot) }
        guard result >= 0 else { throw Errno(rawValue: -result) }
    }

    override func release(slot: UInt32) {
        _ = ring.withLock { $0.put(-1, slot: slot) }
    }

    /// The ring is this worker's from now on.
    func takeUp() { ring.withLock { $0.takeUp() } }

    /// Gives a share, which has been taken up, the files that its tables know, and closes the others: they may hold
    /// locks, or the room of files that have no name any more.
    ///
    /// - Throws: when this process may open no more, or the kernel does not give them.
    func restore(_ session: ShareSession) throws(SystemError) {
        do throws(Errno) {
            let wanted = session.usedSlots.map { session.wantsFile(slot: $0) }
            let result = ring.withLock { $0.empty(from: session.usedSlots.lowerBound, keeping: wanted) }
            guard result >= 0 else { throw Errno(rawValue: -result) }
            for (slot, isWanted) in zip(session.usedSlots, wanted) where isWanted {
                let number = ring.withLock { $0.install(slot: slot) }
                // It was never put there: its request is carried out again.
                if number == -EBADF { continue }
                guard number >= 0 else { throw Errno(rawValue: -number) }
                _ = session.restore(OwnedFD(owning: number), slot: slot)
            }
        } catch {
            throw SystemError(
                cannot: "take over", "the share's open files", error,
                advice: "They need Linux 6.8 or newer, and a limit on open files that is higher than their number")
        }
    }
}
