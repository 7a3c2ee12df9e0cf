internal import Glibc
internal import Platform

/// The files of a configuration: one, and what lies in `conf.d` beside it.
public struct ConfigurationFiles: Sendable {
    /// Of the first file.
    public var path: String
    /// Whether the first file may be missing.
    public var mayBeMissing: Bool

    public static let standardPath = "/etc/baton/baton.toml"
    /// Of one file, in bytes.
    public static let maximumBytes = 1 << 20
    public static let maximumCount = 1024

    /// - Parameter path: nil for the standard one, which may be missing.
    public init(_ path: String?) {
        self.path = path ?? Self.standardPath
        mayBeMissing = path == nil
    }

    /// The folder of the other files, read in the order of their names.
    public var folder: String {
        let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        return (path.contains("/") && !parent.isEmpty ? parent : path.hasPrefix("/") ? "" : ".") + "/conf.d"
    }

    /// Reads them all.
    ///
    /// - Throws: a problem of a file that is there and cannot be read, or that is not there and must be.
    public func read() throws(ConfigurationProblem) -> [ConfigurationText] {
        var files: [ConfigurationText] = []
        if let file = try read(path, mayBeMissing: mayBeMissing) { files.append(file) }
        let names = directoryNames(folder).filter { $0.hasSuffix(".toml") && !$0.hasPrefix(".") }.sorted()
        guard names.count < Self.maximumCount else {
            throw ConfigurationProblem(in: folder, "there are more than \(Self.maximumCount) files")
        }
        for name in names {
            if let file = try read("\(folder)/\(name)", mayBeMissing: true) { files.append(file) }
        }
        return files
    }

    private func read(_ path: String, mayBeMissing: Bool) throws(ConfigurationProblem) -> ConfigurationText? {
        guard unsafe access(path, R_OK) == 0 else {
            let error = Errno.current
            if mayBeMissing, error == .noEntry { return nil }
            throw ConfigurationProblem(in: path, "the file cannot be read: \(error)")
        }
        guard let text = readFile(path, limit: Self.maximumBytes + 1) else {
            throw ConfigurationProblem(in: path, "the file cannot be read: it is no file")
        }
        guard text.utf8.count <= Self.maximumBytes else {
            throw ConfigurationProblem(in: path, "the file has more than \(Self.maximumBytes) bytes")
        }
        return ConfigurationText(path: path, text: text)
    }
}
