internal import Glibc
public import Platform
public import Uring

/// Answers every request at once and keeps nothing: measures everything but storage.
public struct NullBackend: ~Copyable, StorageBackend, Sendable {
    public init() {}

    @inlinable
    public mutating func start(_ slot: inout RequestSlot) -> BackendStep { .done(.ok) }
    public mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep { .done(.ioError) }
    @inlinable public mutating func submit() {}
    @inlinable public mutating func nextCompletion() -> IOCompletion? { nil }
    @inlinable public mutating func runDeferredWork() {}
    @inlinable public var queuedCount: Int { 0 }
    public var pollDescriptors: [Int32] { [] }
    public var faults: StorageFaults { StorageFaults() }
}

/// The contents of a `memory` disk, shared by all loops of a worker. They are gone when the worker is.
public final class MemoryDisk: Sendable {
    let mapping: Mapping

    /// - Parameter bytes: capacity; pages cost nothing until they are written.
    /// - Throws: a sentence when there is not that much address space.
    public init(bytes: Int) throws(SystemError) {
        do throws(Errno) {
            mapping = try Mapping(anonymous: bytes)
        } catch {
            throw SystemError(cannot: "set aside", "\(bytes) bytes for the memory disk", error)
        }
    }
}

/// Keeps the disk in memory and answers every request at once.
public struct MemoryBackend: ~Copyable, StorageBackend, Sendable {
    private let disk: MemoryDisk

    public init(_ disk: MemoryDisk) {
        self.disk = disk
    }

    public mutating func start(_ slot: inout RequestSlot) -> BackendStep {
        switch slot.operation {
        case .read, .write:
            transfer(&slot)
        case .discard, .writeZeroes, .writeZeroesUnmapping:
            for index in 0..<slot.rangeCount {
                let range = unsafe slot.ranges[index]
                unsafe zero(checked(range.offset, range.length), Int(range.length))
            }
        case .flush, .identify:
            break
        }
        return .done(.ok)
    }

    private func transfer(_ slot: inout RequestSlot) {
        for index in 0..<slot.vectorCount {
            let vector = unsafe slot.vectors[index]
            let here = unsafe checked(slot.offset, UInt64(vector.iov_len))
            if slot.operation == .read {
                unsafe vector.iov_base.copyMemory(from: here, byteCount: vector.iov_len)
            } else {
                unsafe here.copyMemory(from: vector.iov_base, byteCount: vector.iov_len)
            }
            unsafe slot.offset += UInt64(vector.iov_len)
        }
        slot.remaining = 0
    }

    /// Gives whole pages back to the kernel, which reads them as zero; writes zeroes to the rest.
    private func zero(_ start: UnsafeMutableRawPointer, _ count: Int) {
        let page = 4096
        let first = unsafe start.alignedUp(toMultipleOf: page)
        let whole = unsafe (count - min(count, first - start)) / page * page
        if whole == 0 {
            unsafe memset(start, 0, count)
            return
        }
        unsafe memset(start, 0, first - start)
        if unsafe madvise(first, whole, MADV_DONTNEED) != 0 { unsafe memset(first, 0, whole) }
        let tail = unsafe first + whole
        unsafe memset(tail, 0, start + count - tail)
    }

    private func checked(_ offset: UInt64, _ length: UInt64) -> UnsafeMutableRawPointer {
        precondition(offset <= UInt64(disk.mapping.count) && length <= UInt64(disk.mapping.count) - offset)
        return unsafe disk.mapping.base + Int(offset)
    }

    public mutating func finish(_ slot: inout RequestSlot, result: Int32) -> BackendStep { .done(.ioError) }
    public mutating func submit() {}
    public mutating func nextCompletion() -> IOCompletion? { nil }
    public mutating func runDeferredWork() {}
    public var queuedCount: Int { 0 }
    public var pollDescriptors: [Int32] { [] }
    public var faults: StorageFaults { StorageFaults() }
}
