import FrontendKit
import TestSupport
import Testing

/// The load against a disk in memory that is wrong in one way: each must be found out, and a right one not accused.
@Suite struct VerifiedLoadTests {
    static func options() -> VerifiedLoad.Options {
        var options = VerifiedLoad.Options(seed: makeSeed(), sectors: 0..<64)
        options.weights = [50, 50, 2, 0, 0]
        options.maximumBlocks = 4
        options.requestLimit = 3_000
        return options
    }

    /// Runs a load on one queue whose other side is a disk in memory.
    static func run(_ fault: MemoryDisk.Fault, _ options: VerifiedLoad.Options) throws -> LoadReport {
        let memory = try GuestMemory(size: 8 << 20)
        var allocator = GuestAllocator(memory.regions[0])
        let endpoint = try QueueEndpoint(memory: memory, ring: SplitRing(size: 128, in: &allocator))
        let load = VerifiedLoad([endpoint], usesEventIndex: false, options: options, in: &allocator)
        var report: LoadReport?
        try MemoryDisk.serving(endpoint, sectorCount: 64, fault: fault) { report = try load.run() }
        return try #require(report)
    }

    @Test(arguments: [true, false], [true, false])
    func aRightDiskIsNotAccused(overlapping: Bool, usesInterrupts: Bool) throws {
        var options = Self.options()
        options.overlapping = overlapping
        options.usesInterrupts = usesInterrupts
        let report = try Self.run(.none, options)
        #expect(report.isClean, "\(report)")
        #expect(report[.read].latency.count == UInt64(report[.read].requests))
        #expect(report.longestPause > 0)
    }

    @Test func lostWritesAreFound() throws {
        let report = try Self.run(.losesWrites(every: 20), Self.options())
        #expect(report.mismatches(.lost) > 0, "\(report)")
    }

    @Test func aRepeatedWriteIsFound() throws {
        let report = try Self.run(.repeatsWrite(after: 2_500), Self.options())
        #expect(report.mismatches(.stale) + report.mismatches(.lost) > 0, "\(report)")
    }

    @Test func aBufferThatIsNotFilledIsFound() throws {
        let report = try Self.run(.readsShort, Self.options())
        #expect(report.mismatches(.notRead) > 0, "\(report)")
    }

    @Test func aByteTooManyIsFound() throws {
        #expect {
            try Self.run(.writesTooMuch, Self.options())
        } throws: { error in
            if case LoadError.violation(.wroteOutside, queue: 0) = error { true } else { false }
        }
    }

    @Test func missingInterruptsAreCounted() throws {
        var options = Self.options()
        options.requestLimit = 16
        options.sweepsAtEnd = false
        let report = try Self.run(.neverInterrupts, options)
        #expect(report.missedInterrupts > 0, "\(report)")
        #expect(report.requests == 16)
    }

    @Test func silenceEndsTheLoad() throws {
        var options = Self.options()
        options.stallLimit = 300
        #expect {
            try Self.run(.fallsSilent(after: 100), options)
        } throws: { error in
            if case LoadError.stalled(let outstanding, milliseconds: 300) = error { outstanding > 0 } else { false }
        }
    }

    @Test func theSameSeedPlansTheSameRequests() throws {
        var options = Self.options()
        options.depth = 1
        let reports = try (0..<2).map { _ in try Self.run(.none, options) }
        for operation in LoadOperation.allCases {
            #expect(reports[0][operation].requests == reports[1][operation].requests)
        }
    }
}
