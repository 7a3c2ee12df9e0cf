internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Uring

// MARK: - OPEN, RELEASE

extension Passthrough {
    /// The host's flags for the driver's, of those that mean something below it.
    func openFlags(_ flags: UInt32) -> Int32 {
        var result =
            Int32(bitPattern: flags)
            & (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC | HostFlags.noAccessTime | HostFlags.largeFile)
        if session.description.allowsDirectIO { result |= Int32(bitPattern: flags) & HostFlags.direct }
        if let agreement = session.agreement, agreement.has(FuseFeature.writeback) {
            // The driver reads what it fills up a page with, and writes where it says, at the end or not.
            if result & O_ACCMODE == O_WRONLY { result = result & ~O_ACCMODE | O_RDWR }
            result &= ~O_APPEND
        }
        return result
    }

    /// Opens a node as OPEN does; with O_TRUNC for who may not keep set-ID bits (FUSE_OPEN_KILL_SUIDGID).
    mutating func reopenKilling(_ node: UInt64, _ flags: Int32, _ openFlags: UInt32) throws(Errno) -> Int32 {
        let kills = openFlags & (1 << UInt32(WIRE_FUSE_OPEN_KILL_SUIDGID_BIT)) != 0
        credentials.becomeServer()
        credentials.setMayKeepIDs(!kills)
        defer { credentials.setMayKeepIDs(true) }
        return try reopen(node, flags)
    }

    func opened(_ handle: UInt64, _ flags: UInt32) -> wire_fuse_open_out {
        var answer = wire_fuse_open_out()
        answer.fh = handle
        switch session.description.cache {
        case .none, .metadata: answer.open_flags = 1 << UInt32(WIRE_FUSE_FOPEN_DIRECT_IO_BIT)
        case .auto:
            // What the host's kernel does not cache for this file, the driver's shall not either.
            if session.description.allowsDirectIO, Int32(bitPattern: flags) & HostFlags.direct != 0 {
                answer.open_flags = 1 << UInt32(WIRE_FUSE_FOPEN_DIRECT_IO_BIT)
            }
        case .always: answer.open_flags = 1 << UInt32(WIRE_FUSE_FOPEN_KEEP_CACHE_BIT)
        }
        if answer.open_flags & (1 << UInt32(WIRE_FUSE_FOPEN_DIRECT_IO_BIT)) != 0 {
            answer.open_flags |= 1 << UInt32(WIRE_FUSE_FOPEN_PARALLEL_DIRECT_WRITES_BIT)
        }
        return answer
    }

    mutating func open(_ arguments: wire_fuse_open_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        if let handle = fileOpenedBefore(.file, request) { return .opened(opened(handle, arguments.flags)) }
        let fd = try reopenKilling(request.node, openFlags(arguments.flags), arguments.open_flags)
        // A directory opens as a file, too, for reading.
        let handle = try session.addFile(fd, .file, node: request.node, flags: arguments.flags, effect)
        return .opened(opened(handle, arguments.flags))
    }

    mutating func openDirectory(
        _ arguments: wire_fuse_open_in, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let handle: UInt64
        if let before = fileOpenedBefore(.directory, request) {
            handle = before
        } else {
            let fd = try reopen(request.node, O_RDONLY | O_DIRECTORY)
            handle = try session.addFile(fd, .directory, node: request.node, flags: arguments.flags, effect)
        }
        var answer = wire_fuse_open_out()
        answer.fh = handle
        if session.description.cache == .always || session.description.cache == .metadata {
            answer.open_flags =
                1 << UInt32(WIRE_FUSE_FOPEN_CACHE_DIR_BIT) | 1 << UInt32(WIRE_FUSE_FOPEN_KEEP_CACHE_BIT)
        }
        return .opened(answer)
    }

    mutating func release(
        _ arguments: wire_fuse_release_in, _ kind: FileKind, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        guard let fd = session.files.take(arguments.fh, kind) else {
            if progressBefore != .none { return .done }
            throw Errno(rawValue: EBADF)
        }
        noteBegun()
        if arguments.release_flags & (1 << UInt32(WIRE_FUSE_RELEASE_FLOCK_UNLOCK_BIT)) != 0 {
            // Others may have the open file, too: custody.
            _ = flock(fd, LOCK_UN)
            session.noteLockRelease()
        }
        session.giveBack(UInt32(truncatingIfNeeded: arguments.fh))
        guard session.release(arguments.fh) else { throw Errno(rawValue: EBADF) }
        return .done
    }

