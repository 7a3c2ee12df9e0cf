internal import ControlAPI

// What shares alone have, and all that they have. The guest knows all of it from its first request on, or the session
// record does: nothing of it can change while the device exists.

extension ConfigurationKey {
    static let share: [ConfigurationKey] =
        [directory, tag, socket, readOnly(.share), shareCache] + contents + identities + tables + queues(.share)
        + [splitRings] + running + access + resources + [limit]

    private static let directory =
        ConfigurationKey(
            name: "directory", form: .path(limit: 4095), standard: "none", change: .recreation, isDefaultable: false,
            about: "The directory.",
            get: { $0.share.map { ReadValue(text: $0.directory) } },
            set: { $0.share?.directory = $1?.text ?? "" })

    private static let tag =
        ConfigurationKey(
            name: "tag", form: .tag, standard: "NAME", change: .recreation, isDefaultable: false,
            about: "The name that a guest mounts it by; QEMU has one of its own.",
            get: { $0.share.map { ReadValue(text: $0.tag) } },
            set: { device, value in
                let tag = value?.text ?? device.name
                device.share?.tag = tag
            })

    private static let shareCache =
        ConfigurationKey(
            name: "cache", form: .choice(["never", "metadata", "auto", "always"]), standard: "auto",
            change: .recreation, isDefaultable: true, isOfKindAlone: true,
            about: "What the guest may keep.",
            get: { $0.share?.cache.map { ReadValue(text: $0) } },
            set: { $0.share?.cache = $1?.text })

    /// A switch that is off unless it is asked for.
    private static func option(
        _ name: String, _ place: any WritableKeyPath<ShareParameters, Bool?> & Sendable, _ about: String
    ) -> ConfigurationKey {
        ConfigurationKey(
            name: name, form: .flag, standard: "false", change: .recreation, isDefaultable: true, about: about,
            get: { ReadValue(flag: $0.share?[keyPath: place] ?? false) },
            set: { $0.share?[keyPath: place] = $1?.flag == true ? true : nil })
    }

    private static func text(
        _ name: String, _ form: ValueForm, _ standard: String,
        _ place: any WritableKeyPath<ShareParameters, String?> & Sendable, _ about: String
    ) -> ConfigurationKey {
        ConfigurationKey(
            name: name, form: form, standard: standard, change: .recreation, isDefaultable: true, about: about,
            get: { $0.share?[keyPath: place].map { ReadValue(text: $0) } },
            set: { $0.share?[keyPath: place] = $1?.text })
    }

    private static let contents = [
        option("writeback", \.writeback, "Let the guest collect writes."),
        option("xattr", \.xattr, "Extended attributes."),
        text(
            "xattrmap", .attributeRules, "as they are", \.xattrmap,
            "How names of extended attributes are changed on their way, as virtiofsd spells it."),
        option("posix-acl", \.posixACL, "Access control lists."),
        option("security-label", \.securityLabel, "New files get the security label that the guest sends."),
        option("flock", \.flock, "flock of the guest is the host's, too."),
        option("posix-lock", \.posixLock, "POSIX locks of the guest are the host's, too."),
        option("allow-direct-io", \.allowDirectIO, "O_DIRECT of the guest reaches the host's files."),
        option(
            "no-announce-submounts", \.noAnnounceSubmounts, "Do not tell the guest where other file systems begin."),
        option("no-readdirplus", \.noReaddirplus, "Read directories without attributes."),
    ]

    private static let identities = [
        text(
            "translate-uid", .identifiers, "as they are", \.translateUID,
            "The guest's users from GUEST on are the host's from HOST on, COUNT of them."),
        text(
            "translate-gid", .identifiers, "as they are", \.translateGID,
            "The guest's groups from GUEST on are the host's from HOST on, COUNT of them."),
        text(
            "inode-file-handles", .choice(["never", "prefer", "mandatory"]), "prefer", \.inodeFileHandles,
            "The kernel's handles instead of open descriptors."),
    ]

    private static let tables = [
        ConfigurationKey(
            name: "max-nodes", form: .integer(4...1 << 24), standard: "2097152", change: .recreation,
            isDefaultable: true,
            about: "Files that the guest may know at once.",
            get: { $0.share?.maxNodes.map { ReadValue(integer: $0) } },
            set: { $0.share?.maxNodes = $1?.integer }),
        ConfigurationKey(
            name: "max-files", form: .integer(16...1 << 20), standard: "16384", change: .recreation,
            isDefaultable: true,
            about: "Files that it may have open at once.",
            get: { ReadValue(integer: $0.share?.maxFiles ?? 16_384) },
            set: { $0.share?.maxFiles = $1?.integer }),
    ]
}
