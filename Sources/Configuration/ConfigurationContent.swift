public import ControlAPI
internal import TOMLKit

/// A file of a configuration.
public struct ConfigurationText: Hashable, Sendable {
    /// Where it lies: what problems name.
    public var path: String
    public var text: String

    public init(path: String, text: String) {
        self.path = path
        self.text = text
    }
}

/// A device that a configuration asks for.
public struct ConfiguredDevice: Hashable, Sendable {
    public var parameters: DeviceParameters
    /// The file that asks for it.
    public var file: String

    public init(parameters: DeviceParameters, file: String) {
        self.parameters = parameters
        self.file = file
    }
}

/// What some files ask for, and what is wrong with them: a pure function of their texts.
public struct ConfigurationContent: Hashable, Sendable {
    /// By name. Complete only when there is no error.
    public private(set) var devices: [ConfiguredDevice] = []
    public private(set) var problems: [ConfigurationProblem] = []

    /// As many as a supervisor has.
    public static let maximumDevices = 1024
    /// Problems that are told of.
    public static let maximumProblems = 200

    public var hasErrors: Bool { problems.contains { $0.severity == .error } }

    /// What stands below a heading, in the order of the keys' names.
    typealias Section = [(key: String, value: ConfigurationValue)]

    /// A key of `[defaults]` or `[defaults.KIND]`, as devices of one kind take it.
    struct Default {
        var key: ConfigurationKey
        var value: Result<ReadValue, ValueForm.Complaint>
        var kind: DeviceKind
        /// Whether it stands in `[defaults.KIND]`.
        var isOfKindAlone: Bool
        var file: String

        var path: String { isOfKindAlone ? "defaults.\(kind.rawValue).\(key.name)" : "defaults.\(key.name)" }
    }

    private var defaults: [Default] = []
    private var sections: [(kind: DeviceKind, name: String, file: String, content: Section)] = []

    public static func == (first: ConfigurationContent, second: ConfigurationContent) -> Bool {
        first.devices == second.devices && first.problems == second.problems
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(devices)
        hasher.combine(problems)
    }

    /// Reads files, in this order. All that is wrong is found, not the first thing alone.
    public init(_ files: [ConfigurationText]) {
        for file in files { parse(file) }
        for section in sections { makeDevice(section.kind, section.name, section.file, section.content) }
        problems += Self.clashes(of: devices)
        devices.sort { $0.parameters.name < $1.parameters.name }
        if problems.count > Self.maximumProblems {
            let rest = problems[Self.maximumProblems...]
            let isError = rest.contains { $0.severity == .error }
            let last = ConfigurationProblem(
                isError ? .error : .warning, in: problems[Self.maximumProblems - 1].file, "and \(rest.count) more")
            problems.removeLast(rest.count)
            problems.append(last)
        }
        defaults = []
        sections = []
    }

    private mutating func note(_ file: String, _ key: String, _ reason: String, _ suggestion: String? = nil) {
        problems.append(ConfigurationProblem(in: file, key: key, reason, suggestion: suggestion))
    }

    // MARK: Files

    private mutating func parse(_ file: ConfigurationText) {
        guard !file.text.utf8.contains(0) else {
            problems.append(ConfigurationProblem(in: file.path, "the file has NUL bytes: it is no text"))
            return
        }
        do {
            let table = try TOMLTable(string: file.text)
            for key in table.keys.sorted() {
                guard let value = table[key] else { continue }
                read(key, value, file.path)
            }
        } catch let error as TOMLParseError {
            let place = error.source.begin
            problems.append(
                ConfigurationProblem(
                    in: file.path, line: place.line, column: place.column, Self.reason(of: error.description)))
        } catch {
            problems.append(ConfigurationProblem(in: file.path, "the file cannot be read: \(error)"))
        }
    }

    /// Without what the parser was at: the line says it.
    private static func reason(of text: String) -> String {
        guard text.hasPrefix("Error while parsing"), let colon = text.firstIndex(of: ":") else { return text }
        return String(text[text.index(after: colon)...].drop { $0 == " " })
    }

