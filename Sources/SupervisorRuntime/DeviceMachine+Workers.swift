internal import Custody

// Deaths, messages and the connection. Upgrades are in DeviceMachine+Upgrade.swift.

extension DeviceMachine {
    /// Bounds of the waits, in milliseconds.
    enum Patience {
        static let takeOver: UInt64 = 5_000
        static let start: UInt64 = 30_000
        static let quit: UInt64 = 75_000
        static let firstBackOff: UInt64 = 100
        static let longestBackOff: UInt64 = 30_000
    }

    /// The worker that has the device, as far as it is known here.
    public var active: Worker? { workers.first { $0.phase == .active || $0.phase == .freezing } }
    var standby: Worker? { workers.first { $0.phase == .standby } }
    public var isConnected: Bool { keys.contains(CustodyKey(.connection)) }

    func index(of id: WorkerID) -> Int? { workers.firstIndex { $0.id == id } }

    /// Carries out one event.
    ///
    /// - Parameter now: nanoseconds of CLOCK_MONOTONIC.
    /// - Returns: what is to be done, in this order.
    public mutating func handle(_ event: Event, at now: UInt64) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .begin: begun(&actions)
        case .spawned(let id, let process): spawned(id, process, &actions)
        case .notSpawned(let id, let reason): notSpawned(id, reason, &actions)
        case .message(let id, let message, let hasDescriptor):
            received(message, from: id, hasDescriptor: hasDescriptor, at: now, &actions)
        case .ended(let id, let ending, let words): ended(id, ending, words, &actions)
        case .connected: connected(&actions)
        case .expired(let timer): expired(timer, &actions)
        case .upgrade(let order): begin(order, &actions)
        case .resize(let resize): begin(resize, &actions)
        case .delete: delete(&actions)
        }
        settle(&actions)
        return actions
    }

    /// After every event: what is there is made to be what should be there.
    private mutating func settle(_ actions: inout [Action]) {
        if isDeleting {
            if workers.isEmpty, !isDissolved {
                isDissolved = true
                actions.append(.dissolve)
            }
        } else {
            advanceUpgrade(&actions)
            advanceResize(&actions)
            staff(&actions)
        }
        let accepts = active != nil && !isConnected && !isDeleting
        if accepts != isAccepting {
            isAccepting = accepts
            actions.append(.accept(accepts))
        }
    }

    /// One worker has the device or is about to, and one stands by.
    private mutating func staff(_ actions: inout [Action]) {
        guard !isBackingOff, upgrade == nil || upgrade?.phase == .settling || upgrade?.phase == .replacing,
            !workers.contains(where: { $0.phase == .starting || $0.phase == .standby }),
            // A frozen worker has been given its device back, or its successor is on its way.
            !workers.contains(where: { $0.phase == .freezing }), hasRoomForWorker
        else { return }
        spawn(program, &actions)
    }

    /// The dead need nothing but a number.
    var hasRoomForWorker: Bool {
        workers.count < Self.maximumProcesses
            && workers.count { $0.phase != .superseded } < Self.maximumWorkers
    }

    @discardableResult
    mutating func spawn(_ program: Int, _ actions: inout [Action]) -> WorkerID {
        lastWorker &+= 1
        workers.append(Worker(id: lastWorker, program: program, phase: .starting))
        actions.append(.spawn(lastWorker, program: program))
        return lastWorker
    }

    func report(_ kind: Report.Kind, _ worker: WorkerID?, _ text: String, _ actions: inout [Action]) {
        actions.append(.report(Report(kind: kind, worker: worker, text: text)))
    }
}

// MARK: - Births and deaths

