internal import BlockTarget
internal import Platform
internal import Uring

/// What goes on around a worker: the guest, and what it and the kernel do next.
struct Surroundings {
    var guest: ModelGuest
    var random: SeededRandom
    /// The guest has been interrupted and has not looked.
    var isInterrupted = false
    /// The worker has been kicked and has not looked.
    var isKicked = false
    /// How often the disk has been made durable.
    var synchronized = 0

    /// The guest looks, if it was interrupted, and sends requests, if it has any.
    mutating func act(_ memory: OutlivingMemory) throws(DeathFinding) {
        if isInterrupted {
            isInterrupted = false
            try guest.look(synchronized: synchronized, memory)
        }
        if guest.canIssue {
            try guest.issue(&random, synchronized: synchronized, memory)
            if guest.ring.wantsKick(memory) { isKicked = true }
        }
    }
}

/// All that outlives a worker, but for the memory.
struct World {
    var surroundings: Surroundings
    var storage: SimulatedStorage.Remains
}

/// Where a worker lives and dies: memory, storage and guest, and the moments at which they act.
///
/// They act within the worker's calls on the I/O seam and between its turns. Each act leads to another `World`; a
/// watch, where there is one, learns which snapshots of the memory belong to which.
final class DeathStage {
    let scenario: DeathScenario
    let memory: OutlivingMemory
    let storage: SimulatedStorage
    let call: EventFD
    private(set) var surroundings: Surroundings
    private(set) var worlds: [World] = []
    private var watch: StoreWatch?
    /// Workers that have lived here.
    var generation: UInt64 = 0
    /// The first thing that was wrong.
    private(set) var finding: DeathFinding?

    init(_ scenario: DeathScenario) throws(Errno) {
        self.scenario = scenario
        memory = try OutlivingMemory(
            guestBytes: ModelGuest.memoryBytes, queueSize: scenario.ringSize,
            keepsStatistics: scenario.keepsStatistics)
        storage = SimulatedStorage(bytes: ModelGuest.blankDisk(), seed: scenario.seed)
        storage.order = .held
        storage.queueDepth = scenario.queueDepth
        storage.isInCustody = scenario.isInCustody
        storage.outcome = { operation, random in
            switch random.below(12) {
            case 0 where operation.isTransfer: .short(UInt64(512 * (1 + random.below(ModelGuest.mostSectors))))
            case 1: .fails(.wouldBlock)
            default: .complete
            }
        }
        call = try EventFD()
        let ring = scenario.ring.makeDriverRing(scenario, memory)
        surroundings = Surroundings(
            guest: ModelGuest(scenario, ring, memory), random: SeededRandom(seed: scenario.seed))
    }

    /// Has a worker live here from now on.
    func open(_ watch: StoreWatch?) {
        self.watch = watch
        worlds = []
        guard let watch else { return }
        worlds.append(World(surroundings: surroundings, storage: storage.remains))
        watch.begin()
    }

    func close() {
        watch?.end()
        watch = nil
    }

    /// Goes on where a worker has died: the kernel ends what it had, and the guest does what it likes until somebody
    /// serves it again.
    func outlive(_ world: World, seed: UInt64) {
        surroundings = world.surroundings
        surroundings.random = SeededRandom(seed: seed)
        if scenario.isInCustody {
            surroundings.synchronized += storage.goOn(from: world.storage, seed: surroundings.random.next())
        } else {
            storage.outlive(world.storage, seed: surroundings.random.next())
        }
        call.clear()
        guard surroundings.random.happens(1, in: 2) else { return }
        // It polls: nobody would wake it.
        surroundings.isInterrupted = true
        actAsGuest()
    }

    /// Something happens that is not the worker's doing.
    private func elsewhere<Result>(_ body: () -> Result) -> Result {
        guard let watch else { return body() }
        watch.pause()
        let result = body()
        worlds.append(World(surroundings: surroundings, storage: storage.remains))
        watch.resume(world: worlds.count - 1)
        return result
    }

    private func note(_ body: () throws(DeathFinding) -> Void) {
        do throws(DeathFinding) {
            try body()
        } catch {
            if finding == nil { finding = error }
        }
    }
}

