public import Platform
public import Uring

/// An operation as a simulated storage has taken it from an engine.
public struct SimulatedOperation {
    public var token: UInt64
    public var kind: IOOperation.Kind
    /// The descriptor it works on.
    public var file: Int32
    /// Bytes from the start of the file.
    public var offset: UInt64
    /// Bytes of all its buffers, or of its range.
    public var length: UInt64
    /// RWF_ flags of a write, mode of an allocation.
    public var flags: UInt32
    /// Its buffers, copied when it was taken: the vector table is the caller's again.
    var buffers: [SimulatedBuffer]

    /// A write that is complete only when it is on stable storage (RWF_DSYNC).
    public var isDurable: Bool { isWrite && flags & 2 != 0 }
    public var isRead: Bool { kind == .read || kind == .readVectors }
    public var isWrite: Bool { kind == .write || kind == .writeVectors }
    public var isTransfer: Bool { isRead || isWrite }
}

/// Memory that an operation names, valid until it has been carried out and its completion taken.
@safe struct SimulatedBuffer {
    let base: UnsafeMutableRawPointer
    let count: Int

    /// Whether address and length are multiples.
    func isAligned(address: Int, length: Int) -> Bool {
        UInt(bitPattern: unsafe base) % UInt(address) == 0 && count % length == 0
    }

    /// Its first bytes.
    func bytes(_ count: Int) -> [UInt8] {
        precondition(count <= self.count)
        return unsafe Array(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// Overwrites its first bytes.
    func set(_ bytes: ArraySlice<UInt8>) {
        precondition(bytes.count <= count)
        unsafe bytes.withUnsafeBytes { source in
            unsafe UnsafeMutableRawBufferPointer(start: base, count: count).copyMemory(from: source)
        }
    }
}

/// How an operation ends.
public enum SimulatedOutcome: Sendable, Equatable {
    /// As it should.
    case complete
    /// A transfer stops after at most this many bytes; anything else completes.
    case short(UInt64)
    /// A transfer finds the end of the file at once: 0. Anything else completes.
    case endOfFile
    /// Nothing is done.
    case fails(Errno)
}

/// The order in which operations are carried out.
public enum SimulatedOrder: Sendable {
    case oldestFirst
    case newestFirst
    /// As the storage's seed has it.
    case random
    /// None, until the test says so: `SimulatedStorage.carryOut(at:)`.
    case held
}
