import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A disk on a file system without room: with `on-enospc=hold` its guest sees a slow request, else an error.
@Suite(.serialized) struct RoomTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    /// A supervisor with one disk, whose image lies on a full file system, and a front-end.
    private struct Stage: ~Copyable {
        var supervisor: SupervisorProcess
        let mounted: MountedFileSystem
        var rig: Rig
        var queue: BlockQueue
        let filler: String
        let image: String

        static func make(_ directory: TemporaryDirectoryBox, _ options: String...) throws -> Stage {
            let file = directory.value.file("fs.img")
            try TestFile.create(file, count: 48 << 20)
            let mounted = try MountedFileSystem(file, at: directory.value.file("mnt"))
            let image = "\(mounted.path)/disk.img"
            // A hole that the file system cannot fill.
            try TestFile.create(image, count: 64 << 20)
            let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
            let made = try supervisor.baton(["create", "disk", "d", "--file", image] + options)
            #expect(made.code == 0, "\(made.output)")
            _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
            var rig = try Rig(connectingTo: directory.value.file("d.sock"))
            let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
            let queue = BlockQueue(driver, depth: 16, layout: .direct, maximumPieces: 1, in: &rig.allocator)
            let stage = Stage(
                supervisor: supervisor, mounted: mounted, rig: rig, queue: queue, filler: "\(mounted.path)/filler",
                image: image)
            try stage.fill()
            return stage
        }

        /// Leaves no block free.
        func fill() throws {
            let number = unsafe open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
            try #require(number >= 0)
            let fd = OwnedFD(owning: number)
            for size in [1 << 20, 4096] {
                let bytes = [UInt8](repeating: 1, count: size)
                while unsafe Glibc.write(fd.number, bytes, size) == size {}
                fsync(fd.number)
            }
        }

        func makeRoom() throws { try TestFile.remove(filler) }

        /// Sends a request that nobody waits for yet.
        mutating func send(_ kind: BlockRequestKind, _ bytes: [UInt8] = [], sector: UInt64, token: UInt64) {
            let buffer = rig.allocator.allocate(max(bytes.count, 4096), alignment: 4096)
            rig.memory.write(bytes, at: buffer)
            let length = kind == .read ? 4096 : bytes.count
            queue.submit(
                BlockRequest(
                    kind, sector: sector, dataAddress: buffer, dataLength: UInt32(length), token: token))
            queue.publish()
        }

        /// The next request that has been answered.
        mutating func next() throws -> (token: UInt64, status: BlockStatus) {
            let hasCome = queue.waitForCompletion(milliseconds: 60_000)
            try #require(hasCome)
            let completion = try queue.nextCompletion()
            let found = try #require(completion)
            return (found.token, found.status)
        }

        func waitForHeld(_ count: UInt64, takeOvers: Int = 0) throws -> DeviceInfo {
            try supervisor.wait("d", "\(count) requests that wait") {
                $0.statistics?.held == count && $0.takeOvers == takeOvers
            }
        }
    }

    private func content(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 * 31 + seed * 7 + $0 >> 8) }
    }

    @Test func `reported, no room is an error, and counted`() throws {
        var stage = try Stage.make(directory)
        stage.send(.write, content(1 << 20, 1), sector: 0, token: 1)
        #expect(try stage.next() == (1, .ioError))
        let status = try stage.supervisor.baton("status", "d").output
        #expect(status.contains("failed because the host had no room"), "\(status)")
        let held = try stage.supervisor.status("d").statistics?.held
        #expect(held == 0)
        try stage.supervisor.end()
    }

    @Test func `held, a write waits, the operator is told, others go on, and its data is right`() throws {
        var stage = try Stage.make(directory, "--on-enospc", "hold")
        let data = content(1 << 20, 2)
        stage.send(.write, data, sector: 0, token: 1)
        _ = try stage.waitForHeld(1)
        stage.send(.read, sector: 8192, token: 2)
        #expect(try stage.next() == (2, .ok))
        stage.send(.flush, sector: 0, token: 3)
        #expect(try stage.next() == (3, .ok))
        let status = try stage.supervisor.baton("status", "d").output
        #expect(status.contains("1 requests wait because the host has no room for \(stage.image)"), "\(status)")
        while try !stage.supervisor.baton("events").output.contains("outOfRoom 1 requests wait") {
            pause(milliseconds: 20)
        }
        try stage.makeRoom()
        #expect(try stage.next() == (1, .ok))
        #expect(try TestFile.read(stage.image, count: data.count) == data)
        while try !stage.supervisor.baton("events").output.contains("hasRoom") { pause(milliseconds: 20) }
        let after = try stage.supervisor.status("d")
        #expect(after.statistics?.held == 0 && after.statistics?.errors == 0)
        try stage.supervisor.end()
    }

    @Test func `it waits over a kill, an upgrade and the supervisor's death`() throws {
        var stage = try Stage.make(directory, "--on-enospc", "hold")
        let data = (0..<4).map { content(256 << 10, $0) }
        for (index, bytes) in data.enumerated() {
            stage.send(.write, bytes, sector: UInt64(index * 512), token: UInt64(index))
        }
        _ = try stage.waitForHeld(4)
        #expect(try stage.supervisor.baton("kill", "d").code == 0)
        _ = try stage.waitForHeld(4, takeOvers: 1)
        #expect(try stage.supervisor.baton("upgrade", "d").code == 0)
        _ = try stage.waitForHeld(4, takeOvers: 1)
        try stage.supervisor.killAndRestart()
        #expect(try stage.waitForHeld(4, takeOvers: 1).disk.onEnospc == "hold")
        try stage.makeRoom()
        #expect(try stage.supervisor.baton("resume", "d").code == 0)
        var answered: Set<UInt64> = []
        for _ in data {
            let (token, status) = try stage.next()
            #expect(status == .ok)
            answered.insert(token)
        }
        #expect(answered == [0, 1, 2, 3])
        for (index, bytes) in data.enumerated() {
            #expect(try TestFile.read(stage.image, at: index * (256 << 10), count: bytes.count) == bytes)
        }
        #expect(try stage.supervisor.status("d").connections == 1)
        try stage.supervisor.end()
    }

    @Test func `it is changed while requests wait`() throws {
        var stage = try Stage.make(directory)
        #expect(try stage.supervisor.baton("set", "d", "--on-enospc", "hold").code == 0)
        stage.send(.write, content(1 << 20, 3), sector: 0, token: 1)
        _ = try stage.waitForHeld(1)
        let resumed = try stage.supervisor.baton("resume", "d")
        #expect(resumed.code == 0 && resumed.output.hasPrefix("d: "), "\(resumed)")
        let set = try stage.supervisor.baton("set", "d", "--on-enospc=report")
        #expect(set.output == "d: a request that finds no room on the host is answered with an error\n")
        #expect(try stage.next() == (1, .ioError))
        let wrong = try stage.supervisor.baton("set", "d", "--on-enospc", "wait")
        #expect(wrong.code != 0 && wrong.output.contains("report or hold, not 'wait'"), "\(wrong)")
        #expect(try stage.supervisor.baton("resume", "e").code != 0)
        try stage.supervisor.end()
    }

    @Test func `a stop does not wait for room`() throws {
        var stage = try Stage.make(directory, "--on-enospc", "hold")
        stage.send(.write, content(1 << 20, 4), sector: 0, token: 1)
        _ = try stage.waitForHeld(1)
        _ = try stage.rig.frontend.stop()
        #expect(try stage.next() == (1, .ioError))
        try stage.supervisor.end()
    }

    @Test func `nor does the end of a device`() throws {
        var stage = try Stage.make(directory, "--on-enospc", "hold")
        stage.send(.write, content(1 << 20, 5), sector: 0, token: 1)
        _ = try stage.waitForHeld(1)
        #expect(try stage.supervisor.baton("delete", "d").code == 0)
        #expect(try stage.next() == (1, .ioError))
        try stage.supervisor.end()
    }
}
