internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Glibc
internal import Platform

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read the configuration and say what is wrong with it. Changes nothing, and asks no supervisor.",
        discussion: """
            Exit status 0: no error, though perhaps warnings; 1: errors; 2: a file could not be read.
            """)

    @Option(help: "The first file; those in conf.d beside it follow (\(ConfigurationFiles.standardPath)).")
    var config: String?

    @Flag(help: "Print JSON: one object, with files, disks, shares and problems.")
    var json = false

    private struct Report: Encodable {
        var files: [String]
        var disks: [String]
        var shares: [String]
        var problems: [ConfigurationProblem]
    }

    func run() throws {
        let files: [ConfigurationText]
        do throws(ConfigurationProblem) {
            files = try ConfigurationFiles(config).read()
        } catch {
            try tell(Report(files: [error.file], disks: [], shares: [], problems: [error]))
            throw ExitCode(2)
        }
        let configuration = ConfigurationContent(files)
        let problems = configuration.problems + configuration.devices.flatMap { HostCheck.problems(of: $0) }
        func names(_ kind: DeviceKind) -> [String] {
            configuration.devices.map(\.parameters).filter { $0.kind == kind }.map(\.name)
        }
        try tell(
            Report(files: files.map(\.path), disks: names(.disk), shares: names(.share), problems: problems))
        if problems.contains(where: { $0.severity == .error }) { throw ExitCode(1) }
    }

    private func tell(_ report: Report) throws {
        if json { return try printJSON(report) }
        for problem in report.problems { printText("\(problem)\n", to: STDERR_FILENO) }
        let errors = report.problems.count { $0.severity == .error }
        let warnings = report.problems.count - errors
        printText(
            "\(report.files.count) files, \(report.disks.count) disks, \(report.shares.count) shares, "
                + "\(errors) errors, \(warnings) warnings\n",
            to: STDOUT_FILENO)
    }
}