    /// Tells what the file system tells at close (over a network), and gives up the owner's locks.
    mutating func flush(_ arguments: wire_fuse_flush_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        guard let fd = session.files.take(arguments.fh, .file) else { throw Errno(rawValue: EBADF) }
        defer { session.giveBack(UInt32(truncatingIfNeeded: arguments.fh)) }
        releaseLocks(of: request.node, owner: arguments.lock_owner)
        let copy = try duplicateDescriptor(fd)
        if close(copy) != 0 { throw .current }
        return .done
    }
}

// MARK: - READ, WRITE

extension Passthrough {
    /// Takes a file for an operation of the engine.
    func use(_ handle: UInt64, _ kind: FileKind, _ request: inout FuseRequest) throws(Errno) {
        guard let fd = session.files.take(handle, kind) else { throw Errno(rawValue: EBADF) }
        request.file = fd
        request.fileSlot = UInt32(truncatingIfNeeded: handle)
        request.attempts = 0
    }

    func endUse(_ request: inout FuseRequest) {
        session.giveBack(request.fileSlot)
        request.file = -1
        request.fileSlot = 0
        request.stage = Stage.idle.rawValue
    }

    mutating func read(_ arguments: wire_fuse_read_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        try use(arguments.fh, .file, &request)
        request.offset = arguments.offset
        if request.remaining == 0 {
            endUse(&request)
            return .data(0)
        }
        request.stage = Stage.reading.rawValue
        return .operation(readOperation(request))
    }

    private func readOperation(_ request: borrowing FuseRequest) -> IOOperation {
        unsafe .read(
            file: request.file, vectors: request.vectors, count: request.vectorCount, offset: request.offset)
    }

    mutating func finishRead(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        if result < 0 {
            if mayTryAgain(result, &request) { return .operation(readOperation(request)) }
            if request.transferred == 0 {
                endUse(&request)
                return .failed(Errno(rawValue: -result))
            }
        }
        let count = Int(max(result, 0))
        request.advance(count)
        // The end of a file is at the end of a page only by chance: one that ends there may have been cut short, as may
        // any whose worker has died.
        if request.remaining > 0, count > 0, request.isForeign || request.offset % 4096 == 0 {
            return .operation(readOperation(request))
        }
        endUse(&request)
        return .data(UInt32(request.transferred))
    }

    mutating func write(_ arguments: wire_fuse_write_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        try use(arguments.fh, .file, &request)
        request.offset = arguments.offset
        request.stage = Stage.writing.rawValue
        if request.remaining == 0 {
            endUse(&request)
            return .written(0)
        }
        // The engine's completions tell of its own.
        if case .done(let count) = progressBefore {
            request.advance(Int(clamping: count))
            endUse(&request)
            return .written(UInt32(request.transferred))
        }
        request.killsIDs = arguments.write_flags & (1 << UInt32(WIRE_FUSE_WRITE_KILL_SUIDGID_BIT)) != 0
        if request.killsIDs, killingPersonality == 0 { return writeNow(&request) }
        // What the program has asked for since the file was opened, and what the file was opened with.
        let flags = arguments.flags | session.files.flags(of: request.fileSlot)
        return mayWriteAtOnce(Int32(bitPattern: flags))
            ? writeNow(&request) : .operation(writeOperation(request))
    }

    /// Whether a write is a system call of the loop, which is twice as fast on a file system whose writes may block:
    /// the kernel has a ring's carried out by threads of its own there.
    ///
    /// A loop that is killed meanwhile is waited for, so no such write comes after the take-over; it is carried out
    /// again, with the same data at the same place. Not one that appends: that would be done twice. What waits for the
    /// disk is the engine's in any case: the loop has others to serve.
    private func mayWriteAtOnce(_ flags: Int32) -> Bool {
        flags & (HostFlags.direct | O_SYNC | O_DSYNC) == 0 && (isAlone || flags & O_APPEND == 0)
    }

    private func writeOperation(_ request: borrowing FuseRequest) -> IOOperation {
        var operation = unsafe IOOperation.write(
            file: request.file, vectors: request.vectors, count: request.vectorCount, offset: request.offset,
            durable: false)
        if request.killsIDs { operation.personality = killingPersonality }
        return operation
    }

    /// The thread itself writes: without CAP_FSETID where set-ID bits are to go.
    private mutating func writeNow(_ request: inout FuseRequest) -> FileResult {
        credentials.becomeServer()
        if request.killsIDs { credentials.setMayKeepIDs(false) }
        defer { if request.killsIDs { credentials.setMayKeepIDs(true) } }
        while request.remaining > 0 {
            let count = unsafe pwritev(
                request.file, request.vectors, Int32(request.vectorCount), off_t(request.offset))
            if count < 0, Errno.current == .interrupted { continue }
            if count < 0, request.transferred == 0 {
                let error = Errno.current
                endUse(&request)
                return .failed(error)
            }
            if count <= 0 { break }
            request.advance(count)
        }
        noteDone(UInt64(request.transferred))
        endUse(&request)
        return .written(UInt32(request.transferred))
    }

