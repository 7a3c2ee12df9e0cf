import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A front-end under verified load, while workers, their programs and their supervisor are replaced under it. It never
/// connects again: every request is completed once, with the right data.
@Suite(.serialized) struct ServingTests {
    enum Blow: String, CaseIterable {
        case workerKilled, workerUpgraded, supervisorKilled, supervisorUpgraded
        /// To another version and back, each killed once.
        case versionChanged
        /// A build that reads other records is refused.
        case buildRefused
    }

    @Test(arguments: Blow.allCases) func `the front-end notices nothing`(_ blow: Blow) throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 64 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(
            "create", "disk", "d", "--file", image, "--queues", "2", "--threads", "2", "--cache", "buffered")
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let load = try RunningLoad(directory.value.file("d.sock"), queues: 2)
        for round in 1...5 {
            #expect(load.completes(500), "the load ended in round \(round)")
            try strike(blow, &supervisor, round)
        }
        // What is broken now does not complete another request.
        #expect(load.completes(500))
        try load.end()
        #expect(try supervisor.status("d").connections == 1)
        try supervisor.end()
    }

    private func strike(_ blow: Blow, _ supervisor: inout SupervisorProcess, _ round: Int) throws {
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.upgrade == nil }
        switch blow {
        case .workerKilled:
            #expect(try supervisor.baton("kill", "d").code == 0)
            _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.active?.id != before.active?.id }
        case .workerUpgraded:
            let result = try supervisor.baton("upgrade", "d")
            #expect(result.code == 0, "\(result.output)")
            let after = try supervisor.status("d")
            #expect(after.workers.allSatisfy { $0.id > (before.workers.map(\.id).max() ?? 0) })
        case .supervisorKilled:
            try supervisor.killAndRestart()
            #expect(try supervisor.status("d").workers.map(\.pid) == before.workers.map(\.pid))
        case .supervisorUpgraded:
            let result = try supervisor.baton("upgrade", "--supervisor")
            #expect(result.code == 0, "\(result.output)")
            #expect(try supervisor.status("d").workers.map(\.pid) == before.workers.map(\.pid))
        case .versionChanged:
            try changeVersion(&supervisor, toNext: round % 2 == 1)
        case .buildRefused:
            let path = supervisor.directory.value.file("incompatible-worker")
            if round == 1 {
                // By a program of its own: what a child of this process that is not its program yet has open for
                // writing cannot be executed (ETXTBSY).
                let copied = try run(
                    "cp", [SupervisorProcess.executable("next-worker"), path], in: supervisor.directory.value)
                #expect(copied.code == 0, "\(copied.output)")
            }
            let result = try supervisor.baton("upgrade", "d", "--worker", path)
            #expect(result.code == 1)
            #expect(
                result.output.contains("the session record has version 1; this build reads 3 to 3"), "\(result.output)")
            let after = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.upgrade == nil }
            #expect(after.active?.pid == before.active?.pid, "nothing was touched")
        }
    }

    /// Each version takes over from the other one and, after a kill, from itself. The next version has a field in the
    /// record, in which it finds what the worker before has written: unless that one did not know it.
    private func changeVersion(_ supervisor: inout SupervisorProcess, toNext: Bool) throws {
        let program = SupervisorProcess.executable(toNext ? "next-worker" : "baton-worker")
        let result = try supervisor.baton("upgrade", "d", "--worker", program)
        #expect(result.code == 0, "\(result.output)")
        let after = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.upgrade == nil }
        #expect(after.workers.map(\.version) == Array(repeating: toNext ? "0.2.0" : "0.1.0", count: 2))
        #expect(try supervisor.baton("kill", "d").code == 0)
        let last = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.active?.id != after.active?.id }
        let notes = try [after.active, last.active].map { worker in
            let events = try supervisor.baton("events", "--json").output.split(separator: "\n").compactMap {
                try? JSONDecoder().decode(EventInfo.self, from: Data($0.utf8))
            }
            return events.last { $0.kind == "active" && $0.worker == worker?.id }?.text ?? ""
        }
        if toNext {
            #expect(notes[0].contains("nobody says since when the worker before had it"), "\(notes)")
            #expect(notes[1].contains("the worker before had it for"), "\(notes)")
        } else {
            #expect(notes.allSatisfy { !$0.contains("the worker before had it") }, "\(notes)")
        }
    }

    /// The processes that hold a device's descriptors: supervisor, keeper, workers.
    private func holders(_ supervisor: borrowing SupervisorProcess, _ device: DeviceInfo) -> [String] {
        let keepers = TestFile.names(in: "/proc").filter { name in
            guard readSmallFile("/proc/\(name)/cmdline")?.contains("--keep") == true else { return false }
            return readSmallFile("/proc/\(name)/status")?.contains("PPid:\t\(supervisor.program.pid)\n") == true
        }
        return ["\(supervisor.program.pid)"] + keepers + device.workers.map { "\($0.pid)" }
    }

    @Test func `front-ends that come and go leave no descriptor behind, with whoever has custody of it`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        #expect(try supervisor.baton("create", "disk", "d", "--null", "--queues", "2").code == 0)
        let device = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let holders = holders(supervisor, device)
        #expect(holders.count == 4, "supervisor, keeper and two workers: \(holders)")
        func counts() -> [Int] { holders.map { TestFile.names(in: "/proc/\($0)/fd").count } }
        func serve() throws {
            var rig = try Rig(connectingTo: directory.value.file("d.sock"), queueCount: 2)
            var disk = rig.makeDriver()
            #expect(try disk.flush().status == .ok)
        }
        try serve()
        let before = counts()
        for _ in 0..<60 { try serve() }
        // They drop one by one what the last front-end gave, some 20 descriptors. One of each left would be 60.
        let end = monotonicNanoseconds() + 20_000_000_000
        while !zip(counts(), before).allSatisfy({ $0 <= $1 + 30 }) {
            try #require(monotonicNanoseconds() < end, "\(before), then \(counts())")
            pause(milliseconds: 10)
        }
        #expect(try supervisor.status("d").connections == 61)
        try supervisor.end()
    }
}
