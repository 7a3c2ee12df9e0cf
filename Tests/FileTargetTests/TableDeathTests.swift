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

    /// Which numbers are known, and how often; what effects say of that.
    private struct Model: Equatable {
        var nodes: [UInt64: UInt64] = [:]
        var words = [UInt64](repeating: 0, count: slots)
        var lists = [[UInt64]](repeating: [], count: slots)
    }

    private static let slots = 4

    private static func read(_ table: NodeTable) -> Model {
        var found = Model()
        for number in 0..<UInt64(40) {
            if let slot = table.find(identity(number)) { found.nodes[number] = table.lookups(of: slot) }
        }
        for place in 1...UInt32(slots) {
            let word = table.effects.word(place)
            found.words[Int(place) - 1] = word
            if word < 1 << 32 { found.lists[Int(place) - 1] = (0..<Int(word)).map { table.effects.node(place, $0) } }
        }
        return found
    }

    /// Something that a request does, and what its effect is to say of it.
    private struct Step {
        var number: UInt64
        var isForget: Bool
        var effect: EffectUse
        var word: UInt64 = 0
    }

    @Test func `nodes are spread over the buckets`() throws {
        let count = ShareMemory.Size(nodes: 1000, files: Self.files).byteCount
        let file = try makeMemoryFile(name: "share", count: count)
        let memory = try ShareMemory(making: file, ShareMemory.Size(nodes: 1000, files: Self.files))
        for number in 0..<900 { #expect(memory.nodes.insert(Self.identity(UInt64(number))) != nil) }
        // Balls that are thrown at random leave 41 % of so many buckets empty.
        let known = (0..<1000).map { Self.identity($0) }.filter { memory.nodes.find($0) != nil }
        let used = Set(known.map { memory.nodes.bucketIndex(of: $0.hash) })
        #expect(known.count == 900 && (350..<460).contains(1000 - used.count))
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func `leaves what was before, or what is after`(seed: UInt64) throws {
        let size = ShareMemory.Size(nodes: Self.nodes, files: Self.files, queues: 1, slots: Self.slots)
        let count = size.byteCount
        let file = try makeMemoryFile(name: "share", count: count)
        let memory = try ShareMemory(making: file, size)
        let table = memory.nodes
        // Seen through a mapping of its own, which is not watched.
        let view = try Mapping(sharing: file, count: count)
        let base = unsafe view.base
        let watch = unsafe try #require(unsafe store_watch_create(base, count, 1 << 14))
        defer { unsafe store_watch_destroy(watch) }
        #expect(unsafe store_watch_find_mappings(watch, file.number) > 0)
        var random = SeededRandom(seed: seed)
        var states: [(before: Model, after: Model)] = []
        var steps: [Step] = []
        for _ in 0..<120 {
            var step = Step(number: UInt64(random.below(18)), isForget: random.below(5) < 2, effect: .none)
            // One place is of requests that have one node, one of those that have a list, one of those that forget.
            if step.isForget {
                step.effect.place = UInt32(random.below(2)) * 3
            } else {
                step.effect.place = UInt32(random.below(3))
            }
            step.word = UInt64(random.below(3))
            steps.append(step)
        }
        var listed: UInt32 = 0
        unsafe store_watch_begin(watch)
        unsafe store_watch_pause(watch)
        for (index, step) in steps.enumerated() {
            let slot = table.find(Self.identity(step.number))
            var effect = step.effect
            if effect.place == 2 {
                listed = listed % 6 + 1
                // As the next request does that has this place.
                if listed == 1 { table.effects.setWord(effect.place, 0) }
                effect.entry = listed
            }
            let before = Self.read(table)
            unsafe store_watch_resume(watch, UInt32(index))
            if let slot {
                if step.isForget {
                    _ = table.forget(slot, 1, effect, says: step.word)
                } else {
                    table.addLookup(slot, effect)
                }
            } else if !step.isForget {
                _ = table.insert(Self.identity(step.number), effect)
            }
            unsafe store_watch_pause(watch)
            states.append((before, Self.read(table)))
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
            #expect(found == states[world].before || found == states[world].after, "point \(index)")
            #expect(table.count == found.nodes.count, "point \(index)")
            // Nothing was lost: exactly the rest of the slots can be used.
            var room = 0
            while table.insert(Self.identity(UInt64(1000 + room))) != nil { room += 1 }
            #expect(room == Self.nodes - 2 - found.nodes.count, "point \(index)")
        }
    }
}
