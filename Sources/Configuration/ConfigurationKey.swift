internal import ControlAPI

/// A key of `[disk.NAME]` or `[share.NAME]`: what it takes, and what a change of it does to a device that runs.
public struct ConfigurationKey: Sendable {
    /// What a change does.
    public enum Change: String, Sendable, CaseIterable {
        /// Takes effect at once.
        case live
        /// Takes effect at once, by a take-over: the workers are replaced as in an upgrade.
        case liveByTakeOver = "live, by a take-over"
        /// The device has to be made anew.
        case recreation = "no"
    }

    /// As on the command line of `baton create disk` or `baton create share`, without the dashes.
    public let name: String
    let form: ValueForm
    /// What holds where the key is absent, for people.
    public let standard: String
    public let change: Change
    /// Whether it may stand in `[defaults]`: what is one device's own may not.
    public let isDefaultable: Bool
    /// Whether that is `[defaults.KIND]` alone, since the other kind has a key of this name with another meaning.
    public var isOfKindAlone = false
    /// For people, as a sentence.
    public let about: String
    /// What a device has; nil when it has not been given.
    let get: @Sendable (DeviceParameters) -> ReadValue?
    /// nil: what holds where the key is absent.
    let set: @Sendable (inout DeviceParameters, ReadValue?) -> Void

    /// What it takes, for people.
    public var range: String { form.description }

    /// All keys of a kind of device, in the order of the documentation.
    public static func all(of kind: DeviceKind) -> [ConfigurationKey] {
        switch kind {
        case .disk: disk
        case .share: share
        }
    }

    static func named(_ name: String, of kind: DeviceKind) -> ConfigurationKey? {
        all(of: kind).first { $0.name == name }
    }
}

// MARK: - For people

extension ConfigurationKey {
    /// The table of docs/configuration.md for a kind of device.
    public static func documentation(of kind: DeviceKind) -> String {
        let rows = all(of: kind).map { key in
            let place = key.isOfKindAlone ? "`[defaults.\(kind.rawValue)]`" : key.isDefaultable ? "yes" : "no"
            return ["`\(key.name)`", key.range, key.standard, place, key.change.rawValue, key.about]
        }
        let head = [
            ["Key", "Takes", "Default", "In `[defaults]`", "Live", "What"],
            Array(repeating: "---", count: 6),
        ]
        return (head + rows).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }

    /// What a device has of it, for people.
    func text(of device: DeviceParameters) -> String {
        guard let value = get(device) else { return standard }
        return switch form {
        case .flag: "\(value.flag)"
        case .integer, .integerChoice, .bytes: "\(value.integer)"
        case .limit: LimitForm.text(value.entries)
        case .integers: value.integers.map(String.init).joined(separator: ",")
        case .serial where value.text.isEmpty: standard
        case .choice, .path, .serial, .tag, .mode, .account, .identifiers, .attributeRules: value.text
        }
    }
}
