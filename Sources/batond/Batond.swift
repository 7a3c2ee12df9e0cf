internal import ArgumentParser
internal import Foundation
internal import Glibc
internal import Logging
internal import Platform
internal import SupervisorRuntime
internal import Telemetry

// batond: arguments and wiring only.
@main
struct Batond: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batond", abstract: "Keeps what must outlive Baton's workers, starts them, and replaces them.",
        version: "0.1.0")

    @Option(help: "Where `baton` connects.")
    var controlSocket = "/run/baton/control.sock"

    @Option(help: "Group that may use the control socket, besides root.")
    var controlGroup: String?

    @Option(help: "What is kept here survives a restart; front-end sockets lie here unless told otherwise.")
    var stateDirectory = "/var/lib/baton"

    @Option(help: "The worker program.")
    var worker = "/usr/libexec/baton/baton-worker"

    @Option(help: "trace, debug, info, notice, warning, error or critical.")
    var logLevel = "info"

    func run() throws {
        guard let level = Logger.Level(rawValue: logLevel) else {
            throw ValidationError("--log-level is one of \(Logger.Level.allCases.map(\.rawValue))")
        }
        var log = Logger(label: "batond") { StandardErrorLog(label: $0) }
        log.logLevel = level
        do {
            try serve(log)
        } catch {
            printText("batond: \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
    }

    private func serve(_ log: Logger) throws {
        // Before any thread starts, so that all of them leave these signals to this one.
        let signals = try makeSignalDescriptor(for: [SIGTERM, SIGINT])
        let saved = try SavedDevices(in: stateDirectory)
        let supervisor = try Supervisor(programPath: worker, workerOutput: try standardError())
        _ = supervisor.follow { event in
            log.info(
                "\(event.report.kind.rawValue) \(event.report.text)",
                metadata: [
                    "device": "\(event.device)", "worker": event.report.worker.map { "\($0)" } ?? "-",
                ])
        }
        for disk in saved.load(log) {
            let configuration = DeviceConfiguration(disk, directory: stateDirectory)
            supervisor.create(configuration, isRestored: true) { result in
                if case .failure(let error) = result { log.error("cannot restore \(configuration.name): \(error)") }
            }
        }
        let service = ControlService(supervisor: supervisor, saved: saved, directory: stateDirectory, log: log)
        let server = try ControlServer(path: controlSocket, group: try groupNumber(), service: service)
        log.info("listening at \(controlSocket)")
        _ = waitForInput(signals.number)
        server.close()
        log.info("ended; the workers live on")
    }

    private func standardError() throws -> OwnedFD {
        OwnedFD(owning: try retryingInterrupts { fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) })
    }

    private func groupNumber() throws -> UInt32? {
        guard let controlGroup else { return nil }
        if let number = UInt32(controlGroup) { return number }
        guard let entry = unsafe getgrnam(controlGroup) else {
            throw ValidationError("--control-group: there is no group '\(controlGroup)'")
        }
        return unsafe entry.pointee.gr_gid
    }
}
