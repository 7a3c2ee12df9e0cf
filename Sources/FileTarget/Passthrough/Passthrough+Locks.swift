internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

// MARK: - Locks

/// POSIX locks of the driver are open-file-description locks of the host: one open file for each owner and node. BSD
/// locks are the host's, on the driver's own open file. Custody has all of them, so that they outlive a worker.
extension Passthrough {
    /// The range of a lock; to the end is length 0.
    private func range(_ lock: wire_fuse_file_lock) throws(Errno) -> (start: Int64, length: Int64) {
        guard lock.start <= lock.end, lock.start <= UInt64(Int64.max) else { throw .invalidArgument }
        if lock.end >= UInt64(Int64.max) { return (Int64(lock.start), 0) }
        return (Int64(lock.start), Int64(lock.end - lock.start) + 1)
    }

    private func type(_ lock: wire_fuse_file_lock) throws(Errno) -> Int16 {
        switch Int32(bitPattern: lock.type) {
        case F_RDLCK: Int16(F_RDLCK)
        case F_WRLCK: Int16(F_WRLCK)
        case F_UNLCK: Int16(F_UNLCK)
        default: throw .invalidArgument
        }
    }

    /// The file of an owner's locks on a node, made when there is none.
    private mutating func lockFile(_ node: UInt64, _ owner: UInt64) throws(Errno) -> UInt64 {
        if let known = session.lockFile(node: node, owner: owner) { return known }
        // Read locks need a file open for reading, write locks one for writing.
        let fd = try reopen(node, O_RDWR)
        return try session.addFile(fd, .lock, node: node, owner: owner)
    }

    mutating func getLock(_ arguments: wire_fuse_lk_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        guard arguments.lk_flags & (1 << UInt32(WIRE_FUSE_LK_FLOCK_BIT)) == 0 else { throw .invalidArgument }
        var (start, length) = try range(arguments.lk)
        var type = try type(arguments.lk)
        let handle = try lockFile(request.node, arguments.owner)
        guard let fd = session.files.take(handle, .lock) else { throw Errno(rawValue: EBADF) }
        defer { session.giveBack(UInt32(truncatingIfNeeded: handle)) }
        var process: Int32 = 0
        guard unsafe clinux_lock_range(fd, 1, &type, &start, &length, &process) == 0 else { throw .current }
        var lock = wire_fuse_file_lock()
        lock.type = UInt32(bitPattern: Int32(type))
        if Int32(type) != F_UNLCK {
            lock.start = UInt64(start)
            lock.end = length == 0 ? UInt64(Int64.max) : UInt64(start + length - 1)
            // Of the host's, or -1 of another owner: the driver has no such process.
            lock.pid = 0
        }
        return .lock(lock)
    }

    mutating func setLock(
        _ arguments: wire_fuse_lk_in, waits: Bool, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        var wanted = WaitingLock()
        wanted.type = try type(arguments.lk)
        wanted.isFlock = arguments.lk_flags & (1 << UInt32(WIRE_FUSE_LK_FLOCK_BIT)) != 0
        if wanted.isFlock {
            wanted.handle = arguments.fh
        } else {
            (wanted.start, wanted.length) = try range(arguments.lk)
            if Int32(wanted.type) == F_UNLCK, session.lockFile(node: request.node, owner: arguments.owner) == nil {
                return .done
            }
            wanted.handle = try lockFile(request.node, arguments.owner)
        }
        request.lock = wanted
        let result = try tryLock(wanted)
        if result { return .done }
        return waits ? .waiting : .failed(.wouldBlock)
    }

    /// - Returns: false when somebody else has it.
    private func tryLock(_ wanted: WaitingLock) throws(Errno) -> Bool {
        let slot = UInt32(truncatingIfNeeded: wanted.handle)
        guard let fd = session.files.take(wanted.handle, wanted.isFlock ? .file : .lock) else {
            throw Errno(rawValue: EBADF)
        }
        defer { session.giveBack(slot) }
        let result: Int32
        if wanted.isFlock {
            let operation =
                switch Int32(wanted.type) {
                case F_RDLCK: LOCK_SH
                case F_WRLCK: LOCK_EX
                default: LOCK_UN
                }
            result = flock(fd, operation | LOCK_NB)
        } else {
            var (type, start, length, process) = (wanted.type, wanted.start, wanted.length, Int32(0))
            result = unsafe clinux_lock_range(fd, 0, &type, &start, &length, &process)
        }
        if result == 0 {
            // A lock that is given up, or made weaker, may be what others wait for.
            if Int32(wanted.type) != F_WRLCK { session.noteLockRelease() }
            return true
        }
        let error = Errno.current
        guard error == .wouldBlock || error == .permissionDenied else { throw error }
        return false
    }

    /// Goes on with a request that waits for a lock.
    public mutating func resume(_ request: inout FuseRequest) -> FileResult {
        if session.interrupts.contains(request.unique) { return .failed(.interrupted) }
        do throws(Errno) {
            return try tryLock(request.lock) ? .done : .waiting
        } catch {
            return .failed(error)
        }
    }

    /// All locks of an owner on a node go with their file.
    func releaseLocks(of node: UInt64, owner: UInt64) {
        guard let handle = session.lockFile(node: node, owner: owner) else { return }
        // The open file may live on in custody a moment: the lock shall not.
        if let fd = session.files.take(handle, .lock) {
            var (type, start, length, process) = (Int16(F_UNLCK), Int64(0), Int64(0), Int32(0))
            _ = unsafe clinux_lock_range(fd, 0, &type, &start, &length, &process)
            session.giveBack(UInt32(truncatingIfNeeded: handle))
        }
        _ = session.release(handle)
        session.noteLockRelease()
    }
}
