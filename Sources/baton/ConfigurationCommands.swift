internal import ArgumentParser
internal import ControlAPI
internal import Glibc
internal import Platform

struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Apply the configuration, and wait until that is done.",
        discussion: """
            Devices are added, removed when their requests are finished, and changed where that is possible while they \
            run; what is not possible is said. Devices made by `baton create` stay as they are. A configuration with \
            errors changes nothing at all. Exit status 0: applied; 1: it has errors, or something failed.
            """)

    @Flag(help: "Say what would be done, and do nothing.")
    var dryRun = false

    @OptionGroup var connection: ConnectionOptions

    func run() throws {
        try connection.run { client in
            let result = try client.call(.reload, ReloadParameters(dryRun: dryRun), as: ReloadResult.self)
            if connection.json {
                try printJSON(result)
            } else {
                printText((result.lines + [result.summary]).map { "\($0)\n" }.joined(), to: STDOUT_FILENO)
            }
            if !result.errors.isEmpty || !result.failures.isEmpty { throw ExitCode(1) }
        }
    }
}

struct Start: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make every device that there is to be and that is not there: after `baton stop`.")

    @OptionGroup var connection: ConnectionOptions

    func run() throws { try connection.changeAll(.start, "started") }
}

struct Stop: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "End every device when its requests are finished. They are not forgotten: see `baton start`.")

    @OptionGroup var connection: ConnectionOptions

    func run() throws { try connection.changeAll(.stop, "ended") }
}

extension ConnectionOptions {
    fileprivate func changeAll(_ method: ControlMethod, _ verb: String) throws {
        try run { client in
            let result = try client.call(method, Empty(), as: DevicesResult.self)
            if json { try printJSON(result) }
            for failure in result.failures { printText("baton: \(failure)\n", to: STDERR_FILENO) }
            if !json { printText("\(result.devices.count) devices \(verb)\n", to: STDOUT_FILENO) }
            if !result.failures.isEmpty { throw ExitCode(1) }
        }
    }
}
