internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Uring

extension Passthrough {
    /// Does something as the driver's user: makes a file.
    private mutating func asDriver<Result: FixedWidthInteger>(
        _ request: borrowing FuseRequest, _ extras: FuseExtras, _ body: () -> Result
    ) throws(Errno) -> Result {
        credentials.takeMaskAway()
        try becomeDriver(request, extras)
        defer { credentials.becomeServer() }
        let result = body()
        if result < 0 { throw .current }
        return result
    }

    /// The mode that a new file gets. Where there are access lists the driver leaves its program's mask to the server,
    /// because it does not count in a directory with a default list.
    ///
    /// Looked at, and not left to the kernel: an operation of the engine has the mask that the thread has when the
    /// kernel comes to it. Whoever gives the directory a list at this very moment may have a file with less.
    private mutating func newMode(_ mode: UInt32, _ mask: UInt32, in directory: HeldNode, _ node: UInt64) -> UInt32 {
        let mode = mode & 0o7777
        guard mask & 0o777 & mode != 0, session.agreement?.has(FuseFeature.serverMasks) == true,
            !hasDefaultList(directory, node)
        else { return mode }
        return mode & ~(mask & 0o777)
    }

    /// The new file's node, with the security label that came with the request.
    private mutating func findNew(
        _ parent: UInt64, _ directory: Int32, _ name: FuseName, _ extras: FuseExtras
    ) throws(Errno) -> FileResult {
        let found = unsafe try find(parent, directory, name.bytes)
        if let label = extras.label, let labelName = extras.labelName {
            do throws(Errno) {
                try setLabel(found.node, labelName, label)
            } catch {
                forgetOne(found.node, 1)
                throw error
            }
        }
        return told(entry(found))
    }

    mutating func makeDirectory(
        _ name: FuseName, _ arguments: wire_fuse_mkdir_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        let mode = newMode(arguments.mode, arguments.umask, in: directory, request.node)
        if makesThroughEngine(request, extras) {
            try holdToMake(directory, &request, extras)
            let names = unsafe request.copyName(name)
            return .operationAsDriver(unsafe .makeDirectory(in: directory.fd, names.0, mode: mode))
        }
        defer { drop(directory) }
        _ = try asDriver(request, extras) { unsafe mkdirat(directory.fd, name.bytes, mode) }
        return try findNew(request.node, directory.fd, name, extras)
    }

    mutating func makeNode(
        _ name: FuseName, _ arguments: wire_fuse_mknod_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        let mode = newMode(arguments.mode, arguments.umask, in: directory, request.node)
        let type = arguments.mode & S_IFMT
        // Devices are made, if this process may, and never opened here.
        let device = clinux_make_device(
            (arguments.rdev & 0xfff00) >> 8, arguments.rdev & 0xff | (arguments.rdev >> 12) & 0xfff00)
        if makesThroughEngine(request, extras) {
            if type == S_IFREG || type == 0 {
                try holdToMake(directory, &request, extras, .makingFile)
                let names = unsafe request.copyName(name)
                return .operationAsDriver(
                    unsafe .makeFile(in: directory.fd, names.0, flags: O_RDONLY, mode: mode))
            }
            return try makeSpecial(directory, name, type | mode, device, &request, extras)
        }
        defer { drop(directory) }
        _ = try asDriver(request, extras) {
            unsafe mknodat(directory.fd, name.bytes, type | mode, dev_t(device))
        }
        return try findNew(request.node, directory.fd, name, extras)
    }

    /// No operation makes a FIFO, a socket or a device, but one renames: it is made under a name of this request's own,
    /// and gets the one that it is to have where that is free. A worker that dies in between leaves the first, which
    /// the next one takes away.
    private mutating func makeSpecial(
        _ directory: HeldNode, _ name: FuseName, _ mode: UInt32, _ device: UInt64, _ request: inout FuseRequest,
        _ extras: FuseExtras
    ) throws(Errno) -> FileResult {
        let names = unsafe request.copyName(name)
        unsafe session.writePrivateName(of: request.unique, to: request.privateName)
        if !request.isForeign {
            do throws(Errno) {
                guard try makePrivate(directory.fd, mode, device, request, extras) else {
                    drop(directory)
                    return .again
                }
            } catch {
                drop(directory)
                throw error
            }
        }
        request.hold(directory, nil, .makingSpecial)
        return .operation(
            unsafe .rename(
                from: directory.fd, names.1, to: directory.fd, names.0, flags: HostFlags.renameWithoutReplacing))
    }

