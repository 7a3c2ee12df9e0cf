internal import ControlAPI
internal import FrontendKit
internal import Glibc
internal import Platform
internal import Synchronization
internal import TestSupport
internal import Virtio

/// One disk under a verifying load, whose workers are killed and replaced; the front-end connects once.
public struct ChaosTrial {
    let options: ChaosOptions

    public init(_ options: ChaosOptions) {
        self.options = options
    }

    /// Carries it out.
    ///
    /// - Throws: what kept it from being carried out; what it found is in the report.
    public func run() throws -> ChaosReport {
        var disk = try SupervisedDevice(options)
        do {
            let report = try run(&disk)
            disk.end()
            return report
        } catch {
            let words = ((try? disk.log()) ?? "").split(separator: "\n").suffix(10).joined(separator: "\n")
            disk.end()
            throw SystemError(cannot: "go on", "", nil, advice: "\(error). Supervisor and workers said last:\n\(words)")
        }
    }

    private func run(_ disk: inout SupervisedDevice) throws -> ChaosReport {
        let behaviour = (options.isPacked ? RingKind.packed : .split).behaviour
        try disk.waitForSocket()
        var rig = try Rig(
            connectingTo: disk.socketPath, behaviour: behaviour, queueCount: options.queueCount,
            memorySize: max(options.memoryGiB << 30, 64 << 20))
        touch(rig.memory)
        let cpu = options.separatesCPUs ? onlineCPUCount() - 1 : nil
        let load = RunningLoad(try makeLoad(&rig), cpu: cpu)
        let flushes = options.isThrottled ? RunningLoad(try makeFlushingLoad(&rig), cpu: cpu) : nil
        let thread = try JoinableThread(name: "load") { load.run() }
        let flushing = try JoinableThread(name: "flushes") { flushes?.run() }
        let watch = StandstillWatch()
        let supervisor = disk.supervisorProcess
        let watching = try JoinableThread(name: "watch") { watch.run(supervisor) }
        var report = ChaosReport()
        let outcome = Result { try observe(&disk, rig, load, watch, &report) }
        load.monitor.requestStop()
        flushes?.monitor.requestStop()
        thread.join()
        flushing.join()
        watch.end()
        watching.join()
        for seen in watch.reports { report.note(seen) }
        load.add(to: &report)
        flushes?.add(to: &report)
        try outcome.get()
        check(&disk, rig, &report)
        report.recovered = WorkerWords.takeOvers(in: try disk.log())
        if !report.isClean { report.note(lastWordsOf: try disk.log()) }
        return report
    }

    /// As a guest that has used all of its memory.
    private func touch(_ memory: FrontendKit.GuestMemory) {
        guard options.memoryGiB > 0 else { return }
        for region in memory.regions {
            let description = region.description
            memory.fill(0, count: Int(description.size), at: description.guestAddress)
        }
    }

    /// What all queues do; on a throttled disk, all but the last: they read then.
    private func makeLoad(_ rig: inout Rig) throws -> VerifiedLoad {
        var load = loadOptions(sectors: 0..<Self.sectors)
        load.depth = Self.depth
        if options.isThrottled { load.weights = [1, 0, 0, 0, 0] }
        // A loop device carries out all else one after the other.
        if options.latencyMilliseconds > 0 { load.weights = [1, 1, 0, 0, 0] }
        return try makeLoad(load, options.isThrottled ? Array(rig.endpoints.dropLast()) : rig.endpoints, &rig)
    }

    /// Always has a FLUSH under way that waits for writes.
    private func makeFlushingLoad(_ rig: inout Rig) throws -> VerifiedLoad {
        var load = loadOptions(sectors: Self.sectors..<2 * Self.sectors)
        load.depth = 8
        load.weights = [0, 1, 1, 0, 0]
        // Reading it all would go through, but what is in flight at the end is slow enough.
        load.sweepsAtEnd = false
        // It waits for the disk nearly always: the CPU is for the load that is measured, and for the workers.
        load.usesInterrupts = true
        load.stallLimit = 120_000
        return try makeLoad(load, Array(rig.endpoints.suffix(1)), &rig)
    }

    /// Requests under way on each queue.
    static let depth = 32

    /// Half of the disk: the other half is for a load that flushes.
    private static let sectors = UInt64(SupervisedDevice.size / 512 / 2)

    private func loadOptions(sectors: Range<UInt64>) -> VerifiedLoad.Options {
        var load = VerifiedLoad.Options(seed: options.seed, sectors: sectors)
        load.overlapping = true
        load.requestLimit = nil
        load.usesInterrupts = options.usesInterrupts
        return load
    }

    private func makeLoad(
        _ load: VerifiedLoad.Options, _ endpoints: [QueueEndpoint], _ rig: inout Rig
    ) throws -> VerifiedLoad {
        var load = load
        load.adapt(to: try rig.frontend.readBlockConfiguration(), features: rig.frontend.features)
        return VerifiedLoad(
            endpoints, usesEventIndex: rig.frontend.usesEventIndex, options: load, in: &rig.allocator)
    }

    /// Whether the front-end is still where it was.
    private func check(_ disk: inout SupervisedDevice, _ rig: borrowing Rig, _ report: inout ChaosReport) {
        do {
            _ = try rig.frontend.readBlockConfiguration()
            let status = try disk.status()
            if status.connections != 1 { report.fail("the front-end was connected \(status.connections) times") }
            if let problem = status.problem { report.fail("the supervisor has a problem: \(problem)") }
        } catch {
            report.fail("the front-end's connection is gone: \(error)")
        }
    }
}

extension ChaosReport {
    fileprivate mutating func note(lastWordsOf log: String) {
        let lines = log.split(separator: "\n").filter { $0.contains("[error]") || $0.contains("[warning]") }
        for line in lines.suffix(8) { note(String(line)) }
    }
}

/// A verifying load for a thread of its own.
final class RunningLoad: Sendable {
    let monitor = LoadMonitor()
    private let load: VerifiedLoad
    private let cpu: Int?
    private let result = Mutex<Result<LoadReport, LoadError>?>(nil)

    /// - Parameter cpu: the only one that it runs on; nil: any.
    init(_ load: VerifiedLoad, cpu: Int?) {
        self.load = load
        self.cpu = cpu
    }

    func run() {
        if let cpu { try? pinCurrentThread(toCPU: cpu) }
        do throws(LoadError) {
            let report = try load.run(monitor: monitor)
            result.withLock { $0 = .success(report) }
        } catch {
            result.withLock { $0 = .failure(error) }
        }
    }

    var hasEnded: Bool { result.withLock { $0 != nil } }

    /// Adds what it has found; to be called when its thread has ended.
    func add(to report: inout ChaosReport) {
        switch result.withLock({ $0 }) {
        case .success(let load): report.take(load)
        case .failure(let error): report.take(error)
        case nil: preconditionFailure("it has ended without a result")
        }
    }
}
