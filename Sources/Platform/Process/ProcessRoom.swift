internal import CLinux
internal import Glibc

/// Namespaces for programs that must reach nothing: user, PID, network, IPC, UTS and control group namespaces that all
/// processes in it share, and that nobody else is in. What else is taken from such a program it gives up itself, when
/// it has loaded its libraries: see `Confinement`.
///
/// A process of its own keeps the namespaces. It does nothing, and ends when every copy of `lifeline` is closed; all
/// processes in the room end with it.
public struct ProcessRoom: ~Copyable, Sendable {
    /// As the host numbers it; 0: that is not known.
    public let pid: Int32
    /// Readable when the room and all that was in it has ended.
    public let pidfd: OwnedFD
    /// To be inherited by whoever needs the room, and kept by whoever will start processes in it.
    public let lifeline: OwnedFD

    /// Makes a room.
    ///
    /// - Parameters:
    ///   - user: whom processes in it can become, by the host's number; and `group`. They cannot if the caller has no
    ///     say in it: then they stay the caller's.
    ///   - hasOwnUser: set to whether they can: as user and group 1.
    /// - Throws: what the kernel does not allow.
    public init(user: UInt32, group: UInt32, hasOwnUser: inout Bool) throws(Errno) {
        var hasUser: Int32 = 0
        try self.init { (pid, lifeline) in unsafe clinux_room_make(&pid, &hasUser, lifeline, user, group) }
        hasOwnUser = hasUser != 0
    }

    /// Makes a room whose processes have the host's users: without a user namespace.
    ///
    /// - Throws: what the kernel does not allow.
    public init() throws(Errno) {
        try self.init { (pid, lifeline) in unsafe clinux_room_make(&pid, nil, lifeline, 0, 0) }
    }

    private init(_ make: (inout Int32, Int32) -> Int32) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        try retryingInterrupts { unsafe pipe2(&ends, O_CLOEXEC) }
        let reading = OwnedFD(owning: ends[0])
        let writing = OwnedFD(owning: ends[1])
        var pid: Int32 = -1
        let result = make(&pid, reading.number)
        guard result == 0 else { throw Errno(rawValue: result) }
        let number = clinux_pidfd_open(pid)
        guard number >= 0 else {
            let error = Errno.current
            kill(pid, SIGKILL)
            throw error
        }
        self.pid = pid
        pidfd = OwnedFD(owning: number)
        lifeline = writing
    }

    /// Goes on with a room that another process has made.
    public init(adopting pidfd: consuming OwnedFD, lifeline: consuming OwnedFD) {
        pid = 0
        self.pidfd = pidfd
        self.lifeline = lifeline
    }

    /// Nothing lives in it any more.
    public var hasEnded: Bool { waitForInput(pidfd.number, milliseconds: 0) }

    /// Ends it, and all processes in it.
    public borrowing func end() {
        _ = clinux_pidfd_signal(pidfd.number, SIGKILL)
        reap()
    }

    /// Takes note of its end; where it is another process's child, that is not for us to do.
    public borrowing func reap() {
        guard pid > 0, waitForInput(pidfd.number, milliseconds: 1000) else { return }
        _ = waitpid(pid, nil, WNOHANG)
    }
}

/// What a process gives up for good, so that it can reach nothing but the descriptors it has.
public struct Confinement: Hashable, Sendable {
    /// Whom to become, as the process's own user namespace numbers them; nil: stay who one is.
    public var user: UInt32?
    public var group: UInt32?
    /// Whether the process was started in a room.
    public var isInRoom: Bool

    /// Descriptors of a device, twice over (`HeldDescriptors`), and the worker's own.
    private static let mostDescriptors: UInt32 = 8192
    /// The same, a share's open files, and descriptors of nodes that are in use.
    private static let mostOpenFiles: UInt32 = 1 << 20
    /// Loops, and the kernel's threads for slow operations of their rings.
    private static let mostThreads: UInt32 = 4096

    public init(user: UInt32?, group: UInt32?, isInRoom: Bool) {
        self.user = user
        self.group = group
        self.isInRoom = isInRoom
    }

    /// Leaves the host's namespaces and files, and gives up user and capabilities. To be called before other threads
    /// are started.
    ///
    /// - Parameter root: a tree of mounts that becomes the process's root, for one that serves files: it keeps the
    ///   capabilities that acting for other users needs, and its user. nil: the root is empty, and all are given up.
    /// - Returns: what could not be done outside of a room, as sentences.
    /// - Throws: what the kernel does not allow inside one; or that capabilities cannot be given up.
    public func apply(root: Int32? = nil) throws(SystemError) -> [String] {
        var shortcomings: [String] = []
        if !isInRoom {
            shortcomings.append("it is in the host's user and PID namespaces")
            let kinds: [(Int32, String)] = [
                (Int32(CLINUX_NEW_MOUNTS), "mount"), (Int32(CLINUX_NEW_NETWORK), "network"),
                (Int32(CLINUX_NEW_IPC), "IPC"),
            ]
            let left = clinux_leave_namespaces()
            for (kind, name) in kinds where left & kind == 0 {
                shortcomings.append("it is in the host's \(name) namespace")
            }
            if left & Int32(CLINUX_NEW_MOUNTS) != 0 { try leaveFiles(root) }
        } else {
            try leaveFiles(root)
        }
        if root != nil {
            try check(clinux_keep_file_capabilities(1), "give up capabilities")
            try check(clinux_limit_process(Self.mostOpenFiles, Self.mostThreads), "limit itself")
            return shortcomings
        }
        let most = (Self.mostDescriptors, Self.mostThreads)
        var result = clinux_drop_privileges(user ?? .max, group ?? .max)
        if result == EINVAL, !isInRoom {
            // Of a supervisor in a user namespace that has no such user.
            shortcomings.append("it has the supervisor's user")
            result = clinux_drop_privileges(.max, .max)
        }
        try check(result, "give up user and capabilities")
        try check(clinux_limit_process(most.0, most.1), "limit itself")
        return shortcomings
    }

    private func leaveFiles(_ root: Int32?) throws(SystemError) {
        try check(root.map { clinux_share_root($0) } ?? clinux_empty_root(), "leave the host's files")
    }

    private func check(_ result: Int32, _ what: String) throws(SystemError) {
        guard result == 0 else {
            throw SystemError(
                cannot: what, "", Errno(rawValue: result), advice: "batond --worker-sandbox=off does without")
        }
    }
}

/// Which system calls a process may make.
public enum CallSet: Sendable {
    /// Of a worker in custody.
    case custody
    /// Of a worker on its own.
    case alone
    /// Of a worker in custody that serves files.
    case share
    /// Of a worker on its own that does.
    case shareAlone
}

/// Allows this process, with all threads that it has and will have, these system calls, and takes from it the means to
/// gain privileges; for good. Any other call ends it.
///
/// - Throws: when this kernel has no seccomp filters.
public func limitSystemCalls(to set: CallSet) throws(Errno) {
    let number =
        switch set {
        case .custody: CLINUX_CALLS_OF_CUSTODY
        case .alone: CLINUX_CALLS_ALONE
        case .share: CLINUX_CALLS_OF_SHARE
        case .shareAlone: CLINUX_CALLS_OF_SHARE_ALONE
        }
    let result = clinux_filter_calls(Int32(number))
    guard result == 0 else { throw Errno(rawValue: result) }
}
