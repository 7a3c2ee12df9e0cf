public import FileTarget
internal import Glibc
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring

/// What a worker of a shared directory is told besides what every worker is.
public struct ShareConfiguration: Sendable, Equatable {
    public var description: ShareDescription
    /// The most files and directories that a driver may know at once. Room for them is set aside, and costs memory only
    /// when it is used.
    public var maximumNodes = 1 << 21
    /// The most that it may have open at once.
    public var maximumFiles = 1 << 14
    /// It is this host's kernel that uses the share, by a mount, and no guest.
    public var isMounted = false
    /// What this process may have open, RLIMIT_NOFILE; nil: as many as it may ask for.
    public var descriptorLimit: Int?
    /// Make the directory this process's root, in namespaces of its own, before a front-end is heard.
    public var isolation = Isolation.auto

    /// How far a worker on its own leaves the host.
    public enum Isolation: String, Sendable, CaseIterable {
        /// Namespaces if that is allowed; else it says so.
        case auto
        case namespace
        /// The directory as root, in the host's namespaces.
        case chroot
        case none
    }

    public init(_ description: ShareDescription) { self.description = description }
}

extension WorkerConfiguration {
    /// Opens the directory and starts the loops on it.
    func makeShare(
        _ share: ShareConfiguration, path: String, directory: GivenDirectory?, log: Logger,
        statistics: DeviceStatistics, takeOver: TakeOver?
    ) throws(SystemError) -> ServedDevice {
        try Self.raiseDescriptorLimit(share.descriptorLimit, log)
        var description = share.description
        description.isReadOnly = isReadOnly
        description.maximumQueueSize = maximumQueueSize
        description.requestQueueCount = queueCount - 1
        // A completion tells a successor what has happened. Alone there is none, and a system call is faster.
        description.changesNamesThroughEngine = takeOver != nil
        let openFiles = try takeOver?.openFiles()
        if takeOver != nil { try Self.requireHandles(&description) }
        if share.isMounted, maximumQueueSize < FuseDeviceRing.slotCount {
            throw SystemError(
                cannot: "mount", path, nil,
                advice: "It takes a queue size of \(FuseDeviceRing.slotCount) or more, not \(maximumQueueSize)")
        }
        guard let given = directory ?? takeOver?.directory else {
            throw SystemError(cannot: "share", path, nil, advice: "The supervisor has not given it")
        }
        let session = try ShareSession(
            description, memory: try shareMemory(share, takeOver), root: try given.duplicateRoot(),
            processFiles: try given.duplicateProcessFiles(), worksInProcessFiles: given.worksInProcessFiles,
            answersAtOnce: share.isMounted, custody: openFiles ?? OpenFileCustody(), statistics: statistics)
        if takeOver == nil { session.takeUp() }
        var loops: [LoopThread] = []
        for index in 0..<threadCount {
            loops.append(
                share.isMounted
                    ? try startLoop(DeviceTransport.self, index, session, takeOver, log)
                    : try startLoop(VirtioTransport.self, index, session, takeOver, log))
        }
        let parts = try deviceParts(queueCount: queueCount, loops, statistics, takeOver, log)
        return share.isMounted
            ? MountDevice(session, openFiles: openFiles, parts)
            : ShareDevice(session, openFiles: openFiles, parts)
    }

    private func startLoop<Transport: ShareTransport>(
        _ transport: Transport.Type, _ index: Int, _ session: ShareSession, _ takeOver: TakeOver?, _ log: Logger
    ) throws(SystemError) -> LoopThread {
        let service: ShareService<Transport, Ring>
        do {
            let engine =
                if let takeOver { try takeOver.ring(index) } else {
                    try Ring(entries: 256, completions: ringCompletions)
                }
            service = try ShareService(session, engine: engine, isAlone: takeOver == nil)
        } catch let error as SystemError {
            throw error
        } catch {
            throw SystemError(cannot: "set up", "a loop", error as? Errno)
        }
        return try startLoop(index, service, takeOver != nil, log)
    }

    /// In custody nodes are found by handles: descriptors of theirs would end with the worker.
    private static func requireHandles(_ description: inout ShareDescription) throws(SystemError) {
        guard description.fileHandles != .never else {
            throw SystemError(
                cannot: "share", "a directory without file handles", nil,
                advice: "They find its files for the next worker; baton-virtiofsd, on its own, does without")
        }
        description.fileHandles = .required
    }

    func shareMemory(
        _ share: ShareConfiguration, _ takeOver: TakeOver?
    ) throws(SystemError) -> ShareMemory {
        var size = ShareMemory.Size(nodes: share.maximumNodes, files: share.maximumFiles)
        if let takeOver {
            (size.queues, size.slots) = (queueCount, maximumQueueSize)
            return try takeOver.shareTables(size)
        }
        let file = try taking("memory for the tables of the share") { () throws(Errno) in
            try makeMemoryFile(name: "baton-share", count: size.byteCount)
        }
        return try ShareMemory(making: file, size)
    }

    /// Descriptors are what a share needs most: one for each open file, and for nodes that are in use.
    private static func raiseDescriptorLimit(_ asked: Int?, _ log: Logger) throws(SystemError) {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        let most = limit.rlim_max
        if let asked { limit.rlim_max = max(most, rlim_t(asked)) }
        limit.rlim_cur = asked.map { rlim_t($0) } ?? most
        if unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) != 0 {
            throw SystemError(
                cannot: "raise", "the limit on open files to \(limit.rlim_cur)", .current,
                advice: "At most \(most) are allowed here: give --rlimit-nofile=\(most)")
        }
    }
}