    /// - Returns: false when there is no way by such a name.
    private mutating func makePrivate(
        _ directory: Int32, _ mode: UInt32, _ device: UInt64, _ request: borrowing FuseRequest, _ extras: FuseExtras
    ) throws(Errno) -> Bool {
        // Where a directory can only grow nothing gets another name, or is taken away again.
        var status = statx()
        if unsafe clinux_statx(directory, "", HostFlags.emptyPath, 0, &status) == 0,
            status.stx_attributes & HostFlags.appendOnly != 0
        {
            return false
        }
        let name = unsafe request.privateName
        for _ in 0..<2 {
            do throws(Errno) {
                _ = try asDriver(request, extras) { unsafe mknodat(directory, name, mode, dev_t(device)) }
                return true
            } catch {
                if error != Errno(rawValue: EEXIST) { throw error }
                // Of a worker that has died over this very request.
                _ = unsafe unlinkat(directory, name, 0)
            }
        }
        // Somebody has made what cannot be taken away: a directory.
        return false
    }

    mutating func symlink(
        _ name: FuseName, _ target: FuseName, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        if makesThroughEngine(request, extras) {
            try holdToMake(directory, &request, extras)
            let names = unsafe request.copyName(name)
            // The target lies where the request was copied to: the kernel has it before the next one comes there.
            return .operationAsDriver(unsafe .symlink(to: target.bytes, in: directory.fd, names.0))
        }
        defer { drop(directory) }
        _ = try asDriver(request, extras) {
            unsafe symlinkat(target.bytes, directory.fd, name.bytes)
        }
        return try findNew(request.node, directory.fd, name, extras)
    }

    mutating func create(
        _ name: FuseName, _ arguments: wire_fuse_create_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        let flags = openFlags(arguments.flags)
        let mode = newMode(arguments.mode, arguments.umask, in: directory, request.node)
        // Without O_EXCL nobody can tell who has made the file: it may be done again.
        if Int32(bitPattern: arguments.flags) & O_EXCL != 0, makesThroughEngine(request, extras) {
            try holdToMake(directory, &request, extras, .creating)
            request.openFlags = arguments.flags
            let names = unsafe request.copyName(name)
            return .operationAsDriver(
                unsafe .makeFile(in: directory.fd, names.0, flags: flags & ~O_TRUNC, mode: mode))
        }
        defer { drop(directory) }
        var fd: Int32 = -1
        do throws(Errno) {
            // O_EXCL: what is there already may be a link or a device, and is looked at before it is opened.
            fd = try asDriver(request, extras) {
                let all = flags & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
                return unsafe clinux_openat(
                    directory.fd, name.bytes, all, mode, HostFlags.resolve)
            }
        } catch {
            guard error == Errno(rawValue: EEXIST), Int32(bitPattern: arguments.flags) & O_EXCL == 0 else {
                throw error
            }
        }
        let found: FoundNode
        if fd >= 0 {
            found = try takeOpened(request.node, fd)
            do throws(Errno) {
                if let label = extras.label, let labelName = extras.labelName {
                    try setLabel(found.node, labelName, label)
                }
            } catch {
                close(fd)
                forgetOne(found.node, 1)
                throw error
            }
        } else {
            found = unsafe try find(request.node, directory.fd, name.bytes)
            do throws(Errno) {
                try checkStranger(found.node, toOpen: arguments.flags)
                fd = try reopenKilling(found.node, flags, arguments.open_flags)
            } catch {
                forgetOne(found.node, 1)
                throw error
            }
        }
        return try answerCreated(found, fd, arguments.flags)
    }

    mutating func createTemporary(
        _ arguments: wire_fuse_create_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        defer { drop(directory) }
        let flags = openFlags(arguments.flags) & ~(O_TRUNC | O_CREAT) | (Int32(bitPattern: arguments.flags) & O_EXCL)
        let mode = newMode(arguments.mode, arguments.umask, in: directory, request.node)
        let fd = try asDriver(request, extras) {
            unsafe clinux_openat(directory.fd, ".", flags | HostFlags.temporary | O_CLOEXEC, mode, 0)
        }
        let found = try takeOpened(request.node, fd)
        return try answerCreated(found, fd, arguments.flags)
    }

