internal import Custody

// Upgrade: the new program runs beside the old one as a candidate; the old standby goes, so that nobody else waits for
// the device; the active worker freezes, which passes the device on; when nothing of the old one is under way any more,
// it ends. Whatever fails before the candidate has the device leaves everything with the old program.
//
// | Phase | Waits for | If it fails |
// |---|---|---|
// | preparing | the candidate's `ready` | the candidate is killed, nothing else was touched |
// | retiring | the end of other standbys | as above; a standby of the old program is started |
// | freezing | `frozen` of the active, `active` of the candidate | the candidate is killed, the old one thawed |
// | | or `busy` of the active | the same |
// | settling | `settled` of the candidate | the old one is told to end after a time |
// | replacing | the end of the old one, a standby of the new | |

extension DeviceMachine {
    /// An upgrade under way.
    public struct Upgrade: Codable, Hashable, Sendable {
        public enum Phase: String, Codable, Hashable, Sendable {
            case preparing, retiring, freezing, settling, replacing
        }

        /// What was asked for.
        public struct Order: Codable, Hashable, Sendable {
            /// The program to run.
            public var program: Int
            /// Stop when the candidate is ready.
            public var isDryRun: Bool

            public init(program: Int, isDryRun: Bool = false) {
                self.program = program
                self.isDryRun = isDryRun
            }
        }

        public enum Outcome: Hashable, Sendable {
            /// The device runs the new program, or could.
            case succeeded
            /// It runs the old one. Why, as a sentence.
            case failed(String)
        }

        public internal(set) var order: Order
        public internal(set) var phase: Phase
        var candidate: WorkerID
        var hasSettled = false
        var isAutomatic = false
    }

    /// How long a step may take, in milliseconds.
    static let upgradeStepLimit: UInt64 = 10_000
    /// How long requests of the old worker are waited for.
    static let settleLimit: UInt64 = 60_000
    /// How long a new program is on probation.
    static let probation: UInt64 = 10_000

    mutating func begin(_ order: Upgrade.Order, automatic: Bool = false, _ actions: inout [Action]) {
        var refusal: String?
        if isDeleting {
            refusal = "the device is being deleted"
        } else if upgrade != nil {
            refusal = "an upgrade is under way"
        } else if !hasRoomForWorker {
            refusal = "earlier workers have not ended yet"
        }
        if let refusal {
            actions.append(.upgradeEnded(.failed(refusal)))
            return
        }
        // Nobody's device needs no care: the next worker runs the new program.
        isBackingOff = false
        actions.append(.setTimer(.backOff, milliseconds: nil))
        let candidate = spawn(order.program, &actions)
        upgrade = Upgrade(order: order, phase: .preparing, candidate: candidate, isAutomatic: automatic)
        step(.preparing, limit: Self.upgradeStepLimit, &actions)
        report(.upgrading, candidate, order.isDryRun ? "dry run" : "", &actions)
    }

    private mutating func step(_ phase: Upgrade.Phase, limit: UInt64, _ actions: inout [Action]) {
        upgrade?.phase = phase
        actions.append(.setTimer(.upgradeStep, milliseconds: limit))
    }

    /// Goes as far as what has happened allows. One call may take several steps.
    mutating func advanceUpgrade(_ actions: inout [Action]) {
        // Heard of too late: nobody waits for it any more.
        if upgrade == nil || upgrade?.phase == .replacing {
            for other in workers where other.phase == .frozen { quit(other.id, &actions) }
        }
        var before: Upgrade.Phase?
        while let now = upgrade, now.phase != before {
            before = now.phase
            guard let candidate = workers.first(where: { $0.id == now.candidate }) else { return }
            switch now.phase {
            case .preparing where candidate.phase == .standby || candidate.phase == .active:
                if now.order.isDryRun {
                    quit(candidate.id, &actions)
                    finishUpgrade(.succeeded, &actions)
                } else {
                    for other in workers where other.id != candidate.id && isIdle(other) { quit(other.id, &actions) }
                    step(.retiring, limit: Self.upgradeStepLimit, &actions)
                }
            case .retiring where candidate.phase == .active || !workers.contains { $0.phase == .quitting }:
                step(.freezing, limit: Self.upgradeStepLimit, &actions)
                if let index = workers.firstIndex(where: { $0.phase == .active && $0.id != candidate.id }) {
                    workers[index].phase = .freezing
                    actions.append(.send(CustodyMessage(.freeze), to: workers[index].id))
                }
            case .freezing where candidate.phase == .active: candidateIsActive(now, &actions)
            case .settling where now.hasSettled || !workers.contains { $0.phase == .frozen }:
                for other in workers where other.phase == .frozen { quit(other.id, &actions) }
                step(.replacing, limit: Self.settleLimit, &actions)
            case .replacing
            where standby != nil && !workers.contains { $0.program != program || $0.phase == .quitting }:
                finishUpgrade(.succeeded, &actions)
            default: break
            }
        }
    }

    private func isIdle(_ worker: Worker) -> Bool { worker.phase == .standby || worker.phase == .starting }

    private mutating func candidateIsActive(_ now: Upgrade, _ actions: inout [Action]) {
        if program != now.order.program, !now.isAutomatic {
            previousProgram = program
            actions.append(.setTimer(.probation, milliseconds: Self.probation))
        }
        program = now.order.program
        step(.settling, limit: Self.settleLimit, &actions)
    }

