import CLinux
import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

/// Workers are killed in the middle of changes of names: each happens once, and is answered with what came of it.
@Suite(.serialized) struct NamesTests {
    /// Programs that make names, change and remove them, each in a directory of its own, and know what must come of it.
    private final class Programs: Sendable {
        private let isEnding = Atomic<Bool>(false)
        private let calls = Atomic<Int>(0)
        private let failures = Mutex<[String]>([])
        private let done = DispatchSemaphore(value: 0)
        private let count: Int

        init(_ root: String, count: Int) {
            self.count = count
            for index in 0..<count {
                Thread.detachNewThread { [self] in
                    do { try work("\(root)/\(index)") } catch { failures.withLock { $0.append("\(error)") } }
                    done.signal()
                }
            }
        }

        /// RENAME_WHITEOUT
        private let whiteout: UInt32 = 4

        private func work(_ place: String) throws {
            try check(unsafe mkdir(place, 0o755), place)
            let file = "\(place)/file"
            try TestFile.create(file, count: 1)
            for round in 0... {
                if isEnding.load(ordering: .acquiring) { return }
                let (directory, link, name) = ("\(place)/d\(round)", "\(place)/s\(round)", "\(place)/l\(round)")
                let (new, fifo) = ("\(place)/n\(round)", "\(place)/f\(round)")
                try check(unsafe mkdir(directory, 0o755), directory)
                try check(unsafe symlink("somewhere", link), link)
                try check(unsafe Glibc.link(file, name), name)
                try check(unsafe rename(name, "\(directory)/moved"), name)
                try check(unsafe unlink("\(directory)/moved"), directory)
                let fd = unsafe open(new, O_WRONLY | O_CREAT | O_EXCL, 0o640)
                try check(fd, new)
                close(fd)
                // What is left in its place is a file, too.
                try check(unsafe clinux_renameat(AT_FDCWD, new, AT_FDCWD, "\(new).moved", whiteout), new)
                try check(unsafe unlink(new), new)
                try check(unsafe unlink("\(new).moved"), new)
                try check(unsafe mknod(new, S_IFREG | 0o600, 0), new)
                try check(unsafe unlink(new), new)
                try check(unsafe mkfifo(fifo, 0o600), fifo)
                try check(unsafe unlink(fifo), fifo)
                try check(unsafe unlink(link), link)
                try check(unsafe rmdir(directory), directory)
                calls.add(14, ordering: .relaxed)
            }
        }

        private func check(_ result: Int32, _ path: String) throws {
            if result < 0 { throw SystemError(cannot: "change", path, .current) }
        }

        /// - Returns: how many changes there were, and what went wrong.
        func end() -> (calls: Int, failures: [String]) {
            isEnding.store(true, ordering: .releasing)
            for _ in 0..<count where done.wait(timeout: .now() + 60) != .success {
                failures.withLock { $0.append("it hangs") }
            }
            return (calls.load(ordering: .relaxed), failures.withLock { $0 })
        }
    }

    /// MS_REMOUNT | MS_NOSUID | MS_NODEV
    private static let remounting: UInt = 32 | 2 | 4

    @Test(.enabled(if: geteuid() == 0)) func `names change once, whoever dies meanwhile`() throws {
        guard TestFile.exists("/dev/fuse") else { return print("not tried: this takes /dev/fuse") }
        let seed = makeSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        let (tree, place) = (directory.value.file("tree"), directory.value.file("mounted"))
        #expect(unsafe mkdir(tree, 0o755) == 0 && mkdir(place, 0o755) == 0)
        defer { _ = unsafe umount2(place, Int32(MNT_DETACH)) }
        let made = try supervisor.baton("create", "share", "s", "--directory", tree, "--cache", "never")
        #expect(made.code == 0, "\(made.output)")
        let mounted = try supervisor.baton("mount", "s", place)
        #expect(mounted.code == 0, "\(mounted.output)")
        let programs = Programs(place, count: 8)
        for _ in 0..<25 {
            let worker = try #require(try supervisor.wait("s.mount", "a standby") { $0.isStaffed }.active)
            // A moment that nobody has chosen.
            usleep(UInt32(random.next(below: 20_000)))
            kill(worker.pid, SIGKILL)
            if random.next(below: 4) == 0 {
                // It lets go of what it knows, too, while somebody dies.
                _ = unsafe mount("none", place, nil, Self.remounting, nil)
            }
            _ = try supervisor.wait("s.mount", "a take-over") { $0.active.map { $0.id != worker.id } ?? false }
        }
        let (calls, failures) = programs.end()
        // A FIFO has a name of its own until it gets the one that it is to have.
        let names = try FileManager.default.subpathsOfDirectory(atPath: tree)
        #expect(names.allSatisfy { !$0.contains(".baton-") }, "seed \(seed): \(names)")
        #expect(failures.isEmpty, "seed \(seed), after \(calls) changes: \(failures)")
        #expect(calls > 0)
        // The kernel lets go of whatever it knows and nobody uses: nothing is known any more, and nothing open.
        #expect(unsafe mount("none", place, nil, Self.remounting, nil) == 0)
        let left = try supervisor.wait("s.mount", "tables that are empty") {
            guard let files = $0.statistics?.files else { return false }
            return files.nodes == 0 && files.openFiles == 0
        }
        #expect(left.statistics?.files?.nodes == 0, "seed \(seed)")
        #expect(try supervisor.baton("umount", place).code == 0)
        try supervisor.end()
    }
}
