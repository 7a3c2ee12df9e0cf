internal import CLinux
internal import CWire
internal import Glibc
public import Platform
internal import Synchronization
public import Telemetry

/// How full the tables of a share are.
public struct ShareCounts: Sendable, Equatable {
    /// Nodes that the driver knows, the root not counted.
    public var nodes = 0
    /// Files and directories that it has open.
    public var openFiles = 0

    public init() {}
}

/// One share and its driver, as all loops of a worker see it: tables, root, options.
///
/// Any thread may call it. Locks are held for a few stores, but for that of files on their way into custody, which is
/// held over the call that puts them there.
public final class ShareSession: Sendable {
    public let description: ShareDescription
    private let memory: ShareMemory
    private let placeMemory: Mapping
    let nodes: NodeTable
    let files: FileTable
    let root: OwnedFD
    /// /proc/self/fd, or -1.
    let processFiles: Int32
    /// It is the working directory, too: some calls take no other.
    let worksInProcessFiles: Bool
    let custody: OpenFileCustody
    private let processFilesOwner: OwnedFD?
    private let nodeLock = Mutex<Void>(())
    private let fileLock: Mutex<FileUse>
    private let mountLock = Mutex(KnownMounts())
    private let newcomers = Mutex(Newcomers())
    /// Whether there may be newcomers: most turns of a loop find none.
    private let hasNewcomers = Atomic<Bool>(false)
    private let answersAtOnce: Bool
    /// Of the share's root: nodes of another device or mount are submounts.
    let rootDevice: UInt64
    let rootMount: UInt64
    let rootInode: UInt64
    /// Whether file handles work here.
    let hasHandles: Bool
    /// Users and groups of the driver are the host's: there are no strangers.
    let hasIdentityIDs: Bool
    /// Nodes that were forgotten so far, in this process: loops look whether they hold descriptors of some.
    let forgottenCount = Atomic<UInt64>(0)
    /// Files and directories that the driver has open.
    private let openFileCount = Atomic<UInt64>(0)
    /// Where an operator sees how full the tables are; nil: nowhere.
    private let statistics: DeviceStatistics?
    /// Locks that were given up so far, in this process.
    private let releaseCount = Atomic<UInt64>(0)
    /// `unique` of requests that are to give up waiting.
    let interrupts: InterruptList

    private struct FileUse: ~Copyable {
        var firstFree: UInt32 = 0
        /// Slots of files that hold locks.
        var locks: [UInt32] = []
        var isTakenUp = false
    }

    /// Owners of POSIX locks on nodes, at most: each costs a descriptor.
    static let maximumLockFiles = 4096

    /// - Parameters:
    ///   - memory: made for this share, or mapped: of a worker before this one.
    ///   - root: of the directory, open with O_RDONLY | O_DIRECTORY.
    ///   - processFiles: /proc/self/fd, for what older kernels do in no other way: files without handles are opened,
    ///     and extended attributes reached, over it. nil: such requests fail.
    ///   - worksInProcessFiles: it is the process's working directory: there need be no /proc.
    ///   - answersAtOnce: the driver is shown each answer as soon as it is written.
    ///   - statistics: of the device, where an operator sees how full the tables are; nil: nowhere.
    /// - Throws: when the root is no directory, or file handles are required and do not work.
    public init(
        _ description: ShareDescription, memory: consuming ShareMemory, root: consuming OwnedFD,
        processFiles: consuming OwnedFD? = nil, worksInProcessFiles: Bool = false, answersAtOnce: Bool = false,
        custody: OpenFileCustody = OpenFileCustody(), statistics: DeviceStatistics? = nil
    ) throws(SystemError) {
        var status = statx()
        let flags = HostFlags.emptyPath
        guard unsafe clinux_statx(root.number, "", flags, HostFlags.status, &status) == 0 else {
            throw SystemError(cannot: "share", "the directory", .current)
        }
        guard status.stx_mode >> 12 == 4 else {
            throw SystemError(cannot: "share", "the directory", Errno(rawValue: ENOTDIR))
        }
        rootDevice = clinux_make_device(status.stx_dev_major, status.stx_dev_minor)
        rootMount = status.stx_mnt_id
        rootInode = status.stx_ino
        hasIdentityIDs = description.userIDs.isIdentity && description.groupIDs.isIdentity
        hasHandles = try Self.checkHandles(description.fileHandles, root)
        do throws(Errno) {
            placeMemory = try Mapping(anonymous: memory.files * FileTable.placeBytes)
        } catch {
            throw SystemError(cannot: "share", "the directory", error)
        }
        nodes = memory.nodes
        unsafe interrupts = InterruptList(memory.mapping.base + Int(WIRE_SHARE_FIRST_INTERRUPT))
        files = unsafe FileTable(
            header: memory.mapping.base, records: memory.firstFile, places: placeMemory.base, capacity: memory.files)
        var use = FileUse()
        use.locks.reserveCapacity(Self.maximumLockFiles)
        fileLock = Mutex(use)
        self.description = description
        self.memory = memory
        self.root = root
        self.processFiles = processFiles?.number ?? -1
        self.worksInProcessFiles = worksInProcessFiles
        self.answersAtOnce = answersAtOnce
        processFilesOwner = processFiles
        self.custody = custody
        self.statistics = statistics
    }

