import ControlAPI
import Foundation
import Glibc
import Platform
import TestSupport

/// A real batond with a state directory of its own.
struct SupervisorProcess: ~Copyable {
    var program: Program
    let directory: TemporaryDirectoryBox
    private let worker: String
    private let options: [String]
    private let starter: [String]

    static func executable(_ name: String) -> String {
        WorkerProcess.executable.split(separator: "/", omittingEmptySubsequences: false).dropLast()
            .joined(separator: "/") + "/\(name)"
    }

    /// A scripted worker under a name, which says how it behaves.
    static func scriptedWorker(_ name: String, in directory: TemporaryDirectoryBox) throws -> String {
        let path = directory.value.file(name)
        // By another process: a program that a test beside this one starts meanwhile would inherit the file, open for
        // writing, and keep it from being run.
        let copy = try run("cp", [executable("scripted-worker"), path], in: try TemporaryDirectory())
        guard copy.code == 0 else { throw SystemError(cannot: "copy", path, nil, advice: copy.output) }
        return path
    }

    /// - Parameters:
    ///   - worker: path of the worker's program.
    ///   - options: of batond, besides.
    ///   - starter: a command that becomes it; none: it is started as it is.
    init(
        worker: String, _ options: [String] = [], startedBy starter: [String] = [], in directory: TemporaryDirectoryBox
    ) throws {
        self.directory = directory
        self.worker = worker
        self.options = options
        self.starter = starter
        program = try Self.start(worker, options, starter, in: directory)
    }

    /// What every batond of the tests is told besides: BATON_SUPERVISOR_OPTIONS in the environment, separated by
    /// spaces.
    private static let optionsOfAll: [String] = {
        guard let text = unsafe getenv("BATON_SUPERVISOR_OPTIONS") else { return [] }
        return unsafe String(cString: text).split(separator: " ").map(String.init)
    }()

    private static func start(
        _ worker: String, _ options: [String], _ starter: [String], in directory: TemporaryDirectoryBox
    ) throws -> Program {
        let socket = directory.value.file("control.sock")
        if TestFile.exists(socket) { try TestFile.remove(socket) }
        let command =
            starter + [executable("batond"), "--control-socket", socket, "--state-directory", directory.value.path]
            + ["--worker", worker] + optionsOfAll + options
        var program = try Program(command[0], Array(command.dropFirst()), in: directory.value)
        try program.waitForFile(socket)
        return program
    }

    var keeperSocket: String { directory.value.file("keeper.sock") }

    /// SIGKILL, then a new one with the same state directory.
    mutating func killAndRestart() throws {
        program.send(signal: 9)
        program.wait(milliseconds: 10_000)
        program = try Self.start(worker, options, starter, in: directory)
    }

    /// Runs `baton` with these arguments.
    func baton(_ arguments: String...) throws -> (code: Int32, output: String) { try baton(arguments) }

    func baton(_ arguments: [String]) throws -> (code: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Self.executable("baton"))
        process.arguments = arguments + ["--control-socket", directory.value.file("control.sock")]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, output)
    }

    /// The state of one device.
    func status(_ name: String) throws -> DeviceInfo {
        try JSONDecoder().decode(DeviceInfo.self, from: Data(baton("status", name, "--json").output.utf8))
    }

    /// Waits until a device is as it should be.
    func wait(
        _ name: String, _ what: String, until condition: (DeviceInfo) -> Bool
    ) throws -> DeviceInfo {
        let end = monotonicNanoseconds() + 120_000_000_000
        while true {
            let info = try status(name)
            if condition(info) { return info }
            guard monotonicNanoseconds() < end else {
                throw SystemError(cannot: "see", what, nil, advice: "\(info)\n\(program.output)")
            }
            pause(milliseconds: 5)
        }
    }

    /// Ends every device, then the supervisor: nothing is left behind.
    mutating func end() throws {
        let devices = try baton("list", "--json").output.split(separator: "\n")
        for line in devices {
            if let info = try? JSONDecoder().decode(DeviceInfo.self, from: Data(line.utf8)) {
                _ = try baton("delete", info.disk.name)
            }
        }
        program.stop()
        try waitForKeeper()
    }

    /// The keeper ends when it has nothing more to keep: what no device was let go with would stay for ever.
    private func waitForKeeper() throws {
        let end = monotonicNanoseconds() + 60_000_000_000
        while (try? UnixStream(connectingTo: keeperSocket, milliseconds: 1_000)) != nil {
            guard monotonicNanoseconds() < end else {
                throw SystemError(cannot: "end", "the keeper", nil, advice: "Something is kept of no device")
            }
            pause(milliseconds: 5)
        }
    }
}

extension DeviceInfo {
    var active: WorkerInfo? { workers.first { $0.phase == "active" } }
    var standby: WorkerInfo? { workers.first { $0.phase == "standby" } }
    /// One serves, one stands by, and whoever served before has been reaped, which may be after its heir has answered.
    var isStaffed: Bool { active != nil && standby != nil && workers.count == 2 }
}
