internal import Glibc

/// A ring for the table of files that goes with it: what is put there stays open for as long as anybody has the ring.
/// Each operation is done when its call returns.
public struct FileTableRing: ~Copyable {
    private var ring: Ring
    private var token: UInt64 = 0

    /// - Parameter ring: used for nothing else; its maker has given it a table (IORING_REGISTER_FILES2). Nothing is
    ///   done with it before the first operation or `takeUp`.
    public init(_ ring: consuming Ring) { self.ring = ring }

    /// Goes on where a worker before has died.
    public mutating func takeUp() {
        _ = ring.takeUp()
        forget()
    }

    /// Puts a file into a slot, in place of what was there.
    ///
    /// - Parameter file: -1 empties the slot.
    /// - Returns: 1; a negative error number: EINVAL for a slot that the table does not have, EBADF for an O_PATH
    ///   descriptor.
    public mutating func put(_ file: Int32, slot: UInt32) -> Int32 {
        var number = file
        return unsafe withUnsafeMutablePointer(to: &number) { pointer in
            unsafe perform(.updateFiles(pointer, slot: slot))
        }
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
            unsafe perform(.updateFiles(buffer.baseAddress!, count: UInt32(buffer.count), slot: slot))
        }
    }

    /// Empties up to eight slots, in one call.
    public mutating func empty(_ slots: Span<UInt32>) {
        var nothing: Int32 = -1
        unsafe withUnsafeMutablePointer(to: &nothing) { pointer in
            var owed = 0
            for index in slots.indices {
                token &+= 1
                if unsafe ring.enqueue(.updateFiles(pointer, slot: slots[index]), token: token) { owed += 1 }
            }
            ring.submit()
            while owed > 0 {
                ring.runDeferredWork()
                while ring.nextCompletion() != nil { owed -= 1 }
                ring.releaseCompletions()
                if ring.queuedCount > 0 { ring.submit() }
            }
        }
    }

    /// A new descriptor of the file in a slot (Linux 6.8).
    ///
    /// - Returns: its number; a negative error number: EBADF for an empty slot.
    public mutating func install(slot: UInt32) -> Int32 { perform(.installFile(slot: slot)) }

    private mutating func perform(_ operation: IOOperation) -> Int32 {
        token &+= 1
        guard ring.enqueue(operation, token: token) else { return -EBUSY }
        ring.submit()
        while true {
            ring.runDeferredWork()
            if let completion = ring.nextCompletion() {
                ring.releaseCompletions()
                if completion.token == token { return completion.result }
                continue
            }
            if ring.queuedCount > 0 { ring.submit() }
        }
    }

    private mutating func forget() {
        while ring.nextCompletion() != nil {}
        ring.releaseCompletions()
    }
}
