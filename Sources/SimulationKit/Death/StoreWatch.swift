internal import CStoreWatch
internal import Platform

/// The stores that a worker makes to memory which outlives it: what that memory held before each of them.
///
/// Between `begin` and `end` each store of this thread to a file's mappings is seen, whoever compiled it. See
/// `CStoreWatch.h` for how.
@safe public final class StoreWatch {
    /// A state in which death could have left the memory.
    struct Point: Sendable {
        /// Stores seen before it.
        var stores: Int
        /// Where in the file the last of them went, in bytes; nil when there was none.
        var lastStore: Int?
        /// The number given to `resume`.
        var world: Int
    }

    /// Whether this processor lets a program step through itself. Where not, there is nothing to watch with.
    public static var isSupported: Bool { store_watch_is_supported() != 0 }

    private let memory: OutlivingMemory
    private let watch: OpaquePointer

    /// Watches all mappings of the memory that there are now, but the driver's.
    ///
    /// - Parameter capacity: how many points are kept.
    /// - Throws: `noMemory`; `notSupported` when the mappings are not found.
    init(_ memory: OutlivingMemory, capacity: Int) throws(Errno) {
        guard let watch = unsafe store_watch_create(memory.base, memory.count, capacity) else { throw .noMemory }
        unsafe self.watch = watch
        self.memory = memory
        guard unsafe store_watch_find_mappings(watch, memory.file.number) > 0 else { throw .notSupported }
    }

    deinit { unsafe store_watch_destroy(watch) }

    /// Watches this thread from now on. It must not be watched already.
    func begin() { unsafe store_watch_begin(watch) }
    func end() { unsafe store_watch_end(watch) }

    /// Lets this thread store unseen: it plays somebody else.
    func pause() { unsafe store_watch_pause(watch) }
    /// - Parameter world: what the points from here on belong to.
    func resume(world: Int) { unsafe store_watch_resume(watch, UInt32(world)) }

    /// Stores seen.
    var stores: Int { unsafe store_watch_stores(watch) }
    /// Points kept.
    var count: Int { unsafe min(store_watch_due(watch), store_watch_capacity(watch)) }
    /// Points for which there was no room.
    var lost: Int { unsafe store_watch_due(watch) - count }

    subscript(index: Int) -> Point {
        precondition(index >= 0 && index < count)
        let point = unsafe store_watch_point_at(watch, index)
        return Point(
            stores: Int(point.stores), lastStore: point.last_store == .max ? nil : Int(point.last_store),
            world: Int(point.world))
    }

    /// Takes the memory back to a point.
    func restore(_ index: Int) {
        precondition(index >= 0 && index < count)
        unsafe memory.base.copyMemory(from: store_watch_snapshot(watch, index), byteCount: memory.count)
    }
}
