internal import CLinux
internal import Custody
internal import Glibc
internal import Platform

/// What a share is besides what every device is. The supervisor opens the directory and hands it over; what workers do
/// with it is theirs to understand.
public struct ShareSettings: Codable, Hashable, Sendable {
    /// An absolute path.
    public var directory: String
    /// 1 to 36 bytes.
    public var tag: String
    /// The most files that a driver may have open at once: places in the ring that keeps them.
    public var maximumFiles = 16_384
    /// Where this host mounts it, an absolute path; nil: a guest does. Nobody needs to know but people: whoever mounts
    /// it brings /dev/fuse.
    public var mountPoint: String?
    /// Options of the worker, `--name` or `--name=value`, as the operator has asked for them.
    public var options: [String] = []

    public init(directory: String, tag: String) {
        self.directory = directory
        self.tag = tag
    }

    func validate() throws(SupervisorError) {
        guard directory.hasPrefix("/"), !directory.contains("\n") else {
            throw .invalid("a directory's path begins with / and has no line feed")
        }
        guard (1...36).contains(tag.utf8.count), !tag.contains("\n") else {
            throw .invalid("a tag has 1 to 36 bytes and no line feed, not '\(tag)'")
        }
        guard (16...1 << 20).contains(maximumFiles) else {
            throw .invalid("a driver may have 16 to 1048576 files open, not \(maximumFiles)")
        }
        if let mountPoint {
            guard mountPoint.hasPrefix("/"), !mountPoint.contains("\n") else {
                throw .invalid("a mount point's path begins with / and has no line feed")
            }
        }
        guard options.allSatisfy({ $0.hasPrefix("--") && !$0.contains("\n") }) else {
            throw .invalid("an option of a share begins with -- and has no line feed")
        }
    }

    var workerOptions: [String] {
        ["--shared-dir=\(directory)", "--tag=\(tag)", "--max-files=\(maximumFiles)"]
            + (mountPoint.map { ["--mount=\($0)"] } ?? []) + options
    }

    /// The directory, for as long as the device exists: whatever becomes of its path.
    func open() throws(SystemError) -> SharedFD {
        let number = unsafe Glibc.open(directory, Int32(CLINUX_O_PATH) | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "share", directory, .current) }
        return SharedFD(OwnedFD(owning: number))
    }
}

extension DeviceConfiguration {
    /// Virtqueues of the device: a share has one more than it has request queues, hiprio.
    var virtqueueCount: Int { queueCount + (share == nil ? 0 : 1) }

    /// Kernel rings: one for each loop; of a share, one that keeps open files; the connection's, last.
    var ringCount: Int { threadCount + (share == nil ? 1 : 2) }
}

extension DeviceCustody {
    /// What a worker of a share inherits: the directory; confined workers get it as a tree of mounts, to be their root.
    ///
    /// - Returns: nil for a disk.
    func directoryForWorker() throws(SystemError) -> SharedFD? {
        guard let share = configuration.share else { return nil }
        try site.sandbox.checkMayShare(share.directory)
        guard let directory = imageCustody else {
            throw SystemError(cannot: "share", share.directory, nil, advice: "It is not open")
        }
        do throws(Errno) {
            if site.sandbox.demand == .off { return SharedFD(try directory.fd.duplicate()) }
            return SharedFD(try cloneMounts(of: directory.fd, readOnly: configuration.isReadOnly))
        } catch {
            throw SystemError(
                cannot: "make a root of", share.directory, error,
                advice: "The supervisor may make no mounts; --worker-sandbox=off does without")
        }
    }

    /// Makes the rings of a device that nobody has served yet.
    static func makeRings(
        _ configuration: DeviceConfiguration, _ record: SessionRecord
    ) throws(SystemError) -> [SharedFD] {
        let isShare = configuration.share != nil
        var rings: [SharedFD] = []
        for index in 0..<configuration.ringCount {
            let ring: KernelRing
            if index < configuration.threadCount {
                ring = try KernelRing(
                    entries: ringEntries, completions: configuration.ringCompletions, for: isShare ? .share : .disk)
            } else if let share = configuration.share, index == configuration.threadCount {
                ring = try KernelRing(entries: 8, completions: 8, for: .files(UInt32(share.maximumFiles)))
            } else {
                ring = try KernelRing(entries: connectionRingEntries, completions: connectionRingEntries)
            }
            record.setRingParameters(ring.parameters, ring: index)
            do throws(Errno) {
                rings.append(SharedFD(try ring.fd.duplicate()))
            } catch {
                throw SystemError(cannot: "keep", "a kernel ring", error)
            }
        }
        return rings
    }
}
