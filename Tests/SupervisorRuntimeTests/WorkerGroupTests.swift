import Platform
import TestSupport
import Testing

@testable import SupervisorRuntime

/// Limits go to the files of a control group where there are such files, and where not that is said. The groups are
/// folders of our own: what the kernel makes of their files is its business.
@Suite struct WorkerGroupTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())
    private var groups: WorkerGroups { WorkerGroups(in: directory.value.path) }
    private let all = ResourceLimits(cpuWeight: 200, memoryBytes: 64 << 20, ioWeight: 50)

    private func write(_ text: String, _ name: String) throws {
        let path = directory.value.file(name)
        if TestFile.exists(path) { try TestFile.remove(path) }
        try TestFile.create(path, count: 0)
        try TestFile.write(Array(text.utf8), to: path, at: 0)
    }

    private func read(_ name: String) -> String? { readSmallFile(directory.value.file(name)) }

    /// As the kernel makes the group of a device when its controllers are handed on.
    private func makeGroup(_ files: [String]) throws {
        for file in files { try write("", "device-d/\(file)") }
    }

    @Test func `limits are written, and taken back when nothing is asked for`() throws {
        _ = WorkerGroups.apply(all, device: "d", in: groups)
        try makeGroup(["cpu.weight", "memory.max", "io.weight"])
        #expect(WorkerGroups.apply(all, device: "d", in: groups) == [])
        #expect(read("device-d/cpu.weight") == "200")
        #expect(read("device-d/memory.max") == "67108864")
        #expect(read("device-d/io.weight") == "50")
        try makeGroup(["cpu.weight", "memory.max", "io.weight"])
        #expect(WorkerGroups.apply(nil, device: "d", in: groups) == [])
        #expect(read("device-d/cpu.weight") == "100")
        #expect(read("device-d/memory.max") == "max")
        #expect(read("device-d/io.weight") == "100")
    }

    @Test func `a controller is handed on, and the unit's own process makes way`() throws {
        try write("cpu io", "cgroup.controllers")
        try write("", "cgroup.subtree_control")
        try write("4711\n", "cgroup.procs")
        #expect(WorkerGroups.apply(ResourceLimits(cpuWeight: 7), device: "d", in: groups).count == 1)
        #expect(read("cgroup.subtree_control") == "+cpu")
        #expect(TestFile.exists(directory.value.file("unit")))
    }

    @Test func `what has no effect is said, with the reason`() throws {
        try write("cpu pids", "cgroup.controllers")
        try write("cpu", "cgroup.subtree_control")
        let path = directory.value.path
        #expect(
            WorkerGroups.apply(all, device: "d", in: groups) == [
                "cpu-weight has no effect: \(path)/device-d/cpu.weight cannot be written: No such file or directory",
                "memory-max has no effect: the controller 'memory' is not there in \(path) "
                    + "(cgroup.controllers: cpu pids)",
                "io-weight has no effect: the controller 'io' is not there in \(path) (cgroup.controllers: cpu pids)",
            ])
        #expect(WorkerGroups.apply(nil, device: "d", in: groups) == [])
        #expect(
            WorkerGroups.apply(ResourceLimits(ioWeight: 1), device: "d", in: nil) == [
                "io-weight has no effect: batond was started without --worker-cgroup"
            ])
        #expect(WorkerGroups.apply(nil, device: "d", in: nil) == [])
    }
}
