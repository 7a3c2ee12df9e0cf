import Configuration
import ControlAPI
import Testing

/// What a reload does, as a function of what runs and what is asked for.
@Suite struct ReloadPlanTests {
    private func disk(_ name: String, _ change: (inout DeviceParameters) -> Void = { _ in }) -> DeviceParameters {
        var disk = DeviceParameters(name: name, file: "/\(name).img", socket: "/\(name).sock")
        disk.origin = "a"
        change(&disk)
        return disk
    }

    private func plan(_ running: [DeviceParameters], _ wanted: [DeviceParameters]) -> ReloadPlan {
        ReloadPlan(running: running, wanted: wanted.map { ConfiguredDevice(parameters: $0, file: "a") })
    }

    @Test func `what is asked for and is not there is added, what is not asked for is removed`() {
        let plan = plan([disk("old"), disk("same")], [disk("new"), disk("same")])
        #expect(plan.added.map(\.parameters.name) == ["new"])
        #expect(plan.removed == ["old"])
        #expect(plan.unchanged == ["same"])
        #expect(plan.changed.isEmpty && plan.held.isEmpty && plan.conflicts.isEmpty)
    }

    @Test func `devices made by commands stay as they are`() {
        let plan = plan([disk("made") { $0.origin = nil }], [])
        #expect(plan.removed.isEmpty && plan.conflicts.isEmpty)
    }

    @Test func `a name that a command has given already is a conflict`() {
        let plan = plan([disk("made") { $0.origin = nil }], [disk("made")])
        #expect(
            plan.conflicts.map(\.description) == [
                "a: error: disk.made: a device of this name was made by `baton create` "
                    + "(rename one of them, or end that one: baton delete made)"
            ])
    }

    @Test func `a socket that a command has given already is a conflict, that of a removed device is free`() {
        let other = disk("other") { $0.socket = "/new.sock" }
        #expect(plan([other], [disk("new")]).conflicts.isEmpty)
        let made = disk("other") {
            $0.socket = "/new.sock"
            $0.origin = nil
        }
        #expect(
            plan([made], [disk("new")]).conflicts.map(\.description) == [
                "a: error: disk.new.socket: the device other has the socket /new.sock (give each its own)"
            ])
    }

    @Test func `what can be changed live is changed, and what cannot stays and is explained`() {
        let asked = disk("d") {
            $0.pollMicroseconds = 10
            $0.cpuWeight = 200
            $0.queues = 4
            $0.cache = "buffered"
        }
        let plan = plan([disk("d")], [asked])
        #expect(plan.unchanged.isEmpty)
        #expect(plan.changed.count == 1)
        #expect(plan.changed.first?.keys.map(\.key) == ["poll-us", "cpu-weight"])
        #expect(plan.changed.first?.keys.map(\.running) == ["50", "100"])
        let expected = disk("d") {
            $0.pollMicroseconds = 10
            $0.cpuWeight = 200
        }
        #expect(plan.changed.first?.parameters == expected)
        #expect(plan.held.map(\.key) == ["cache", "queues"])
        #expect(
            plan.held.last?.explanation
                == "it runs with queues = 1, and 4 is asked for: that cannot be changed while the device exists. "
                + "`baton delete d` and `baton reload` make it anew; its front-end has to connect again")
    }

    /// Every key is one of two kinds, and a change of it is seen.
    @Test func `a key that is asked for no more goes back to its default`() {
        let now = disk("d") {
            $0.pollMicroseconds = 10
            $0.cpus = [1]
            $0.pinMemory = true
            $0.socketMode = "0600"
            $0.socketOwner = "0"
            $0.socketGroup = "0"
            $0.cpuWeight = 1
            $0.memoryMax = 1 << 30
            $0.ioWeight = 1
            $0.limit = LimitInfo(iops: 5)
            $0.onEnospc = "hold"
        }
        let plan = plan([now], [disk("d")])
        #expect(plan.changed.first?.parameters == disk("d"))
        #expect(
            plan.changed.first?.keys.map(\.key)
                == ConfigurationKey.all(of: .disk).filter { $0.change != .recreation }.map(\.name))
        #expect(plan.held.isEmpty)
    }

    private func share(_ name: String, _ change: (inout DeviceParameters) -> Void = { _ in }) -> DeviceParameters {
        disk(name) {
            $0.file = nil
            $0.share = ShareParameters(directory: "/\(name)", tag: name)
            change(&$0)
        }
    }

    @Test func `of a share, how its workers run is changed live, and what its guest knows is held`() {
        let asked = share("s") {
            $0.pollMicroseconds = 10
            $0.memoryMax = 1 << 30
            $0.share?.directory = "/other"
            $0.share?.xattr = true
            $0.share?.maxFiles = 100
        }
        let plan = plan([share("s"), share("goes")], [asked, share("comes")])
        #expect(plan.added.map(\.parameters.name) == ["comes"] && plan.removed == ["goes"])
        #expect(plan.changed.first?.keys.map(\.key) == ["poll-us", "memory-max"])
        let expected = share("s") {
            $0.pollMicroseconds = 10
            $0.memoryMax = 1 << 30
        }
        // What is held stays as it is, and is spelt out.
        var kept = plan.changed.first?.parameters
        kept?.share?.maxFiles = nil
        #expect(kept == expected)
        #expect(plan.held.map(\.key) == ["directory", "xattr", "max-files"])
        #expect(plan.held.map(\.running) == ["/s", "false", "16384"])
        #expect(plan.held.map(\.asked) == ["/other", "true", "100"])
    }

    @Test func `a disk becomes no share, nor a share a disk`() {
        let plan = plan([disk("a"), share("b")], [share("a"), disk("b")])
        #expect(plan.held.map { "\($0.device): \($0.running), \($0.asked)" } == ["a: disk, share", "b: share, disk"])
        #expect(plan.unchanged == ["a", "b"] && plan.changed.isEmpty && plan.added.isEmpty && plan.removed.isEmpty)
        let made = share("c") { $0.origin = nil }
        #expect(self.plan([made], [share("c")]).conflicts.first?.key == "share.c")
    }
}
