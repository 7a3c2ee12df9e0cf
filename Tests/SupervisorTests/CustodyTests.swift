import ControlAPI
import Glibc
import Platform
import TestSupport
import Testing

/// Real supervisors and real workers, which serve nothing: what is looked at is who has what.
@Suite(.serialized) struct CustodyTests {
    private func makeSupervisor() throws -> SupervisorProcess {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let path = try SupervisorProcess.scriptedWorker("good-1", in: directory)
        let supervisor = try SupervisorProcess(worker: path, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--null", "--queues", "2", "--threads", "2")
        #expect(made.code == 0, "\(made.output)")
        return supervisor
    }

    /// Sends one byte to the worker behind a connection, and gets one.
    private func ask(_ stream: borrowing UnixStream, _ letter: Character) throws -> Character? {
        let bytes = Array("\(letter)".utf8)
        try unsafe bytes.withUnsafeBytes { try unsafe stream.send($0) }
        guard waitForInput(stream.fd.number, milliseconds: 20_000) else { return nil }
        var answer: [UInt8] = [0]
        let count = try unsafe answer.withUnsafeMutableBytes { try unsafe stream.receive(into: $0).byteCount }
        return count == 1 ? Character(UnicodeScalar(answer[0])) : nil
    }

    @Test func aConnectionSurvivesKills() throws {
        var supervisor = try makeSupervisor()
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        var expected: UInt8 = 0
        for _ in 0..<5 {
            #expect(try ask(stream, "k") != nil)
            expected += 1
            // What it gave is in custody when the next one counts.
            _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
            #expect(try ask(stream, "?") == Character(UnicodeScalar(UInt8(ascii: "0") + expected)))
            let before = try supervisor.status("d")
            #expect(try supervisor.baton("kill", "d").code == 0)
            let after = try supervisor.wait("d", "another worker") {
                $0.isStaffed && $0.active?.id != before.active?.id
            }
            #expect(after.active?.id == before.standby?.id)
            #expect(try ask(stream, "?") == Character(UnicodeScalar(UInt8(ascii: "0") + expected)))
        }
        #expect(try supervisor.status("d").connections == 1)
        try supervisor.end()
    }

    @Test func theNextFrontendIsAccepted() throws {
        var supervisor = try makeSupervisor()
        for round in 1...3 {
            let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
            #expect(try ask(stream, "k") == "1")
            #expect(try supervisor.status("d").connections == round)
        }
        try supervisor.end()
    }

    @Test func anUpgradeReplacesTheWorkerBehindAConnection() throws {
        var supervisor = try makeSupervisor()
        let next = try SupervisorProcess.scriptedWorker("good-2", in: supervisor.directory)
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        let dry = try supervisor.baton("upgrade", "--all", "--worker", next, "--dry-run")
        #expect(dry.code == 0, "\(dry.output)")
        #expect(try supervisor.status("d").active?.pid == before.active?.pid)
        let real = try supervisor.baton("upgrade", "--all", "--worker", next)
        #expect(real.code == 0, "\(real.output)")
        let after = try supervisor.status("d")
        #expect(after.workers.map(\.version) == ["good-2", "good-2"])
        #expect(try ask(stream, "?") == "1")
        try supervisor.end()
    }

    @Test(arguments: ["refuses", "other-record", "traps"])
    func anUpgradeToABuildThatFailsLeavesTheOldOne(name: String) throws {
        var supervisor = try makeSupervisor()
        let bad = try SupervisorProcess.scriptedWorker(name, in: supervisor.directory)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        let result = try supervisor.baton("upgrade", "d", "--worker", bad)
        #expect(result.code == 1, "\(result.output)")
        let after = try supervisor.wait("d", "the old build") { $0.isStaffed && $0.upgrade == nil }
        #expect(after.workers.map(\.version) == ["good-1", "good-1"])
        #expect(after.problem == nil)
        #expect(try ask(stream, "?") == "1")
        try supervisor.end()
    }

    @Test func aBuildThatTrapsLaterIsRolledBack() throws {
        var supervisor = try makeSupervisor()
        let bad = try SupervisorProcess.scriptedWorker("traps-later", in: supervisor.directory)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try supervisor.baton("upgrade", "d", "--worker", bad).code == 0)
        #expect(try ask(stream, "k") == "1")
        let after = try supervisor.wait("d", "the old build") { info in
            info.isStaffed && info.upgrade == nil && info.workers.allSatisfy { $0.version == "good-1" }
        }
        #expect(after.problem == nil)
        #expect(try ask(stream, "?") == "1")
        try supervisor.end()
    }