    deinit {
        for slot in 1..<max(files.fresh, 1) {
            if let fd = files.takeOut(slot) { close(fd) }
        }
    }

    /// Whether this process may open files by handle on the root's file system.
    private static func checkHandles(_ use: FileHandleUse, _ root: borrowing OwnedFD) throws(SystemError) -> Bool {
        if use == .never { return false }
        var handle = clinux_file_handle()
        var mount: Int32 = 0
        if unsafe clinux_name_to_handle(root.number, "", HostFlags.emptyPath, &handle, &mount) == 0,
            handle.byte_count <= UInt32(WIRE_SHARE_HANDLE_BYTES)
        {
            let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
            let fd = unsafe withUnsafeBytes(of: &handle.bytes) { bytes in
                unsafe clinux_open_by_handle(root.number, bytes.baseAddress, handle.byte_count, handle.type, flags)
            }
            if fd >= 0 {
                close(fd)
                return true
            }
        }
        if use == .required {
            throw SystemError(
                cannot: "use", "file handles of the directory", .current,
                advice:
                    "They need CAP_DAC_READ_SEARCH and a file system that has them; a worker on its own does without")
        }
        return false
    }

    // MARK: Life

    /// The share is this worker's from now on: what the one before has left half done is put in order. Its threads have
    /// stopped; nothing of this process has used the tables yet. Takes time in proportion to the files that were ever
    /// open at once, and none for nodes.
    public func takeUp() {
        let orphan = nodes.repair()
        memory.addSalt()
        fileLock.withLock { use in
            files.takeUp(&use.firstFree)
            openFileCount.store(0, ordering: .relaxed)
            use.locks.removeAll(keepingCapacity: true)
            for slot in 1..<max(files.fresh, 1) where files.isOpen(slot) {
                switch files.kind(of: slot) {
                case .file, .directory: openFileCount.add(1, ordering: .relaxed)
                case .lock: use.locks.append(slot)
                default: break
                }
            }
            use.isTakenUp = true
        }
        if let orphan { releaseFile(slot: orphan) }
        // A sweep that a worker before did not finish.
        if memory.agreement == nil { reset() }
    }

    /// Takes an open file back from custody. Before `takeUp` any is held ready; the first request that needs it comes
    /// after this.
    ///
    /// - Returns: false after `takeUp`, when nothing knows of it: custody may let go of it, and it was closed here.
    public func restore(_ file: consuming OwnedFD, slot: UInt32) -> Bool {
        guard slot > 0, slot < files.capacity else { return false }
        let isTakenUp = fileLock.withLock { use in use.isTakenUp }
        if isTakenUp, !files.isOpen(slot) { return false }
        guard files.restore(slot, file.number) else { return false }
        _ = file.release()
        return true
    }

    /// Whether the tables know of an open file: after `takeUp`. Closes here what they do not know of.
    public func wantsFile(slot: UInt32) -> Bool {
        guard slot > 0, slot < files.capacity else { return false }
        if files.isOpen(slot) { return true }
        if let fd = files.takeOut(slot) { close(fd) }
        return false
    }

