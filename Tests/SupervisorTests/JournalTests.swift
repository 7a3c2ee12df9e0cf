import ControlAPI
import Foundation
import Platform
import TestSupport
import Testing

/// batond as a service of a real systemd, in a sandbox: its log and its workers' in a real journal.
@Suite(.serialized) struct JournalTests {
    private static let script =
        #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
        + "/Scripts/lib/systemd-sandbox"

    @discardableResult
    private static func run(_ arguments: [String]) throws -> (code: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: script)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, output)
    }

    private static var isPossible: Bool { (try? run(["check"]))?.code == 0 }

    private struct Entry: Decodable {
        var message: String
        var priority: String
        var identifier: String
        var generation: String?
        var process: String

        enum CodingKeys: String, CodingKey {
            case message = "MESSAGE"
            case priority = "PRIORITY"
            case identifier = "SYSLOG_IDENTIFIER"
            case generation = "BATON_GENERATION"
            case process = "_PID"
        }
    }

    @Test(.enabled(if: isPossible, "left out: no systemd can be run here"))
    func `the journal can be asked for a device and a generation`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let place = directory.value.path
        // Not with Foundation's Process: that waits for all who have inherited something of it.
        let programs = String(SupervisorProcess.executable("").dropLast())
        var start = try Program(Self.script, ["start", place, place, programs], in: directory.value)
        #expect(start.wait(milliseconds: 60_000) == .exited(code: 0), "\(start.output)")
        defer { _ = try? Self.run(["stop", place]) }
        func inside(_ words: String...) throws -> (code: Int32, output: String) {
            try Self.run(["run", place] + words)
        }
        let control = directory.value.file("control.sock")
        func baton(_ words: String...) throws -> (code: Int32, output: String) {
            try Self.run(["run", place, "\(programs)/baton"] + words + ["--control-socket", control])
        }
        #expect(
            try inside(
                "systemd-run", "--unit=batond", "\(programs)/batond", "--control-socket", control, "--state-directory",
                "\(place)/state", "--worker", "\(programs)/baton-worker"
            ).code == 0)
        let end = monotonicNanoseconds() + 30_000_000_000
        func wait(_ what: String, until condition: () throws -> Bool) throws {
            while try !condition() {
                guard monotonicNanoseconds() < end else {
                    throw SystemError(cannot: "see", what, nil, advice: try inside("journalctl", "-u", "batond").output)
                }
                Platform.pause(milliseconds: 50)
            }
        }
        try wait("batond") { TestFile.exists(control) }
        #expect(try baton("create", "disk", "d", "--null").code == 0)
        func isStaffed(_ generation: UInt64) throws -> Bool {
            let text = try baton("status", "d", "--json").output
            let info = try? JSONDecoder().decode(DeviceInfo.self, from: Data(text.utf8))
            return info.map { $0.isStaffed && $0.generation == generation } ?? false
        }
        try wait("a standby") { try isStaffed(1) }
        let killed = try baton("kill", "d").output.split(separator: " ").last?.trimmingCharacters(in: .newlines)
        try wait("a take-over") { try isStaffed(2) }
        var entries: [Entry] = []
        try wait("the entries") {
            let lines = try inside("journalctl", "-o", "json", "BATON_DEVICE=d").output.split(separator: "\n")
            entries = lines.compactMap { try? JSONDecoder().decode(Entry.self, from: Data($0.utf8)) }
            return entries.contains { $0.identifier == "batond" && $0.message.hasPrefix("died ") }
                && entries.contains { $0.identifier == "baton-worker" && $0.generation == "2" }
        }
        let first = try #require(entries.first { $0.identifier == "baton-worker" })
        #expect(first.generation == "1" && first.priority == "5" && first.process == killed, "\(first)")
        let death = try #require(entries.first { $0.message.hasPrefix("died ") })
        #expect(death.generation == "1" && death.priority == "4", "\(death)")
        _ = try baton("delete", "d")
    }
}
