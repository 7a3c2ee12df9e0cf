import ControlAPI
import Foundation
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

/// A share on the host, over the real /dev/fuse, in custody: its workers and their supervisor go, it stays.
@Suite(.serialized) struct MountTests {
    /// Writes records of a file and reads all of it again, until it is told to end.
    private final class Writer: Sendable {
        private let rounds = Atomic<Int>(0)
        private let isEnding = Atomic<Bool>(false)
        private let failure = Mutex<String?>(nil)
        private let done = DispatchSemaphore(value: 0)

        private static let records = 16
        private static let bytes = 5000

        init(_ path: String) {
            Thread.detachNewThread { [self] in
                do { try work(path) } catch { failure.withLock { $0 = "\(error)" } }
                done.signal()
            }
        }

        private func work(_ path: String) throws {
            let fd = OwnedFD(owning: unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644))
            guard fd.number >= 0 else { throw SystemError(cannot: "open", path, .current) }
            var record = [UInt8](repeating: 0, count: Self.bytes)
            for round in 0... {
                if isEnding.load(ordering: .acquiring) { return }
                let place = round % Self.records
                record = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: Self.bytes)
                guard unsafe pwrite(fd.number, record, Self.bytes, place * Self.bytes) == Self.bytes else {
                    throw SystemError(cannot: "write", path, .current)
                }
                for older in 0..<min(Self.records, round + 1) {
                    let last = round - (place - older + Self.records) % Self.records
                    guard unsafe pread(fd.number, &record, Self.bytes, older * Self.bytes) == Self.bytes else {
                        throw SystemError(cannot: "read", path, .current)
                    }
                    guard record.allSatisfy({ $0 == UInt8(truncatingIfNeeded: last) }) else {
                        throw SystemError(cannot: "find again what was written to", path, nil)
                    }
                }
                rounds.add(1, ordering: .releasing)
            }
        }

        /// Whether some rounds are done from now on.
        func works() -> Bool {
            let (goal, end) = (rounds.load(ordering: .acquiring) + 20, monotonicNanoseconds() + 60_000_000_000)
            while rounds.load(ordering: .acquiring) < goal {
                if monotonicNanoseconds() > end || failure.withLock({ $0 != nil }) { return false }
                pause(milliseconds: 2)
            }
            return true
        }

        /// - Returns: what went wrong.
        func end() -> String? {
            isEnding.store(true, ordering: .releasing)
            guard done.wait(timeout: .now() + 60) == .success else { return "it hangs" }
            return failure.withLock { $0 }
        }
    }

    /// Never in the way of what comes after.
    private final class Place {
        let path: String
        init(_ path: String) {
            self.path = path
            _ = unsafe mkdir(path, 0o755)
        }
        deinit { _ = unsafe umount2(path, Int32(MNT_DETACH)) }
    }

    private static var canMount: Bool { geteuid() == 0 && TestFile.exists("/dev/fuse") }

    @Test func `a program on a mount notices nothing`() throws {
        guard Self.canMount else { return print("not tried: this takes root and /dev/fuse") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let tree = directory.value.file("tree")
        let place = Place(directory.value.file("mounted"))
        #expect(unsafe mkdir(tree, 0o755) == 0)
        let made = try supervisor.baton("create", "share", "s", "--directory", tree)
        #expect(made.code == 0, "\(made.output)")
        let mounted = try supervisor.baton("mount", "s", place.path)
        #expect(mounted.code == 0, "\(mounted.output)")
        let writer = Writer("\(place.path)/data")
        for blow in ["kill", "upgrade", "supervisor killed", "kill", "supervisor upgraded", "upgrade"] {
            #expect(writer.works(), "before \(blow)")
            let before = try supervisor.wait("s.mount", "a standby") { $0.isStaffed && $0.upgrade == nil }
            switch blow {
            case "kill":
                #expect(try supervisor.baton("kill", "s.mount").code == 0)
                _ = try supervisor.wait("s.mount", "a take-over") {
                    $0.isStaffed && $0.active?.id != before.active?.id
                }
            case "upgrade":
                let result = try supervisor.baton("upgrade", "s.mount")
                #expect(result.code == 0, "\(result.output)")
            case "supervisor killed": try supervisor.killAndRestart()
            default:
                let result = try supervisor.baton("upgrade", "--supervisor")
                #expect(result.code == 0, "\(result.output)")
            }
        }
        #expect(writer.works())
        let refused = try supervisor.baton("delete", "s.mount")
        #expect(refused.code != 0 && refused.output.contains("umount"), "\(refused.output)")
        let busy = try supervisor.baton("umount", place.path)
        #expect(busy.code != 0 && busy.output.contains("--lazy"), "\(busy.output)")
        #expect(writer.end() == nil)
        let ended = try supervisor.baton("umount", place.path)
        #expect(ended.code == 0, "\(ended.output)")
        #expect(try !supervisor.baton("list").output.contains("s.mount"))
        #expect(TestFile.names(in: place.path).isEmpty && TestFile.names(in: tree) == ["data"])
        try supervisor.end()
    }

    @Test func `umount(8) ends the device, and what cannot be mounted leaves none`() throws {
        guard Self.canMount else { return print("not tried: this takes root and /dev/fuse") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let place = Place(directory.value.file("mounted"))
        let none = try supervisor.baton("mount", "s", place.path)
        #expect(none.code != 0 && none.output.contains("s"), "\(none.output)")
        let tree = directory.value.file("tree")
        #expect(unsafe mkdir(tree, 0o755) == 0)
        try TestFile.create("\(tree)/inside", count: 1)
        #expect(try supervisor.baton("create", "share", "s", "--directory", tree).code == 0)
        let nowhere = try supervisor.baton("mount", "s", directory.value.file("missing"))
        #expect(nowhere.code != 0 && nowhere.output.contains("missing"), "\(nowhere.output)")
        #expect(try !supervisor.baton("list").output.contains("s.mount"))
        #expect(try supervisor.baton("mount", "s", place.path).code == 0)
        #expect(TestFile.names(in: place.path) == ["inside"])
        let umount = try run("umount", [place.path], in: directory.value)
        #expect(umount.code == 0, "\(umount.output)")
        let end = monotonicNanoseconds() + 60_000_000_000
        while try supervisor.baton("list").output.contains("s.mount"), monotonicNanoseconds() < end {
            pause(milliseconds: 20)
        }
        #expect(try !supervisor.baton("list").output.contains("s.mount"))
        try supervisor.end()
    }
}
