internal import Glibc

/// A ring for the table of files that goes with it: what is put there stays open for as long as anybody has the ring.
/// Each operation is done when its call returns; those that are queued, when `finish` does.
@safe public struct FileTableRing: ~Copyable, @unchecked Sendable {
    private var ring: Ring
    private var token: UInt64 = 0
    /// Descriptors that operations name, in the order in which they were queued.
    private let numbers: UnsafeMutablePointer<Int32>
    private var queued = 0

    /// - Parameter ring: used for nothing else; its maker has given it a table (IORING_REGISTER_FILES2). Nothing is
    ///   done with it before the first operation or `takeUp`.
    public init(_ ring: consuming Ring) {
        unsafe numbers = .allocate(capacity: ring.capacity)
        self.ring = ring
    }

    deinit { unsafe numbers.deallocate() }

    /// Goes on where a worker before has died.
    public mutating func takeUp() {
        _ = ring.takeUp()
        while ring.nextCompletion() != nil {}
        ring.releaseCompletions()
    }

    /// Puts a file into a slot, in place of what was there.
    ///
    /// - Parameter file: -1 empties the slot.
    /// - Returns: 1; a negative error number: EINVAL for a slot that the table does not have, EBADF for an O_PATH
    ///   descriptor.
    public mutating func put(_ file: Int32, slot: UInt32) -> Int32 {
        queue(file, slot: slot)
        return finish()
    }

    /// As `put`, when `finish` is called.
    public mutating func queue(_ file: Int32, slot: UInt32) {
        // Completions have as much room as this.
        if queued == ring.capacity { finish() }
        unsafe numbers[queued] = file
        unsafe enqueue(.updateFiles(numbers + queued, slot: slot))
    }

    /// Empties slots, in one call.
    ///
    /// - Parameter keeps: whether a slot stays as it is; of `slot` and those after it.
    /// - Returns: how many slots were looked at; a negative error number.
    public mutating func empty(from slot: UInt32, keeping keeps: [Bool]) -> Int32 {
        guard keeps.contains(false) else { return Int32(keeps.count) }
        // IORING_REGISTER_FILES_SKIP
        var numbers = keeps.map { $0 ? Int32(-2) : -1 }
        return unsafe numbers.withUnsafeMutableBufferPointer { buffer in
            unsafe enqueue(.updateFiles(buffer.baseAddress!, count: UInt32(buffer.count), slot: slot))
            return finish()
        }
    }

    /// A new descriptor of the file in a slot (Linux 6.8).
    ///
    /// - Returns: its number; a negative error number: EBADF for an empty slot.
    public mutating func install(slot: UInt32) -> Int32 {
        enqueue(.installFile(slot: slot))
        return finish()
    }

    private mutating func enqueue(_ operation: IOOperation) {
        token &+= 1
        let isQueued = ring.enqueue(operation, token: token)
        precondition(isQueued, "nothing else is under way")
        queued += 1
    }

    /// Carries out what was queued.
    ///
    /// - Returns: what came of the last operation of them.
    @discardableResult
    public mutating func finish() -> Int32 {
        var (owed, result) = (queued, Int32(0))
        ring.submit()
        while owed > 0 {
            ring.runDeferredWork()
            while let completion = ring.nextCompletion() {
                // One of a worker before has another number.
                if token &- completion.token < UInt64(queued) { owed -= 1 }
                if completion.token == token { result = completion.result }
            }
            ring.releaseCompletions()
            if ring.queuedCount > 0 { ring.submit() }
        }
        queued = 0
        return result
    }
}
