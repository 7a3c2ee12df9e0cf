import CWire
import ControlAPI
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

@testable import KillKit

/// Real supervisors and real workers that die, hang and wait.
@Suite(.serialized) struct WatchTests {
    private let directory: TemporaryDirectoryBox

    init() throws { directory = TemporaryDirectoryBox(try TemporaryDirectory()) }

    private func makeSupervisor(image: String? = nil, _ options: [String] = []) throws -> SupervisorProcess {
        let supervisor = try SupervisorProcess(worker: WorkerProcess.executable, options, in: directory)
        let storage = image.map { ["--file", $0, "--cache", "buffered"] } ?? ["--null"]
        let made = try supervisor.baton(["create", "disk", "d"] + storage)
        #expect(made.code == 0, "\(made.output)")
        return supervisor
    }

    private func makeImage() throws -> String {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        return image
    }

    private func connect(_ kind: RingKind = .split) throws -> Rig {
        try Rig(connectingTo: directory.value.file("d.sock"), behaviour: kind.behaviour)
    }

    // MARK: Causes of death

    /// Checks what is told of a death. The worker was active, or superseded when its successor was heard first.
    private func sentence(_ told: String?, about victim: WorkerInfo, _ end: String) throws -> String {
        let told = try #require(told)
        #expect(["active", "superseded"].map { "worker \(victim.id) (\($0)) \(end)" }.contains(told))
        return told
    }

    @Test func `the cause of a death is told, whoever is there to see it`() throws {
        var supervisor = try makeSupervisor()
        let names = [SIGILL: "SIGILL", SIGSEGV: "SIGSEGV", SIGABRT: "SIGABRT", SIGBUS: "SIGBUS"]
        for (signal, name) in names.sorted(by: { $0.key < $1.key }) {
            let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
            let victim = try #require(before.active)
            // After this it is not its child any more: only the record tells.
            if signal == SIGABRT { try supervisor.killAndRestart() }
            kill(victim.pid, signal)
            let after = try supervisor.wait("d", "another worker") { $0.isStaffed && $0.active?.id != victim.id }
            let told = try sentence(after.lastDeath, about: victim, "died by \(name)")
            #expect(supervisor.program.output.contains("died \(told)"), "the log does not tell")
        }
        let victim = try #require(try supervisor.status("d").active)
        #expect(try supervisor.baton("kill", "d").code == 0)
        let after = try supervisor.wait("d", "another worker") { $0.isStaffed && $0.active?.id != victim.id }
        _ = try sentence(after.lastDeath, about: victim, "was killed from outside by SIGKILL")
        #expect(try supervisor.baton("status", "d").output.contains("last death: worker \(victim.id)"))
        try supervisor.end()
    }

    // MARK: Poison

    /// Where a worker says what its only loop handles.
    private func handlingPlace(_ pid: Int32) throws -> UInt64 {
        let record = try #require(WorkerLook.address(ofMemoryFile: "baton-session", inProcess: pid))
        return record + UInt64(WIRE_RECORD_FIRST_LOOP) + 8
    }

    /// Lets a loop run until it says that it handles a request, then lets it die there, as by a trap.
    private func trap(_ loop: borrowing TracedThread, of pid: Int32, at place: UInt64) throws {
        let deadline = monotonicNanoseconds() + 20_000_000_000
        while true {
            let stop = loop.proceed(toCall: false, deadline: deadline)
            try #require(stop == .trap || stop == .interrupted, "it handled nothing: \(stop)")
            let mark = try TestFile.read("/proc/\(pid)/mem", at: Int(place), count: 4)
            if mark != [0, 0, 0, 0] { return loop.letGo(signal: SIGILL) }
        }
    }

    /// Follows a standby until it has the device and has a loop, which serves nothing yet.
    private func followToItsLoop(_ main: borrowing TracedThread) throws {
        let deadline = monotonicNanoseconds() + 20_000_000_000
        // This thread and its sentinel are there already.
        while TestFile.names(in: "/proc/\(main.number)/task").count < 3 {
            let stop = main.proceed(toCall: true, deadline: deadline)
            try #require(stop == .call || stop == .interrupted, "it did not take over: \(stop)")
        }
    }