    /// Forgets an open file that custody has not: its handle is stale from now on.
    public func drop(slot: UInt32) { releaseFile(slot: slot) }

    /// Slots that files may be in; the others were never used.
    public var usedSlots: Range<UInt32> { 1..<max(files.fresh, 1) }

    /// Forgets all nodes but the root and closes all files: the driver has gone, or starts anew. The loops have no
    /// request of it under way but the one that asks for this.
    public func reset() {
        settle()
        memory.agree(nil)
        nodes.effects.forgetAll()
        interrupts.removeAll()
        for slot in 1..<max(files.fresh, 1) where files.isOpen(slot) {
            if files.kind(of: slot) == .mount || files.kind(of: slot) == .node { continue }
            releaseFile(slot: slot)
        }
        nodeLock.withLock { _ in nodes.removeAll() }
        for slot in 1..<max(files.fresh, 1) where files.isOpen(slot) && files.kind(of: slot) == .node {
            releaseFile(slot: slot)
        }
        // Nobody may come for long, and custody has locks of the last ones until then.
        settle()
        forgottenCount.add(1, ordering: .relaxed)
    }

    public var counts: ShareCounts {
        var counts = ShareCounts()
        counts.nodes = nodeLock.withLock { _ in nodes.count }
        counts.openFiles = Int(clamping: openFileCount.load(ordering: .relaxed))
        return counts
    }

    /// Grows with each lock that is given up: whoever waits for one tries again then.
    public var lockReleases: UInt64 { releaseCount.load(ordering: .relaxed) }
    func noteLockRelease() { releaseCount.add(1, ordering: .relaxed) }

    // MARK: The agreement with the driver

    /// What INIT has agreed on; nil before.
    public var agreement: FuseAgreement? { memory.agreement }

    func agree(_ agreement: FuseAgreement) { memory.agree(agreement) }

    /// As `ShareMemory` says.
    func writePrivateName(of unique: UInt64, to name: UnsafeMutablePointer<CChar>) {
        unsafe memory.writePrivateName(of: unique, to: name)
    }
}

// MARK: - Nodes

extension ShareSession {
    func withNodes<Result>(_ body: (NodeTable) -> Result) -> Result { nodeLock.withLock { _ in body(nodes) } }

    /// The place in the table of mounts of one that the kernel numbers so; 0: the root's. nil: it has not been met.
    func mount(_ number: UInt64) -> UInt32? {
        if number == rootMount { return 0 }
        return mountLock.withLock { $0.place(of: number) }
    }

    /// Knows a mount, that a worker before has met, by this worker's number from now on.
    ///
    /// - Parameter directory: on it, open for real; this session's if it is known.
    func recognizeMount(_ identity: MountIdentity, number: UInt64, _ directory: Int32) -> Bool {
        guard let place = nodeLock.withLock({ _ in memory.mount(identity) }) else { return false }
        mountLock.withLock { $0.add(number, place: place, pin: directory) }
        return true
    }

    /// A directory on a mount of this worker's that opens its handles; nil: the table's file does.
    func mountDirectory(_ place: UInt32) -> Int32? { mountLock.withLock { $0.directory(at: place) } }

    /// - Parameter file: of the table of files, on the mount.
    func addMount(_ identity: MountIdentity, number: UInt64, file: UInt32) -> UInt32? {
        guard let place = nodeLock.withLock({ _ in memory.addMount(identity, file: file) }) else { return nil }
        // Another loop may have been faster: in one process it is the same mount.
        mountLock.withLock { $0.add(number, place: place, pin: -1) }
        return place
    }

    /// Learns by which numbers the kernel knows the mounts that workers before have met: after `restore`.
    public func learnMounts() {
        for place in 1..<UInt32(WIRE_SHARE_MAX_MOUNTS) {
            guard let file = mountFile(place), let fd = files.take(files.handle(of: file), .mount) else { continue }
            var status = statx()
            if unsafe clinux_statx(fd, "", HostFlags.emptyPath, HostFlags.status, &status) == 0 {
                mountLock.withLock { $0.add(status.stx_mnt_id, place: place, pin: -1) }
            }
            giveBack(file)
        }
    }

    /// The file that opens handles of a mount in the table.
    func mountFile(_ mount: UInt32) -> UInt32? { nodeLock.withLock { _ in memory.mountFile(mount) } }
}