    mutating func finishWrite(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        if result < 0 {
            if mayTryAgain(result, &request) { return .operation(writeOperation(request)) }
            if request.transferred == 0 {
                endUse(&request)
                return .failed(Errno(rawValue: -result))
            }
        }
        request.advance(Int(max(result, 0)))
        if request.remaining > 0, result > 0 { return .operation(writeOperation(request)) }
        endUse(&request)
        return .written(UInt32(request.transferred))
    }

    private func mayTryAgain(_ result: Int32, _ request: inout FuseRequest) -> Bool {
        guard result == -EAGAIN || result == -EINTR, request.attempts < Self.maximumAttempts else { return false }
        request.attempts += 1
        return true
    }
}

// MARK: - What works on the whole file

extension Passthrough {
    mutating func synchronize(
        _ arguments: wire_fuse_fsync_in, _ kind: FileKind, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        try use(arguments.fh, kind, &request)
        request.stage = Stage.synchronizing.rawValue
        let dataOnly = arguments.fsync_flags & (1 << UInt32(WIRE_FUSE_FSYNC_FDATASYNC_BIT)) != 0
        return .operation(dataOnly ? .synchronizeData(file: request.file) : .synchronize(file: request.file))
    }

    mutating func allocate(
        _ arguments: wire_fuse_fallocate_in, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        guard arguments.length > 0 else { throw .invalidArgument }
        try use(arguments.fh, .file, &request)
        request.stage = Stage.synchronizing.rawValue
        return .operation(
            .allocate(
                file: request.file, mode: Int32(bitPattern: arguments.mode), offset: arguments.offset,
                length: arguments.length))
    }

    /// Of fsync and fallocate. Both may be done twice; nothing of them can be told apart from success but an error.
    mutating func finishPlain(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        endUse(&request)
        return result < 0 ? .failed(Errno(rawValue: -result)) : .done
    }

    mutating func synchronizeAll(_ request: inout FuseRequest) throws(Errno) -> FileResult {
        let fd = request.node == UInt64(NodeTable.rootSlot) ? -1 : try reopen(request.node, O_RDONLY)
        defer { if fd >= 0 { close(fd) } }
        guard clinux_syncfs(fd >= 0 ? fd : session.root.number) == 0 else { throw .current }
        return .done
    }

    mutating func seek(_ arguments: wire_fuse_lseek_in, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let whence = Int32(bitPattern: arguments.whence)
        guard whence == Int32(CLINUX_SEEK_DATA) || whence == Int32(CLINUX_SEEK_HOLE),
            arguments.offset <= UInt64(Int64.max)
        else {
            throw .invalidArgument
        }
        guard let fd = session.files.take(arguments.fh, .file) else { throw Errno(rawValue: EBADF) }
        defer { session.giveBack(UInt32(truncatingIfNeeded: arguments.fh)) }
        let position = lseek(fd, off_t(arguments.offset), whence)
        if position < 0 { throw .current }
        return .position(UInt64(position))
    }

    /// Bytes of one COPY_FILE_RANGE, so that a copy that is no clone does not hold the loop up: the driver asks again.
    private static var copyBytes: UInt64 { 4 << 20 }

    mutating func copyRange(
        _ arguments: wire_fuse_copy_file_range_in, _ tellsLong: Bool, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        guard let from = session.files.take(arguments.fh_in, .file) else { throw Errno(rawValue: EBADF) }
        defer { session.giveBack(UInt32(truncatingIfNeeded: arguments.fh_in)) }
        guard let to = session.files.take(arguments.fh_out, .file) else { throw Errno(rawValue: EBADF) }
        defer { session.giveBack(UInt32(truncatingIfNeeded: arguments.fh_out)) }
        let count: Int
        if case .done(let before) = progressBefore {
            count = Int(clamping: min(before, arguments.len))
        } else {
            count = clinux_copy_range(
                from, Int64(arguments.off_in), to, Int64(arguments.off_out), Int(min(arguments.len, Self.copyBytes)))
            if count < 0 { throw .current }
            noteDone(UInt64(count))
        }
        request.transferred = count
        // fuse_copy_file_range_out is one number of 64 bits, as fuse_lseek_out is.
        return tellsLong ? .position(UInt64(count)) : .written(UInt32(count))
    }
}