    /// The node of a file that was just made and is open. On failure it is closed.
    private mutating func takeOpened(_ parent: UInt64, _ fd: Int32) throws(Errno) -> FoundNode {
        do throws(Errno) {
            // A copy of it is as good as an O_PATH descriptor for looking, but would keep the file open.
            return try takeWithoutKeeping(parent, fd)
        } catch {
            close(fd)
            throw error
        }
    }

    private mutating func answerCreated(
        _ found: borrowing FoundNode, _ fd: Int32, _ flags: UInt32
    ) throws(Errno) -> FileResult {
        let handle: UInt64
        do throws(Errno) {
            handle = try session.addFile(fd, .file, node: found.node, flags: flags, effect)
        } catch {
            forgetOne(found.node, 1)
            throw error
        }
        return told(CreatedAnswer(entry: entry(found), open: opened(handle, flags)))
    }

    /// An extended attribute that a new file comes with.
    private mutating func setLabel(_ node: UInt64, _ name: FuseBytes, _ value: FuseBytes) throws(Errno) {
        let text = unsafe FuseName(bytes: name.base.assumingMemoryBound(to: CChar.self), count: name.count - 1)
        try setAttribute(of: node, text, value, flags: 0)
    }
}

// MARK: - Through the engine

extension Passthrough {
    /// New files go that way, too, but those with a security label, which would have to be kept until they are there.
    private func makesThroughEngine(_ request: borrowing FuseRequest, _ extras: FuseExtras) -> Bool {
        if request.avoidsEngine || extras.label != nil { return false }
        return usesEngine
    }

    /// Works as the driver's user until `becomeServer`, on a directory that is held until `finishMaking`.
    private mutating func holdToMake(
        _ directory: HeldNode, _ request: inout FuseRequest, _ extras: FuseExtras, _ stage: Stage = .making
    ) throws(Errno) {
        credentials.takeMaskAway()
        do throws(Errno) {
            try becomeDriver(request, extras)
        } catch {
            drop(directory)
            throw error
        }
        request.hold(directory, nil, stage)
    }

    /// A file has a new name, or has not.
    mutating func finishMaking(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        let stage = Stage(rawValue: request.stage)
        defer { endNames(&request) }
        guard let directory = request.held.0 else { return .failed(.inputOutput) }
        if result < 0 {
            if stage == .makingSpecial { _ = unsafe unlinkat(directory.fd, request.privateName, 0) }
            // A ring that was made by a supervisor of before knows fewer operations, and a file system may not know the
            // flag. Whoever may really not do this hears the same again.
            if result == -EACCES || stage == .makingSpecial && result == -EINVAL { return .again }
            return .failed(Errno(rawValue: -result))
        }
        do throws(Errno) {
            switch stage {
            case .creating: return try finishCreating(&request, directory.fd, result)
            case .makingFile: if !request.isForeign { close(result) }
            default: break
            }
            return told(entry(unsafe try find(request.node, directory.fd, UnsafePointer(request.names))))
        } catch {
            return .failed(error)
        }
    }

    /// A file was made and opened: by this worker, or by one whose descriptors are gone.
    private mutating func finishCreating(
        _ request: inout FuseRequest, _ directory: Int32, _ result: Int32
    ) throws(Errno) -> FileResult {
        if !request.isForeign {
            return try answerCreated(try takeOpened(request.node, result), result, request.openFlags)
        }
        let found = unsafe try find(request.node, directory, UnsafePointer(request.names))
        let fd: Int32
        do throws(Errno) {
            // Whoever asked may have written another name over it since.
            try checkStranger(found.node, toOpen: request.openFlags)
            fd = try reopen(found.node, openFlags(request.openFlags) & ~O_TRUNC)
            do throws(Errno) {
                try checkOwn(fd, request)
            } catch {
                close(fd)
                throw error
            }
        } catch {
            forgetOne(found.node, 1)
            throw error
        }
        return try answerCreated(found, fd, request.openFlags)
    }

    /// By now the name may be another file's, which the driver's user may not even read: nobody asks whether he may
    /// open what he has made.
    ///
    /// - Throws: EEXIST when it is no file of his.
    private func checkOwn(_ fd: Int32, _ request: borrowing FuseRequest) throws(Errno) {
        var status = stat()
        guard unsafe fstat(fd, &status) == 0 else { throw .current }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_uid == session.description.userIDs.host(request.user) else {
            throw Errno(rawValue: EEXIST)
        }
    }
}
