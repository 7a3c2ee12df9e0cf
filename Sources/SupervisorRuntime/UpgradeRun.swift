internal import Platform

/// What `baton upgrade` asks for.
struct UpgradeRequest: Sendable {
    /// Names; none means all.
    var devices: [String]
    /// nil: the present program's path, where a new one may lie by now.
    var programPath: String?
    /// So many devices first, which then have to stand the test; 0 for none.
    var canaries: Int
    var isDryRun: Bool
    var progress: @Sendable (UpgradeProgress) -> Void
    var reply: @Sendable (Result<[UpgradeProgress], SupervisorError>) -> Void
}

/// An upgrade of several devices, one after the other. Pure: it says what is next.
struct UpgradeRun {
    private let request: UpgradeRequest
    private let names: [String]
    private let program: Int
    private var done: [UpgradeProgress] = []
    private var current: String?
    private var startedAt: UInt64 = 0
    private var failure: String?
    private var canariesAreFine = false
    /// When the canaries have stood the test, in nanoseconds of CLOCK_MONOTONIC.
    private(set) var resumeAt: UInt64?

    /// How long canaries are looked at, in nanoseconds.
    static let canaryTest: UInt64 = 5_000_000_000

    enum Next {
        case upgrade(String, DeviceMachine.Upgrade.Order)
        case checkCanaries([String], program: Int)
        case finish(
            @Sendable (Result<[UpgradeProgress], SupervisorError>) -> Void, Result<[UpgradeProgress], SupervisorError>,
            program: Int, isComplete: Bool)
    }

    init(_ request: UpgradeRequest, names: [String], program: Int) {
        self.request = request
        self.names = names
        self.program = program
    }

    /// A device's upgrade has ended.
    mutating func ended(_ name: String, _ outcome: DeviceMachine.Upgrade.Outcome) {
        guard current == name else { return }
        current = nil
        let progress = UpgradeProgress(
            device: name, outcome: outcome, milliseconds: (monotonicNanoseconds() - startedAt) / 1_000_000)
        done.append(progress)
        request.progress(progress)
        if case .failed(let why) = outcome { failure = "\(name): \(why)" }
    }

    mutating func canariesChecked(_ strayed: [String]) {
        canariesAreFine = true
        if let first = strayed.first { failure = "\(first): the new program failed, and was rolled back" }
    }

    /// What is to be done now; nil while something is waited for.
    mutating func next(at now: UInt64) -> Next? {
        if current != nil { return nil }
        if let failure {
            let rest = names.count - done.count
            let text = rest > 0 ? "\(failure). \(rest) devices were not touched" : failure
            return .finish(request.reply, .failure(.failed(text)), program: program, isComplete: false)
        }
        let looksAtCanaries =
            request.canaries > 0 && !request.isDryRun && done.count == min(request.canaries, names.count)
        if looksAtCanaries, !canariesAreFine {
            guard let resumeAt else {
                self.resumeAt = now + Self.canaryTest
                return nil
            }
            if now < resumeAt { return nil }
            self.resumeAt = nil
            return .checkCanaries(Array(names.prefix(done.count)), program: program)
        }
        guard done.count < names.count else {
            let isComplete = !request.isDryRun && request.devices.isEmpty
            return .finish(request.reply, .success(done), program: program, isComplete: isComplete)
        }
        let name = names[done.count]
        current = name
        startedAt = now
        return .upgrade(name, DeviceMachine.Upgrade.Order(program: program, isDryRun: request.isDryRun))
    }
}
