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

/// A disk that a configuration asks for.
public struct ConfiguredDisk: Hashable, Sendable {
    public var parameters: DiskParameters
    /// The file that asks for it.
    public var file: String

    public init(parameters: DiskParameters, file: String) {
        self.parameters = parameters
        self.file = file
    }
}

/// What some files ask for, and what is wrong with them: a pure function of their texts.
public struct DiskConfiguration: Hashable, Sendable {
    /// By name. Complete only when there is no error.
    public private(set) var disks: [ConfiguredDisk] = []
    public private(set) var problems: [ConfigurationProblem] = []

    /// As many as a supervisor has.
    public static let maximumDisks = 1024
    /// Problems that are told of.
    public static let maximumProblems = 200
    private static let sections = ["defaults", "disk"]

    public var hasErrors: Bool { problems.contains { $0.severity == .error } }

    private typealias Section = [(key: String, value: ConfigurationValue)]
    private var defaults: [(key: ConfigurationKey, value: ReadValue, file: String)] = []
    private var sections: [(name: String, file: String, content: Section)] = []

    public static func == (first: DiskConfiguration, second: DiskConfiguration) -> Bool {
        first.disks == second.disks && first.problems == second.problems
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(disks)
        hasher.combine(problems)
    }

    /// Reads files, in this order. All that is wrong is found, not the first thing alone.
    public init(_ files: [ConfigurationText]) {
        for file in files { parse(file) }
        for section in sections { makeDisk(section) }
        checkAgainstEachOther()
        disks.sort { $0.parameters.name < $1.parameters.name }
        if problems.count > Self.maximumProblems {
            let rest = problems.count - Self.maximumProblems
            let last = problems[Self.maximumProblems - 1]
            problems.removeLast(rest)
            problems.append(ConfigurationProblem(in: last.file, "and \(rest) more"))
        }
        defaults = []
        sections = []
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
        guard Self.sections.contains(key) else {
            let nearest = Spelling.nearest(to: key, among: Self.sections)
            let isDiskKey = ConfigurationKey.named(key) != nil
            problems.append(
                ConfigurationProblem(
                    in: file, key: key, "there is no such section",
                    suggestion: isDiskKey
                        ? "it belongs below [defaults] or [disk.NAME]"
                        : nearest.map { "did you mean `\($0)`?" } ?? "there are [defaults] and [disk.NAME]"))
            return
        }
        guard let table = value.table else {
            problems.append(
                ConfigurationProblem(
                    in: file, key: key, "this is a section, not \(ConfigurationValue(value).kind)",
                    suggestion: key == "disk" ? "write [disk.NAME]" : "write [\(key)]"))
            return
        }
        if key == "defaults" { return readDefaults(Self.content(of: table), file) }
        for name in table.keys.sorted() {
            guard let disk = table[name]?.table else {
                problems.append(
                    ConfigurationProblem(
                        in: file, key: "disk.\(name)", "a disk is a section of its own",
                        suggestion: "write [disk.NAME], and \(name) below it"))
                continue
            }
            sections.append((name, file, Self.content(of: disk)))
        }
    }

    private static func content(of table: TOMLTable) -> Section {
        table.keys.sorted().compactMap { key in table[key].map { (key, ConfigurationValue($0)) } }
    }

    private mutating func readDefaults(_ content: Section, _ file: String) {
        for (name, value) in content {
            let path = "defaults.\(name)"
            guard let (key, value) = readKey(name, value, path, file) else { continue }
            if !key.isDefaultable {
                problems.append(
                    ConfigurationProblem(
                        in: file, key: path, "this is each disk's own", suggestion: "write it below [disk.NAME]"))
            } else if let earlier = defaults.first(where: { $0.key.name == name }) {
                problems.append(
                    ConfigurationProblem(
                        in: file, key: path, "\(earlier.file) says this already", suggestion: "keep one of them"))
            } else {
                defaults.append((key, value, file))
            }
        }
    }

