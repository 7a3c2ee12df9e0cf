import CAttacks
import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// What a worker that a hostile guest has taken over can reach: its own disk.
@Suite(.serialized) struct SandboxTests {
    /// Only a supervisor that may make namespaces can show what they keep out.
    private var canConfine: Bool { geteuid() == 0 }

    private func status(_ process: Int32) -> [String: String] {
        var fields: [String: String] = [:]
        for line in (readSmallFile("/proc/\(process)/status") ?? "").split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { fields[String(parts[0])] = parts[1].trimmingCharacters(in: .whitespaces) }
        }
        return fields
    }

    private func target(_ path: String) -> String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: path)) ?? ""
    }

    private func makeDisk(
        _ supervisor: borrowing SupervisorProcess, _ name: String = "d", serial: String = ""
    ) throws -> String {
        let image = supervisor.directory.value.file("\(name).img")
        try TestFile.create(image, count: 16 << 20)
        let made = try supervisor.baton(
            ["create", "disk", name, "--file", image] + (serial.isEmpty ? [] : ["--serial", serial]))
        #expect(made.code == 0, "\(made.output)")
        return image
    }

    /// Opened by number, so that none of them is a way to a path.
    private func isAllowed(_ file: String, image: String, output: String) -> Bool {
        file == image || file == output || file == "/dev/null" || file.hasPrefix("socket:[")
            || file.hasPrefix("pipe:[") || file.hasPrefix("anon_inode:") || file.hasPrefix("/memfd:")
            // The sight of a thread of the device's other worker.
            || file.hasPrefix("/proc/") && file.contains("/task/") && file.hasSuffix("/stat")
    }

    @Test func `a worker has no rights, no paths, and no files but its device's`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "full"], in: directory)
        let image = try makeDisk(supervisor)
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 7, count: 512), sector: 3).status == .ok)
        // Of a take-over, too: what stood by was confined before.
        #expect(try supervisor.baton("kill", "d").code == 0)
        #expect(try disk.read(sector: 3, count: 512).data == [UInt8](repeating: 7, count: 512))
        let info = try supervisor.wait("d", "a standby") { $0.isStaffed && $0.takeOvers == 1 }
        let output = target("/proc/\(supervisor.program.pid)/fd/2")
        for worker in info.workers {
            let status = status(worker.pid)
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                #expect(status[set] == "0000000000000000", "\(set) of \(worker.phase)")
            }
            #expect(status["NoNewPrivs"] == "1")
            #expect(status["Seccomp"] == "2")
            #expect(status["Groups"] == "")
            #expect(status["Uid"]?.split(separator: "\t").contains("0") == false, "\(status["Uid"] ?? "")")
            // Of the host, and of the room.
            #expect(status["NSpid"]?.split(separator: "\t").count == 2)
            for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
                let (theirs, ours) = (target("/proc/\(worker.pid)/ns/\(kind)"), target("/proc/self/ns/\(kind)"))
                #expect(theirs.hasPrefix("\(kind):[") && theirs != ours, "\(kind)")
            }
            #expect(TestFile.names(in: "/proc/\(worker.pid)/root/") == [])
            let mounts = (readSmallFile("/proc/\(worker.pid)/mountinfo") ?? "").split(separator: "\n")
            #expect(mounts.allSatisfy { $0.contains(" / ro,") || $0.contains("tmpfs baton-empty") }, "\(mounts)")
            let limits = readSmallFile("/proc/\(worker.pid)/limits") ?? ""
            let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") }
            #expect(core?.split(separator: " ").dropFirst(4).prefix(2) == ["0", "0"])
            for number in TestFile.names(in: "/proc/\(worker.pid)/fd") {
                let file = target("/proc/\(worker.pid)/fd/\(number)")
                #expect(isAllowed(file, image: image, output: output), "\(number) is \(file)")
            }
        }
        // Both see the same processes, as the mutex by which the device passes on needs it.
        #expect(Set(info.workers.map { target("/proc/\($0.pid)/ns/pid") }).count == 1)
        try rig.frontend.stop()
        try supervisor.end()
    }

    @Test func `a wall that could not be built is a notice of the device, and a warning`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "auto"],
            startedBy: [
                "/usr/bin/unshare", "--user", "--map-root-user", "--", "/bin/sh", "-c",
                #"echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@""#,
            ], in: directory)
        _ = try makeDisk(supervisor)
        let info = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let sentence = "workers share the supervisor's user and PID namespaces"
        #expect(info.notices?.contains { $0.hasPrefix(sentence) } == true, "\(info.notices ?? [])")
        #expect(try supervisor.baton("events").output.contains("weakened"))
        try supervisor.end()
    }

    @Test func `a room ends with its device, and with all who know of it`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "full"], in: directory)
        _ = try makeDisk(supervisor)
        func rooms(_ supervisor: Int32) -> [Int32] {
            TestFile.names(in: "/proc").compactMap { Int32($0) }.filter { process in
                let status = status(process)
                return status["Name"] == "baton-room" && status["PPid"] == "\(supervisor)"
                    && status["State"]?.hasPrefix("Z") == false
            }
        }
        let first = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let room = try #require(rooms(supervisor.program.pid).first)
        // Killed with its room, the device has another one soon.
        kill(room, 9)
        let second = try supervisor.wait("d", "a new room") { info in
            info.isStaffed && !info.workers.contains { worker in first.workers.contains { $0.pid == worker.pid } }
        }
        let next = try #require(rooms(supervisor.program.pid).first)
        #expect(next != room)
        // It does not end with the supervisor, and is used by the next one.
        try supervisor.killAndRestart()
        #expect(try supervisor.baton("kill", "d").code == 0)
        let third = try supervisor.wait("d", "a standby") { info in
            info.isStaffed && info.active?.pid == second.standby?.pid
        }
        #expect(Set(third.workers.map { target("/proc/\($0.pid)/ns/pid") }) == [target("/proc/\(next)/ns/pid")])
        try supervisor.end()
        let limit = monotonicNanoseconds() + 10_000_000_000
        while status(next)["State"].map({ !$0.hasPrefix("Z") }) ?? false, monotonicNanoseconds() < limit {
            pause(milliseconds: 5)
        }
        #expect(status(next)["State"].map { $0.hasPrefix("Z") } ?? true)
    }

    /// The mutex by which a device passes on has the number of the thread that holds it, in the PID namespace of
    /// whoever dies waiting for it. Were that another namespace than the holder's, the numbers could be the same.
    @Test func `a standby that dies takes nothing from the worker that has the device`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "full"], in: directory)
        _ = try makeDisk(supervisor)
        let first = try supervisor.wait("d", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("d.sock"))
        var disk = rig.makeDriver()
        for round in 0..<8 as Range<UInt8> {
            let standby = try #require(try supervisor.status("d").standby)
            kill(standby.pid, 9)
            let info = try supervisor.wait("d", "another standby") { info in
                info.isStaffed && info.standby?.pid != standby.pid
            }
            #expect(info.active?.pid == first.active?.pid && info.generation == 1 && info.takeOvers == 0)
            #expect(try disk.write([UInt8](repeating: round, count: 512), sector: 3).status == .ok)
        }
        try rig.frontend.stop()
        try supervisor.end()
    }

    /// What is tried, and ends a worker.
    private static let deadly = [
        "open", "open-tree", "open-by-handle", "readlink", "socket", "connect", "ptrace", "process-memory", "kill",
        "kill-all", "kill-thread", "pidfd-open", "pidfd-getfd", "make-ring", "register", "setns", "unshare", "mount",
        "chroot", "fchdir", "bpf", "keyctl", "userfaultfd", "perf", "execve", "fork", "clone-namespace",
        "executable-memory", "executable-stack", "dumpable", "terminal", "own-signals", "set-user",
        "limits", "other-handler",
    ]

    /// What is tried, and refused.
    private static let refused: [String: Int32] = [
        // What no filter sees: the ring itself refuses, whoever asks it.
        "open-through-ring": -EACCES, "socket-through-ring": -EACCES, "message-through-ring": -EACCES,
        // As on a kernel that has it not, so that the C library does without.
        "clone3": -ENOSYS,
    ]

    @Test func `whatever a worker tries that is not its work ends it, or is refused`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: SupervisorProcess.executable("hostile-worker"), ["--worker-sandbox", "full"], in: directory)
        for name in Self.deadly {
            _ = try makeDisk(supervisor, name, serial: name)
            let death = "died by SIGSYS when it tried system call \(unsafe attack_call(name))"
            // Each of its workers ends like this: there is no other end that could come first.
            let info = try supervisor.wait(name, death) { $0.lastDeath != nil }
            #expect(info.lastDeath?.hasSuffix(death) == true, "\(name): \(info.lastDeath ?? "")")
            #expect(try supervisor.baton("delete", name).code == 0)
        }
        for (name, answer) in Self.refused {
            _ = try makeDisk(supervisor, name, serial: name)
            _ = try supervisor.wait(name, "attack \(name): \(answer)") { _ in
                (try? supervisor.baton("events").output)?.contains("attack \(name): \(answer) ") == true
            }
            #expect(try supervisor.baton("delete", name).code == 0)
        }
        try supervisor.end()
    }

    @Test func `lies told to the supervisor harm nobody else`() throws {
        guard canConfine else { return print("not tried: this takes root") }
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        var supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--worker-sandbox", "full"], in: directory)
        _ = try makeDisk(supervisor, "honest")
        _ = try supervisor.wait("honest", "a standby") { $0.isStaffed }
        var rig = try Rig(connectingTo: directory.value.file("honest.sock"))
        var disk = rig.makeDriver()
        #expect(try disk.write([UInt8](repeating: 9, count: 512), sector: 1).status == .ok)
        let before = try supervisor.status("honest").workers.map(\.pid)
        _ = try makeDisk(supervisor, "liar", serial: "forge")
        _ = try supervisor.wait("liar", "a worker") { $0.isStaffed }
        let result = try supervisor.baton(
            "upgrade", "liar", "--worker", SupervisorProcess.executable("hostile-worker"))
        print("the upgrade to a liar: \(result.output)")
        _ = try supervisor.wait("liar", "lies") { _ in
            (try? supervisor.baton("events").output)?.contains("attack forge: 0 ") == true
        }
        #expect(try supervisor.status("honest").workers.map(\.pid) == before)
        #expect(try disk.read(sector: 1, count: 512).data == [UInt8](repeating: 9, count: 512))
        #expect(try supervisor.baton("delete", "liar").code == 0)
        try rig.frontend.stop()
        try supervisor.end()
    }
}
