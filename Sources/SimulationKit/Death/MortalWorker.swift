internal import BlockTarget
internal import CWire
internal import Inflight
internal import Platform
internal import Uring
internal import Virtio

/// The product, as far as it lives on a stage: what a worker's loop does with one queue, call by call. All that the
/// simulation of deaths knows of the product's interfaces is in this file.
struct MortalWorker: ~Copyable {
    private let stage: DeathStage
    private var queue: BlockQueue
    private var backend: FileBackend<StageEngine>

    private static var disk: DiskDescription {
        DiskDescription(
            sectors: UInt64(ModelGuest.sectors), serial: ModelGuest.identity, supportsDiscard: true,
            supportsWriteZeroes: true)
    }

    private static func features(_ scenario: DeathScenario) -> UInt64 {
        func bit(_ number: Int, _ isSet: Bool) -> UInt64 { isSet ? 1 << UInt64(number) : 0 }
        return disk.features & ~bit(WIRE_VIRTIO_RING_F_EVENT_IDX, !scenario.usesEventIndex)
            & ~bit(WIRE_VIRTIO_RING_F_INDIRECT_DESC, !scenario.usesIndirect)
    }

    /// Begins, with what the worker before has left.
    ///
    /// - Throws: when there is no memory, or the log is refused.
    init(_ stage: DeathStage) throws {
        let scenario = stage.scenario
        let features = Self.features(scenario)
        let memory = stage.memory
        let ring = stage.surroundings.guest.ring
        let access = ImageAccess(file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile)
        var backend = try FileBackend(access, engine: StageEngine(stage: stage))
        var log = try SplitInflightLog(memory.region, queue: 0, size: ring.size)
        let used = unsafe memory.workerAddress(ring.areas.device, ring.size)
        let usedIndex = unsafe SplitVirtqueue.usedIndex(at: used)
        let plan = try log.recover(usedIndex: usedIndex)
        let base = UInt16(truncatingIfNeeded: ring.base(memory))
        let virtqueue = unsafe SplitVirtqueue(
            size: UInt16(ring.size), features: features,
            descriptors: memory.workerAddress(ring.areas.descriptors, ring.size),
            available: memory.workerAddress(ring.areas.driver, ring.size), used: used,
            nextAvailable: plan.isFresh ? base : usedIndex &+ UInt16(plan.heads.count))
        var queue = try BlockQueue(
            index: 0, ring: virtqueue, log: log, memory: memory.guestMemory, disk: Self.disk, features: features,
            writesThrough: false, call: stage.call.fd.number)
        queue.interrupt()
        queue.disableKicks()
        queue.resubmit(plan.heads, &backend)
        self.queue = queue
        self.backend = backend
        self.stage = stage
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
        return worked
    }

    /// What the next worker would still find to do.
    static func leftOver(_ stage: DeathStage) throws -> [UInt16] {
        let ring = stage.surroundings.guest.ring
        var log = try SplitInflightLog(stage.memory.region, queue: 0, size: ring.size)
        return try log.recover(usedIndex: stage.memory.load16(ring.areas.device + 2)).heads
    }
}

/// The other side of the ring.
func makeDriverRing(_ scenario: DeathScenario, start: UInt16, _ memory: OutlivingMemory) -> any DriverRing {
    switch scenario.ring {
    case .split:
        SplitDriverRing(size: scenario.ringSize, usesEventIndex: scenario.usesEventIndex, start: start, memory)
    }
}
