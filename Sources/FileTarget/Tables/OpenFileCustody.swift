public import Platform

/// Keeps open files for whoever serves the share next; this one keeps none. One for all loops of a share, called by any
/// of them at any moment.
open class OpenFileCustody: @unchecked Sendable {
    public init() {}

    /// When this returns, `file` is stored under `slot`, or on its way there so that the death of this process cannot
    /// stop it: the driver is answered right after. The number stays the caller's, and may be closed then.
    ///
    /// - Parameter slot: below the `files` of the share's memory.
    /// - Throws: when it cannot be kept; the driver's request fails with that error.
    open func keep(_ file: Int32, slot: UInt32) throws(Errno) {}

    /// The file of a slot is needed no more. A later `keep` of the slot comes after this has returned.
    open func release(slot: UInt32) {}

    /// `keep` for some files at once, whose answers wait until then.
    ///
    /// A file that cannot be kept is open all the same, until this worker ends: its driver gets EBADF then.
    open func keep(_ newcomers: Span<KeptFile>) {
        for index in newcomers.indices { try? keep(newcomers[index].file, slot: newcomers[index].slot) }
    }

    /// When this returns, what was released is closed. Called before the driver is shown any answer.
    open func settle() {}
}

/// An open file that is to be kept.
public struct KeptFile: Sendable {
    public var file: Int32
    public var slot: UInt32

    public init(_ file: Int32, slot: UInt32) {
        self.file = file
        self.slot = slot
    }
}
