public import ControlAPI

/// What is to be done so that the devices that run are those that a configuration asks for: a pure function of both.
public struct ReloadPlan: Hashable, Sendable {
    /// A key that a device has otherwise than it is asked for.
    public struct KeyChange: Hashable, Sendable {
        public var device: String
        public var key: String
        /// What it runs with, and what is asked for.
        public var running: String
        public var asked: String
    }

    /// A device some of whose keys can be changed while it runs.
    public struct Change: Hashable, Sendable {
        /// What it will be.
        public var parameters: DeviceParameters
        public var keys: [KeyChange]
    }

    public private(set) var added: [ConfiguredDevice] = []
    /// Names.
    public private(set) var removed: [String] = []
    public private(set) var changed: [Change] = []
    /// What cannot be changed while the device exists.
    public private(set) var held: [KeyChange] = []
    /// Names of devices that are as they should be.
    public private(set) var unchanged: [String] = []
    /// Why nothing may be done at all.
    public private(set) var conflicts: [ConfigurationProblem] = []

    /// - Parameters:
    ///   - running: all devices that there are. Those without an origin are left alone.
    ///   - wanted: with values spelt as those of `running` are.
    public init(running: [DeviceParameters], wanted: [ConfiguredDevice]) {
        let present = Dictionary(running.map { ($0.name, $0) }) { first, _ in first }
        for device in wanted {
            guard let now = present[device.parameters.name] else {
                added.append(device)
                continue
            }
            if now.origin == nil { conflict(device, "a device of this name was made by `baton create`") }
            compare(now, device)
        }
        let names = Set(wanted.map(\.parameters.name))
        removed = running.filter { $0.origin != nil && !names.contains($0.name) }.map(\.name).sorted()
        checkSockets(running, wanted)
    }

    private mutating func conflict(_ device: ConfiguredDevice, _ reason: String) {
        let name = device.parameters.name
        conflicts.append(
            ConfigurationProblem(
                in: device.file, key: device.parameters.section, reason,
                suggestion: "rename one of them, or end that one: baton delete \(name)"))
    }

    private mutating func compare(_ now: DeviceParameters, _ device: ConfiguredDevice) {
        let name = now.name
        guard now.kind == device.parameters.kind else {
            let asked = device.parameters.kind.rawValue
            held.append(KeyChange(device: name, key: "kind", running: now.kind.rawValue, asked: asked))
            return unchanged.append(name)
        }
        var next = device.parameters
        next.origin = device.file
        var keys: [KeyChange] = []
        for key in ConfigurationKey.all(of: now.kind) where key.get(now) != key.get(device.parameters) {
            let change = KeyChange(
                device: name, key: key.name, running: key.text(of: now), asked: key.text(of: device.parameters))
            if key.change == .recreation {
                held.append(change)
                key.set(&next, key.get(now))
            } else {
                keys.append(change)
            }
        }
        if keys.isEmpty { unchanged.append(name) } else { changed.append(Change(parameters: next, keys: keys)) }
    }

    /// A new device's socket may be that of one that stays.
    private mutating func checkSockets(_ running: [DeviceParameters], _ wanted: [ConfiguredDevice]) {
        for device in added {
            let others = running.filter { $0.socket == device.parameters.socket && !removed.contains($0.name) }
            guard let other = others.first else { continue }
            conflicts.append(
                ConfigurationProblem(
                    in: device.file, key: "\(device.parameters.section).socket",
                    "the device \(other.name) has the socket \(other.socket ?? "")", suggestion: "give each its own"))
        }
    }
}

extension ReloadPlan.KeyChange {
    /// Why it is not changed, and what to do.
    public var explanation: String {
        "it runs with \(key) = \(running), and \(asked) is asked for: that cannot be changed while the device exists. "
            + "`baton delete \(device)` and `baton reload` make it anew; its front-end has to connect again"
    }
}
