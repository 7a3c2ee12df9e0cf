import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

@testable import KillKit

/// Somebody does not answer, and nobody dies of it: a batond that is away, a worker whose thread does not come back.
@Suite(.serialized) struct AbsenceTests {
    private let directory: TemporaryDirectoryBox

    init() throws { directory = TemporaryDirectoryBox(try TemporaryDirectory()) }

    private func makeSupervisor() throws -> SupervisorProcess {
        let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        let made = try supervisor.baton("create", "disk", "d", "--file", image, "--cache", "buffered")
        #expect(made.code == 0, "\(made.output)")
        return supervisor
    }

    private func waitForLine(_ text: String, _ supervisor: borrowing SupervisorProcess) throws {
        let end = monotonicNanoseconds() + 60_000_000_000
        while !supervisor.program.output.contains(text) {
            try #require(monotonicNanoseconds() < end, "nobody says '\(text)': \(supervisor.program.output)")
            pause(milliseconds: 5)
        }
    }

    enum Absence: CaseIterable { case stopped, killed }

    /// QEMU changes eventfds whenever the guest masks an interrupt.
    @Test(arguments: Absence.allCases) func `what a front-end gives waits for batond, its requests do not`(
        absence: Absence
    ) throws {
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = rig.makeDriver()
        let data = [UInt8](repeating: 7, count: 4096)
        #expect(try driver.write(data, sector: 0).status == .ok)

        supervisor.program.send(signal: absence == .killed ? SIGKILL : SIGSTOP)
        let file = VringFile(index: 0, hasFD: true)
        try rig.frontend.tell(.setVringCall(file), fds: [rig.endpoints[0].call.fd.number])
        try waitForLine("the front-end's message waits", supervisor)
        #expect(try driver.write(data, sector: 8).status == .ok)
        if absence == .killed {
            try supervisor.killAndRestart()
        } else {
            supervisor.program.send(signal: SIGCONT)
        }
        #expect(try rig.frontend.readBlockConfiguration().capacity == 2048, "the next message comes after it")
        #expect(try driver.read(sector: 8, count: 4096).data == data)
        let after = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(after.connections == 1)
        #expect(after.active?.pid == before.active?.pid)
        try supervisor.end()
    }

    @Test func `a worker that cannot freeze keeps the device, and can be upgraded later`() throws {
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = rig.makeDriver()
        let data = [UInt8](repeating: 7, count: 4096)
        #expect(try driver.write(data, sector: 0).status == .ok)

        let pid = try #require(before.active?.pid)
        let loop = try TracedThread(named: "loop-0", ofProcess: pid, deadline: monotonicNanoseconds() + 20_000_000_000)
        let upgrade = try supervisor.baton("upgrade", "d")
        #expect(upgrade.code == 1)
        #expect(upgrade.output.contains("cannot give the device up: loop 0 has not stopped"), "\(upgrade.output)")
        loop.detach()
        #expect(try driver.write(data, sector: 8).status == .ok)
        let after = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(after.active?.pid == pid)
        #expect(after.takeOvers == 0 && after.connections == 1)

        let second = try supervisor.baton("upgrade", "d")
        #expect(second.code == 0, "\(second.output)")
        #expect(try driver.read(sector: 8, count: 4096).data == data)
        #expect(try supervisor.status("d").active?.pid != pid)
        try supervisor.end()
    }

    /// The kernel cannot end a thread that waits for a frozen file system; whoever served meanwhile would be overtaken
    /// by what it does when it goes on.
    @Test func `a dead worker that the storage keeps is waited for, however long it takes`() throws {
        let file = directory.value.file("fs.img")
        try TestFile.create(file, count: 32 << 20)
        let mounted = try MountedFileSystem(file, at: directory.value.file("mnt"))
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "share", "s", "--directory", mounted.path)
        #expect(made.code == 0, "\(made.output)")
        let before = try supervisor.wait("s", "a standby") { $0.isStaffed }
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        try mounted.freeze()
        // struct fuse_mknod_in of a FIFO: a system call of the loop.
        let mode = unsafe withUnsafeBytes(of: UInt32(S_IFIFO | 0o600)) { unsafe Array($0) }
        let arguments = mode + [UInt8](repeating: 0, count: 12) + Array("made".utf8) + [0]
        _ = mount.client.begin(.makeNode, FileClient.root, arguments: arguments, answerBytes: 128)
        let victim = try #require(before.active)
        let end = monotonicNanoseconds() + 20_000_000_000
        while !waitsInTheKernel(victim.pid) {
            try #require(monotonicNanoseconds() < end, "nobody waits for the file system")
            pause(milliseconds: 1)
        }
        kill(victim.pid, SIGKILL)
        let waiting = try supervisor.wait("s", "the wait") { $0.problem?.contains("waits for the storage") == true }
        #expect(waiting.problem?.contains("was killed and cannot end: its thread ") == true)
        // Longer than anybody used to wait: nothing happens, which nothing tells of.
        pause(milliseconds: 6_000)
        #expect(try supervisor.status("s").standby?.pid == before.standby?.pid)
        mounted.thaw()
        // The dead worker has done it after all, and its successor makes it once (docs/share.md).
        #expect(try mount.client.finish(.makeNode, milliseconds: 60_000))
        #expect(Set(TestFile.names(in: mounted.path)) == ["lost+found", "made"])
        let after = try supervisor.wait("s", "a standby") { $0.isStaffed }
        #expect(after.active?.pid == before.standby?.pid)
        #expect(after.problem == nil && after.takeOvers == 1)
        try mount.end()
        try supervisor.end()
    }

    private func waitsInTheKernel(_ process: Int32) -> Bool {
        TestFile.names(in: "/proc/\(process)/task").contains { thread in
            let status = readSmallFile("/proc/\(process)/task/\(thread)/stat") ?? ""
            return status.split(separator: ")").last?.hasPrefix(" D") == true
        }
    }
}