    /// Right after an upgrade.
    @Test(arguments: [SIGKILL, SIGILL]) func onlyItsOwnFaultRollsANewBuildBack(signal: Int32) throws {
        var supervisor = try makeSupervisor()
        let next = try SupervisorProcess.scriptedWorker("good-2", in: supervisor.directory)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        #expect(try supervisor.baton("upgrade", "d", "--worker", next).code == 0)
        let victim = try #require(try supervisor.status("d").active)
        kill(victim.pid, signal)
        let version = signal == SIGKILL ? "good-2" : "good-1"
        let after = try supervisor.wait("d", "another worker") { info in
            info.isStaffed && info.upgrade == nil && info.active?.id != victim.id
                && info.workers.allSatisfy { $0.version == version }
        }
        #expect(after.problem == nil)
        #expect(try ask(stream, "?") == "1")
        try supervisor.end()
    }

    @Test func theSupervisorMayBeKilled() throws {
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        for round in 1...3 as ClosedRange<UInt8> {
            try supervisor.killAndRestart()
            let after = try supervisor.status("d")
            #expect(after.active?.pid == before.active?.pid)
            #expect(after.isStaffed)
            #expect(try ask(stream, "k") == Character(UnicodeScalar(UInt8(ascii: "1") + round)))
        }
        // And it is as good a supervisor as the first.
        #expect(try supervisor.baton("kill", "d").code == 0)
        let after = try supervisor.wait("d", "another worker") {
            $0.isStaffed && $0.active?.pid != before.active?.pid
        }
        #expect(after.active?.pid == before.standby?.pid)
        #expect(try ask(stream, "?") == "4")
        #expect(after.connections == 1)
        try supervisor.end()
    }

    @Test func theSupervisorIsReplacedInPlace() throws {
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        for _ in 0..<2 {
            let result = try supervisor.baton("upgrade", "--supervisor")
            #expect(result.code == 0, "\(result.output)")
            #expect(result.output.contains("it has 1 devices"))
            #expect(supervisor.program.wait(milliseconds: 0) == nil, "it is the same process")
            let after = try supervisor.status("d")
            #expect(after.workers.map(\.pid) == before.workers.map(\.pid))
        }
        #expect(try ask(stream, "k") == "2")
        #expect(try supervisor.baton("kill", "d").code == 0)
        #expect(try ask(stream, "?") == "2")
        let wrong = try supervisor.baton("upgrade", "--supervisor", "--program", "/nonexistent/batond")
        #expect(wrong.code == 1)
        #expect(try supervisor.status("d").disk.name == "d")
        try supervisor.end()
    }

