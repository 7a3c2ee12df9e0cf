// What the configuration's methods take and give.

/// How to apply the configuration.
public struct ReloadParameters: Codable, Hashable, Sendable {
    /// Say what would be done, and do nothing.
    public var dryRun: Bool

    public init(dryRun: Bool) { self.dryRun = dryRun }
}

/// A key that a device has otherwise than the configuration asks for.
public struct KeyChangeInfo: Codable, Hashable, Sendable {
    public var device: String
    public var key: String
    /// What it ran with, and what is asked for.
    public var running: String
    public var asked: String
    /// Why it stays, and what to do; absent for what is changed.
    public var explanation: String?

    public init(device: String, key: String, running: String, asked: String, explanation: String? = nil) {
        self.device = device
        self.key = key
        self.running = running
        self.asked = asked
        self.explanation = explanation
    }
}

/// What was done, or would be, so that the devices are those that the configuration asks for.
public struct ReloadResult: Codable, Hashable, Sendable {
    /// Milliseconds since 1970.
    public var time: UInt64
    public var dryRun: Bool
    /// The files that were read.
    public var files: [String]
    /// Why the configuration is refused: then nothing at all was changed.
    public var errors: [String]
    /// What the host does not have yet.
    public var warnings: [String]
    public var added: [String]
    public var removed: [String]
    public var changed: [KeyChangeInfo]
    /// What cannot be changed while the device exists.
    public var held: [KeyChangeInfo]
    public var unchanged: [String]
    /// What was tried and failed, as sentences.
    public var failures: [String]

    public init(time: UInt64, dryRun: Bool, files: [String] = [], errors: [String] = []) {
        self.time = time
        self.dryRun = dryRun
        self.files = files
        self.errors = errors
        warnings = []
        added = []
        removed = []
        changed = []
        held = []
        unchanged = []
        failures = []
    }
}

/// How the configuration was applied last.
public struct ConfigurationInfo: Codable, Hashable, Sendable {
    /// Absent before it was applied for the first time.
    public var last: ReloadResult?

    public init(last: ReloadResult?) { self.last = last }
}

/// Devices that were started or ended.
public struct DevicesResult: Codable, Hashable, Sendable {
    public var devices: [String]
    /// What was tried and failed, as sentences.
    public var failures: [String]

    public init(devices: [String], failures: [String]) {
        self.devices = devices
        self.failures = failures
    }
}