// MARK: - Files

extension ShareSession {
    /// Takes a file in: custody has it before the driver can know of it. The descriptor is the session's from now on.
    ///
    /// What the driver opens is in the tables when `settle` returns, the rest at once.
    ///
    /// - Parameter effect: of the request that opens it, for the driver.
    /// - Returns: the handle.
    /// - Throws: ENFILE when the table is full; what custody says. The descriptor is closed then.
    func addFile(
        _ fd: Int32, _ kind: FileKind, node: UInt64, owner: UInt64 = 0, flags: UInt32 = 0, _ effect: EffectUse = .none
    ) throws(Errno) -> UInt64 {
        let slot: UInt32? = fileLock.withLock { use in
            if kind == .lock, use.locks.count >= Self.maximumLockFiles { return nil }
            return files.addSlot(&use.firstFree)
        }
        guard let slot else {
            close(fd)
            throw Errno(rawValue: ENFILE)
        }
        let handle = files.describe(slot, node: node, owner: owner, flags: flags)
        if effect.place != 0 { nodes.effects.setHandle(effect.place, handle) }
        let isDrivers = kind == .file || kind == .directory
        // Before anybody can let go of it.
        if isDrivers { openFileCount.add(1, ordering: .relaxed) }
        let waits = !answersAtOnce && isDrivers
        if waits {
            newcomers.withLock { newcomers in
                if newcomers.isFull { newcomers.settle(custody, files) }
                newcomers.add(KeptFile(fd, slot: slot), kind)
                hasNewcomers.store(true, ordering: .relaxed)
            }
        } else {
            do throws(Errno) {
                try custody.keep(fd, slot: slot)
            } catch {
                close(fd)
                fileLock.withLock { use in files.free(slot, &use.firstFree) }
                if isDrivers { openFileCount.subtract(1, ordering: .relaxed) }
                throw error
            }
            files.open(slot, kind, fd)
        }
        if kind == .lock { fileLock.withLock { use in use.locks.append(slot) } }
        return handle
    }

    /// Custody has, when this returns, what the driver has opened, and has let go of what it has closed: before the
    /// driver is shown any answer.
    func settle() {
        if hasNewcomers.load(ordering: .acquiring) {
            newcomers.withLock { newcomers in
                newcomers.settle(custody, files)
                // Not before: another loop that sees this shows its answers.
                hasNewcomers.store(false, ordering: .releasing)
            }
        }
        custody.settle()
        statistics?.noteTables(
            nodes: UInt64(max(nodes.count, 0)), openFiles: openFileCount.load(ordering: .relaxed))
    }

    /// Lets go of a file as soon as nobody uses it.
    ///
    /// - Returns: false when the handle is forged or stale.
    func release(_ handle: UInt64) -> Bool {
        guard let isUnused = files.beginRelease(handle) else { return false }
        if isUnused { finishRelease(UInt32(truncatingIfNeeded: handle)) }
        return true
    }

    func releaseFile(slot: UInt32) { _ = release(files.handle(of: slot)) }

    /// Ends a use that `files.take` has begun.
    func giveBack(_ slot: UInt32) {
        if files.dropUse(slot) { finishRelease(slot) }
    }

    private func finishRelease(_ slot: UInt32) {
        let kind = files.kind(of: slot)
        let fd = files.beginClosing(slot)
        custody.release(slot: slot)
        if let fd { close(fd) }
        files.endClosing(slot)
        fileLock.withLock { use in
            files.free(slot, &use.firstFree)
            switch kind {
            case .file, .directory: openFileCount.subtract(1, ordering: .relaxed)
            case .lock:
                if let index = use.locks.firstIndex(of: slot) {
                    use.locks.swapAt(index, use.locks.count - 1)
                    use.locks.removeLast()
                }
            default: break
            }
        }
    }

    /// The file that holds the locks of an owner on a node.
    func lockFile(node: UInt64, owner: UInt64) -> UInt64? {
        fileLock.withLock { use in
            for slot in use.locks where files.node(of: slot) == node && files.owner(of: slot) == owner {
                return files.handle(of: slot)
            }
            return nil
        }
    }
}