// MARK: - The guest

extension DeathStage {
    /// The guest may do something.
    ///
    /// - Parameter mustAct: nobody else will: it does what it can.
    /// - Returns: whether it had anything to do.
    @discardableResult
    func guestActs(mustAct: Bool = false) -> Bool {
        if call.clear() { surroundings.isInterrupted = true }
        let canAct = surroundings.isInterrupted || surroundings.guest.canIssue
        guard canAct, mustAct || surroundings.random.happens(1, in: 2) else { return false }
        elsewhere { actAsGuest() }
        return true
    }

    private func actAsGuest() {
        note { () throws(DeathFinding) in try surroundings.act(memory) }
    }

    /// Whether the worker was kicked; it has looked then.
    func takeKick() -> Bool {
        defer { surroundings.isKicked = false }
        return surroundings.isKicked
    }
}

// MARK: - The kernel

extension DeathStage {
    /// Operations that were queued or taken and have not ended.
    var isStorageBusy: Bool {
        storage.queuedCount > 0 || !storage.taken.isEmpty || scenario.isInCustody && storage.hasUnseenCompletions
    }

    func enqueue(_ operation: IOOperation, token: UInt64) -> Bool {
        elsewhere { storage.enqueue(operation, token: token) }
    }

    func submit() {
        guard storage.queuedCount > 0 else { return }
        if scenario.isInCustody, storage.queuedCount > 1 {
            // Death may come within the call, when the kernel has taken some.
            elsewhere { take(atMost: 1 + surroundings.random.below(storage.queuedCount - 1)) }
        }
        elsewhere { take(atMost: .max) }
        guestActs()
    }

    private func take(atMost limit: Int) {
        let before = storage.taken
        storage.submit(atMost: limit)
        for operation in storage.taken.dropFirst(before.count) {
            let buffer = operation.buffers.first.map { offset(of: $0) }
            note { () throws(DeathFinding) in
                try surroundings.guest.check(operation, buffer: buffer, memory)
                let isTwice = buffer != nil && before.contains { $0.buffers.first.map { offset(of: $0) } == buffer }
                if isTwice { throw DeathFinding("a \(operation.kind) was submitted that the kernel has already") }
            }
        }
    }

    func nextCompletion() -> IOCompletion? {
        if scenario.isInCustody, storage.hasUnseenCompletions { return storage.nextCompletion() }
        guard !storage.taken.isEmpty, !surroundings.random.happens(1, in: 3) else { return nil }
        elsewhere {
            let index = surroundings.random.below(storage.taken.count)
            if storage.taken[index].kind == .synchronizeData { surroundings.synchronized += 1 }
            storage.carryOut(at: index)
        }
        return storage.nextCompletion()
    }

    /// What only a ring in custody knows.
    func takeUp() -> Int { scenario.isInCustody ? storage.takeUp() : 0 }
    func hadTaken(_ index: UInt32) -> Bool { scenario.isInCustody && storage.hadTaken(index) }
    func releaseCompletions() {
        guard scenario.isInCustody else { return }
        elsewhere { storage.releaseCompletions() }
    }

    private func offset(of buffer: SimulatedBuffer) -> Int {
        unsafe UnsafeRawPointer(buffer.base) - UnsafeRawPointer(memory.workerAddress(0, 1))
    }
}

/// The kernel's ring, as the worker on a stage has it.
struct StageEngine: ~Copyable, IOEngine {
    let stage: DeathStage

    mutating func enqueue(_ operation: IOOperation, token: UInt64) -> Bool {
        stage.enqueue(operation, token: token)
    }
    mutating func takeUp() -> Int { stage.takeUp() }
    mutating func submit() { stage.submit() }
    mutating func runDeferredWork() {}
    mutating func nextCompletion() -> IOCompletion? { stage.nextCompletion() }
    mutating func releaseCompletions() { stage.releaseCompletions() }
    var lastIndex: UInt32 { stage.storage.lastIndex }
    func hadTaken(_ index: UInt32) -> Bool { stage.hadTaken(index) }
    var queuedCount: Int { stage.storage.queuedCount }
    var pollDescriptor: Int32? { nil }
}
