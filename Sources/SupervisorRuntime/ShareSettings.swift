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

    /// A tree of mounts of the directory, to be a worker's root.
    ///
    /// - Parameter kept: the directory, perhaps from a supervisor before. What was opened in another mount namespace,
    ///   as a service manager makes one at each start, is opened anew here.
    func cloneMounts(of kept: borrowing OwnedFD, readOnly: Bool) throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            do throws(Errno) {
                return try Platform.cloneMounts(of: kept, readOnly: readOnly)
            } catch {
                guard error == .invalidArgument else { throw error }
                guard let found = try? open(), Self.identity(of: kept) == Self.identity(of: found.fd) else {
                    throw Errno(rawValue: ESTALE)
                }
                return try Platform.cloneMounts(of: found.fd, readOnly: readOnly)
            }
        } catch {
            throw SystemError(
                cannot: "make a root of", directory, error,
                advice: error.rawValue == ESTALE
                    ? "It is not the directory that lay there when the share was made: bring that back"
                    : "The supervisor may make no mounts; --worker-sandbox=off does without")
        }
    }

    private static func identity(of file: borrowing OwnedFD) -> [UInt64]? {
        var status = stat()
        guard unsafe fstat(file.number, &status) == 0 else { return nil }
        return [UInt64(status.st_dev), UInt64(status.st_ino)]
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
        guard site.sandbox.demand == .off else {
            return SharedFD(try share.cloneMounts(of: directory.fd, readOnly: configuration.isReadOnly))
        }
        do throws(Errno) {
            return SharedFD(try directory.fd.duplicate())
        } catch {
            throw SystemError(cannot: "share", share.directory, error)
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
                ring = try KernelRing(entries: 32, completions: 32, for: .files(UInt32(share.maximumFiles)))
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
