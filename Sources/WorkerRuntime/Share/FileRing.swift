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
    private struct Contents: ~Copyable {
        var ring: FileTableRing
        /// Slots to be emptied, together: a call for each would cost as much as the close itself.
        var leaving = InlineArray<8, UInt32>(repeating: 0)
        var leavingCount = 0

        init(_ ring: consuming sending FileTableRing) { self.ring = ring }

        /// - Parameter newcomers: to be put into other slots by the same call.
        mutating func settle(_ newcomers: Span<KeptFile> = Span()) {
            guard leavingCount + newcomers.count > 0 else { return }
            for index in 0..<leavingCount { ring.queue(-1, slot: leaving[index]) }
            for index in newcomers.indices { ring.queue(newcomers[index].file, slot: newcomers[index].slot) }
            ring.finish()
            leavingCount = 0
        }

        /// Another file comes into a slot, in place of what is there.
        mutating func forget(_ slot: UInt32) {
            for index in 0..<leavingCount where leaving[index] == slot {
                leavingCount -= 1
                leaving[index] = leaving[leavingCount]
                return
            }
        }
    }

    private let contents: Mutex<Contents>
    /// Whether there may be slots to be emptied: most turns of a loop find none.
    private let mustSettle = Atomic<Bool>(false)

    init(_ ring: consuming sending FileTableRing) {
        contents = Mutex(Contents(ring))
        super.init()
    }

    override func keep(_ file: Int32, slot: UInt32) throws(Errno) {
        let result = contents.withLock { contents in
            contents.forget(slot)
            return contents.ring.put(file, slot: slot)
        }
        guard result >= 0 else { throw Errno(rawValue: -result) }
    }

    override func keep(_ newcomers: Span<KeptFile>) {
        contents.withLock { contents in
            for index in newcomers.indices { contents.forget(newcomers[index].slot) }
            contents.settle(newcomers)
        }
    }

    override func release(slot: UInt32) {
        contents.withLock { contents in
            if contents.leavingCount == contents.leaving.count { contents.settle() }
            contents.leaving[contents.leavingCount] = slot
            contents.leavingCount += 1
            mustSettle.store(true, ordering: .relaxed)
        }
    }

    override func settle() {
        guard mustSettle.load(ordering: .acquiring) else { return }
        contents.withLock { contents in
            contents.settle()
            // Not before: another loop that sees this shows its answers.
            mustSettle.store(false, ordering: .releasing)
        }
    }

    /// The ring is this worker's from now on.
    func takeUp() { contents.withLock { $0.ring.takeUp() } }

    /// Gives a share, which has been taken up, the files that its tables know, and closes the others: they may hold
    /// locks, or the room of files that have no name any more.
    ///
    /// - Throws: when this process may open no more, or the kernel does not give them.
    func restore(_ session: ShareSession) throws(SystemError) {
        do throws(Errno) {
            let wanted = session.usedSlots.map { session.wantsFile(slot: $0) }
            let result = contents.withLock { $0.ring.empty(from: session.usedSlots.lowerBound, keeping: wanted) }
            guard result >= 0 else { throw Errno(rawValue: -result) }
            for (slot, isWanted) in zip(session.usedSlots, wanted) where isWanted {
                let number = contents.withLock { $0.ring.install(slot: slot) }
                if number == -EBADF {
                    // It could not be kept, and ended with the worker before.
                    session.drop(slot: slot)
                    continue
                }
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
