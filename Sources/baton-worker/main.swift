// baton-worker: arguments and wiring only.
internal import Glibc
internal import Logging
internal import Platform
internal import Telemetry
internal import WorkerRuntime

/// Says why the program ends, on standard error, as one line.
func fail(_ message: String, status: Int32) -> Never {
    printText("baton-worker: \(message)\n", to: STDERR_FILENO)
    exit(status)
}

do throws(UsageError) {
    switch try parseCommandLine() {
    case .print(let text):
        printText(text, to: STDOUT_FILENO)
    case .serve(let configuration, let level):
        var log = Logger(label: "baton-worker") { StandardErrorLog(label: $0) }
        log.logLevel = level
        do throws(SystemError) {
            try Worker(configuration, log: log).run()
        } catch {
            fail("\(error)", status: 1)
        }
    case .serveInCustody(let channel, let rings, let level):
        var log = Logger(label: "baton-worker") { StandardErrorLog(label: $0) }
        log.logLevel = level
        do throws(SystemError) {
            let worker = try CustodyWorker(channel: channel, rings: rings, version: version, log: log) { text in
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
} catch {
    fail(error.description, status: 2)
}