    private mutating func read(_ key: String, _ value: any TOMLValueConvertible, _ file: String) {
        let kind = DeviceKind(rawValue: key)
        guard kind != nil || key == "defaults" else {
            return note(file, key, "there is no such section", Self.suggestion(forSection: key))
        }
        guard let table = value.table else {
            return note(
                file, key, "this is a section, not \(ConfigurationValue(value).kind)",
                kind == nil ? "write [\(key)]" : "write [\(key).NAME]")
        }
        guard let kind else { return readDefaults(Self.content(of: table), nil, file) }
        for name in table.keys.sorted() {
            guard let device = table[name]?.table else {
                note(
                    file, "\(kind.rawValue).\(name)", "a \(kind.rawValue) is a section of its own",
                    "write [\(kind.rawValue).NAME], and \(name) below it")
                continue
            }
            sections.append((kind, name, file, Self.content(of: device)))
        }
    }

    private static func suggestion(forSection name: String) -> String {
        let owners = DeviceKind.allCases.filter { ConfigurationKey.named(name, of: $0) != nil }
        if !owners.isEmpty {
            let places = owners.map { "[\($0.rawValue).NAME]" }.joined(separator: " or ")
            return "it belongs below [defaults]\(owners.count == 1 ? " or" : ",") \(places)"
        }
        let nearest = Spelling.nearest(to: name, among: ["defaults"] + DeviceKind.allCases.map(\.rawValue))
        return nearest.map { "did you mean `\($0)`?" } ?? "there are [defaults], [disk.NAME] and [share.NAME]"
    }

    private static func content(of table: TOMLTable) -> Section {
        table.keys.sorted().compactMap { key in table[key].map { (key, ConfigurationValue($0)) } }
    }
}

// MARK: - Keys

extension ConfigurationContent {
    /// - Parameter kind: nil for `[defaults]`, which is of all devices.
    private mutating func readDefaults(_ content: Section, _ kind: DeviceKind?, _ file: String) {
        for (name, value) in content {
            let path = kind.map { "defaults.\($0.rawValue).\(name)" } ?? "defaults.\(name)"
            if kind == nil, let kind = DeviceKind(rawValue: name) {
                if case .table(let table) = value {
                    readDefaults(table.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }, kind, file)
                } else {
                    note(file, path, "this is a section, not \(value.kind)", "write [\(path)]")
                }
                continue
            }
            let kinds = kind.map { [$0] } ?? DeviceKind.allCases
            let known = kinds.compactMap { kind in ConfigurationKey.named(name, of: kind).map { (kind, $0) } }
            let takers = known.filter { $0.1.isDefaultable && (kind != nil || !$0.1.isOfKindAlone) }
            guard let first = takers.first else {
                if let owner = known.first {
                    note(
                        file, path, "this is each \(owner.0.rawValue)'s own",
                        "write it below [\(owner.0.rawValue).NAME]")
                } else {
                    noteUnknown(name, value, path, kinds, file)
                }
                continue
            }
            guard let read = readValue(first.1, value, path, file) else { continue }
            if let earlier = defaults.first(where: { $0.path == path }) {
                note(file, path, "\(earlier.file) says this already", "keep one of them")
                continue
            }
            for (taker, key) in takers {
                // What the one kind takes may be more than the other can.
                let result = Result { () throws(ValueForm.Complaint) in
                    taker == first.0 ? read : try key.form.read(value)
                }
                defaults.append(
                    Default(key: key, value: result, kind: taker, isOfKindAlone: kind != nil, file: file))
            }
        }
    }

    private mutating func noteUnknown(
        _ name: String, _ value: ConfigurationValue, _ path: String, _ kinds: [DeviceKind], _ file: String
    ) {
        let nearest = Spelling.nearest(
            to: name, among: kinds.flatMap { ConfigurationKey.all(of: $0) }.map(\.name))
        let other = DeviceKind.allCases.first {
            !kinds.contains($0) && ConfigurationKey.named(name, of: $0) != nil
        }
        let isNested = if case .table = value { true } else { false }
        let isOfDevice = !path.hasPrefix("defaults.")
        let suggestion: String
        if let other {
            suggestion = "that is a key of [\(other.rawValue).NAME]"
        } else if isNested, isOfDevice, let kind = kinds.first {
            let whole = path.dropFirst(kind.rawValue.count + 1)
            suggestion = "a \(kind.rawValue)'s name with dots needs quotes: [\(kind.rawValue).\"\(whole)\"]"
        } else {
            let help = kinds.map { "baton help create \($0.rawValue)" }.joined(separator: " and ")
            suggestion =
                nearest.map { "did you mean `\($0)`?" } ?? "\(help) \(kinds.count == 1 ? "has" : "have") them all"
        }
        note(file, path, "there is no such key", suggestion)
    }

    /// - Returns: nil when something is wrong with it, which has been noted.
    private mutating func readValue(
        _ key: ConfigurationKey, _ value: ConfigurationValue, _ path: String, _ file: String
    ) -> ReadValue? {
        do throws(ValueForm.Complaint) {
            return try key.form.read(value)
        } catch {
            note(file, error.place.isEmpty ? path : "\(path).\(error.place)", error.reason, error.suggestion)
            return nil
        }
    }
}

