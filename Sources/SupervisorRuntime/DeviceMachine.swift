public import Custody
internal import Platform

/// What a device's custody does next: a pure state machine. It takes events, one at a time, and returns actions; the
/// edge (`DeviceCustody`) carries them out in order. It is a value, so that it can be written down for the supervisor's
/// successor after every event.
///
/// Of a device's workers at most one is active, because only one can hold the record's mutex; the kernel hands it to
/// the standby when the active one dies. So the machine never promotes: it hears `active`, and sees to it that there is
/// somebody to promote.
public struct DeviceMachine: Codable, Hashable, Sendable {
    /// All workers that have not ended, in the order in which they were started; at most `maximumProcesses`.
    public internal(set) var workers: [Worker] = []
    /// What is in custody, beside the session record and the kernel rings.
    public internal(set) var keys: Set<CustodyKey> = []
    /// The program that new workers run, by the number that the edge knows it by.
    public internal(set) var program: Int
    /// The program before the last upgrade, as long as it may be rolled back.
    public internal(set) var previousProgram: Int?
    public internal(set) var upgrade: Upgrade?
    /// Generations in a row that ended by their own fault without being of use.
    public internal(set) var failures = 0
    /// Why the device is not served, or served without a standby; nil when all is well.
    public internal(set) var problem: String?
    /// How the worker ended that died last, as a sentence.
    public internal(set) var lastDeath: String?
    public internal(set) var isDeleting = false
    public internal(set) var resize: Resize?
    /// Times that a worker died and another took over.
    public internal(set) var takeOverCount = 0
    /// Front-ends that have connected.
    public internal(set) var connectionCount = 0
    var lastWorker: WorkerID = 0
    var isBackingOff = false
    var isAccepting = false
    var isDissolved = false
    let knowsRecordVersion: UInt64

    /// Numbers a worker within its device, from 1 on.
    public typealias WorkerID = UInt32

    /// Active, standby, candidate of an upgrade, and two that are on their way out.
    public static let maximumWorkers = 5
    /// With those that are dead and that the kernel has not let go of, because the storage keeps one of their threads.
    public static let maximumProcesses = 16
    /// The most descriptors in custody for a device.
    public static let maximumKeys = 2048

    /// - Parameter program: that the workers run.
    /// - Parameter recordVersion: of the device's session record.
    public init(program: Int, recordVersion: UInt32) {
        self.program = program
        knowsRecordVersion = UInt64(recordVersion)
    }

    /// Programs that this device may still start, or runs.
    var usedPrograms: Set<Int> {
        var used = Set(workers.map(\.program))
        used.insert(program)
        if let previousProgram { used.insert(previousProgram) }
        if let upgrade { used.insert(upgrade.order.program) }
        return used
    }
}

extension DeviceMachine {
    /// One living worker.
    public struct Worker: Codable, Hashable, Sendable {
        public let id: WorkerID
        public let program: Int
        public internal(set) var phase: Phase
        public internal(set) var process: Int32 = 0
        /// As its build calls itself; empty before it is ready.
        public internal(set) var version = ""
        /// The number under which it has or had the device; 0 for none.
        public internal(set) var generation: UInt64 = 0
        /// When it became active, in nanoseconds of CLOCK_MONOTONIC.
        var activeSince: UInt64 = 0
        var refusal: String?
    }

    public enum Phase: String, Codable, Hashable, Sendable {
        /// Spawned, not ready yet.
        case starting
        /// Ready, waiting for the device.
        case standby
        case active
        /// Told to freeze.
        case freezing
        case frozen
        /// Another has the device: this one is dead, and the kernel has not let go of it yet.
        case superseded
        /// Told to end.
        case quitting
    }

    /// What happens to a device.
    public enum Event: Hashable, Sendable {
        /// The device exists now, or its supervisor has come back.
        case begin
        case spawned(WorkerID, process: Int32)
        case notSpawned(WorkerID, reason: String)
        /// - Parameter hasDescriptor: one came with it.
        case message(WorkerID, CustodyMessage, hasDescriptor: Bool)
        case ended(WorkerID, Ending, LastWords = LastWords())
        /// A front-end has connected; its connection is in custody.
        case connected
        case expired(Timer)
        case upgrade(Upgrade.Order)
        case resize(Resize)
        case delete
    }

