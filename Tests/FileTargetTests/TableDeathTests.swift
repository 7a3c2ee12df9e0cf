import CStoreWatch
import Platform
import SimulationKit
import Testing

@testable import FileTarget

/// The node table after every store that a worker makes to it.
@Suite("A share: death at every store of the node table", .enabled(if: StoreWatch.isSupported))
struct TableDeathTests {
    private static let nodes = 24
    private static let files = 4

    private static func identity(_ number: UInt64) -> NodeIdentity {
        var identity = NodeIdentity()
        (identity.handleCount, identity.handleType, identity.type) = (8, 1, 8)
        (identity.inode, identity.device) = (number, 7)
        identity.handle[0] = number
        return identity
    }

    /// Which numbers are known, and how often.
    private typealias Model = [UInt64: UInt64]

    private static func read(_ table: NodeTable) -> Model {
        var found = Model()
        for number in 0..<UInt64(40) {
            if let slot = table.find(identity(number)) { found[number] = table.lookups(of: slot) }
        }
        return found
    }

    @Test func `nodes are spread over the buckets`() throws {
        let count = ShareMemory.byteCount(nodes: 1000, files: Self.files)
        let file = try makeMemoryFile(name: "share", count: count)
        let memory = try ShareMemory(making: file, nodes: 1000, files: Self.files)
        for number in 0..<900 { #expect(memory.nodes.insert(Self.identity(UInt64(number))) != nil) }
        // Balls that are thrown at random leave 41 % of so many buckets empty.
        let known = (0..<1000).map { Self.identity($0) }.filter { memory.nodes.find($0) != nil }
        let used = Set(known.map { memory.nodes.bucketIndex(of: $0.hash) })
        #expect(known.count == 900 && (350..<460).contains(1000 - used.count))
    }

    @Test("leaves what was before, or what is after", arguments: [1, 2, 3] as [UInt64])
    func death(seed: UInt64) throws {
        let count = ShareMemory.byteCount(nodes: Self.nodes, files: Self.files)
        let file = try makeMemoryFile(name: "share", count: count)
        let memory = try ShareMemory(making: file, nodes: Self.nodes, files: Self.files)
        let table = memory.nodes
        // Seen through a mapping of its own, which is not watched.
        let view = try Mapping(sharing: file, count: count)
        let base = unsafe view.base
        let watch = unsafe try #require(unsafe store_watch_create(base, count, 1 << 14))
        defer { unsafe store_watch_destroy(watch) }
        #expect(unsafe store_watch_find_mappings(watch, file.number) > 0)
        var random = SeededRandom(seed: seed)
        var states: [Model] = [[:]]
        var steps: [(number: UInt64, isForget: Bool)] = []
        for _ in 0..<120 {
            steps.append((UInt64(random.below(18)), random.below(5) < 2))
        }
        unsafe store_watch_begin(watch)
        unsafe store_watch_pause(watch)
        for (index, step) in steps.enumerated() {
            let slot = table.find(Self.identity(step.number))
            unsafe store_watch_resume(watch, UInt32(index))
            if let slot {
                if step.isForget { _ = table.forget(slot, 1) } else { table.addLookup(slot) }
            } else if !step.isForget {
                _ = table.insert(Self.identity(step.number))
            }
            unsafe store_watch_pause(watch)
            states.append(Self.read(table))
        }
        unsafe store_watch_end(watch)
        let points = unsafe store_watch_due(watch)
        #expect(points > 500 && points <= 1 << 14)
        for index in 0..<points {
            let point = unsafe store_watch_point_at(watch, index)
            unsafe base.copyMemory(from: store_watch_snapshot(watch, index), byteCount: count)
            // Once more, as if the repair had died, too: it may be repeated.
            _ = table.repair()
            _ = table.repair()
            let world = Int(point.world)
            let found = Self.read(table)
            #expect(found == states[world] || found == states[world + 1], "point \(index)")
            #expect(table.count == found.count, "point \(index)")
            // Nothing was lost: exactly the rest of the slots can be used.
            var room = 0
            while table.insert(Self.identity(UInt64(1000 + room))) != nil { room += 1 }
            #expect(room == Self.nodes - 2 - found.count, "point \(index)")
        }
    }
}
