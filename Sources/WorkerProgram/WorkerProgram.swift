internal import Glibc
internal import Logging
internal import Platform
internal import Telemetry
public import WorkerRuntime

// The worker's program: arguments and wiring only. In a module, so that another build of it can be made for tests.

/// Says why the program ends, on standard error, as one line.
private func fail(_ message: String, status: Int32) -> Never {
    printText("baton-worker: \(message)\n", to: STDERR_FILENO)
    exit(status)
}

private func makeLog(_ level: Logger.Level, _ journal: JournalSocket) -> Logger {
    var log = Logger(label: "baton-worker") { StandardErrorLog(label: $0, journal: journal) }
    log.logLevel = level
    return log
}

/// Does what this process's command line says, and returns when it is done. What goes wrong ends the process: with
/// status 2 when the command line is wrong, else with 1.
public func runWorker(_ build: WorkerBuild) {
    nameProcess()
    takeShortTurns()
    do throws(UsageError) {
        switch try parseCommandLine(version: build.version) {
        case .print(let text):
            printText(text, to: STDOUT_FILENO)
        case .serve(let configuration, let level):
            do throws(SystemError) {
                try Worker(configuration, log: makeLog(level, .ofStandardError())).run()
            } catch {
                fail("\(error)", status: 1)
            }
        case .mount(let configuration, let place, let level):
            do throws(SystemError) {
                try MountWorker(configuration, at: place, log: makeLog(level, .ofStandardError())).run()
            } catch {
                fail("\(error)", status: 1)
            }
        case .serveInCustody(let channel, let rings, let directory, let confinement, let level):
            serveInCustody(channel, rings, directory, build, confinement, level)
        }
    } catch {
        fail(error.description, status: 2)
    }
}

private func serveInCustody(
    _ channel: Int32, _ rings: [Int32], _ directory: Int32?, _ build: WorkerBuild, _ confinement: Confinement?,
    _ level: Logger.Level
) {
    // The supervisor gives it, if there is one: this process may reach no path.
    let journal = JournalSocket()
    var log = makeLog(level, journal)
    if let deviceName { log[metadataKey: "device"] = "\(deviceName)" }
    do throws(SystemError) {
        let worker = try CustodyWorker(
            channel: channel, rings: rings, directory: directory, build: build, confinement: confinement, log: log,
            journal: journal
        ) { text in
            do throws(UsageError) {
                return .success(try parseConfiguration(text))
            } catch {
                return .failure(ConfigurationRefusal(error.description))
            }
        }
        try worker.run()
    } catch {
        fail("\(error)", status: 1)
    }
}

/// A supervisor starts an open file, by the number of a descriptor, which the kernel would take for the program's name;
/// and it says in the first argument whose worker this is (`baton-worker:NAME`).
private func nameProcess() {
    if let deviceName { nameCurrentThread("baton:" + deviceName) }
}

private var deviceName: Substring? {
    guard let first = CommandLine.arguments.first, let colon = first.lastIndex(of: ":"),
        first.hasPrefix("baton-worker:")
    else { return nil }
    return first[first.index(after: colon)...]
}