    /// What the session record tells of a worker that has ended.
    public struct LastWords: Hashable, Sendable {
        /// Requests that it has returned; nil: it never had the device.
        public var returned: UInt64?
        /// What it was handling when it died by its own fault.
        public var handling: HandledRequest?

        public init(returned: UInt64? = nil, handling: HandledRequest? = nil) {
            self.returned = returned
            self.handling = handling
        }
    }

    /// How a worker ended, as far as it matters.
    public enum Ending: Hashable, Sendable {
        case onItsOwn(code: Int32)
        /// SIGKILL and its like: somebody else's doing.
        case fromOutside(signal: Int32)
        /// It trapped.
        ///
        /// - Parameter call: the number of a system call that it is not allowed and tried.
        case byFault(signal: Int32, call: Int32? = nil)
        /// It went on no more, and was killed for that by the supervisor.
        case hung
        /// It was no child of ours.
        case unknown

        var description: String {
            switch self {
            case .onItsOwn(let code): "ended with status \(code)"
            case .fromOutside(let signal): "was killed from outside by \(signalName(signal))"
            case .byFault(let signal, let call):
                "died by \(signalName(signal))" + (call.map { " when it tried system call \($0)" } ?? "")
            case .hung: "hung and was killed"
            case .unknown: "ended; nobody was there to see how"
            }
        }

        var isFault: Bool {
            switch self {
            case .onItsOwn(let code): code != 0
            case .byFault, .hung: true
            case .fromOutside, .unknown: false
            }
        }
    }

    public enum Timer: String, Codable, Hashable, Sendable, CaseIterable {
        /// Start a worker again.
        case backOff
        /// A worker is not ready.
        case start
        /// A worker that waits for the device, with nobody in its way, has not got it.
        case takeOver
        /// A step of an upgrade.
        case upgradeStep
        /// An upgrade has stood the test.
        case probation
        /// Workers that were told to end.
        case quit
        /// Whoever has asked for another size.
        case resize
    }

    /// What the edge does, in order.
    public enum Action: Hashable, Sendable {
        /// Start a worker. Answered by `spawned` or `notSpawned`.
        case spawn(WorkerID, program: Int)
        /// Give it all that is in custody, then open files of the image, then `prepare`.
        case equip(WorkerID)
        /// - Parameter descriptor: the key of the descriptor that goes with it.
        case send(CustodyMessage, to: WorkerID, descriptor: CustodyKey? = nil)
        /// Take the descriptor that came with the message into custody.
        case store(CustodyKey)
        case drop(CustodyKey)
        /// SIGKILL.
        case kill(WorkerID)
        /// Close the channel to a worker that has ended.
        case forget(WorkerID)
        /// Accept connections, or leave them waiting.
        case accept(Bool)
        /// nil: stop it.
        case setTimer(Timer, milliseconds: UInt64?)
        case report(Report)
        case upgradeEnded(Upgrade.Outcome)
        /// Let the image end after so many bytes.
        case cut(UInt64)
        case resizeEnded(ResizeOutcome)
        /// The device is no more: let go of everything.
        case dissolve
    }

    /// What an operator is told.
    public struct Report: Codable, Hashable, Sendable {
        public enum Kind: String, Codable, Hashable, Sendable {
            case created, deleted, started, standby, active, died, refused, connected, disconnected, frozen, settled
            case upgrading, upgraded, rolledBack, failed, note, resizing, resized
            /// Requests wait for room on the host; none does any more.
            case outOfRoom, hasRoom
            /// It is served, with less between it and a fault than there should be.
            case weakened
        }
        public var kind: Kind
        /// The worker that it is about; nil for the device.
        public var worker: WorkerID?
        public var text: String
    }
}

extension CustodyRole {
    /// Made by the supervisor alone: what a worker gives in its place is not believed.
    var isSupervisors: Bool {
        switch self {
        case .record, .statistics, .journal, .thread: true
        default: false
        }
    }

    /// Belongs to the device itself; everything else came with a connection and goes with it.
    var outlivesConnection: Bool {
        switch self {
        case .record, .inflight, .bounce, .image, .statistics, .journal, .shareTables: true
        default: false
        }
    }
}

extension CustodyKey: Codable {
    public init(from decoder: any Decoder) throws {
        let number = try decoder.singleValueContainer().decode(UInt32.self)
        self.init(CustodyRole(rawValue: UInt16(number >> 16)), UInt16(number & 0xffff))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(UInt32(role.rawValue) << 16 | UInt32(index))
    }
}
