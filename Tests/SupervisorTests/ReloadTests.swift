import ControlAPI
import Foundation
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// A real supervisor that is given devices by files.
@Suite(.serialized) struct ReloadTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func write(_ text: String, to name: String = "baton.toml") throws {
        try FileManager.default.createDirectory(
            atPath: directory.value.file("conf.d"), withIntermediateDirectories: true)
        try text.write(toFile: directory.value.file(name), atomically: true, encoding: .utf8)
    }

    private func makeSupervisor() throws -> SupervisorProcess {
        try SupervisorProcess(
            worker: WorkerProcess.executable, ["--config", directory.value.file("baton.toml")], in: directory)
    }

    private func names(_ supervisor: borrowing SupervisorProcess) throws -> [String] {
        try supervisor.baton("list", "--json").output.split(separator: "\n")
            .map { try JSONDecoder().decode(DeviceInfo.self, from: Data($0.utf8)).disk.name }
    }

    private func reload(
        _ supervisor: borrowing SupervisorProcess, _ options: String...
    ) throws -> (code: Int32, result: ReloadResult) {
        let (code, output) = try supervisor.baton(["reload", "--json"] + options)
        return (code, try JSONDecoder().decode(ReloadResult.self, from: Data(output.utf8)))
    }

    private func disk(_ name: String, _ more: String = "") throws -> String {
        let image = directory.value.file("\(name).img")
        if !TestFile.exists(image) { try TestFile.create(image, count: 8 << 20) }
        return "[disk.\(name)]\nfile = \"\(image)\"\ncache = \"buffered\"\n\(more)\n"
    }

    @Test func `devices are there from the start, and after everything's death`() throws {
        try write(try disk("a"))
        try write(try disk("b"), to: "conf.d/b.toml")
        var supervisor = try makeSupervisor()
        #expect(try names(supervisor) == ["a", "b"])
        let before = try supervisor.wait("a", "a standby") { $0.isStaffed }
        _ = try supervisor.wait("b", "a standby") { $0.isStaffed }
        #expect(before.disk.origin == directory.value.file("baton.toml"))
        // The supervisor's death alone changes nothing.
        try supervisor.killAndRestart()
        #expect(try supervisor.status("a").workers == before.workers)
        for name in ["a", "b"] { for worker in try supervisor.status(name).workers { kill(worker.pid, 9) } }
        try supervisor.killAndRestart()
        #expect(try names(supervisor) == ["a", "b"])
        _ = try supervisor.wait("b", "a worker") { $0.isStaffed }
        try supervisor.end()
    }

    @Test func `a reload adds, removes and leaves alone`() throws {
        try write(try disk("stays") + disk("goes"))
        var supervisor = try makeSupervisor()
        #expect(try supervisor.baton("create", "disk", "made", "--null").code == 0)
        let before = try supervisor.wait("stays", "a standby") { $0.isStaffed }
        let load = try RunningLoad(directory.value.file("stays.sock"))
        #expect(load.completes(100))
        try write(try disk("stays") + disk("comes"))
        let dry = try reload(supervisor, "--dry-run")
        #expect(dry.code == 0)
        #expect(dry.result.dryRun && dry.result.added == ["comes"] && dry.result.removed == ["goes"])
        #expect(try names(supervisor) == ["goes", "made", "stays"])
        let (code, result) = try reload(supervisor)
        #expect(code == 0)
        #expect(result.added == ["comes"] && result.removed == ["goes"] && result.unchanged == ["stays"])
        #expect(try names(supervisor) == ["comes", "made", "stays"])
        #expect(!TestFile.exists(directory.value.file("goes.sock")))
        #expect(load.completes(100))
        try load.end()
        #expect(try supervisor.status("stays").workers == before.workers)
        // A signal does the same.
        try write(try disk("stays"))
        supervisor.program.send(signal: SIGHUP)
        while try names(supervisor) != ["made", "stays"] { usleep(5000) }
        try supervisor.end()
    }

    @Test(arguments: [
        ("[disk.a\n", ":1:"), ("[disk.a]\nnull = true\nqueues = 0\n", "disk.a.queues"),
        ("[disk.a]\nnull = true\nsocket-owner = \"nobody-at-all\"\n", "nobody-at-all"),
        ("[disk.made]\nnull = true\n", "disk.made: a device of this name was made by `baton create`"),
    ])
    func `a bad configuration changes nothing at all, and is told of`(text: String, said: String) throws {
        try write(try disk("stays"))
        var supervisor = try makeSupervisor()
        #expect(try supervisor.baton("create", "disk", "made", "--null").code == 0)
        let before = try supervisor.wait("stays", "a standby") { $0.isStaffed }
        try write(text + (text.hasSuffix("a\n") ? "" : "[disk.new]\nnull = true\n"))
        let (code, result) = try reload(supervisor)
        #expect(code == 1)
        #expect(result.errors.count == 1 && result.errors[0].contains(said), "\(result.errors)")
        #expect(try names(supervisor) == ["made", "stays"])
        #expect(try supervisor.status("stays").workers == before.workers)
        let status = try supervisor.baton("status")
        #expect(status.output.contains("configuration: it was not applied in full"), "\(status.output)")
        #expect(status.output.contains(said), "\(status.output)")
        // A supervisor that starts with it goes on with what there was, even when nothing else is left.
        for name in ["made", "stays"] { for worker in try supervisor.status(name).workers { kill(worker.pid, 9) } }
        try supervisor.killAndRestart()
        #expect(try names(supervisor) == ["made", "stays"])
        try write(try disk("stays"))
        #expect(try reload(supervisor).code == 0)
        #expect(try !supervisor.baton("status").output.contains("configuration: it was"))
        try supervisor.end()
    }

    @Test func `a reload changes limits and what becomes of requests without room, and replaces no worker`() throws {
        try write(try disk("d", "limit = { iops = 1 }"))
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(before.disk.limit == LimitInfo(iops: 1) && before.disk.onEnospc == nil)
        let load = try RunningLoad(directory.value.file("d.sock"))
        try write(try disk("d", "limit = { iops = 3000, bandwidth = \"1G\" }\non-enospc = \"hold\""))
        let (code, result) = try reload(supervisor)
        #expect(code == 0)
        #expect(Set(result.changed.map(\.key)) == ["limit", "on-enospc"], "\(result)")
        #expect(load.completes(300))
        let after = try supervisor.status("d")
        #expect(after.disk.limit == LimitInfo(iops: 3000, bandwidth: 1 << 30) && after.disk.onEnospc == "hold")
        #expect(after.workers.map(\.pid) == before.workers.map(\.pid))
        // A command holds until the configuration is applied again.
        #expect(try supervisor.baton("limit", "d", "--none").code == 0)
        #expect(try supervisor.status("d").disk.limit == nil)
        #expect(try reload(supervisor).result.changed.map(\.key) == ["limit"])
        #expect(try supervisor.status("d").disk.limit == LimitInfo(iops: 3000, bandwidth: 1 << 30))
        try load.end()
        try supervisor.end()
    }

    @Test func `what can be changed is changed under load, and what cannot is explained`() throws {
        try write(try disk("d"))
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let load = try RunningLoad(directory.value.file("d.sock"))
        #expect(load.completes(500))
        try write(
            try disk("d", "poll-us = 3\ncpus = [0]\nsocket-mode = \"0604\"\nsocket-owner = 1234\nqueues = 4"))
        let (code, result) = try reload(supervisor)
        #expect(code == 0, "\(result)")
        #expect(Set(result.changed.map(\.key)) == ["poll-us", "cpus", "socket-mode", "socket-owner"])
        #expect(result.held.map(\.key) == ["queues"])
        let text = try supervisor.baton("status", "d").output
        #expect(text.contains("configuration: it runs with queues = 1, and 4 is asked for"), "\(text)")
        #expect(text.contains("`baton delete d` and `baton reload` make it anew"), "\(text)")
        #expect(load.completes(500))
        let after = try supervisor.status("d")
        #expect(after.disk.pollMicroseconds == 3 && after.disk.queues == 1)
        #expect(after.connections == 1)
        // The workers are others; nothing died.
        #expect(Set(after.workers.map(\.pid)).isDisjoint(with: before.workers.map(\.pid)))
        #expect(after.takeOvers == 0 && after.lastDeath == nil)
        var status = stat()
        #expect(unsafe stat(directory.value.file("d.sock"), &status) == 0)
        #expect(status.st_mode & 0o777 == 0o604 && status.st_uid == 1234)
        // Asked for no more, it goes back.
        try write(try disk("d"))
        #expect(try reload(supervisor).result.changed.count == 4)
        #expect(unsafe stat(directory.value.file("d.sock"), &status) == 0)
        #expect(status.st_uid == geteuid())
        #expect(try supervisor.status("d").disk.pollMicroseconds == nil)
        #expect(load.completes(500))
        try load.end()
        try supervisor.end()
    }

    private func share(_ name: String, _ more: String = "") -> String {
        "[share.\(name)]\ndirectory = \"\(directory.value.file("\(name)-tree"))\"\n\(more)\n"
    }

    @Test func `shares are added, changed, held and removed while a guest works in one`() throws {
        for name in ["s", "goes"] {
            try FileManager.default.createDirectory(
                atPath: directory.value.file("\(name)-tree"), withIntermediateDirectories: true)
        }
        try write(share("s", "xattr = true\nmax-files = 64") + share("goes") + (try disk("d")))
        var supervisor = try makeSupervisor()
        #expect(try names(supervisor) == ["d", "goes", "s"])
        let before = try supervisor.wait("s", "a standby") { $0.isStaffed }
        #expect(before.disk.share?.xattr == true && before.disk.share?.maxFiles == 64)
        var mount = try FileMount(connectingTo: directory.value.file("s.sock"))
        let (file, open) = try mount.client.create(
            Array("kept".utf8), in: FileClient.root, flags: 0o102, mode: 0o100644)
        #expect(try reload(supervisor).result.unchanged == ["d", "goes", "s"])
        // One that comes waits for its directory.
        try write(
            share("s", "xattr = true\nmax-files = 64\npoll-us = 3\ncpus = [0]\nsocket-mode = \"0604\"\nflock = true")
                + share("comes") + share("d"))
        let (code, result) = try reload(supervisor)
        #expect(code == 0, "\(result)")
        #expect(result.added == ["comes"] && result.removed == ["goes"], "\(result)")
        #expect(Set(result.changed.map(\.key)) == ["poll-us", "cpus", "socket-mode"], "\(result)")
        #expect(result.held.map { "\($0.device) \($0.key)" }.sorted() == ["d kind", "s flock"], "\(result)")
        #expect(result.warnings.contains { $0.contains("share.comes.directory") }, "\(result)")
        let after = try supervisor.wait("s", "a standby") { $0.isStaffed }
        #expect(Set(after.workers.map(\.pid)).isDisjoint(with: before.workers.map(\.pid)))
        #expect(after.takeOvers == 0 && after.connections == 1 && after.disk.pollMicroseconds == 3)
        // The driver goes on with what it had open.
        #expect(try mount.client.write([1, 2, 3], file.node, open.handle, at: 0) == 3)
        try FileManager.default.createDirectory(
            atPath: directory.value.file("comes-tree"), withIntermediateDirectories: true)
        _ = try supervisor.wait("comes", "its directory") { $0.isStaffed }
        // The names of what it has done are those of a file system.
        let text = try supervisor.baton("status", "s").output
        #expect(text.contains("    writes: 1, 3 B") && text.contains("    opens and closes: "), "\(text)")
        #expect(!text.contains("discards") && !text.contains("write-zeroes"), "\(text)")
        try mount.client.release(file.node, open.handle)
        try mount.end()
        try supervisor.end()
    }

    @Test func `a change whose workers do not start leaves it as it was`() throws {
        try write(try disk("d"))
        var supervisor = try makeSupervisor()
        let before = try supervisor.wait("d", "a standby") { $0.isStaffed }
        let load = try RunningLoad(directory.value.file("d.sock"))
        let text = try disk("d", "poll-us = 3")
        let image = directory.value.file("d.img")
        // Those that have it open go on; whoever has to open it anew does not get it.
        #expect(unsafe rename(image, image + ".away") == 0)
        try write(text)
        let (code, result) = try reload(supervisor)
        #expect(code == 1)
        #expect(result.failures.count == 1 && result.failures[0].hasPrefix("cannot change d: cannot open"), "\(result)")
        #expect(load.completes(500))
        let after = try supervisor.status("d")
        #expect(after.active == before.active)
        #expect(after.disk.pollMicroseconds == nil)
        #expect(unsafe rename(image + ".away", image) == 0)
        #expect(try reload(supervisor).result.changed.map(\.key) == ["poll-us"])
        #expect(load.completes(500))
        try load.end()
        try supervisor.end()
    }

    @Test func `everything can be ended and started again`() throws {
        try write(try disk("configured"))
        var supervisor = try makeSupervisor()
        #expect(try supervisor.baton("create", "disk", "made", "--null").code == 0)
        let workers = try ["configured", "made"].flatMap { try supervisor.status($0).workers.map(\.pid) }
        #expect(try supervisor.baton("stop").code == 0)
        #expect(try names(supervisor) == [])
        #expect(workers.allSatisfy { kill($0, 0) != 0 || readSmallFile("/proc/\($0)/stat")?.contains(") Z") == true })
        let started = try supervisor.baton("start")
        #expect(started.output == "2 devices started\n", "\(started)")
        #expect(try names(supervisor) == ["configured", "made"])
        #expect(try supervisor.baton("start").output == "0 devices started\n")
        try supervisor.end()
    }

    @Test func `limits that this host cannot keep are told of`() throws {
        try write(try disk("d", "cpu-weight = 50"))
        var supervisor = try makeSupervisor()
        let info = try supervisor.wait("d", "a standby") { $0.isStaffed }
        #expect(info.notices == ["cpu-weight has no effect: batond was started without --worker-cgroup"])
        #expect(try supervisor.baton("status", "d").output.contains("notice: cpu-weight has no effect"))
        #expect(try supervisor.baton("events").output.contains("cpu-weight has no effect"))
        try supervisor.end()
    }
}
