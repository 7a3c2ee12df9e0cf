internal import Glibc
internal import Platform

/// O_PATH descriptors of nodes that were used lately. One loop's own: no other thread closes what it uses.
///
/// Sets of four; the one used longest ago makes room. What is pinned stays.
@safe struct DescriptorCache: ~Copyable, @unchecked Sendable {
    private struct Place {
        /// 0: empty.
        var node: UInt64 = 0
        var fd: Int32 = -1
        var pins: Int32 = 0
        var used: UInt32 = 0
    }

    private let places: UnsafeMutablePointer<Place>
    private let setCount: Int
    private var clock: UInt32 = 0
    private static var ways: Int { 4 }

    /// - Parameter capacity: descriptors that are held at most; at least 4.
    init(capacity: Int) {
        setCount = max(capacity / Self.ways, 1)
        unsafe places = .allocate(capacity: setCount * Self.ways)
        unsafe places.initialize(repeating: Place(), count: setCount * Self.ways)
    }

    deinit {
        for index in 0..<setCount * Self.ways where unsafe places[index].node != 0 {
            unsafe close(places[index].fd)
        }
        unsafe places.deallocate()
    }

    private func firstPlace(of node: UInt64) -> Int {
        let hash = (node ^ node >> 32) &* 0x9e37_79b9_7f4a_7c15
        // Shifts bind closer than products.
        return Int(truncatingIfNeeded: ((hash >> 32) &* UInt64(setCount)) >> 32) * Self.ways
    }

    /// The place of a node's descriptor, pinned; nil when there is none.
    mutating func pin(_ node: UInt64) -> Int32? {
        let first = firstPlace(of: node)
        for index in first..<first + Self.ways where unsafe places[index].node == node {
            clock &+= 1
            unsafe places[index].used = clock
            unsafe places[index].pins += 1
            return Int32(index)
        }
        return nil
    }

    /// Takes a descriptor in, pinned.
    ///
    /// - Returns: its place; nil when all places that it could have are pinned, and the descriptor stays the caller's.
    mutating func add(_ node: UInt64, _ fd: Int32) -> Int32? {
        let first = firstPlace(of: node)
        var oldest = -1
        for index in first..<first + Self.ways where unsafe places[index].pins == 0 {
            if unsafe places[index].node == 0 {
                oldest = index
                break
            }
            if oldest < 0 { oldest = index }
            if unsafe clock &- places[index].used > clock &- places[oldest].used { oldest = index }
        }
        guard oldest >= 0 else { return nil }
        if unsafe places[oldest].node != 0 { unsafe close(places[oldest].fd) }
        clock &+= 1
        unsafe places[oldest] = Place(node: node, fd: fd, pins: 1, used: clock)
        return Int32(oldest)
    }

    func fd(_ place: Int32) -> Int32 { unsafe places[Int(place)].fd }

    mutating func unpin(_ place: Int32) { unsafe places[Int(place)].pins -= 1 }

    /// Lets go of descriptors of nodes that are known no more.
    mutating func sweep(_ isKnown: (UInt64) -> Bool) {
        for index in 0..<setCount * Self.ways {
            guard unsafe places[index].node != 0, unsafe places[index].pins == 0,
                unsafe !isKnown(places[index].node)
            else { continue }
            unsafe close(places[index].fd)
            unsafe places[index] = Place()
        }
    }
}

/// A node's O_PATH descriptor in use.
struct HeldNode {
    var fd: Int32
    var source: Source

    enum Source {
        /// The session's: the root's.
        case session
        case cache(Int32)
        /// The table of files has it, in this slot.
        case table(UInt32)
        /// To be closed.
        case own
    }
}
