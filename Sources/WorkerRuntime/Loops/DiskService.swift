internal import BlockTarget
internal import Custody
internal import Inflight
internal import Platform
internal import Telemetry
internal import Uring
internal import Virtio

/// A loop's part of a disk: its backend, and what the disk is.
struct DiskService<Backend: StorageBackend & ~Copyable & Sendable>: ~Copyable, LoopService {
    typealias SplitQueue = DiskQueue<SplitRequestRing, Backend>
    typealias PackedQueue = DiskQueue<PackedRequestRing, Backend>

    var backend: Backend
    var disk: DiskDescription
    fileprivate let readySlots: ReadySlots<BlockSlots>

    init(_ backend: consuming Backend, _ disk: DiskDescription) {
        self.backend = backend
        self.disk = disk
        readySlots = ReadySlots(
            queues: disk.queueCount, make: { count throws(Errno) in try BlockSlots(count: count) }, count: { $0.count })
    }

    var queueCount: Int { disk.queueCount }
    static var startMayWait: Bool { false }
    mutating func prepare(queue: Int, size: Int) { readySlots.prepare(size, queue: queue) }
    mutating func takeUp() -> Int { backend.takeUp() }
    var queuedCount: Int { backend.queuedCount }
    mutating func submit() { backend.submit() }
    mutating func runDeferredWork() { backend.runDeferredWork() }
    mutating func nextCompletion() -> IOCompletion? { backend.nextCompletion() }
    mutating func settle() {}
    mutating func releaseCompletions() { backend.releaseCompletions() }
    var pollDescriptors: [Int32] { backend.pollDescriptors }
    var faults: StorageFaults { backend.faults }

    mutating func apply(_ change: DeviceChange) {
        if case .capacity(let sectors) = change { disk.sectors = sectors }
    }
}

/// A disk's queue, as a loop serves it.
struct DiskQueue<Ring: RequestRing & ~Copyable, Backend: StorageBackend & ~Copyable & Sendable>: ~Copyable, ServedQueue
{
    private var queue: BlockQueue<Ring>

    init(
        _ attachment: QueueAttachment, areas: RingAreas, records: consuming RequestRecords,
        account: consuming QueueAccount, plan: inout RecoveryPlan, _ service: borrowing DiskService<Backend>
    ) throws {
        let ring = try Ring(
            areas, base: attachment.base, region: attachment.inflight, queue: attachment.index, plan: &plan)
        queue = try BlockQueue(
            index: attachment.index, ring: ring, records: records, account: account,
            statistics: attachment.statistics, memory: attachment.memory, disk: service.disk,
            features: attachment.features, writesThrough: attachment.writesThrough,
            call: attachment.signals.call?.number ?? -1,
            slots: service.readySlots.take(Int(attachment.size), queue: attachment.index))
    }

    static var breakage: Breakage { .ring }

    var index: Int { queue.index }
    var base: UInt32 { queue.base }
    var counts: QueueCounts { queue.counts }
    var isBroken: Bool { queue.isBroken }
    var outstanding: Int { queue.outstanding }
    var isIdleButForStalled: Bool { queue.isIdleButForStalled }
    var hasStalled: Bool { queue.hasStalled }
    var hasWaiting: Bool { queue.hasWaiting }
    var adoptedCount: Int { queue.adoptedCount }

    mutating func service(_ service: inout DiskService<Backend>) -> Int { queue.service(&service.backend) }

    mutating func finish(_ completion: IOCompletion, _ service: inout DiskService<Backend>) {
        queue.finish(
            token: RequestToken(rawValue: completion.token), result: completion.result, &service.backend)
    }

    mutating func resumeStalled(_ service: inout DiskService<Backend>) -> Bool {
        queue.resumeStalled(&service.backend)
    }

    mutating func publish() { queue.publish() }
    mutating func enableKicks() -> Bool { queue.enableKicks() }
    mutating func disableKicks() { queue.disableKicks() }
    mutating func takeDeadline() -> (time: UInt64, isAtLimit: Bool)? { queue.takeDeadline() }
    mutating func endHolding(_ isLeaving: Bool) { queue.endHolding(isLeaving) }

    mutating func adopt(
        _ plan: inout RecoveryPlan, suspect: Suspect?, _ service: inout DiskService<Backend>
    ) -> [UInt16] {
        queue.adopt(&plan, suspect: suspect, &service.backend)
    }

    mutating func start(_ heads: [UInt16], _ service: inout DiskService<Backend>) {
        queue.start(heads, &service.backend)
    }

    mutating func setMarks(_ marks: WriteMarks) { queue.setMarks(marks) }
    mutating func setCall(_ number: Int32) { queue.setCall(number) }
    func interrupt() { queue.interrupt() }

    mutating func apply(_ change: DeviceChange) {
        switch change {
        case .capacity(let sectors): queue.setCapacity(sectors)
        case .writesThrough(let value): queue.setWritesThrough(value)
        }
    }
}
