internal import FileTarget
internal import Platform
internal import WorkerRuntime

// The options of a shared directory: those that virtiofsd takes. The Rust virtiofsd has long ones, the C virtiofsd of
// QEMU, and libvirt to this day, pack them into -o.

/// Reads a command line as virtiofsd's are: puts long options in the place of its short ones, and of what -o packs.
///
/// - Parameter arguments: the program's name first.
func expandShareArguments(_ arguments: [String]) throws(UsageError) -> [String] {
    var words: [String] = []
    var rest = arguments[...]
    while let word = rest.popFirst() {
        switch word {
        case "-o":
            guard let list = rest.popFirst() else { throw UsageError("-o needs a value") }
            words += try expandPacked(list)
        case _ where word.hasPrefix("-o") && !word.hasPrefix("--"): words += try expandPacked(String(word.dropFirst(2)))
        case "-d": words.append("--log-level=debug")
        // It always is.
        case "-f": break
        case "-V": words.append("--version")
        case "-h": words.append("--help")
        case "--readonly": words.append("--read-only")
        default: words.append(word)
        }
    }
    return words
}

/// What one -o packs: names and values with commas between them. A comma within a value has a backslash before it.
private func expandPacked(_ list: String) throws(UsageError) -> [String] {
    var parts = [""]
    var isQuoted = false
    for character in list {
        if isQuoted {
            parts[parts.count - 1] += character == "," ? "," : "\\\(character)"
            isQuoted = false
        } else if character == "\\" {
            isQuoted = true
        } else if character == "," {
            parts.append("")
        } else {
            parts[parts.count - 1].append(character)
        }
    }
    var words: [String] = []
    for part in parts where !part.isEmpty {
        let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(pair[0]).split(separator: "_").joined(separator: "-")
        switch name {
        case "source": words.append("--shared-dir=" + (pair.count > 1 ? pair[1] : ""))
        case "debug": words.append("--log-level=debug")
        case "ro": words.append("--read-only")
        // What the driver may, it may of the host's groups and users: there is nothing to allow.
        case "allow-root": break
        case "cache", "xattrmap", "sandbox", "modcaps", "timeout":
            words.append("--" + name + part.dropFirst(name.count))
        case _ where packedSwitches.contains(name): words.append("--" + name)
        default: throw UsageError("-o \(pair[0]) is not known; see --help")
        }
    }
    return words
}

private let packedSwitches: Set<String> = [
    "xattr", "no-xattr", "posix-acl", "no-posix-acl", "writeback", "no-writeback", "flock", "no-flock", "posix-lock",
    "no-posix-lock", "readdirplus", "no-readdirplus", "announce-submounts", "no-announce-submounts", "killpriv-v2",
    "no-killpriv-v2", "allow-direct-io", "no-allow-direct-io", "security-label", "no-security-label",
]

/// Whether a command line is of a share.
func isShare(_ words: [String]) -> Bool {
    words.dropFirst().contains { word in
        word.hasPrefix("-o")
            || ["--shared-dir", "--tag"].contains { word == $0 || word.hasPrefix($0 + "=") }
    }
}

extension RawOptions {
    /// A switch that can be taken back: the option, or the one with `no-` before it.
    private func state(_ option: Option, without: Option, _ usual: Bool) throws(UsageError) -> Bool {
        if has(option), has(without) {
            throw UsageError("--\(option.rawValue) and --\(without.rawValue) exclude each other")
        }
        return has(option) || usual && !has(without)
    }

    /// The directory, as the options describe it.
    func share() throws(UsageError) -> ShareConfiguration {
        for option in [Option.blkFile, .backend, .size, .serial, .blockSize, .allowShrink, .allowLeaseLocks]
        where has(option) {
            throw UsageError("--\(option.rawValue) is for disks, not for --shared-dir")
        }
        let tag = self[.tag] ?? "share"
        guard (1...36).contains(tag.utf8.count) else {
            throw UsageError("--tag has 1 to 36 bytes; '\(tag)' has \(tag.utf8.count)")
        }
        var description = ShareDescription(tag: tag)
        if let text = self[.cache] {
            guard let mode = ShareCacheMode(rawValue: text == "never" ? "none" : text) else {
                throw UsageError("--cache is never, metadata, auto or always, not '\(text)'")
            }
            description.cache = mode
        }
        description.hasExtendedAttributes = try state(.xattr, without: .noXattr, false) || has(.xattrmap)
        description.writesBack = try state(.writeback, without: .noWriteback, false)
        description.hasACLs = try state(.posixACL, without: .noPosixACL, false)
        // As in virtiofsd: they need extended attributes.
        if description.hasACLs { description.hasExtendedAttributes = true }
        description.hasFlock = try state(.flock, without: .noFlock, false)
        description.hasPOSIXLocks = try state(.posixLock, without: .noPosixLock, false)
        description.hasSecurityLabels = try state(.securityLabel, without: .noSecurityLabel, false)
        description.allowsDirectIO = try state(.allowDirectIO, without: .noAllowDirectIO, false)
        description.announcesSubmounts = try state(.announceSubmounts, without: .noAnnounceSubmounts, true)
        description.readsDirectoriesPlus = try state(.readdirplus, without: .noReaddirplus, true)
        description.killsPrivileges = try state(.killpriv, without: .noKillpriv, true)
        if let text = self[.inodeFileHandles] {
            let known = ["never": FileHandleUse.never, "prefer": .preferred, "mandatory": .required]
            guard let use = known[text] else {
                throw UsageError("--inode-file-handles is never, prefer or mandatory, not '\(text)'")
            }
            description.fileHandles = use
        }
        do throws(SystemError) {
            if let text = self[.xattrmap] { description.attributeRules = try AttributeRules(parsing: text) }
            if let text = self[.translateUID] { description.userIDs = try IDMap(parsing: text) }
            if let text = self[.translateGID] { description.groupIDs = try IDMap(parsing: text) }
        } catch {
            throw UsageError("\(error)")
        }
        var share = ShareConfiguration(description)
        share.isMounted = has(.mount)
        return try limits(share)
    }

    private func limits(_ share: ShareConfiguration) throws(UsageError) -> ShareConfiguration {
        var share = share
        if let nodes = try number(.maxNodes, 4...(1 << 24)) { share.maximumNodes = nodes }
        if let files = try number(.maxFiles, 4...(1 << 20)) { share.maximumFiles = files }
        share.descriptorLimit = try number(.rlimitNofile, 0...(1 << 30)).flatMap { $0 == 0 ? nil : $0 }
        if let text = self[.sandbox] {
            guard let isolation = ShareConfiguration.Isolation(rawValue: text) else {
                throw UsageError("--sandbox of a share is auto, namespace, chroot or none, not '\(text)'")
            }
            share.isolation = isolation
        }
        // Which capabilities it keeps is a list that is justified, and shorter than virtiofsd's: adding to it is
        // refused, unless it is what it has anyway.
        for change in (self[.modcaps] ?? "").split(whereSeparator: { $0 == ":" || $0 == "," }) {
            guard change.hasPrefix("-") || change.lowercased() == "+dac_read_search" else {
                throw UsageError("--modcaps: a capability more than it has, \(change), is not given")
            }
        }
        return share
    }
}
