import Glibc
import Testing

@testable import FileTarget

/// The descriptors of nodes that were used lately.
@Suite("A share: descriptors at hand") struct DescriptorCacheTests {
    /// A descriptor, the cache's from then on.
    private func descriptor() -> Int32 { unsafe open("/", O_RDONLY | O_CLOEXEC) }

    @Test func `half as many nodes as there is room for nearly all stay, whatever their numbers`() {
        for generation: UInt64 in [0, 1, 77] {
            var cache = DescriptorCache(capacity: 1024)
            let nodes = (1...512).map { UInt64($0) | generation << 32 }
            for node in nodes {
                guard let place = cache.add(node, descriptor()) else { continue }
                cache.unpin(place)
            }
            var found = 0
            for node in nodes {
                guard let place = cache.pin(node) else { continue }
                found += 1
                cache.unpin(place)
            }
            #expect(found > 480)
        }
    }

    @Test func `what is in use makes no room`() {
        var cache = DescriptorCache(capacity: 4)
        var places: [Int32] = []
        for node: UInt64 in 1...4 {
            if let place = cache.add(node, descriptor()) { places.append(place) }
        }
        #expect(places.count == 4)
        let fifth = descriptor()
        let refused = cache.add(5, fifth)
        #expect(refused == nil)
        cache.unpin(places[0])
        let taken = cache.add(5, fifth)
        #expect(taken == places[0])
        let gone = cache.pin(1)
        #expect(gone == nil)
    }
}
