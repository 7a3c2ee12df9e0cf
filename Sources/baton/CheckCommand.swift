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

    @Flag(help: "Print JSON: one object, with files, disks and problems.")
    var json = false

    private struct Report: Encodable {
        var files: [String]
        var disks: [String]
        var problems: [ConfigurationProblem]
    }

    func run() throws {
        let files: [ConfigurationText]
        do throws(ConfigurationProblem) {
            files = try ConfigurationFiles(config).read()
        } catch {
            try tell(Report(files: [error.file], disks: [], problems: [error]))
            throw ExitCode(2)
        }
        let configuration = DiskConfiguration(files)
        let problems = configuration.problems + configuration.disks.flatMap { HostCheck.problems(of: $0) }
        try tell(
            Report(files: files.map(\.path), disks: configuration.disks.map(\.parameters.name), problems: problems))
        if problems.contains(where: { $0.severity == .error }) { throw ExitCode(1) }
    }

    private func tell(_ report: Report) throws {
        if json { return try printJSON(report) }
        for problem in report.problems { printText("\(problem)\n", to: STDERR_FILENO) }
        let errors = report.problems.count { $0.severity == .error }
        let warnings = report.problems.count - errors
        printText(
            "\(report.files.count) files, \(report.disks.count) disks, \(errors) errors, \(warnings) warnings\n",
            to: STDOUT_FILENO)
    }
}