    mutating func upgradeSettled(_ id: WorkerID) {
        if upgrade?.candidate == id, upgrade?.phase == .settling { upgrade?.hasSettled = true }
    }

    mutating func finishUpgrade(_ outcome: Upgrade.Outcome, _ actions: inout [Action]) {
        guard let ended = upgrade else { return }
        upgrade = nil
        actions.append(.setTimer(.upgradeStep, milliseconds: nil))
        switch outcome {
        case .succeeded: report(.upgraded, ended.candidate, ended.order.isDryRun ? "dry run" : "", &actions)
        case .failed(let why): report(.failed, ended.candidate, "upgrade: \(why)", &actions)
        }
        actions.append(.upgradeEnded(outcome))
    }

    /// A worker has ended: the candidate perhaps.
    ///
    /// - Returns: whether it was a candidate that had not got the device yet, and so tells nothing of it.
    mutating func upgradeLost(_ id: WorkerID, _ reason: String, isFault: Bool, _ actions: inout [Action]) -> Bool {
        guard let now = upgrade, now.candidate == id else { return false }
        switch now.phase {
        case .preparing, .retiring, .freezing:
            thawFrozen(&actions)
            finishUpgrade(.failed(reason), &actions)
            return true
        case .settling, .replacing:
            // A kill from outside says nothing about the program: its standby goes on. A fault rolls it back.
            guard !isFault else { return false }
            upgrade?.hasSettled = true
            if let next = workers.first(where: { $0.program == program && $0.phase != .quitting }) {
                upgrade?.candidate = next.id
            } else {
                let next = spawn(program, &actions)
                upgrade?.candidate = next
            }
            return false
        }
    }

    /// The worker that was to be replaced takes its device up again, as soon as nobody has it. One that has not given
    /// it up has it still, and may need longer than anybody waits.
    private mutating func thawFrozen(_ actions: inout [Action]) {
        for index in workers.indices {
            switch workers[index].phase {
            case .freezing: workers[index].phase = .active
            case .frozen:
                workers[index].phase = .standby
                actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver))
            default: continue
            }
            actions.append(.send(CustodyMessage(.thaw), to: workers[index].id))
        }
    }

    /// A worker has given the device up.
    mutating func frozen(_ index: Int, _ actions: inout [Action]) {
        switch workers[index].phase {
        case .freezing: workers[index].phase = .frozen
        // Its successor was heard first.
        case .frozen: break
        case .superseded:
            // As well, and it was taken for dead: the order to freeze was a supervisor's before this one.
            takeOverCount -= 1
            workers[index].phase = .frozen
        // The order was a supervisor's before this one.
        case .active where upgrade?.phase == .retiring || upgrade?.phase == .freezing: workers[index].phase = .frozen
        case .active:
            // Nobody waits for it any more. A second `thaw` is ignored.
            workers[index].phase = .standby
            actions.append(.send(CustodyMessage(.thaw), to: workers[index].id))
            actions.append(.setTimer(.takeOver, milliseconds: Patience.takeOver))
        default: return
        }
        report(.frozen, workers[index].id, "", &actions)
    }

    /// A worker cannot give the device up, and serves it on: the candidate goes.
    mutating func busy(_ index: Int, _ reason: String, _ actions: inout [Action]) {
        guard workers[index].phase == .freezing else { return }
        workers[index].phase = .active
        report(.note, workers[index].id, "cannot give the device up: \(reason)", &actions)
        guard let now = upgrade, now.phase == .freezing, let candidate = self.index(of: now.candidate) else { return }
        workers[candidate].refusal = "worker \(workers[index].id) cannot give the device up: \(reason)"
        actions.append(.kill(now.candidate))
    }

    mutating func upgradeStepExpired(_ actions: inout [Action]) {
        guard let now = upgrade else { return }
        switch now.phase {
        case .retiring:
            // Whoever is killed takes nothing any more, however long it takes to go.
            for index in workers.indices where workers[index].phase == .quitting {
                workers[index].phase = .superseded
                actions.append(.kill(workers[index].id))
            }
        case .preparing, .freezing:
            report(.failed, now.candidate, "\(now.phase.rawValue) took too long", &actions)
            actions.append(.kill(now.candidate))
        case .settling:
            upgrade?.hasSettled = true
        case .replacing:
            finishUpgrade(.failed("the new program runs, but no standby of it is ready"), &actions)
        }
    }

    /// A new program that fails at once, by its own fault, gives way to the one before.
    ///
    /// - Returns: whether it does.
    mutating func rollsBack(_ worker: Worker, _ actions: inout [Action]) -> Bool {
        guard let previous = previousProgram, worker.program == program else { return false }
        previousProgram = nil
        program = previous
        actions.append(.setTimer(.probation, milliseconds: nil))
        report(.rolledBack, worker.id, "the new program failed", &actions)
        if upgrade != nil { finishUpgrade(.failed("the new program failed, and was rolled back"), &actions) }
        thawFrozen(&actions)
        begin(Upgrade.Order(program: previous), automatic: true, &actions)
        return true
    }
}
