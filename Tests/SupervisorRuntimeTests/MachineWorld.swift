import Custody
import SupervisorRuntime

/// A device's custody machine in a world of its own: workers live and die as a test says, and the kernel hands the
/// device on as it does for real.
struct MachineWorld {
    typealias ID = DeviceMachine.WorkerID
    var machine: DeviceMachine
    var now: UInt64 = 1_000_000_000
    /// Everything that the machine has asked for since `take`.
    private(set) var actions: [DeviceMachine.Action] = []
    private(set) var living: [ID] = []
    /// Descriptors in custody, as the edge would have them.
    private(set) var custody: Set<CustodyKey> = []
    private(set) var accepts = false
    private(set) var timers: [DeviceMachine.Timer: UInt64] = [:]
    private(set) var outcomes: [DeviceMachine.Upgrade.Outcome] = []
    private(set) var isDissolved = false
    private(set) var cuts: [UInt64] = []
    private(set) var resizes: [DeviceMachine.ResizeOutcome] = []
    private var generation: UInt64 = 0
    /// Workers that cannot be started at all.
    var spawnFails = false

    init() {
        machine = DeviceMachine(program: 1, recordVersion: 1)
        send(.begin)
    }

    /// A device with a worker that has it and one that stands by.
    static func staffed() -> MachineWorld {
        var world = MachineWorld()
        world.ready(1)
        world.active(1)
        world.ready(2)
        _ = world.take()
        return world
    }

    mutating func send(_ event: DeviceMachine.Event) {
        var events = [event]
        while !events.isEmpty {
            for action in machine.handle(events.removeFirst(), at: now) {
                actions.append(action)
                perform(action, &events)
            }
        }
    }

    private mutating func perform(_ action: DeviceMachine.Action, _ events: inout [DeviceMachine.Event]) {
        switch action {
        case .spawn(let id, _):
            if spawnFails {
                events.append(.notSpawned(id, reason: "no memory"))
            } else {
                living.append(id)
                events.append(.spawned(id, process: Int32(1000 + id)))
            }
        case .store(let key): custody.insert(key)
        case .drop(let key): custody.remove(key)
        case .accept(let accepts): self.accepts = accepts
        case .setTimer(let timer, let milliseconds): timers[timer] = milliseconds
        case .upgradeEnded(let outcome): outcomes.append(outcome)
        case .dissolve: isDissolved = true
        case .cut(let bytes): cuts.append(bytes)
        case .resizeEnded(let outcome): resizes.append(outcome)
        case .equip, .send, .kill, .forget, .report: break
        }
    }

    /// What was asked for since the last time.
    mutating func take() -> [DeviceMachine.Action] {
        defer { actions = [] }
        return actions
    }

    // MARK: What workers say

    mutating func say(
        _ id: ID, _ kind: CustodyMessageKind, _ key: CustodyKey = CustodyKey(.record), value: UInt64 = 0,
        text: String = "", with descriptor: Bool = false
    ) {
        send(.message(id, CustodyMessage(kind, key, value: value, text: text), hasDescriptor: descriptor))
    }

    mutating func ready(_ id: ID, versions: UInt64 = 1 | 1 << 16 | 1 << 32) {
        say(id, .ready, value: versions, text: "0.1.0")
    }

    mutating func active(_ id: ID) {
        generation += 1
        say(id, .active, value: generation)
    }

    mutating func end(
        _ id: ID, _ ending: DeviceMachine.Ending, _ words: DeviceMachine.LastWords = DeviceMachine.LastWords()
    ) {
        living.removeAll { $0 == id }
        send(.ended(id, ending, words))
    }

    mutating func kill(_ id: ID) { end(id, .fromOutside(signal: 9)) }
    /// - Parameter returned: requests that it had returned.
    mutating func crash(_ id: ID, returned: UInt64 = 0, handling: HandledRequest? = nil) {
        end(id, .byFault(signal: 4), DeviceMachine.LastWords(returned: returned, handling: handling))
    }

    mutating func connect() {
        custody.insert(CustodyKey(.connection))
        send(.connected)
    }

    mutating func pass(milliseconds: UInt64) { now += milliseconds * 1_000_000 }

    func phase(_ id: ID) -> DeviceMachine.Phase? { machine.workers.first { $0.id == id }?.phase }
    func program(_ id: ID) -> Int? { machine.workers.first { $0.id == id }?.program }
}
