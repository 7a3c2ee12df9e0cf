import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// A disk in custody gets another size while a front-end uses it, whoever is killed meanwhile. The front-end connects
/// once, is told, and finds the new size.
@Suite(.serialized) struct ResizeTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())
    private var image: String { directory.value.file("disk.img") }
    private var socket: String { directory.value.file("d.sock") }

    private func makeDisk(megabytes: Int = 8, _ options: String...) throws -> SupervisorProcess {
        try TestFile.create(image, count: megabytes << 20)
        let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let made = try supervisor.baton(["create", "disk", "d", "--file", image, "--cache", "buffered"] + options)
        #expect(made.code == 0, "\(made.output)")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        return supervisor
    }

    private func bytes(_ path: String) -> Int {
        var status = stat()
        return unsafe stat(path, &status) == 0 ? status.st_size : -1
    }

    /// The front-end is told, and says that it has heard.
    private func expectAnnouncement(_ requests: inout BackendRequests) throws {
        let request = try #require(try requests.next(within: 20_000))
        #expect(request.kind.rawValue == 2)
        try requests.acknowledge(request)
    }

    /// The disk ends where it should, for requests as well.
    private func expectSize(_ rig: inout Rig, megabytes: UInt64) throws {
        #expect(try rig.frontend.readBlockConfiguration().capacity == megabytes << 11)
        var disk = rig.makeDriver()
        let data = [UInt8](repeating: 0x5a, count: 4096)
        let last = megabytes << 11 - 8
        #expect(try disk.write(data, sector: last).status == .ok)
        #expect(try disk.read(sector: last, count: 4096).data == data)
        #expect(try disk.read(sector: last + 8, count: 4096).status == .ioError)
    }

    @Test func `a disk grows, and again`() throws {
        var supervisor = try makeDisk()
        var rig = try Rig(connectingTo: socket)
        var requests = try rig.frontend.takeBackendRequests()
        for size in [16, 32] {
            let result = try supervisor.baton("resize", "d", "\(size)M")
            #expect(result.code == 0 && result.output == "d: has \(size << 20) bytes\n", "\(result)")
            #expect(bytes(image) == size << 20)
            try expectAnnouncement(&requests)
        }
        try expectSize(&rig, megabytes: 32)
        // Whoever takes over finds it so.
        #expect(try supervisor.baton("kill", "d").code == 0)
        _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.takeOvers == 1 }
        #expect(try rig.frontend.readBlockConfiguration().capacity == 32 << 11)
        try supervisor.end()
    }

    @Test func `a disk grows under load`() throws {
        var supervisor = try makeDisk()
        let load = try RunningLoad(socket)
        #expect(load.completes(200))
        #expect(try supervisor.baton("resize", "d", "16M").code == 0)
        #expect(load.completes(200))
        try load.end()
        try supervisor.end()
    }

    @Test func `what has grown by itself is taken over when that is asked for`() throws {
        var supervisor = try makeDisk()
        var rig = try Rig(connectingTo: socket)
        var requests = try rig.frontend.takeBackendRequests()
        #expect(unsafe truncate(image, 16 << 20) == 0)
        #expect(try supervisor.baton("resize", "d").code == 0)
        try expectAnnouncement(&requests)
        try expectSize(&rig, megabytes: 16)
        try supervisor.end()
    }

    @Test func `a block device's new size is taken over, and not made`() throws {
        let file = directory.value.file("device.img")
        try TestFile.create(file, count: 8 << 20)
        let device = try LoopDevice(file, sectorSize: 512, in: directory.value)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        #expect(try supervisor.baton("create", "disk", "d", "--file", device.path).code == 0)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: socket)
        var requests = try rig.frontend.takeBackendRequests()
        let refused = try supervisor.baton("resize", "d", "16M")
        #expect(refused.code == 1 && refused.output.contains("resize it with what has made it"), "\(refused)")
        #expect(unsafe truncate(file, 16 << 20) == 0)
        #expect(try run("losetup", ["--set-capacity", device.path], in: directory.value).code == 0)
        #expect(try supervisor.baton("resize", "d").code == 0)
        try expectAnnouncement(&requests)
        try expectSize(&rig, megabytes: 16)
        try supervisor.end()
        withExtendedLifetime(device) {}
    }

    @Test func `a disk becomes smaller only if that is asked for`() throws {
        var supervisor = try makeDisk(megabytes: 16)
        var rig = try Rig(connectingTo: socket)
        var requests = try rig.frontend.takeBackendRequests()
        let refused = try supervisor.baton("resize", "d", "8M")
        #expect(refused.code == 1 && refused.output.contains("--shrink"), "\(refused)")
        #expect(bytes(image) == 16 << 20)
        // Somebody has cut the file without asking: the disk keeps its size.
        #expect(unsafe truncate(image, 8 << 20) == 0)
        let kept = try supervisor.baton("resize", "d")
        #expect(kept.code == 1 && kept.output.contains("--shrink"), "\(kept)")
        #expect(try rig.frontend.readBlockConfiguration().capacity == 16 << 11)
        #expect(unsafe truncate(image, 16 << 20) == 0)
        let shrunk = try supervisor.baton("resize", "d", "8M", "--shrink")
        #expect(shrunk.code == 0, "\(shrunk)")
        #expect(bytes(image) == 8 << 20)
        try expectAnnouncement(&requests)
        // Whoever takes over has been ready since the disk was larger.
        #expect(try supervisor.baton("kill", "d").code == 0)
        _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.takeOvers == 1 }
        try expectSize(&rig, megabytes: 8)
        try supervisor.end()
    }

    @Test func `what has no size, or cannot have this one, is told so`() throws {
        var supervisor = try makeDisk(megabytes: 8, "--read-only")
        #expect(try supervisor.baton("create", "disk", "null", "--null").code == 0)
        for (arguments, said) in [
            (["null", "16M"], "null keeps nothing"), (["d", "16M"], "d is read-only"),
            (["d", "1000"], "multiple of 512"),
            (["nobody", "16M"], "there is no device 'nobody'"),
        ] {
            let result = try supervisor.baton(["resize"] + arguments)
            #expect(result.code == 1 && result.output.contains(said), "\(result)")
        }
        #expect(try supervisor.baton("resize", "d", "big").code != 0)
        #expect(bytes(image) == 8 << 20)
        try supervisor.end()
    }

    enum Death: String, CaseIterable {
        /// The worker, before it has heard of it.
        case workerBefore
        /// The worker, when the front-end was told and has not said that it has heard.
        case workerAfter
        /// The supervisor, when the worker was told and has not heard of it.
        case supervisorBefore
        /// Both.
        case bothBefore
    }

    @Test(arguments: Death.allCases, [false, true])
    func `a death around it changes nothing`(_ death: Death, shrinks: Bool) throws {
        var supervisor = try makeDisk(megabytes: 16)
        var rig = try Rig(connectingTo: socket)
        var requests = try rig.frontend.takeBackendRequests()
        let size = shrinks ? 8 : 32
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let worker = try #require(before.active).pid
        // It hears of nothing any more.
        if death != .workerAfter { kill(worker, SIGSTOP) }
        let asking = try Program(
            SupervisorProcess.executable("baton"),
            ["resize", "d", "\(size)M", "--control-socket", directory.value.file("control.sock")]
                + (shrinks ? ["--shrink"] : []), in: directory.value)
        let announced = death == .workerAfter ? try requests.next(within: 20_000) : nil
        #expect((announced == nil) == (death != .workerAfter))
        if death != .workerAfter {
            while try !supervisor.baton("events").output.contains("resizing") { pause(milliseconds: 5) }
        }
        if death == .supervisorBefore || death == .bothBefore { try supervisor.killAndRestart() }
        if death == .supervisorBefore { kill(worker, SIGCONT) } else { kill(worker, SIGKILL) }
        let end = monotonicNanoseconds() + 20_000_000_000
        while try rig.frontend.readBlockConfiguration().capacity != UInt64(size) << 11 || bytes(image) != size << 20 {
            try #require(monotonicNanoseconds() < end, "\(supervisor.program.output)")
            pause(milliseconds: 5)
        }
        // What the dead one has asked is answered to its successor.
        if let announced { try requests.acknowledge(announced) } else { try expectAnnouncement(&requests) }
        _ = try supervisor.wait("d", "nothing under way") { $0.isStaffed && $0.connections == 1 }
        try expectSize(&rig, megabytes: UInt64(size))
        // And the next change is told of, too.
        #expect(try supervisor.baton("resize", "d", "64M").code == 0)
        while try rig.frontend.readBlockConfiguration().capacity != 64 << 11 { pause(milliseconds: 5) }
        try expectAnnouncement(&requests)
        withExtendedLifetime(asking) {}
        try supervisor.end()
    }
}
