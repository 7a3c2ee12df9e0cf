public import Telemetry

/// What an operator sees of a device.
public struct DeviceStatus: Sendable {
    public var configuration: DeviceConfiguration
    public var workers: [DeviceMachine.Worker]
    /// Why the device is not served, or has no standby, as a sentence; nil when all is well.
    public var problem: String?
    public var isConnected: Bool
    /// Times that a worker died and another took over.
    public var takeOvers: Int
    /// Front-ends that have connected.
    public var connections: Int
    /// Workers that have had the device.
    public var generation: UInt64
    /// Requests that the present worker has returned.
    public var completed: UInt64
    /// The step of an upgrade that is under way.
    public var upgrade: String?
    /// How the worker ended that died last, as a sentence; nil: none has.
    public var lastDeath: String?
    /// Requests that were answered with an error because workers had died over them.
    public var givenUp: UInt64
    /// What of its configuration has no effect here, as sentences.
    public var notices: [String]
    /// What its workers count: to be read at any time, from any thread.
    public var statistics: DeviceStatistics
}

/// Something that has happened to a device.
public struct SupervisorEvent: Hashable, Sendable {
    /// Counts all events of this supervisor, from 1 on.
    public var sequence: UInt64
    /// Milliseconds since 1970.
    public var time: UInt64
    public var device: String
    /// The number of the worker that it is about, or that has had the device last; 0: none.
    public var generation: UInt64
    public var report: DeviceMachine.Report
}

/// How one device fared in an upgrade.
public struct UpgradeProgress: Hashable, Sendable {
    public var device: String
    public var outcome: DeviceMachine.Upgrade.Outcome
    /// How long it took, in milliseconds.
    public var milliseconds: UInt64
}
