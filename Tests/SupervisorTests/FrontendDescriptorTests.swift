import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// What a front-end gives is kept by the supervisor, which must not come to wait for whoever is behind it.
@Suite(.serialized) struct FrontendDescriptorTests {
    @Test func `a descriptor that others could make one wait for ends the connection, and goes no further`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--null")
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let rig = try Rig(connectingTo: directory.value.file("d.sock"))
        // An ordinary file stands for one of a file system that does not answer: neither is an eventfd.
        let path = directory.value.file("file")
        try TestFile.create(path, count: 4096)
        let file = try TestFile.openForAppending(path)
        try rig.frontend.tell(.setVringCall(VringFile(index: 0, hasFD: true)), fds: [file.number])
        let info = try supervisor.wait("d", "the end of the connection") { $0.state == "waiting" }
        #expect(info.active != nil && info.takeOvers == 0)
        #expect(supervisor.program.output.contains("It is no eventfd"), "\(supervisor.program.output)")
        var next = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = next.makeDriver()
        #expect(try driver.write([UInt8](repeating: 7, count: 4096), sector: 0).status == .ok)
        try next.frontend.stop()
        try supervisor.end()
    }

    @Test func `a session that no successor can take up ends the connection, not the device`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton("create", "disk", "d", "--null")
        #expect(made.code == 0, "\(made.output)")
        let worker = try #require(try supervisor.wait("d", "a standby") { $0.isStaffed }.active)
        let rig = try Rig(connectingTo: directory.value.file("d.sock"))
        // What a message rests on is taken back after it.
        try rig.frontend.tell(.setProtocolFeatures(.status))
        try rig.frontend.tell(.setStatus(15))
        try rig.frontend.tell(.setProtocolFeatures([]))
        _ = try rig.frontend.ask(.getFeatures)
        kill(worker.pid, SIGKILL)
        let info = try supervisor.wait("d", "a successor without a front-end") {
            $0.state == "waiting" && $0.takeOvers == 1 && $0.isStaffed
        }
        #expect(info.problem == nil)
        var next = try Rig(connectingTo: directory.value.file("d.sock"))
        var driver = next.makeDriver()
        #expect(try driver.write([UInt8](repeating: 7, count: 4096), sector: 0).status == .ok)
        try next.frontend.stop()
        try supervisor.end()
    }
}