    @Test(arguments: [1, 2], RingKind.allCases)
    func `a request that workers die over is given up, that one alone`(deaths: Int, kind: RingKind) throws {
        var supervisor = try makeSupervisor(image: try makeImage())
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let (first, second) = (try #require(before.active?.pid), try #require(before.standby?.pid))
        var rig = try connect(kind)
        #expect(rig.frontend.usesPackedRings == (kind == .packed))
        var queue = makeQueue(&rig, depth: 2)
        let deadline = monotonicNanoseconds() + 20_000_000_000

        let loop = try TracedThread(named: "loop-0", ofProcess: first, deadline: deadline)
        let place = try handlingPlace(first)
        try loop.watch([place], length: 4)
        write(&rig, &queue, count: 1, bytes: 4096)
        if deaths == 2 {
            let heir = try TracedThread(second, deadline: deadline)
            try trap(loop, of: first, at: place)
            loop.bury()
            try followToItsLoop(heir)
            let its = try TracedThread(named: "loop-0", ofProcess: second, deadline: deadline)
            let place = try handlingPlace(second)
            try its.watch([place], length: 4)
            heir.letGo()
            try trap(its, of: second, at: place)
            its.bury()
            heir.bury()
        } else {
            try trap(loop, of: first, at: place)
            loop.bury()
        }
        var hasCome = queue.waitForCompletion(milliseconds: 30_000)
        try #require(hasCome, "\(supervisor.program.output)")
        var completion = try queue.nextCompletion()
        #expect(completion?.status == (deaths == 2 ? .ioError : .ok))
        write(&rig, &queue, count: 1, bytes: 4096)
        hasCome = queue.waitForCompletion(milliseconds: 30_000)
        try #require(hasCome)
        completion = try queue.nextCompletion()
        #expect(completion?.status == .ok, "the next one on the same head is another request")
        let after = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(after.givenUp == (deaths == 2 ? 1 : 0))
        #expect(after.lastDeath?.contains("died by SIGILL while it handled queue 0, head") == true)
        #expect(after.connections == 1)
        let told = supervisor.program.output.contains("is given up: workers died over it")
        #expect(told == (deaths == 2))
        try supervisor.end()
    }

    // MARK: Hangs

    /// Waits until the only loop of a worker sleeps.
    private func waitForSleep(_ pid: Int32) throws {
        let place = Int(try handlingPlace(pid)) + 4
        let end = monotonicNanoseconds() + 20_000_000_000
        while true {
            if try TestFile.read("/proc/\(pid)/mem", at: place, count: 4) == [1, 0, 0, 0] { return }
            try #require(monotonicNanoseconds() < end, "its loop does not sleep")
            pause(milliseconds: 1)
        }
    }

    @Test func `a worker that goes on no more is replaced, an idle one is left alone`() throws {
        var supervisor = try makeSupervisor(image: try makeImage(), ["--hang-limit", "1"])
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let victim = try #require(before.active)
        var rig = try connect()
        var driver = rig.makeDriver()
        let data = [UInt8](repeating: 7, count: 4096)
        #expect(try driver.write(data, sector: 0).status == .ok)
        try waitForSleep(victim.pid)
        kill(victim.pid, SIGSTOP)
        // Three times the limit: nothing happens, which nothing tells of.
        pause(milliseconds: 3_000)
        let still = try supervisor.status("d")
        #expect(still.active?.pid == victim.pid && still.takeOvers == 0 && still.lastDeath == nil)
        // Now it has something to do.
        #expect(try driver.write(data, sector: 8).status == .ok)
        let after = try supervisor.wait("d", "another worker") { $0.isStaffed && $0.active?.id != victim.id }
        #expect(after.lastDeath?.hasPrefix("worker \(victim.id) (") == true)
        #expect(after.lastDeath?.contains(") hung and was killed") == true)
        #expect(after.connections == 1)
        try supervisor.end()
    }

    @Test func `a worker that waits for slow storage is left alone`() throws {
        let file = directory.value.file("fs.img")
        try TestFile.create(file, count: 32 << 20)
        let mounted = try MountedFileSystem(file, at: directory.value.file("mnt"))
        let image = "\(mounted.path)/disk.img"
        try TestFile.create(image, count: 1 << 20)
        var supervisor = try makeSupervisor(image: image, ["--hang-limit", "1"])
        let worker = try #require(try supervisor.wait("d", "a standby") { $0.isStaffed }.active)
        var rig = try connect()
        var queue = makeQueue(&rig, depth: 1)
        try mounted.freeze()
        write(&rig, &queue, count: 1, bytes: 4096)
        while WorkerLook.operations(ofProcess: worker.pid).running < 1 { pause(milliseconds: 1) }
        // Three times the limit: nothing happens, which nothing tells of.
        pause(milliseconds: 3_000)
        #expect(try supervisor.status("d").active?.pid == worker.pid)
        mounted.thaw()
        let hasCome = queue.waitForCompletion(milliseconds: 30_000)
        #expect(hasCome)
        let completion = try queue.nextCompletion()
        #expect(completion?.status == .ok)
        let after = try supervisor.wait("d", "the count") { $0.completed == 1 }
        #expect(after.takeOvers == 0 && after.lastDeath == nil)
        try supervisor.end()
    }

    private func makeQueue(_ rig: inout Rig, depth: Int) -> BlockQueue {
        let driver = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        return BlockQueue(driver, depth: depth, layout: .direct, maximumPieces: 1, in: &rig.allocator)
    }

    private func write(_ rig: inout Rig, _ queue: inout BlockQueue, count: Int, bytes: Int) {
        for index in 0..<count {
            let buffer = rig.allocator.allocate(bytes, alignment: 4096)
            queue.submit(
                BlockRequest(
                    .write, sector: UInt64(index * bytes / 512), dataAddress: buffer, dataLength: UInt32(bytes),
                    token: UInt64(index)))
        }
        queue.publish()
    }

    @Test(.enabled(if: WriteThrottle.isAvailable))
    func `an upgrade lets the old worker go when its last request has completed`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 8 << 20)
        let device = try LoopDevice(image, in: directory.value)
        let throttle = try WriteThrottle(device, bytes: 1 << 20)
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        #expect(try supervisor.baton("create", "disk", "d", "--file", device.path).code == 0)
        let before = try #require(try supervisor.wait("d", "a standby") { $0.isStaffed }.active)
        try throttle.hold(before.pid)
        var rig = try connect()
        var queue = makeQueue(&rig, depth: 8)
        write(&rig, &queue, count: 8, bytes: 256 << 10)
        while WorkerLook.operations(ofProcess: before.pid).running < 8 { pause(milliseconds: 1) }
        let result = try supervisor.baton("upgrade", "d")
        #expect(result.code == 0, "\(result.output)")
        // All that the old one had begun is here before it has gone.
        for _ in 0..<8 {
            let completion = try queue.nextCompletion()
            #expect(completion?.status == .ok)
        }
        let after = try supervisor.status("d")
        #expect(!after.workers.contains { $0.pid == before.pid })
        #expect(after.connections == 1)
        try supervisor.end()
    }
}
