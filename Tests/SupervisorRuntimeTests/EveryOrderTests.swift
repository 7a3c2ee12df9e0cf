import Custody
import Foundation
import SupervisorRuntime
import Testing

/// A device in a small world in which everything can happen in any order: workers act, are heard, die by their own
/// fault or by a kill; timers expire early; the supervisor dies after any action and another goes on with what was
/// written down. A search tries every order.
private struct World: Hashable {
    typealias ID = DeviceMachine.WorkerID

    /// A process, as the kernel and its own program have it.
    struct Process: Hashable {
        enum State: Hashable {
            case booting, waiting, active, frozen
            case dead(DeviceMachine.Ending)
        }
        var state = State.booting
        var isEquipped = false
        var hasSettled = false
        /// It has given the device up and is about to say so.
        var owesFrozen = false
        /// What it was told and has not read.
        var orders: [CustodyMessageKind] = []
        /// What it has said and nobody has heard.
        var words: [CustodyMessage] = []

        var isDead: Bool { if case .dead = state { true } else { false } }
    }

    enum Step: Hashable {
        case act(ID)
        /// The supervisor hears what a worker said first, or that it has ended; and dies after so many actions.
        case hear(ID, dyingAfter: Int?)
        case die(ID, byFault: Bool)
        /// A worker that is to freeze cannot.
        case balk(ID)
        case expire(DeviceMachine.Timer)
    }

    var machine = DeviceMachine(program: 1, recordVersion: 1)
    var processes: [ID: Process] = [:]
    var timers: Set<DeviceMachine.Timer> = []
    var generation: UInt64 = 0
    var outcomes = 0
    /// Deaths and early timers so far.
    var misfortunes = 0

    // MARK: The supervisor

    /// - Parameter limit: it dies after so many actions of the first event.
    /// - Returns: whether it lives.
    mutating func send(_ event: DeviceMachine.Event, dyingAfter limit: Int? = nil) -> Bool {
        var events = [event]
        let before = machine
        var written = before
        var left = limit ?? .max
        while !events.isEmpty {
            let actions = machine.handle(events.removeFirst(), at: 1)
            for action in actions {
                if left == 0 {
                    machine = written
                    return false
                }
                left -= 1
                perform(action, &events)
                // The state is written when a worker has been started, and at the end.
                if case .spawn = action { written = machine }
            }
        }
        if left == 0, limit != nil {
            machine = written
            return false
        }
        return true
    }

    private mutating func perform(_ action: DeviceMachine.Action, _ events: inout [DeviceMachine.Event]) {
        switch action {
        case .spawn(let id, _):
            processes[id] = Process()
            events.append(.spawned(id, process: Int32(1000 + id)))
        case .equip(let id): processes[id]?.isEquipped = true
        case .send(let message, let id, _):
            if [.freeze, .thaw, .quit].contains(message.kind) { processes[id]?.orders.append(message.kind) }
        case .kill(let id): die(id, .fromOutside(signal: 9))
        case .forget(let id): processes[id] = nil
        case .setTimer(let timer, let milliseconds):
            if milliseconds == nil { timers.remove(timer) } else { timers.insert(timer) }
        case .upgradeEnded: outcomes += 1
        case .store, .drop, .accept, .report, .dissolve, .cut, .resizeEnded: break
        }
    }

    /// Another supervisor goes on: what it does with workers that it knows, or does not, is `DeviceCustody`'s.
    private mutating func recover() throws {
        machine = try JSONDecoder().decode(DeviceMachine.self, from: try JSONEncoder().encode(machine))
        timers = []
        for id in processes.keys where !machine.workers.contains(where: { $0.id == id }) { processes[id] = nil }
        _ = send(.begin)
        for worker in machine.workers {
            if processes[worker.id] == nil {
                _ = send(.ended(worker.id, .unknown))
            } else if worker.process == 0 {
                die(worker.id, .fromOutside(signal: 9))
            }
        }
    }

    private mutating func die(_ id: ID, _ ending: DeviceMachine.Ending) {
        guard let process = processes[id], !process.isDead else { return }
        processes[id]?.state = .dead(ending)
    }

    private func event(from id: ID) -> DeviceMachine.Event? {
        guard let process = processes[id] else { return nil }
        if let message = process.words.first { return .message(id, message, hasDescriptor: false) }
        if case .dead(let ending) = process.state { return .ended(id, ending) }
        return nil
    }

    private mutating func hear(_ id: ID, dyingAfter limit: Int?) throws {
        guard let event = event(from: id) else { return }
        if case .message(_, let message, _) = event, message.kind == .active {
            // Whoever was active before has said all that it will ever say: that comes first.
            for other in machine.workers where other.id != id && other.phase != .starting && other.phase != .standby {
                while processes[other.id]?.words.isEmpty == false { try hear(other.id, dyingAfter: nil) }
            }
        }
        if send(event, dyingAfter: limit) {
            if processes[id]?.words.isEmpty == false { processes[id]?.words.removeFirst() }
        } else {
            // What it was hearing is still there to be heard.
            try recover()
        }
    }

    // MARK: Workers

