internal import CLinux
internal import Glibc
internal import Platform

/// As whom the calling thread works on files. Its own: raw system calls change this thread alone. Switched only when
/// something else is wanted than last time.
///
/// File system user and group (setfsuid) are what counts for owners of new files and for permissions; with a user other
/// than root the kernel takes the capabilities from the thread that overrule permissions, and gives them back with
/// root.
struct ThreadCredentials: ~Copyable {
    private var user: UInt32 = 0
    private var group: UInt32 = 0
    private var supplementary: UInt32?
    /// Whatever groups this thread was started with have been left.
    private var hasSetGroups = false
    private var mayKeepIDs = true
    private var hasMask = true
    /// Of this process: what the server is itself.
    private let ownUser: UInt32
    private let ownGroup: UInt32

    init() {
        ownUser = geteuid()
        ownGroup = getegid()
        user = ownUser
        group = ownGroup
    }

    /// Works as the server itself.
    mutating func becomeServer() {
        // Taking root back cannot fail for who was root; for who was not, nothing was changed.
        _ = become(ownUser, ownGroup, nil)
    }

    /// Works as a user of the host.
    ///
    /// - Returns: nil, or why not: EPERM.
    mutating func become(_ user: UInt32, _ group: UInt32, _ supplementary: UInt32?) -> Errno? {
        let leavesServer = user != ownUser || group != ownGroup
        if self.supplementary != supplementary || !hasSetGroups && leavesServer {
            guard clinux_set_groups(supplementary == nil ? 0 : 1, supplementary ?? 0) == 0 else {
                return .notPermitted
            }
            self.supplementary = supplementary
            hasSetGroups = true
        }
        if self.group != group {
            guard clinux_set_file_group(group) == 0 else { return .notPermitted }
            self.group = group
        }
        if self.user != user {
            guard clinux_set_file_user(user) == 0 else { return .notPermitted }
            self.user = user
            // The kernel has taken or given all capabilities of files at once.
            mayKeepIDs = true
        }
        return nil
    }

    /// Whether writes and changes leave set-user-ID and set-group-ID bits alone (CAP_FSETID).
    mutating func setMayKeepIDs(_ value: Bool) {
        guard value != mayKeepIDs, clinux_allow_fsetid(value ? 1 : 0) == 0 else { return }
        mayKeepIDs = value
    }

    /// New files of this thread get the modes that they are to have.
    mutating func takeMaskAway() {
        guard hasMask, clinux_own_umask() == 0 else { return }
        umask(0)
        hasMask = false
    }
}