// MARK: - Devices

extension ConfigurationContent {
    private mutating func makeDevice(_ kind: DeviceKind, _ name: String, _ file: String, _ content: Section) {
        let path = "\(kind.rawValue).\(name)"
        if let earlier = devices.first(where: { $0.parameters.name == name }) {
            return note(
                file, path, "\(earlier.file) has a \(earlier.parameters.kind.rawValue) of this name already",
                "rename or remove one of them")
        }
        guard Self.isName(name) else {
            return note(
                file, path, "this is no name for a \(kind.rawValue)",
                "use 1 to 64 letters, digits, dashes, underscores and dots, the first one no dot")
        }
        guard devices.count < Self.maximumDevices else {
            return note(file, path, "there are more than \(Self.maximumDevices) devices")
        }
        var device = DeviceParameters(name: name, file: nil, queueSize: kind.standardQueueSize)
        if kind == .share { device.share = ShareParameters(directory: "", tag: name) }
        let given = Set(content.map(\.key))
        applyDefaults(to: &device, but: given)
        var keepsNothing = false
        for (name, value) in content {
            guard let key = ConfigurationKey.named(name, of: kind) else {
                noteUnknown(name, value, "\(path).\(name)", [kind], file)
                continue
            }
            guard let value = readValue(key, value, "\(path).\(name)", file) else { continue }
            key.set(&device, value)
            if name == "null" { keepsNothing = value.flag }
        }
        checkWhole(device, path, given, keepsNothing: keepsNothing, file)
        devices.append(ConfiguredDevice(parameters: device, file: file))
    }

    /// - Parameter given: keys that the device has itself.
    private mutating func applyDefaults(to device: inout DeviceParameters, but given: Set<String>) {
        let all = defaults.filter { $0.kind == device.kind }
        for entry in all.filter({ !$0.isOfKindAlone }) + all.filter(\.isOfKindAlone) {
            let name = entry.key.name
            switch entry.value {
            case .success(let value): entry.key.set(&device, value)
            case .failure(let complaint):
                let isOverridden =
                    given.contains(name) || all.contains { $0.key.name == name && $0.isOfKindAlone }
                if isOverridden { continue }
                note(
                    entry.file, entry.path, "\(device.section) cannot have this: \(complaint.reason)",
                    "\(complaint.suggestion); [defaults.\(entry.kind.rawValue)] is for \(entry.kind.rawValue)s alone")
            }
        }
    }

    /// What a device has to have, and what does not go together.
    private mutating func checkWhole(
        _ device: DeviceParameters, _ path: String, _ given: Set<String>, keepsNothing: Bool, _ file: String
    ) {
        if device.kind == .share, !given.contains("directory") {
            note(file, path, "it does not say what to share", "add directory = \"/path/of/a/directory\"")
        } else if device.kind == .disk, !given.contains("file"), !keepsNothing {
            note(file, path, "it does not say what to serve", "add file = \"/path/of/an/image\"")
        } else if given.contains("file"), keepsNothing {
            note(file, "\(path).null", "a disk that keeps nothing has no file", "remove one of them")
        }
        let most = min(device.queues, device.kind.maximumThreads)
        guard device.threads > most else { return }
        let place = given.contains("threads") || !given.contains("queues") ? "threads" : "queues"
        note(
            file, "\(path).\(place)", "\(device.threads) threads are more than the \(device.queues) queues",
            "allowed: 1 to \(most) threads, or raise queues")
    }

    /// As on the command line.
    static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count) && name.first != "."
            && name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }
}
