/// What a shared directory is besides what every device is. Absent values are what the worker finds best.
public struct ShareParameters: Codable, Hashable, Sendable {
    /// An absolute path.
    public var directory: String
    /// The name that a guest mounts it by, 1 to 36 bytes.
    public var tag: String
    /// What a guest may keep: "never", "metadata", "auto" or "always".
    public var cache: String?
    /// Let the guest collect writes; absent: false, as all switches.
    public var writeback: Bool?
    public var xattr: Bool?
    /// How names of extended attributes are changed, as virtiofsd spells it.
    public var xattrmap: String?
    public var posixACL: Bool?
    public var securityLabel: Bool?
    /// Locks of the guest are the host's, too.
    public var flock: Bool?
    public var posixLock: Bool?
    /// O_DIRECT of the guest reaches the host's files.
    public var allowDirectIO: Bool?
    public var noAnnounceSubmounts: Bool?
    public var noReaddirplus: Bool?
    /// "GUEST:HOST:COUNT", several with commas between them.
    public var translateUID: String?
    public var translateGID: String?
    /// "never", "prefer" or "mandatory".
    public var inodeFileHandles: String?
    /// Files that a guest may know at once, and have open at once.
    public var maxNodes: Int?
    public var maxFiles: Int?
    /// Where this host mounts it; absent: a guest does.
    public var mountPoint: String?

    public init(directory: String, tag: String) {
        self.directory = directory
        self.tag = tag
    }

    /// - Parameter options: as `options` gives them; others are left out.
    public init(directory: String, tag: String, options: [String]) {
        self.init(directory: directory, tag: tag)
        var words: [Substring: String] = [:]
        for option in options {
            let parts = option.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            words[parts[0]] = parts.count > 1 ? String(parts[1]) : ""
        }
        func isOn(_ name: Substring) -> Bool? { words[name] == nil ? nil : true }
        (writeback, xattr, posixACL) = (isOn("writeback"), isOn("xattr"), isOn("posix-acl"))
        (securityLabel, flock, posixLock) = (isOn("security-label"), isOn("flock"), isOn("posix-lock"))
        (allowDirectIO, noAnnounceSubmounts) = (isOn("allow-direct-io"), isOn("no-announce-submounts"))
        (noReaddirplus, cache, xattrmap) = (isOn("no-readdirplus"), words["cache"], words["xattrmap"])
        (translateUID, translateGID) = (words["translate-uid"], words["translate-gid"])
        (inodeFileHandles, maxNodes) = (words["inode-file-handles"], words["max-nodes"].flatMap { Int($0) })
    }

    /// As options of the worker.
    public var options: [String] {
        let switches: [(String, Bool?)] = [
            ("writeback", writeback), ("xattr", xattr), ("posix-acl", posixACL), ("security-label", securityLabel),
            ("flock", flock), ("posix-lock", posixLock), ("allow-direct-io", allowDirectIO),
            ("no-announce-submounts", noAnnounceSubmounts), ("no-readdirplus", noReaddirplus),
        ]
        let values: [(String, String?)] = [
            ("cache", cache), ("xattrmap", xattrmap), ("translate-uid", translateUID),
            ("translate-gid", translateGID), ("inode-file-handles", inodeFileHandles),
            ("max-nodes", maxNodes.map { "\($0)" }),
        ]
        return switches.filter { $0.1 == true }.map { "--\($0.0)" }
            + values.compactMap { (name, value) in value.map { "--\(name)=\($0)" } }
    }
}