    private mutating func act(_ id: ID) {
        guard var process = processes[id] else { return }
        if process.owesFrozen {
            process.owesFrozen = false
            process.words.append(CustodyMessage(.frozen))
        } else if let order = process.orders.first {
            process.orders.removeFirst()
            switch (order, process.state) {
            case (.quit, _): process.state = .dead(.onItsOwn(code: 0))
            case (.freeze, .active):
                process.state = .frozen
                process.owesFrozen = true
            case (.thaw, .frozen): process.state = .waiting
            default: break
            }
        } else if process.state == .booting {
            process.state = .waiting
            process.words.append(CustodyMessage(.ready, value: 1 | 1 << 16 | 1 << 32))
        } else if process.state == .waiting {
            generation += 1
            process.state = .active
            process.hasSettled = false
            process.words.append(CustodyMessage(.active, value: generation))
        } else if process.state == .active {
            process.hasSettled = true
            process.words.append(CustodyMessage(.settled))
        }
        processes[id] = process
    }

    private func canAct(_ id: ID) -> Bool {
        guard let process = processes[id], !process.isDead else { return false }
        if !process.orders.isEmpty || process.owesFrozen { return true }
        switch process.state {
        case .booting: return process.isEquipped
        case .waiting: return !processes.values.contains { $0.state == .active }
        case .active: return !process.hasSettled
        case .frozen, .dead: return false
        }
    }

    // MARK: Steps

    mutating func take(_ step: Step) throws {
        switch step {
        case .act(let id): act(id)
        case .hear(let id, let limit):
            if limit != nil { misfortunes += 1 }
            try hear(id, dyingAfter: limit)
        case .die(let id, let byFault):
            misfortunes += 1
            die(id, byFault ? .byFault(signal: 4) : .fromOutside(signal: 9))
        case .balk(let id):
            misfortunes += 1
            processes[id]?.orders.removeFirst()
            processes[id]?.words.append(CustodyMessage(.busy, text: "a loop does not stop"))
        case .expire(let timer):
            misfortunes += 1
            timers.remove(timer)
            _ = send(.expired(timer))
        }
    }

    /// What can happen, without and with bad luck.
    func steps(luckless: Bool) -> [Step] {
        var steps: [Step] = []
        for id in processes.keys.sorted() {
            if canAct(id) { steps.append(.act(id)) }
            if let event = event(from: id) {
                steps.append(.hear(id, dyingAfter: nil))
                if luckless {
                    var copy = machine
                    let count = copy.handle(event, at: 1).count
                    steps += (0...count).map { .hear(id, dyingAfter: $0) }
                }
            }
            if luckless, processes[id]?.isDead == false {
                steps += [.die(id, byFault: true), .die(id, byFault: false)]
                if processes[id]?.state == .active, processes[id]?.orders.first == .freeze { steps.append(.balk(id)) }
            }
        }
        if luckless { steps += DeviceMachine.Timer.allCases.filter(timers.contains).map { .expire($0) } }
        return steps
    }

    /// Goes on without bad luck; timers expire when nothing else can happen, the short ones first.
    ///
    /// - Returns: false when it never comes to rest.
    mutating func goOn() throws -> Bool {
        let order: [DeviceMachine.Timer] = [.backOff, .takeOver, .upgradeStep, .probation, .start, .quit]
        for _ in 0..<500 {
            if let step = steps(luckless: false).first {
                try take(step)
            } else if let timer = order.first(where: timers.contains) {
                try take(.expire(timer))
            } else {
                return true
            }
        }
        return false
    }

    /// What must hold at every moment.
    var isSound: Bool {
        machine.workers.count { $0.phase == .active || $0.phase == .freezing } <= 1
            && processes.values.count { $0.state == .active } <= 1
            && machine.workers.count <= DeviceMachine.maximumProcesses
            && machine.workers.count { $0.phase != .superseded } <= DeviceMachine.maximumWorkers
    }

    /// One serves, one stands by, and nothing else is left.
    var isStaffed: Bool {
        let states = processes.values.map(\.state)
        return states.count == 2 && states.contains(.active) && states.contains(.waiting)
            && machine.workers.contains { $0.phase == .active } && machine.upgrade == nil
    }

    static func staffed() throws -> World {
        var world = World()
        _ = world.send(.begin)
        _ = try world.goOn()
        world.misfortunes = 0
        return world
    }
}

@Suite struct EveryOrderTests {
    /// - Parameters:
    ///   - outcomes: how many upgrades there are to come to an end.
    ///   - misfortunes: so many on each way.
    private func search(from start: World, outcomes: Int, misfortunes: Int) throws {
        var seen: Set<World> = [start]
        var open = [start]
        while let world = open.popLast() {
            var rest = world
            let hasCome = try rest.goOn()
            try #require(hasCome && rest.isStaffed && rest.outcomes >= outcomes, "stuck: \(world)\nends as \(rest)")
            for step in world.steps(luckless: world.misfortunes < misfortunes) {
                var next = world
                try next.take(step)
                try #require(next.isSound, "\(step) of \(world) leads to \(next)")
                if seen.insert(next).inserted { open.append(next) }
            }
            try #require(seen.count < 200_000)
        }
        #expect(seen.count > 50, "nothing was searched")
    }

    @Test func `a device comes back from any two deaths, in every order`() throws {
        try search(from: try .staffed(), outcomes: 0, misfortunes: 2)
    }

    @Test func `an upgrade ends whoever dies at whatever step`() throws {
        var world = try World.staffed()
        _ = world.send(.upgrade(.init(program: 2)))
        try search(from: world, outcomes: 1, misfortunes: 1)
    }
}
