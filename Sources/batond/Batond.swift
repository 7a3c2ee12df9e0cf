internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Logging
internal import NIOCore
internal import Platform
internal import SupervisorRuntime
internal import Synchronization
internal import Telemetry

// batond: arguments and wiring only.
@main
struct Batond: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batond", abstract: "Keeps what must outlive Baton's workers, starts them, and replaces them.",
        version: "0.1.0")

    @Option(help: "Where `baton` connects.")
    var controlSocket = "/run/baton/control.sock"

    @Option(help: "Permissions of the control socket, octal.")
    var controlMode = "0660"

    @Option(help: "Group of the control socket, whose members may use it, besides root.")
    var controlGroup: String?

    @Option(help: "What is kept here survives a restart; front-end sockets lie here unless told otherwise.")
    var stateDirectory = "/var/lib/baton"

    @Option(
        help: "The first file of the configuration (\(ConfigurationFiles.standardPath), which may be missing).")
    var config: String?

    @Option(help: "The worker program.")
    var worker = "/usr/libexec/baton/baton-worker"

    @Option(
        help: "Where a duplicate of everything is kept for the next batond: keeper, a process of its own; or systemd.")
    var fdStore = StoreKind.keeper

    @Option(help: "A delegated control group in which each device's workers get one of their own (that of batond).")
    var workerCgroup: String?

    @Option(
        help: "What keeps workers from the host: full, auto (what this system allows) or off. See docs/threat-model.md."
    )
    var workerSandbox = SandboxDemand.auto

    @Option(help: "Whom workers become, a name or a number (baton-worker if there is such a user, else nobody).")
    var workerUser: String?

    @Option(help: "Seconds that a worker may leave requests untouched before it is killed and replaced; 0: no limit.")
    var hangLimit: UInt64 = 10

    @Option(help: "A UNIX socket at which Prometheus, or curl, finds the metrics: GET /metrics (none).")
    var metricsSocket: String?

    @Option(help: "Group of that socket, whose members may read the metrics, besides root.")
    var metricsGroup: String?

    @Option(help: "A loopback address at which they are found, such as 127.0.0.1:9753 (none).")
    var metricsListen: String?

    @Option(help: "trace, debug, info, notice, warning, error or critical.")
    var logLevel = "info"

    /// What `startKeeper` starts: not for people.
    @Option(help: .hidden)
    var keep: Int32?

    func run() throws {
        takeShortTurns()
        if let keep {
            var keeper = DescriptorKeeper(UnixListener(owning: OwnedFD(owning: keep)))
            keeper.run()
            return
        }
        guard hangLimit <= 86_400 else { throw ValidationError("--hang-limit is 0 to 86400 seconds") }
        guard let level = Logger.Level(rawValue: logLevel) else {
            throw ValidationError("--log-level is one of \(Logger.Level.allCases.map(\.rawValue))")
        }
        let journal = JournalSocket.ofStandardError()
        var log = Logger(label: "batond") { StandardErrorLog(label: $0, journal: journal) }
        log.logLevel = level
        do {
            try serve(log, journal)
        } catch {
            printText("batond: \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
    }

    private func serve(_ log: Logger, _ journal: JournalSocket) throws {
        // What was asked for makes sense, or nothing is begun with.
        let (sandbox, access, metricsPlace) = (try sandbox(), try access(), try metricsPlace())
        raiseLimits()
        // Before any thread starts, so that all of them leave these signals to this one.
        let signals = try makeSignalDescriptor(for: [SIGTERM, SIGINT, SIGHUP])
        let saved = try SavedDevices(in: stateDirectory)
        var options = Supervisor.Options(
            programPath: worker, workerOutput: try standardError(), store: try makeStore(), coder: coder,
            workerGroups: workerCgroup.map { WorkerGroups(in: $0) })
        options.hangMilliseconds = hangLimit * 1000
        options.journal = journal.number
        options.sandbox = sandbox
        options.sandbox.adviceForShares = adviceForShares
        let supervisor = try Supervisor(options)
        _ = supervisor.follow { event in
            log.log(
                level: event.report.kind.level, "\(event.report.kind.rawValue) \(event.report.text)",
                metadata: [
                    "device": "\(event.device)", "generation": "\(event.generation)",
                    "worker": event.report.worker.map { "\($0)" } ?? "-",
                ])
        }
        let configured = ConfiguredDevices(
            supervisor: supervisor, saved: saved, files: ConfigurationFiles(config), directory: stateDirectory, log: log
        )
        configured.restore()
        // What was taken over may have to be changed or removed, which takes its time.
        configured.reload(isDryRun: false) { _ in }
        let successor = Successor(bell: try EventFD())
        let service = ControlService(
            supervisor: supervisor, saved: saved, configured: configured, directory: stateDirectory, log: log,
            isStartedAgain: fdStore == .systemd, replace: { successor.call($0) })
        let metrics = try metricsPlace.map { place in
            try MetricsServer(
                path: metricsSocket, access: place.access, address: place.address, supervisor: supervisor,
                version: Self.configuration.version)
        }
        if let metrics { log.info("metrics at \(metrics.places)") }
        let server = try ControlServer(path: controlSocket, access: access, service: service)
        log.info("listening at \(controlSocket)")
        ServiceManager.tell("READY=1")
        try keepWatchdogQuiet(supervisor)
        let isReplaced = waitForEnd(signals, successor, configured)
        // Answers are on their way out before their connections end.
        server.close()
        metrics?.close()
        let stopped = try EventFD()
        let bell = stopped.fd.number
        supervisor.stop(forSuccessor: isReplaced) { signalEvent(bell) }
        _ = waitForInput(bell, milliseconds: 10_000)
        // The store gives everything to a process that its owner starts, and to no other.
        if isReplaced, fdStore != .systemd { becomeSuccessor(successor.path ?? Self.ownPath, log) }
        log.info("ended; the workers live on")
    }

    /// Applies the configuration at every SIGHUP.
    ///
    /// - Returns: whether another program is to take this one's place.
    private func waitForEnd(
        _ signals: borrowing OwnedFD, _ successor: Successor, _ configured: ConfiguredDevices
    ) -> Bool {
        while true {
            let ready = waitForAny([signals.number, successor.number])
            if ready.contains(successor.number) { return true }
            guard let signal = nextSignal(of: signals) else { continue }
            if signal != SIGHUP { return false }
            configured.reload(isDryRun: false) { _ in }
        }
    }

    /// Where metrics are to be had; nil: nowhere.
    private func metricsPlace() throws -> (access: SocketAccess, address: SocketAddress?)? {
        let address = try metricsListen.map { text in
            guard let address = MetricsServer.loopback(text) else {
                throw ValidationError(
                    "--metrics-listen is a loopback address and a port, such as 127.0.0.1:9753, not '\(text)'. "
                        + "For others, put a proxy in front that asks who they are")
            }
            return address
        }
        var access = SocketAccess(mode: 0o660)
        if let metricsGroup {
            guard metricsSocket != nil else { throw ValidationError("--metrics-group needs --metrics-socket") }
            guard let group = groupNumber(metricsGroup) else {
                throw ValidationError("--metrics-group: there is no group '\(metricsGroup)'")
            }
            access.group = group
        }
        return address == nil && metricsSocket == nil ? nil : (access, address)
    }

    private func makeStore() throws(SystemError) -> any FDStore {
        switch fdStore {
        case .keeper: try KeeperStore(path: "\(stateDirectory)/keeper.sock", start: startKeeper)
        case .systemd: try SystemdStore()
        }
    }

    /// Tells systemd, if it watches, that the custody thread goes round.
    private func keepWatchdogQuiet(_ supervisor: Supervisor) throws {
        guard let limit = ServiceManager.watchdogMilliseconds else { return }
        let thread = try JoinableThread(name: "watchdog") {
            while true {
                supervisor.status(nil) { _ in ServiceManager.tell("WATCHDOG=1") }
                pause(milliseconds: max(1, limit / 3))
            }
        }
        thread.detach()
    }

    /// As many descriptors as this user may have: a device needs 30 or more, here and in the keeper. And as much locked
    /// memory: workers that pin guest memory have no privilege to do without a limit.
    private func raiseLimits() {
        for resource in [RLIMIT_NOFILE, __RLIMIT_MEMLOCK] {
            let number = __rlimit_resource_t(resource.rawValue)
            var limit = rlimit(rlim_cur: .max, rlim_max: .max)
            // Root may have all there is.
            if resource == __RLIMIT_MEMLOCK, unsafe setrlimit(number, &limit) == 0 { continue }
            guard unsafe getrlimit(number, &limit) == 0 else { continue }
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(number, &limit)
        }
    }

    /// Runs the new program in this process; the store gives it everything back, as after a kill. If it cannot be run,
    /// this one starts again.
    private func becomeSuccessor(_ path: String, _ log: Logger) {
        log.info("becoming \(path)")
        let error = replaceProcess(path: path, arguments: CommandLine.arguments)
        log.error("cannot become \(path): \(error)")
        _ = replaceProcess(path: "/proc/self/exe", arguments: CommandLine.arguments)
    }

    /// Where this program lies, or what has come in its place.
    private static var ownPath: String {
        let path = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/proc/self/exe"
        let deleted = " (deleted)"
        return path.hasSuffix(deleted) ? String(path.dropLast(deleted.count)) : path
    }

    private func startKeeper(_ listener: borrowing OwnedFD) throws(SystemError) {
        let output: OwnedFD
        do throws(Errno) {
            output = try standardError()
        } catch {
            throw SystemError(cannot: "start", "the keeper of descriptors", error)
        }
        _ = try DetachedProcess(
            path: "/proc/self/exe", name: "batond", arguments: ["--keep", "\(listener.number)"], output: output,
            inheriting: [listener.number])
    }

    private var coder: StateCoder {
        StateCoder(
            encode: { state in (try? JSONEncoder().encode(state)).map { Array($0) } ?? [] },
            decode: { bytes in try? JSONDecoder().decode(DeviceState.self, from: Data(bytes)) })
    }

    private func standardError() throws(Errno) -> OwnedFD {
        OwnedFD(owning: try retryingInterrupts { fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) })
    }

    /// What workers are kept from. Only root can have them become another user.
    private func sandbox() throws -> WorkerSandbox {
        let demand: WorkerSandbox.Demand =
            switch workerSandbox {
            case .full: .full
            case .auto: .auto
            case .off: .off
            }
        guard demand != .off, geteuid() == 0 else { return WorkerSandbox(demand) }
        let names = workerUser.map { [$0] } ?? ["baton-worker", "nobody"]
        guard let (user, group) = names.lazy.compactMap(userNumbers).first else {
            throw ValidationError("--worker-user: there is no user '\(names[0])'")
        }
        return WorkerSandbox(demand, user: user, group: group)
    }

    /// What an operator can do when a share needs what this process lacks.
    private var adviceForShares: String {
        guard fdStore == .systemd else { return "Root has it; --worker-sandbox=off does without a sandbox" }
        // PREFIX/libexec/baton/batond
        let prefix = Self.ownPath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
        let dropIn = "\(prefix.joined(separator: "/"))/share/baton/drop-ins/shares.conf"
        guard FileManager.default.fileExists(atPath: dropIn) else {
            return "The unit has to give it: see Shares under systemd in docs/operating.md"
        }
        let place = "/etc/systemd/system/baton.service.d"
        return "Run: mkdir -p \(place) && ln -sf \(dropIn) \(place) && systemctl daemon-reload"
            + " && systemctl restart baton"
    }

    /// Who may connect to the control socket, and change things there.
    private func access() throws -> ControlAccess {
        guard let mode = UInt32(controlMode, radix: 8), mode <= 0o777 else {
            throw ValidationError("--control-mode is octal, such as 0660, not '\(controlMode)'")
        }
        guard let controlGroup else { return ControlAccess(mode: mode) }
        guard let group = groupNumber(controlGroup) else {
            throw ValidationError("--control-group: there is no group '\(controlGroup)'")
        }
        return ControlAccess(mode: mode, group: group, groupName: controlGroup)
    }
}

extension DeviceMachine.Report.Kind {
    /// How much it matters in the log.
    fileprivate var level: Logger.Level {
        switch self {
        case .refused, .failed: .error
        case .died, .rolledBack, .outOfRoom, .weakened: .warning
        case .active, .upgraded, .created, .deleted: .notice
        default: .info
        }
    }
}

/// What keeps workers from the host.
enum SandboxDemand: String, ExpressibleByArgument { case full, auto, off }

/// Where descriptors are kept.
enum StoreKind: String, ExpressibleByArgument { case keeper, systemd }

/// What the supervisor is to become, as the control socket has said.
private final class Successor: Sendable {
    private let wanted = Mutex<String?>(nil)
    private let bell: EventFD

    init(bell: consuming EventFD) { self.bell = bell }

    /// Readable when it is to become something.
    var number: Int32 { bell.fd.number }
    var path: String? { wanted.withLock { $0 } }

    func call(_ path: String?) {
        wanted.withLock { $0 = path }
        bell.signal()
    }
}
