import CWire
import Testing

@testable import SimulationKit

/// What finds the points of death must itself overlook none.
@Suite(.enabled(if: StoreWatch.isSupported)) struct StoreWatchTests {
    private let memory: OutlivingMemory
    private let watch: StoreWatch

    init() throws {
        memory = try OutlivingMemory(guestBytes: 8192, queueSize: 8)
        watch = try StoreWatch(memory, capacity: 4096)
    }

    /// What lies at an offset after each point.
    private func history(_ offset: Int) -> [UInt64] {
        (0..<watch.count).map {
            watch.restore($0)
            return memory.load64(offset)
        }
    }

    @Test func `each store is seen, with what the memory held before it and after the last`() {
        watch.begin()
        unsafe wire_store64(memory.workerAddress(16, 8), 0x1122)
        unsafe wire_store16(memory.workerAddress(16, 2), 0x3344)
        unsafe wire_store8(memory.workerAddress(17, 1), 0x55)
        watch.end()
        #expect(watch.stores == 3)
        #expect((0..<watch.count).map { watch[$0].lastStore } == [nil, 16, 16, 17])
        #expect(history(16) == [0, 0x1122, 0x3344, 0x5544])
    }

    @Test func `a store that crosses from one page into the next is one store`() {
        watch.begin()
        unsafe wire_store64(memory.workerAddress(4092, 8), .max)
        watch.end()
        #expect(watch.stores == 1)
        #expect(history(4092) == [0, .max])
    }

    @Test func `a bulk copy is seen in its parts`() {
        let bytes = [UInt8](repeating: 0xab, count: 3000)
        watch.begin()
        unsafe bytes.withUnsafeBytes { source in
            unsafe memory.workerAddress(100, 3000).copyMemory(from: source.baseAddress!, byteCount: 3000)
        }
        watch.end()
        #expect(watch.stores > 1 && watch.count == watch.stores + 1)
        watch.restore(watch.count - 1)
        #expect((0..<3000).allSatisfy { memory.load8(100 + $0) == 0xab })
    }

    @Test func `what others do in a pause is no store, but another state of another world`() {
        watch.begin()
        unsafe wire_store8(memory.workerAddress(0, 1), 1)
        watch.pause()
        unsafe wire_store8(memory.workerAddress(0, 1), 2)
        watch.resume(world: 7)
        unsafe wire_store8(memory.workerAddress(0, 1), 3)
        watch.end()
        #expect(watch.stores == 2)
        #expect(history(0) == [0, 1, 2, 3])
        #expect((0..<watch.count).map { watch[$0].world } == [0, 0, 7, 7])
    }

    @Test func `the driver's stores are not the worker's`() {
        watch.begin()
        memory.store64(5, 0)
        watch.end()
        #expect(watch.stores == 0)
    }

    @Test func `points for which there is no room are counted`() throws {
        let small = try StoreWatch(memory, capacity: 2)
        small.begin()
        for value in 0..<4 as Range<UInt8> { unsafe wire_store8(memory.workerAddress(0, 1), value) }
        small.end()
        #expect(small.count == 2 && small.lost == 3 && small.stores == 4)
    }
}
