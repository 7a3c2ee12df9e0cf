import CAttacks
import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A shared directory in custody: what outlives its workers, and what they can reach.
@Suite(.serialized) struct ShareTests {
    private var canConfine: Bool { geteuid() == 0 }

    /// Gives each supervisor a mount namespace of its own, whose mounts are shared: as systemd does.
    private static let serviceManager = ["/usr/bin/unshare", "--mount", "--propagation", "shared"]

    private static func service(in directory: TemporaryDirectoryBox) throws -> SupervisorProcess {
        try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "full"], startedBy: serviceManager, in: directory)
    }

    private func name(_ text: String) -> [UInt8] { Array(text.utf8) }

    private func makeShare(
        _ supervisor: borrowing SupervisorProcess, _ device: String = "s", tag: String = "tree", _ more: [String] = []
    ) throws -> String {
        let directory = supervisor.directory.value.file("\(device)-tree")
        #expect(unsafe mkdir(directory, 0o755) == 0)
        let made = try supervisor.baton(["create", "share", device, "--directory", directory, "--tag", tag] + more)
        #expect(made.code == 0, "\(made.output)")
        return directory
    }

    /// One worker after the other has the device: by death, and by upgrade.
    private func replaceWorker(_ round: Int, _ supervisor: inout SupervisorProcess) throws {
        if round % 2 == 0 {
            #expect(try supervisor.baton("kill", "s").code == 0)
        } else {
            let upgrade = try supervisor.baton("upgrade", "s", "--worker", WorkerProcess.executable)
            #expect(upgrade.code == 0, "\(upgrade.output)")
        }
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed }
    }

    @Test func `nodes, open files and locks outlive workers`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, [], in: directory)
        let tree = try makeShare(supervisor, "s", tag: "tree", ["--flock"])
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed }
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        let folder = try mount.client.makeDirectory(name("folder"), in: FileClient.root, mode: 0o755)
        let (kept, open) = try mount.client.create(name("kept"), in: folder.node, flags: 0o102, mode: 0o100644)
        let (gone, orphan) = try mount.client.create(name("gone"), in: folder.node, flags: 0o102, mode: 0o100644)
        let bytes = [UInt8](repeating: 7, count: 5000)
        #expect(try mount.client.write(bytes, gone.node, orphan.handle, at: 0) == bytes.count)
        try mount.client.unlink(name("gone"), in: folder.node)
        try mount.client.setLock(FileClient.Lock(.write, owner: 1, isOfFile: true), kept.node, open.handle)
        for round in 0..<4 {
            try replaceWorker(round, &supervisor)
            // Nothing is looked up again: the driver goes on with what it has.
            #expect(try mount.client.read(gone.node, orphan.handle, at: 0, count: 8192) == bytes)
            let line = [UInt8](repeating: UInt8(round), count: 100)
            #expect(try mount.client.write(line, kept.node, open.handle, at: UInt64(100 * round)) == 100)
            #expect(try mount.client.attributes(of: folder.node).inode == folder.attributes.inode)
            // The kernel's thread that makes it has been started for this.
            #expect(throws: FileError.refused(.noEntry)) { try mount.client.unlink(name("none"), in: folder.node) }
            let made = try mount.client.makeDirectory(name("made \(round)"), in: folder.node, mode: 0o777)
            #expect(made.attributes.mode & 0o7777 == 0o777, "the worker's mask is no matter of the guest's")
            #expect(made.node != folder.node && made.node != kept.node)
            #expect(isLocked("\(tree)/folder/kept"))
        }
        #expect(try TestFile.read("\(tree)/folder/kept", count: 400).last == 3)
        try mount.client.release(kept.node, open.handle)
        try mount.client.release(gone.node, orphan.handle)
        #expect(!isLocked("\(tree)/folder/kept"))
        try mount.end()
        try supervisor.end()
    }

    @Test func `what the next driver knows outlives workers, too`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, in: directory)
        _ = try makeShare(supervisor)
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed }
        let first = try FileMount(connectingTo: directory.value.file("s.sock"))
        try first.end()
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        let folder = try mount.client.makeDirectory(name("folder"), in: FileClient.root, mode: 0o755)
        let (kept, open) = try mount.client.create(name("kept"), in: folder.node, flags: 0o102, mode: 0o100644)
        // Those that take over have been started since the first driver has gone.
        for round in 0..<3 {
            try replaceWorker(round, &supervisor)
            #expect(try mount.client.write([UInt8(round)], kept.node, open.handle, at: UInt64(round)) == 1)
            #expect(try mount.client.attributes(of: folder.node).inode == folder.attributes.inode)
        }
        try mount.end()
        try supervisor.end()
    }

    private func isLocked(_ path: String) -> Bool {
        let fd = unsafe Glibc.open(path, O_RDWR)
        defer { close(fd) }
        return flock(fd, LOCK_EX | LOCK_NB) != 0
    }

    @Test func `a worker sees the share and nothing else, with the capabilities of files alone`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try Self.service(in: directory)
        let tree = try makeShare(supervisor)
        try TestFile.create("\(tree)/inside", count: 1)
        let info = try supervisor.wait("s", "a standby") { $0.isStaffed }
        // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP
        let capabilities = "00000000880000df"
        for worker in info.workers {
            let text = readSmallFile("/proc/\(worker.pid)/status") ?? ""
            func field(_ name: String) -> String? {
                text.split(separator: "\n").first { $0.hasPrefix("\(name):") }.map {
                    $0.dropFirst(name.count + 1).trimmingCharacters(in: .whitespaces)
                }
            }
            #expect(field("CapPrm") == capabilities && field("CapEff") == capabilities)
            for set in ["CapInh", "CapBnd", "CapAmb"] { #expect(field(set) == "0000000000000000", "\(set)") }
            #expect(field("NoNewPrivs") == "1" && field("Seccomp") == "2")
            #expect(TestFile.names(in: "/proc/\(worker.pid)/root/") == ["inside"])
            let mounts = (readSmallFile("/proc/\(worker.pid)/mountinfo") ?? "").split(separator: "\n")
            #expect(mounts.count == 1 && mounts.allSatisfy { $0.contains("nosuid,nodev,noexec") }, "\(mounts)")
            #expect(mounts.allSatisfy { !$0.contains("shared:") && !$0.contains("master:") }, "\(mounts)")
            for kind in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
                let namespaces = [worker.pid, getpid()].map { process in
                    try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/\(kind)")
                }
                #expect(namespaces[0] != namespaces[1], "\(kind)")
            }
        }
        try supervisor.end()
    }

    @Test func `a supervisor in another mount namespace goes on with a share, if it is the same directory`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try Self.service(in: directory)
        let tree = try makeShare(supervisor)
        let first = try supervisor.wait("s", "a standby") { $0.isStaffed }
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        try supervisor.killAndRestart()
        #expect(try supervisor.status("s").active == first.active)
        #expect(try supervisor.baton("kill", "s").code == 0)
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed && $0.active?.pid != first.active?.pid }
        let made = try mount.client.makeDirectory(name("made"), in: FileClient.root, mode: 0o755)
        #expect(try mount.client.attributes(of: made.node).inode == made.attributes.inode)
        // Another directory is none that anybody has asked for.
        try supervisor.killAndRestart()
        try FileManager.default.moveItem(atPath: tree, toPath: tree + "-elsewhere")
        try FileManager.default.createDirectory(atPath: tree, withIntermediateDirectories: false)
        #expect(try supervisor.baton("kill", "s").code == 0)
        _ = try supervisor.wait("s", "a problem") { $0.problem?.contains("not the directory that lay there") == true }
        try FileManager.default.removeItem(atPath: tree)
        try FileManager.default.moveItem(atPath: tree + "-elsewhere", toPath: tree)
        _ = try supervisor.wait("s", "a standby") { $0.isStaffed && $0.problem == nil }
        #expect(try mount.client.attributes(of: made.node).inode == made.attributes.inode)
        try mount.end()
        try supervisor.end()
    }

    @Test func `where something is missing that a share needs, it is refused with a sentence`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let lacking = ["/usr/bin/setpriv", "--bounding-set", "-mknod,-sys_ptrace"]
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, startedBy: lacking, in: directory)
        let refused = try supervisor.baton("create", "share", "s", "--directory", directory.value.path)
        let sentence = "A share needs CAP_SYS_PTRACE, CAP_MKNOD, which the supervisor lacks"
        #expect(refused.code != 0 && refused.output.contains(sentence), "\(refused.output)")
        #expect(try supervisor.baton("status", "s").code != 0)
        let disk = directory.value.file("disk")
        try TestFile.create(disk, count: 1 << 20)
        #expect(try supervisor.baton("create", "disk", "d", "--file", disk, "--cache", "buffered").code == 0)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        try supervisor.end()
    }

    /// What is tried, and ends a worker.
    private static let deadly = [
        "open-tree", "socket", "connect", "ptrace", "process-memory", "kill", "kill-all", "pidfd-open", "pidfd-getfd",
        "make-ring", "register", "setns", "unshare", "mount", "chroot", "fchdir", "bpf", "keyctl", "execve", "fork",
        "clone-namespace", "executable-memory", "dumpable", "set-user", "other-handler",
    ]

    /// What is tried, and finds nothing, or is refused by the ring.
    private static let refused: [String: Int32] = [
        "open": -ENOENT, "readlink": -ENOENT, "open-through-ring": -ENOENT, "socket-through-ring": -EACCES,
        "message-through-ring": -EACCES,
    ]

    @Test func `whatever a worker of a share tries outside of it ends it, or finds nothing`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: SupervisorProcess.executable("hostile-worker"), ["--worker-sandbox", "full"], in: directory)
        for name in Self.deadly {
            _ = try makeShare(supervisor, name, tag: name)
            let death = "died by SIGSYS when it tried system call \(unsafe attack_call(name))"
            let info = try supervisor.wait(name, death) { $0.lastDeath != nil }
            #expect(info.lastDeath?.hasSuffix(death) == true, "\(name): \(info.lastDeath ?? "")")
            #expect(try supervisor.baton("delete", name).code == 0)
        }
        for (name, answer) in Self.refused {
            _ = try makeShare(supervisor, name, tag: name)
            _ = try supervisor.wait(name, "attack \(name): \(answer)") { _ in
                (try? supervisor.baton("events").output)?.contains("attack \(name): \(answer) ") == true
            }
            #expect(try supervisor.baton("delete", name).code == 0)
        }
        try supervisor.end()
    }

    @Test func `what is no share is refused with a sentence`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(worker: WorkerProcess.executable, [], in: directory)
        let missing = try supervisor.baton("create", "share", "s", "--directory", directory.value.file("missing"))
        #expect(missing.code != 0 && missing.output.contains("missing"), "\(missing.output)")
        let tag = String(repeating: "t", count: 37)
        let long = try supervisor.baton("create", "share", "s", "--directory", "/tmp", "--tag", tag)
        #expect(long.code != 0 && long.output.contains("36 bytes"), "\(long.output)")
        // Nodes without handles would end with their worker.
        let options = ["--directory", directory.value.path, "--inode-file-handles", "never"]
        _ = try supervisor.baton(["create", "share", "s"] + options)
        let info = try supervisor.wait("s", "a refusal") { $0.problem != nil }
        #expect(info.problem?.contains("file handles") == true, "\(info)")
        try supervisor.end()
    }
}
