import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

@testable import KillKit

/// A real batond is killed at a system call of the thread that keeps custody, while it does something; the next one
/// goes on. Its places are chosen anew each time; BATON_DEATHS=N tries so many of each kind, 0 all of them in turn.
@Suite(.serialized, .enabled(if: geteuid() == 0)) struct SupervisorDeathTests {
    private let directory: TemporaryDirectoryBox

    init() throws { directory = TemporaryDirectoryBox(try TemporaryDirectory()) }

    enum Occasion: String, CaseIterable { case upgrade, death, create, delete }

    /// Places that are chosen from, each call being two: at its beginning, and at its end.
    private static let usual: UInt64 = 200
    /// More than any of these has.
    private static let furthest = 400
    /// All is done after so long, in nanoseconds: what comes then are looks at the clock, which come for ever.
    private static let longest: UInt64 = 5_000_000_000

    private func start(_ arguments: [String], _ supervisor: borrowing SupervisorProcess) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: SupervisorProcess.executable("baton"))
        process.arguments = arguments + ["--control-socket", directory.value.file("control.sock")]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        return process
    }

    private func begin(
        _ occasion: Occasion, _ image: String, _ before: DeviceInfo, _ supervisor: borrowing SupervisorProcess
    ) throws -> Process? {
        switch occasion {
        case .upgrade: return try start(["upgrade", "d"], supervisor)
        case .create: return try start(["create", "disk", "e", "--file", image], supervisor)
        case .delete: return try start(["delete", "e"], supervisor)
        case .death:
            kill(before.active?.pid ?? 0, SIGKILL)
            return nil
        }
    }

    /// - Returns: false when there were not so many system calls: nothing was killed then.
    private func killAt(
        _ place: Int, of occasion: Occasion, _ image: String, _ supervisor: inout SupervisorProcess
    ) throws -> Bool {
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let start = monotonicNanoseconds()
        let thread = try TracedThread(
            named: "custody", ofProcess: supervisor.program.pid, deadline: start + 20_000_000_000)
        let command = try begin(occasion, image, before, supervisor)
        let end = monotonicNanoseconds() + Self.longest
        var isOver = false
        for _ in 0..<place where !isOver {
            // Each is seen at its beginning and at its end.
            let stop = thread.proceed(toCall: true, deadline: end)
            isOver = stop == .timeout || stop == .ended
            if isOver { printText("\(occasion.rawValue): over at \(place): \(stop)\n", to: STDERR_FILENO) }
        }
        if isOver {
            thread.interrupt(deadline: monotonicNanoseconds() + 3_000_000_000)
            thread.detach()
        } else {
            supervisor.program.send(signal: SIGKILL)
            thread.bury()
        }
        command?.waitUntilExit()
        if !isOver { try supervisor.killAndRestart() }
        return !isOver
    }

    /// Where it is killed, one after the other.
    private func places() -> [Int] {
        let text = ProcessInfo.processInfo.environment["BATON_DEATHS"]
        let count = text.flatMap { Int($0) } ?? 3
        if count == 0 { return Array(1...Self.furthest) }
        let seed = makeSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        return (0..<count).map { _ in 1 + Int(random.next(below: Self.usual)) }
    }

    @Test(arguments: Occasion.allCases) func `batond may die at any system call`(of occasion: Occasion) throws {
        let (image, other) = (directory.value.file("disk.img"), directory.value.file("other.img"))
        try TestFile.create(image, count: 1 << 20)
        try TestFile.create(other, count: 1 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--file", image, "--cache", "buffered")
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = rig.makeDriver()
        let places = places()
        var kills = 0
        defer { printText("\(occasion.rawValue): batond was killed \(kills) times\n", to: STDERR_FILENO) }
        for (round, place) in places.enumerated() {
            let what = "killed at \(place) of \(occasion.rawValue)"
            if occasion == .delete {
                let made = try supervisor.baton("create", "disk", "e", "--file", other)
                #expect(made.code == 0, "\(made.output)")
            }
            let data = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 4096)
            #expect(try driver.write(data, sector: 8).status == .ok)
            let wasKilled = try killAt(place, of: occasion, other, &supervisor)
            if wasKilled { kills += 1 }
            // The guest has lost nothing, and has not had to connect again.
            #expect(try driver.read(sector: 8, count: 4096).data == data, "\(what)")
            #expect(try driver.write(data, sector: 16).status == .ok, "\(what)")
            let after = try supervisor.wait("d", "a standby") {
                $0.isStaffed && $0.upgrade == nil
            }
            #expect(after.connections == 1 && after.problem == nil, "\(what): \(after)")
            if occasion == .create || occasion == .delete { try checkOther(other, what, supervisor) }
            if !wasKilled, places.count == Self.furthest { break }
        }
        try supervisor.end()
    }

    /// The other device is there, whole, or it is not, and can be made.
    private func checkOther(_ image: String, _ what: String, _ supervisor: borrowing SupervisorProcess) throws {
        let end = monotonicNanoseconds() + 60_000_000_000
        while true {
            let names = try supervisor.baton("list").output
            guard names.contains("\ne ") || names.hasPrefix("e ") else { break }
            // Made, or about to go.
            if try supervisor.baton("delete", "e").code == 0 { break }
            try #require(monotonicNanoseconds() < end, "\(what): \(names)")
        }
        let made = try supervisor.baton("create", "disk", "e", "--file", image)
        #expect(made.code == 0, "\(what): \(made.output)")
        let gone = try supervisor.baton("delete", "e")
        #expect(gone.code == 0, "\(what): \(gone.output)")
    }
}
