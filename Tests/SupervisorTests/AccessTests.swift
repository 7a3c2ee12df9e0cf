import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// What an operator asks of a disk beside its storage, and who is asked.
@Suite(.serialized) struct AccessTests {
    private func permissions(_ path: String) -> (mode: UInt32, owner: UInt32, group: UInt32) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return (0, .max, .max) }
        return (status.st_mode & 0o777, status.st_uid, status.st_gid)
    }

    private static let options = [
        "--split-rings", "--poll-us", "7", "--cpus", "0", "--pin-memory", "--socket-mode", "0640", "--socket-owner",
        "1234", "--socket-group", "1235",
    ]

    @Test func aDiskIsAsItWasAskedFor() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(["create", "disk", "d", "--null"] + Self.options)
        #expect(made.code == 0, "\(made.output)")
        // And it is the same after a supervisor's death, and after everything's.
        for round in 0..<3 {
            if round == 1 { try supervisor.killAndRestart() }
            if round == 2 {
                let workers = try supervisor.status("d").workers
                supervisor.program.send(signal: 9)
                supervisor.program.wait(milliseconds: 10_000)
                for worker in workers { kill(worker.pid, 9) }
                try supervisor.killAndRestart()
            }
            let info = try supervisor.wait("d", "a standby") { $0.isStaffed }
            #expect(info.disk.splitRings == true && info.disk.pinMemory == true)
            #expect(info.disk.pollMicroseconds == 7 && info.disk.cpus == [0])
            let socket = permissions(directory.value.file("d.sock"))
            #expect(socket == (0o640, 1234, 1235), "round \(round)")
            let text = try supervisor.baton("status", "d").output
            #expect(text.contains("(mode 0640, owner 1234, group 1235)"), "\(text)")
            #expect(text.contains("split rings only"), "\(text)")
            #expect(text.contains("on CPUs 0, polling at most 7 us"), "\(text)")
        }
        let rig = try Rig(connectingTo: directory.value.file("d.sock"), memorySize: 1 << 20)
        // VIRTIO_F_RING_PACKED
        #expect(rig.frontend.features & 1 << 34 == 0)
        try supervisor.end()
    }

    @Test func aWorkerIsCalledAfterItsDevice() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        #expect(try supervisor.baton("create", "disk", "a-long-name", "--null").code == 0)
        let info = try supervisor.wait("a-long-name", "a standby") { $0.isStaffed }
        for worker in info.workers {
            #expect(readSmallFile("/proc/\(worker.pid)/comm") == "baton:a-long-na")
            #expect(readSmallFile("/proc/\(worker.pid)/cmdline")?.hasPrefix("baton-worker:a-long-name\0") == true)
        }
        try supervisor.end()
    }

    /// A caller that is neither root nor the supervisor's user: `baton` under another user and group.
    private func baton(
        _ supervisor: borrowing SupervisorProcess, user: UInt32, groups: [UInt32], _ arguments: String...
    ) throws -> (code: Int32, output: String) {
        let directory = try TemporaryDirectory()
        let socket = supervisor.directory.value.file("control.sock")
        let list = groups.map { "\($0)" }.joined(separator: ",")
        return try run(
            "setpriv",
            ["--reuid", "\(user)", "--regid", "60000", groups.isEmpty ? "--clear-groups" : "--groups=\(list)"]
                + [SupervisorProcess.executable("baton")] + arguments + ["--control-socket", socket], in: directory)
    }

    /// Whether this user can become another one, and the others reach what was built.
    private var canBeOthers: Bool {
        guard geteuid() == 0, let directory = try? TemporaryDirectory() else { return false }
        let program = SupervisorProcess.executable("baton")
        let result = try? run(
            "setpriv", ["--reuid", "60001", "--regid", "60000", "--clear-groups", program, "--version"], in: directory)
        return result?.code == 0
    }

    @Test func theControlSocketIsRootsAlone() throws {
        guard canBeOthers else { return print("not tried: other users cannot run what was built") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        unsafe chmod(directory.value.path, 0o755)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        #expect(permissions(directory.value.file("control.sock")).mode == 0o660)
        let refused = try baton(supervisor, user: 60001, groups: [], "status")
        #expect(refused.code == 1)
        #expect(refused.output.contains("Ask for access to the socket's group"), "\(refused.output)")
        try supervisor.end()
    }

    @Test func membersOfTheSocketsGroupMayChangeThings() throws {
        guard canBeOthers else { return print("not tried: other users cannot run what was built") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        unsafe chmod(directory.value.path, 0o755)
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--control-mode", "0666", "--control-group", "60005"], in: directory)
        #expect(permissions(directory.value.file("control.sock")) == (0o666, geteuid(), 60005))
        // Whoever can connect may look.
        let look = try baton(supervisor, user: 60001, groups: [60004], "status")
        #expect(look.code == 0, "\(look.output)")
        let refused = try baton(supervisor, user: 60001, groups: [60004], "create", "disk", "d", "--null")
        #expect(refused.code == 1)
        #expect(
            refused.output.contains("only root and members of the group 60005 may do this, not user 60001"),
            "\(refused.output)")
        let made = try baton(supervisor, user: 60001, groups: [60004, 60005], "create", "disk", "d", "--null")
        #expect(made.code == 0, "\(made.output)")
        try supervisor.end()
    }
}