extension DeviceMachine {
    /// Timers do not outlive a supervisor.
    private mutating func begun(_ actions: inout [Action]) {
        isAccepting = false
        isBackingOff = false
        // It may not have been sent any more.
        resize?.told = nil
        if upgrade != nil { actions.append(.setTimer(.upgradeStep, milliseconds: Self.upgradeStepLimit)) }
        if previousProgram != nil { actions.append(.setTimer(.probation, milliseconds: Self.probation)) }
        if active == nil { actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver)) }
        actions.append(.setTimer(.start, milliseconds: Patience.start))
        actions.append(.setTimer(.quit, milliseconds: Patience.quit))
    }

    private mutating func spawned(_ id: WorkerID, _ process: Int32, _ actions: inout [Action]) {
        guard let index = index(of: id) else { return }
        workers[index].process = process
        report(.started, id, "process \(process)", &actions)
        actions.append(.setTimer(.start, milliseconds: Patience.start))
        actions.append(.equip(id))
    }

    private mutating func notSpawned(_ id: WorkerID, _ reason: String, _ actions: inout [Action]) {
        guard let index = index(of: id) else { return }
        workers.remove(at: index)
        report(.failed, id, reason, &actions)
        if !upgradeLost(id, reason, isFault: true, &actions) { backOff(reason, &actions) }
    }

    private mutating func ended(
        _ id: WorkerID, _ ending: Ending, _ words: LastWords, _ actions: inout [Action]
    ) {
        guard let index = index(of: id) else { return }
        let worker = workers.remove(at: index)
        actions.append(.forget(id))
        let request = words.handling.map { " while it handled queue \($0.queue), head \($0.slot)" } ?? ""
        // Its successor may have said that it has the device before this death was heard of.
        let phase = worker.phase == .superseded ? .active : worker.phase
        let death = "worker \(id) (\(phase.rawValue)) \(ending.description)\(request)"
        let reason = worker.refusal ?? death
        let wasTold = worker.phase == .quitting
        if !wasTold {
            report(.died, id, death, &actions)
            // Of one that has refused, its refusal says all.
            if worker.refusal == nil { lastDeath = death }
        }
        let wasCandidate = upgradeLost(id, reason, isFault: ending.isFault, &actions)
        if worker.phase == .active || worker.phase == .freezing {
            takeOverCount += 1
            if workers.contains(where: { $0.phase == .standby }) {
                actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver))
            }
        }
        guard !isDeleting, !wasTold, !wasCandidate, worker.refusal != nil || ending.isFault else { return }
        if rollsBack(worker, &actions) { return }
        if (words.returned ?? 0) > 0 { failures = 0 } else { backOff(reason, &actions) }
    }

    /// The next worker waits, longer each time.
    private mutating func backOff(_ reason: String, _ actions: inout [Action]) {
        // Before that, the candidate is what an upgrade is about; then the device needs workers as any other.
        guard !isDeleting, upgrade.map({ [.settling, .replacing].contains($0.phase) }) ?? true else { return }
        failures += 1
        problem = reason
        isBackingOff = true
        let delay = min(Patience.firstBackOff << UInt64(min(failures - 1, 20)), Patience.longestBackOff)
        actions.append(.setTimer(.backOff, milliseconds: delay))
    }

    mutating func quit(_ id: WorkerID, _ actions: inout [Action]) {
        guard let index = index(of: id), workers[index].phase != .quitting else { return }
        workers[index].phase = .quitting
        actions.append(.send(CustodyMessage(.quit), to: id))
        actions.append(.setTimer(.quit, milliseconds: Patience.quit))
    }

    private mutating func delete(_ actions: inout [Action]) {
        guard !isDeleting else { return }
        isDeleting = true
        if upgrade != nil { finishUpgrade(.failed("the device was deleted"), &actions) }
        finishResize(.failed("the device was deleted"), &actions)
        for worker in workers { quit(worker.id, &actions) }
    }

    private mutating func expired(_ timer: Timer, _ actions: inout [Action]) {
        switch timer {
        case .backOff:
            isBackingOff = false
        case .takeOver:
            guard active == nil else { return }
            for worker in workers where worker.phase == .standby {
                report(.failed, worker.id, "did not take the device up", &actions)
                actions.append(.kill(worker.id))
            }
        case .start:
            for worker in workers where worker.phase == .starting { actions.append(.kill(worker.id)) }
        case .quit:
            for worker in workers where worker.phase == .quitting { actions.append(.kill(worker.id)) }
        case .upgradeStep: upgradeStepExpired(&actions)
        case .probation: previousProgram = nil
        case .resize: resizeExpired(&actions)
        }
    }
}

// MARK: - Messages

extension DeviceMachine {
    private mutating func received(
        _ message: CustodyMessage, from id: WorkerID, hasDescriptor: Bool, at now: UInt64, _ actions: inout [Action]
    ) {
        guard let index = index(of: id) else { return }
        switch message.kind {
        case .ready: ready(index, message, &actions)
        case .refused:
            workers[index].refusal = message.text
            report(.refused, id, message.text, &actions)
        case .active: becameActive(index, message, at: now, &actions)
        case .keep: keep(index, message, hasDescriptor: hasDescriptor, &actions)
        case .release: release(index, message.key, &actions)
        case .frozen: frozen(index, &actions)
        case .busy: busy(index, message.text, &actions)
        case .waiting: waiting(index, message.text, &actions)
        case .disconnected: disconnected(index, message.text, &actions)
        case .settled:
            report(.settled, id, "", &actions)
            upgradeSettled(id)
        case .resized: resized(id, message, &actions)
        case .event: report(.note, id, message.text, &actions)
        default: break
        }
    }

