import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing
import VhostUser

/// How a worker lives with those who connect to it, and how it ends.
@Suite(.serialized) struct LifeTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    @Test func `whoever sends nonsense loses the connection, and the next one is served`() throws {
        var worker = try WorkerProcess(["--backend=null"], in: directory.value)
        let nonsense: [[UInt8]] = [
            [UInt8](repeating: 0xff, count: 64),
            Array(FrontendMessage.setOwner.encode().prefix(5)),
            // An unknown message, version 1, no payload
            [0xe7, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            // GET_FEATURES with version 2
            [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            // GET_FEATURES that promises 4 GiB
            [1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            // SET_FEATURES with 7 bytes
            [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
        ]
        for bytes in nonsense {
            let stream = try UnixStream(connectingTo: worker.socketPath)
            unsafe try bytes.withUnsafeBytes { try unsafe stream.send($0) }
            _ = shutdown(stream.fd.number, Int32(SHUT_WR))
            #expect(waitForInput(stream.fd.number, milliseconds: 20_000))
        }
        // Descriptors beside a message that carries none
        do {
            let stream = try UnixStream(connectingTo: worker.socketPath)
            let event = try EventFD()
            try unsafe FrontendMessage.getFeatures.encode().withUnsafeBytes {
                try unsafe stream.send($0, fds: [event.fd.number, event.fd.number])
            }
            #expect(waitForInput(stream.fd.number, milliseconds: 20_000))
        }
        var rig = try Rig(connectingTo: worker.socketPath)
        var disk = rig.makeDriver()
        #expect(try disk.flush().status == .ok)
        try rig.frontend.stop()
        let lines = worker.program.output.split(separator: "\n").filter { $0.contains("the connection has ended") }
        #expect(lines.count == nonsense.count + 1, "\(worker.program.output)")
        _ = consume rig
        worker.program.stop()
        #expect(worker.program.wait(milliseconds: 0) == .exited(code: 0))
    }

    @Test func `connections leave no descriptor behind`() throws {
        let worker = try WorkerProcess(["--backend=null", "--queues=2"], in: directory.value)
        func serveOnce() throws {
            var rig = try Rig(connectingTo: worker.socketPath, queueCount: 2)
            var disk = rig.makeDriver()
            #expect(try disk.flush().status == .ok)
        }
        try serveOnce()
        // A connection is only taken when the one before has been cleaned up; and a message is only read when that
        // before, whose answer may have carried a descriptor, is done with.
        func connect() throws -> Frontend {
            let frontend = try Frontend.connect(to: worker.socketPath)
            _ = try frontend.readBlockConfiguration()
            return frontend
        }
        var connected = try connect()
        let before = worker.descriptors
        _ = consume connected
        for _ in 0..<20 { try serveOnce() }
        connected = try connect()
        let after = worker.descriptors
        #expect(after.count == before.count, "\(before), then \(after)")
        _ = consume connected
    }

    @Test func `SIGTERM ends it cleanly, with what it has taken finished`() throws {
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 16 << 20)
        var worker = try WorkerProcess(["--blk-file=\(image)"], in: directory.value)
        let rig = try Rig(connectingTo: worker.socketPath, memorySize: 64 << 20)
        var queue = DriverQueue(rig.endpoints[0], usesEventIndex: rig.frontend.usesEventIndex)
        var allocator = rig.allocator
        let header = allocator.allocate(16, alignment: 16)
        let status = allocator.allocate(64, alignment: 64)
        let data = allocator.allocate(1 << 20, alignment: 4096)
        unsafe rig.memory.pointer(to: header, count: 16).storeBytes(of: 1 as UInt32, as: UInt32.self)
        for request in 0..<32 {
            let head = request * 3
            queue.write(Descriptor(address: header, length: 16, flags: .next, next: UInt16(head + 1)), at: head)
            queue.write(Descriptor(address: data, length: 1 << 20, flags: .next, next: UInt16(head + 2)), at: head + 1)
            queue.write(Descriptor(address: status + UInt64(request), length: 1, flags: .deviceWrites), at: head + 2)
            queue.stage(head: head)
        }
        queue.publish()
        _ = queue.kick()
        // At least one has been taken: then all of the batch have.
        let began = queue.waitForCompletion(milliseconds: 30_000)
        #expect(began)
        worker.program.send(signal: SIGTERM)
        #expect(worker.program.wait(milliseconds: 60_000) == .exited(code: 0))
        var finished = 0
        while try queue.nextCompletion() != nil { finished += 1 }
        #expect(worker.program.output.contains("requests=\(finished)"), "\(finished): \(worker.program.output)")
        #expect(worker.program.output.contains("ended"))
        #expect(!TestFile.exists(worker.socketPath))
    }

    @Test func `guest memory is pinned when that is asked for, and only then`() throws {
        for option in [[], ["--pin-memory"]] {
            let worker = try WorkerProcess(["--backend=null"] + option, in: directory.value)
            var rig = try Rig(connectingTo: worker.socketPath, memorySize: 32 << 20)
            var disk = rig.makeDriver()
            #expect(try disk.flush().status == .ok)
            let status = try #require(readSmallFile("/proc/\(worker.program.pid)/status"))
            let locked = status.split(separator: "\n").first { $0.hasPrefix("VmLck:") }
            #expect(locked?.contains(option.isEmpty ? " 0 kB" : " 32768 kB") == true, "\(status)")
        }
    }

    @Test func `loop threads run where they are told to`() throws {
        let worker = try WorkerProcess(
            ["--backend=null", "--queues=2", "--threads=2", "--cpus=0,0"], in: directory.value)
        // A thread binds itself before it serves.
        var rig = try Rig(connectingTo: worker.socketPath, queueCount: 2)
        var disk = rig.makeDriver()
        #expect(try disk.flush().status == .ok)
        let loop = worker.status(ofThread: "loop-0") ?? "there is no loop-0"
        #expect(loop.contains("Cpus_allowed_list:\t0\n"), "\(loop)")
    }

    @Test func `an idle worker does not run`() throws {
        let worker = try WorkerProcess(["--backend=null", "--queues=2", "--threads=2"], in: directory.value)
        var rig = try Rig(connectingTo: worker.socketPath, queueCount: 2)
        var disk = rig.makeDriver()
        #expect(try disk.flush().status == .ok)
        // It polls a little after the request; then it must not wake any more.
        let end = monotonicNanoseconds() + 60_000_000_000
        var last = -1
        var same = 0
        while same < 5 {
            try #require(monotonicNanoseconds() < end, "it wakes without a reason")
            _ = waitForInput(rig.endpoints[0].error.fd.number, milliseconds: 100)
            let now = worker.sleeps
            same = now == last ? same + 1 : 0
            last = now
        }
        #expect(try disk.flush().status == .ok)
        // It has run for that, and sleeps again.
        while worker.sleeps == last {
            try #require(monotonicNanoseconds() < end, "it does not sleep again")
            _ = waitForInput(rig.endpoints[0].error.fd.number, milliseconds: 10)
        }
    }

    @Test(arguments: [true, false])
    func `an inherited socket is served, whether it listens or is connected`(listening: Bool) throws {
        let path = directory.value.file("own.sock")
        let listener = try UnixListener(at: path)
        if listening {
            let number = fcntl(listener.fd.number, F_DUPFD, 100)
            let program = try Program(
                WorkerProcess.executable, ["--backend=null", "--fd=\(number)"], in: directory.value)
            _ = close(number)
            for _ in 0..<2 {
                var rig = try Rig(connectingTo: path)
                var disk = rig.makeDriver()
                #expect(try disk.flush().status == .ok)
            }
            _ = consume program
            return
        }
        // Connecting is answered by the listener's queue; the worker is given the other end.
        let frontend = try connectInBackground(path)
        let accepted = try listener.accept()
        let number = fcntl(accepted.fd.number, F_DUPFD, 100)
        var program = try Program(WorkerProcess.executable, ["--backend=null", "--fd=\(number)"], in: directory.value)
        _ = close(number)
        _ = consume accepted
        frontend.join()
        #expect(program.wait(milliseconds: 20_000) == .exited(code: 0))
    }

    private func connectInBackground(_ path: String) throws -> JoinableThread {
        try JoinableThread(name: "front-end") {
            do {
                var rig = try Rig(connectingTo: path)
                var disk = rig.makeDriver()
                #expect(try disk.flush().status == .ok)
            } catch {
                Issue.record("\(error)")
            }
        }
    }
}