    @Test func aTakeOverNeedsNoSupervisor() throws {
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("d.sock"))
        #expect(try ask(stream, "k") == "1")
        supervisor.program.send(signal: 9)
        supervisor.program.wait(milliseconds: 10_000)
        if let pid = before.active?.pid { kill(pid, 9) }
        #expect(try ask(stream, "?") == "1", "the kernel has handed the device on")
        try supervisor.killAndRestart()
        let after = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(after.active?.pid == before.standby?.pid)
        #expect(try ask(stream, "?") == "1")
        try supervisor.end()
    }

    @Test func whatIsWrongIsSaidInASentence() throws {
        var supervisor = try makeSupervisor()
        for (arguments, part) in [
            (["status", "none"], "there is no device 'none'"), (["create", "disk", "d", "--null"], "already"),
            (["create", "disk", "e", "--file", "/nonexistent/image"], "cannot open the image /nonexistent/image"),
            (["create", "disk", "e", "--null", "--queues", "65"], "1 to 64 queues"),
            (["create", "disk", "e", "--null", "--socket-mode", "9"], "a socket's mode is octal"),
            (["create", "disk", "e", "--null", "--socket-owner", "no-such-user"], "there is no user 'no-such-user'"),
            (["create", "disk", "e", "--null", "--poll-us", "1000001"], "0 to 1000000 microseconds"),
            (["create", "disk", "e", "--null", "--cpus", "4096"], "0 to 4095"),
            (["upgrade", "d", "--worker", "/nonexistent/worker"], "cannot open the worker's program"),
        ] {
            let result = try supervisor.baton(arguments)
            #expect(result.code == 1)
            #expect(result.output.contains(part), "\(arguments): \(result.output)")
            #expect(result.output.split(separator: "\n").count == 1)
        }
        #expect(try supervisor.baton(["frobnicate"]).code == 64)
        try supervisor.end()
    }

    @Test func nobodyElseGetsTheImage() throws {
        var supervisor = try makeSupervisor()
        let image = supervisor.directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        #expect(try supervisor.baton("create", "disk", "e", "--file", image).code == 0)
        _ = try supervisor.wait("e", "a standby") { $0.isStaffed }
        for _ in 0..<2 {
            let second = try supervisor.baton("create", "disk", "f", "--file", image)
            #expect(second.code == 1)
            #expect(second.output.contains("Another worker or supervisor serves it"), "\(second.output)")
            #expect(!TestFile.exists(supervisor.directory.value.file("f.sock")))
            // It may be about to get a guest that moves here: it waits, and serves no queue until then.
            var alone = try WorkerProcess(["--blk-file=\(image)"], in: supervisor.directory.value)
            let output = alone.program.output
            #expect(output.contains("until then no queue starts here"), "\(output)")
            alone.program.stop()
            // The lock is not the supervisor's alone.
            try supervisor.killAndRestart()
        }
        _ = try supervisor.baton("delete", "e")
        #expect(try supervisor.baton("create", "disk", "f", "--file", image).code == 0)
        try supervisor.end()
    }

    @Test func whenAllAreKilledTheDeviceIsMadeAnew() throws {
        var supervisor = try makeSupervisor()
        let image = supervisor.directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        #expect(try supervisor.baton("create", "disk", "e", "--file", image).code == 0)
        let before = try supervisor.wait("e", "a standby") { $0.isStaffed }
        supervisor.program.send(signal: 9)
        supervisor.program.wait(milliseconds: 10_000)
        for worker in before.workers { kill(worker.pid, 9) }
        try supervisor.killAndRestart()
        let after = try supervisor.wait("e", "a new worker") { $0.isStaffed }
        #expect(after.connections == 0)
        let stream = try UnixStream(connectingTo: supervisor.directory.value.file("e.sock"))
        #expect(try ask(stream, "k") == "1")
        try supervisor.end()
    }

    @Test func aDeviceWhoseWorkerRefusesKeepsItsSocket() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let path = try SupervisorProcess.scriptedWorker("refuses", in: directory)
        var supervisor = try SupervisorProcess(worker: path, in: directory)
        #expect(try supervisor.baton("create", "disk", "d", "--null").code == 0)
        let info = try supervisor.wait("d", "its problem") { $0.problem != nil }
        #expect(info.problem == "this build refuses everything")
        #expect(try supervisor.baton("status", "d").code == 3)
        let stream = try UnixStream(connectingTo: directory.value.file("d.sock"))
        #expect(!waitForInput(stream.fd.number, milliseconds: 0))
        // A build that works makes it well, and the front-end has only waited.
        let good = try SupervisorProcess.scriptedWorker("good-1", in: directory)
        #expect(try supervisor.baton("upgrade", "--all", "--worker", good).code == 0)
        #expect(try ask(stream, "k") == "1")
        try supervisor.end()
    }
}