    private mutating func ready(_ index: Int, _ message: CustodyMessage, _ actions: inout [Action]) {
        guard workers[index].phase == .starting else { return }
        workers[index].version = message.text
        let lowest = message.value & 0xffff
        let highest = message.value >> 16 & 0xffff
        guard lowest <= knowsRecordVersion, knowsRecordVersion <= highest else {
            let text =
                "build \(message.text) reads session records \(lowest) to \(highest); this one is \(knowsRecordVersion)"
            workers[index].refusal = text
            report(.refused, workers[index].id, text, &actions)
            // It must not get the device: it waits for it already.
            actions.append(.kill(workers[index].id))
            return
        }
        workers[index].phase = .standby
        report(.standby, workers[index].id, message.text, &actions)
        if active == nil {
            actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver))
        } else {
            problem = nil
        }
    }

    /// Whoever takes the device up waits for what no other worker could do without either.
    private mutating func waiting(_ index: Int, _ text: String, _ actions: inout [Action]) {
        guard workers[index].phase == .standby else { return }
        if problem != text { report(.note, workers[index].id, text, &actions) }
        problem = text
        if active == nil { actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver)) }
    }

    private mutating func becameActive(
        _ index: Int, _ message: CustodyMessage, at now: UInt64, _ actions: inout [Action]
    ) {
        // Heard twice when a supervisor died over it.
        guard workers[index].generation != message.value || workers[index].phase != .active else { return }
        for other in workers.indices where other != index {
            switch workers[other].phase {
            // It has died: nobody takes the mutex from the living.
            case .active:
                workers[other].phase = .superseded
                takeOverCount += 1
            // It has given the device up, and is about to say so; or it has died, which will be heard. Its requests
            // are waited for.
            case .freezing: workers[other].phase = .frozen
            default: break
            }
        }
        workers[index].generation = message.value
        workers[index].activeSince = now
        if workers[index].phase != .quitting { workers[index].phase = .active }
        problem = nil
        report(.active, workers[index].id, message.text, &actions)
        actions.append(.setTimer(.takeOver, milliseconds: nil))
    }

    /// What a superseded or frozen worker asked for was not answered, so it did not rely on it: its successor asks
    /// again.
    private func mayChangeCustody(_ index: Int) -> Bool {
        switch workers[index].phase {
        case .superseded, .frozen, .starting: false
        case .standby, .active, .freezing, .quitting: true
        }
    }

    private mutating func keep(
        _ index: Int, _ message: CustodyMessage, hasDescriptor: Bool, _ actions: inout [Action]
    ) {
        guard mayChangeCustody(index), !isDeleting || workers[index].phase == .quitting else { return }
        let id = workers[index].id
        let isSupervisors = message.key.role.isSupervisors
        guard hasDescriptor, !isSupervisors, keys.contains(message.key) || keys.count < Self.maximumKeys else {
            let why =
                isSupervisors
                ? "that is the supervisor's"
                : hasDescriptor ? "the device has \(keys.count) descriptors already" : "it came without one"
            report(.failed, id, "cannot keep \(message.key): \(why)", &actions)
            actions.append(.kill(id))
            return
        }
        keys.insert(message.key)
        actions.append(.store(message.key))
        // Before it is confirmed: whoever stands by must not know less than the record says.
        for other in workers where other.id != id && isEquipped(other) {
            actions.append(.send(CustodyMessage(.give, message.key), to: other.id, descriptor: message.key))
        }
        actions.append(.send(CustodyMessage(.kept, message.key, value: message.value), to: id))
    }

    private func isEquipped(_ worker: Worker) -> Bool {
        worker.process != 0 && worker.phase != .quitting && worker.phase != .superseded
    }

    private mutating func release(_ index: Int, _ key: CustodyKey, _ actions: inout [Action]) {
        guard mayChangeCustody(index), keys.remove(key) != nil else { return }
        drop(key, except: workers[index].id, &actions)
    }

    private func drop(_ key: CustodyKey, except id: WorkerID, _ actions: inout [Action]) {
        actions.append(.drop(key))
        for other in workers where other.id != id && isEquipped(other) {
            actions.append(.send(CustodyMessage(.drop, key), to: other.id))
        }
    }

    private mutating func connected(_ actions: inout [Action]) {
        let key = CustodyKey(.connection)
        keys.insert(key)
        connectionCount += 1
        report(.connected, nil, "", &actions)
        for worker in workers where isEquipped(worker) {
            actions.append(.send(CustodyMessage(.give, key), to: worker.id, descriptor: key))
        }
    }

    private mutating func disconnected(_ index: Int, _ text: String, _ actions: inout [Action]) {
        guard mayChangeCustody(index) else { return }
        let gone = keys.filter { !$0.role.outlivesConnection }
            .sorted { ($0.role.rawValue, $0.index) < ($1.role.rawValue, $1.index) }
        guard !gone.isEmpty else { return }
        for key in gone {
            keys.remove(key)
            drop(key, except: workers[index].id, &actions)
        }
        report(.disconnected, workers[index].id, text, &actions)
    }
}
