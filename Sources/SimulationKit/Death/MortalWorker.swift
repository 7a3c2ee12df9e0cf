internal import BlockTarget
internal import CWire
internal import Custody
internal import Inflight
internal import Platform
internal import Uring
internal import Virtio

/// The product, as far as it lives on a stage: what a worker's loop does with one queue, call by call. All that the
/// simulation of deaths knows of the product's interfaces is in this file.
struct MortalWorker<Ring: RequestRing & ~Copyable>: ~Copyable {
    private let stage: DeathStage
    private var queue: BlockQueue<Ring>
    private var backend: FileBackend<StageEngine>

    private static var disk: DiskDescription {
        DiskDescription(
            sectors: UInt64(ModelGuest.sectors), serial: ModelGuest.identity, supportsDiscard: true,
            supportsWriteZeroes: true)
    }

    /// What is agreed on.
    private static func features(_ scenario: DeathScenario) -> UInt64 {
        func bit(_ number: Int, _ isSet: Bool) -> UInt64 { isSet ? 1 << UInt64(number) : 0 }
        return disk.features & ~bit(WIRE_VIRTIO_RING_F_EVENT_IDX, !scenario.usesEventIndex)
            & ~bit(WIRE_VIRTIO_RING_F_INDIRECT_DESC, !scenario.usesIndirect)
    }

    /// Begins, with what the worker before has left.
    ///
    /// - Throws: when there is no memory, or the log is refused.
    init(_ stage: DeathStage) throws {
        let access = ImageAccess(file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile)
        var backend = try FileBackend(access, engine: StageEngine(stage: stage))
        _ = backend.takeUp()
        var plan = RecoveryPlan()
        let ring = try Self.makeRing(stage, &plan)
        var records = RequestRecords.none
        stage.generation += 1
        if stage.scenario.isInCustody {
            records = unsafe RequestRecords(
                at: stage.memory.records, size: stage.scenario.ringSize, generation: stage.generation)
        }
        var queue = try BlockQueue(
            index: 0, ring: ring, records: records, statistics: stage.memory.statistics,
            memory: stage.memory.guestMemory, disk: Self.disk, features: Self.features(stage.scenario),
            writesThrough: false, call: stage.call.fd.number)
        queue.interrupt()
        queue.disableKicks()
        let anew = queue.adopt(&plan, &backend)
        queue.start(anew, &backend)
        self.queue = queue
        self.backend = backend
        self.stage = stage
    }

    /// Takes up the ring as its log, the ring and the front-end say that it stands.
    private static func makeRing(_ stage: DeathStage, _ plan: inout RecoveryPlan) throws(InflightLogError) -> Ring {
        let (memory, ring) = (stage.memory, stage.surroundings.guest.ring)
        let areas = unsafe RingAreas(
            size: UInt16(ring.size), features: features(stage.scenario),
            descriptors: memory.workerAddress(ring.areas.descriptors, ring.size),
            driver: memory.workerAddress(ring.areas.driver, ring.size),
            device: memory.workerAddress(ring.areas.device, ring.size))
        return try Ring(areas, base: ring.base(memory), region: memory.region, queue: 0, plan: &plan)
    }

    /// Serves until there is nothing to do and nobody who would give it anything.
    ///
    /// - Throws: what the guest found, or that the worker runs away.
    mutating func serve() throws(DeathFinding) {
        for _ in 0..<1000 {
            let worked = turn()
            if let finding = stage.finding { throw finding }
            stage.guestActs()
            if worked { continue }
            let mustLook = queue.enableKicks()
            defer { queue.disableKicks() }
            if mustLook || stage.isStorageBusy || queue.hasStalled || stage.takeKick() { continue }
            // Asleep. Only the guest can wake it, and only an interrupt the guest.
            guard stage.guestActs(mustAct: true) else { return }
        }
        throw DeathFinding("the worker runs away")
    }

    private mutating func turn() -> Bool {
        var worked = queue.service(&backend) > 0
        if backend.queuedCount > 0 { backend.submit() }
        backend.runDeferredWork()
        while let completion = backend.nextCompletion() {
            worked = true
            queue.finish(token: RequestToken(rawValue: completion.token), result: completion.result, &backend)
        }
        if queue.resumeStalled(&backend) { worked = true }
        queue.publish()
        backend.releaseCompletions()
        return worked
    }

    /// What the next worker would still find to do.
    static func leftOver(_ stage: DeathStage) throws(InflightLogError) -> [UInt16] {
        var plan = RecoveryPlan()
        _ = try makeRing(stage, &plan)
        return plan.heads
    }

    /// A worker's whole life.
    ///
    /// - Throws: what it did wrong.
    static func live(on stage: DeathStage) throws {
        var worker = try Self(stage)
        try worker.serve()
    }
}

/// The kinds of virtqueue.
public enum VirtqueueKind: String, Sendable, CaseIterable {
    case split
    case packed
}

extension VirtqueueKind {
    /// The driver's side of a ring of this kind, near the wrap of all its indices.
    func makeDriverRing(_ scenario: DeathScenario, _ memory: OutlivingMemory) -> any DriverRing {
        let (size, usesEventIndex) = (scenario.ringSize, scenario.usesEventIndex)
        return switch self {
        case .split: SplitDriverRing(size: size, usesEventIndex: usesEventIndex, start: 65_534, memory)
        case .packed: PackedDriverRing(size: size, usesEventIndex: usesEventIndex, memory)
        }
    }

    /// Has a worker live on a stage.
    func live(on stage: DeathStage) throws {
        switch self {
        case .split: try MortalWorker<SplitRequestRing>.live(on: stage)
        case .packed: try MortalWorker<PackedRequestRing>.live(on: stage)
        }
    }

    /// What the next worker would still find to do.
    func leftOver(_ stage: DeathStage) throws -> [UInt16] {
        switch self {
        case .split: try MortalWorker<SplitRequestRing>.leftOver(stage)
        case .packed: try MortalWorker<PackedRequestRing>.leftOver(stage)
        }
    }
}