    /// - Returns: nil when something is wrong with it, which has been noted.
    private mutating func readKey(
        _ name: String, _ value: ConfigurationValue, _ path: String, _ file: String
    ) -> (ConfigurationKey, ReadValue)? {
        guard let key = ConfigurationKey.named(name) else {
            let nearest = Spelling.nearest(to: name, among: ConfigurationKey.all.map(\.name))
            let isNested = if case .table = value { true } else { false }
            problems.append(
                ConfigurationProblem(
                    in: file, key: path, "there is no such key",
                    suggestion: isNested
                        ? "a disk's name with dots needs quotes: [disk.\"\(path.dropFirst("disk.".count))\"]"
                        : nearest.map { "did you mean `\($0)`?" } ?? "baton help create disk has them all"))
            return nil
        }
        do throws(ValueForm.Complaint) {
            return (key, try key.form.read(value))
        } catch {
            problems.append(
                ConfigurationProblem(
                    in: file, key: error.place.isEmpty ? path : "\(path).\(error.place)", error.reason,
                    suggestion: error.suggestion))
            return nil
        }
    }
}

// MARK: - Disks

extension DiskConfiguration {
    private mutating func makeDisk(_ section: (name: String, file: String, content: Section)) {
        let (name, file) = (section.name, section.file)
        let path = "disk.\(name)"
        if let earlier = disks.first(where: { $0.parameters.name == name }) {
            problems.append(
                ConfigurationProblem(
                    in: file, key: path, "\(earlier.file) has a disk of this name already",
                    suggestion: "rename or remove one of them"))
            return
        }
        guard Self.isName(name) else {
            problems.append(
                ConfigurationProblem(
                    in: file, key: path, "this is no name for a disk",
                    suggestion: "use 1 to 64 letters, digits, dashes, underscores and dots, the first one no dot"))
            return
        }
        guard disks.count < Self.maximumDisks else {
            problems.append(
                ConfigurationProblem(in: file, key: path, "there are more than \(Self.maximumDisks) disks"))
            return
        }
        var disk = DiskParameters(name: name, file: nil)
        for (key, value, _) in defaults { key.set(&disk, value) }
        var keepsNothing = false
        var given: Set<String> = []
        for (key, value) in section.content {
            given.insert(key)
            guard let (key, value) = readKey(key, value, "\(path).\(key)", file) else { continue }
            key.set(&disk, value)
            if key.name == "null" { keepsNothing = value.flag }
        }
        if !given.contains("file"), !keepsNothing {
            problems.append(
                ConfigurationProblem(
                    in: file, key: path, "it does not say what to serve", suggestion: "add file = \"/path/of/an/image\""
                ))
        } else if given.contains("file"), keepsNothing {
            problems.append(
                ConfigurationProblem(
                    in: file, key: "\(path).null", "a disk that keeps nothing has no file",
                    suggestion: "remove one of them"))
        }
        if disk.threads > min(disk.queues, 15) {
            let place = given.contains("threads") || !given.contains("queues") ? "threads" : "queues"
            problems.append(
                ConfigurationProblem(
                    in: file, key: "\(path).\(place)",
                    "\(disk.threads) threads are more than the \(disk.queues) queues",
                    suggestion: "allowed: 1 to \(min(disk.queues, 15)) threads, or raise queues"))
        }
        disks.append(ConfiguredDisk(parameters: disk, file: file))
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

    /// What two disks cannot share.
    private mutating func checkAgainstEachOther() {
        var sockets: [String: ConfiguredDisk] = [:]
        var images: [String: ConfiguredDisk] = [:]
        for disk in disks {
            let name = disk.parameters.name
            if let socket = disk.parameters.socket {
                if let other = sockets[socket] { clash(disk, other, "disk.\(name).socket", "socket \(socket)") }
                sockets[socket] = sockets[socket] ?? disk
            }
            guard let image = disk.parameters.file else { continue }
            if let other = images[image], !(disk.parameters.readOnly && other.parameters.readOnly) {
                clash(disk, other, "disk.\(name).file", "image \(image), and one of them writes")
            }
            images[image] = images[image] ?? disk
        }
    }

    private mutating func clash(_ disk: ConfiguredDisk, _ other: ConfiguredDisk, _ key: String, _ what: String) {
        let place = other.file == disk.file ? "" : " in \(other.file)"
        problems.append(
            ConfigurationProblem(
                in: disk.file, key: key, "disk.\(other.parameters.name)\(place) has the same \(what)",
                suggestion: "give each its own"))
    }
}
