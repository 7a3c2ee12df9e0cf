internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Uring

// MARK: - New files

extension Passthrough {
    /// Does something as the driver's user: makes a file.
    ///
    /// - Parameter mask: of the driver's program, where it leaves that to the server.
    private mutating func asDriver<Result: FixedWidthInteger>(
        _ request: borrowing FuseRequest, _ extras: FuseExtras, mask: UInt32, _ body: () -> Result
    ) throws(Errno) -> Result {
        if let agreement = session.agreement, agreement.has(FuseFeature.serverMasks) {
            credentials.setMask(mask)
        } else {
            credentials.setMask(0)
        }
        try becomeDriver(request, extras)
        defer { credentials.becomeServer() }
        let result = body()
        if result < 0 { throw .current }
        return result
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
        if makesThroughEngine(request, extras) {
            try holdToMake(directory, &request, extras)
            let names = unsafe request.copyName(name)
            return .operationAsDriver(
                unsafe .makeDirectory(in: directory.fd, names.0, mode: arguments.mode & 0o7777))
        }
        defer { drop(directory) }
        _ = try asDriver(request, extras, mask: arguments.umask) {
            unsafe mkdirat(directory.fd, name.bytes, arguments.mode & 0o7777)
        }
        return try findNew(request.node, directory.fd, name, extras)
    }

    mutating func makeNode(
        _ name: FuseName, _ arguments: wire_fuse_mknod_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        defer { drop(directory) }
        // Devices are made, if this process may, and never opened here.
        let device = clinux_make_device(
            (arguments.rdev & 0xfff00) >> 8, arguments.rdev & 0xff | (arguments.rdev >> 12) & 0xfff00)
        _ = try asDriver(request, extras, mask: arguments.umask) {
            unsafe mknodat(directory.fd, name.bytes, arguments.mode, dev_t(device))
        }
        return try findNew(request.node, directory.fd, name, extras)
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
        _ = try asDriver(request, extras, mask: 0) {
            unsafe symlinkat(target.bytes, directory.fd, name.bytes)
        }
        return try findNew(request.node, directory.fd, name, extras)
    }

    mutating func create(
        _ name: FuseName, _ arguments: wire_fuse_create_in, _ extras: FuseExtras, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        defer { drop(directory) }
        let flags = openFlags(arguments.flags)
        let mode = arguments.mode & 0o7777
        var fd: Int32 = -1
        do throws(Errno) {
            // O_EXCL: what is there already may be a link or a device, and is looked at before it is opened.
            fd = try asDriver(request, extras, mask: arguments.umask) {
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
        let fd = try asDriver(request, extras, mask: arguments.umask) {
            unsafe clinux_openat(
                directory.fd, ".", flags | HostFlags.temporary | O_CLOEXEC, arguments.mode & 0o7777, 0)
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
            handle = try session.addFile(fd, .file, node: found.node, flags: flags)
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

// MARK: - Names that change

extension Passthrough {
    /// UNLINK and RMDIR.
    mutating func remove(_ name: FuseName, flags: Int32, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        credentials.becomeServer()
        if usesEngine {
            request.hold(directory, nil)
            let names = unsafe request.copyNames(name, name)
            return .operation(unsafe .unlink(in: directory.fd, names.0, flags: flags))
        }
        defer { drop(directory) }
        guard unsafe unlinkat(directory.fd, name.bytes, flags) == 0 else { throw .current }
        return .done
    }

    mutating func rename(
        _ name: FuseName, to parent: UInt64, _ newName: FuseName, _ flags: UInt32, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let (from, to) = try holdBoth(request.node, parent)
        // A whiteout is a new file: the driver's user's.
        if flags & 4 != 0 {
            do throws(Errno) {
                try becomeDriver(request, FuseExtras())
            } catch {
                drop(from)
                drop(to)
                throw error
            }
        } else {
            credentials.becomeServer()
        }
        defer { credentials.becomeServer() }
        if usesEngine, flags & 4 == 0 {
            request.hold(from, to)
            let names = unsafe request.copyNames(name, newName)
            return .operation(
                unsafe .rename(from: from.fd, names.0, to: to.fd, names.1, flags: flags))
        }
        defer {
            drop(from)
            drop(to)
        }
        guard unsafe clinux_renameat(from.fd, name.bytes, to.fd, newName.bytes, flags) == 0 else { throw .current }
        return .done
    }

    mutating func link(_ node: UInt64, _ name: FuseName, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let (from, directory) = try holdBoth(node, request.node)
        credentials.becomeServer()
        if usesEngine, !request.avoidsEngine {
            request.hold(directory, from, making: true)
            let names = unsafe request.copyName(name)
            return .operation(
                unsafe .link(from.fd, names.1, in: directory.fd, names.0, flags: HostFlags.emptyPath))
        }
        defer {
            drop(from)
            drop(directory)
        }
        var result = unsafe linkat(from.fd, "", directory.fd, name.bytes, HostFlags.emptyPath)
        // Without CAP_DAC_READ_SEARCH the kernel says that there is no such file.
        if result != 0, Errno.current == .noEntry, session.processFiles >= 0 {
            result = unsafe linkat(
                session.processFiles, descriptorName(from.fd), directory.fd, name.bytes, AT_SYMLINK_FOLLOW)
        }
        if result != 0 { throw .current }
        return told(entry(unsafe try find(request.node, directory.fd, name.bytes)))
    }

    private mutating func holdBoth(_ first: UInt64, _ second: UInt64) throws(Errno) -> (HeldNode, HeldNode) {
        let held = try hold(first)
        do throws(Errno) {
            return (held, try hold(second))
        } catch {
            drop(held)
            throw error
        }
    }

    /// Names change by an operation of the engine, whose completion outlives this process, where that was asked for.
    private var usesEngine: Bool { session.description.changesNamesThroughEngine }

    /// New files go that way, too, but for two kinds. The kernel's threads take the mask of the loop's thread, which
    /// may be another request's by then. And a security label would have to be kept until the file is there.
    private func makesThroughEngine(_ request: borrowing FuseRequest, _ extras: FuseExtras) -> Bool {
        if request.avoidsEngine || extras.label != nil { return false }
        return usesEngine && session.agreement?.has(FuseFeature.serverMasks) != true
    }

    /// Works as the driver's user until `becomeServer`, on a directory that is held until `finishMaking`.
    private mutating func holdToMake(
        _ directory: HeldNode, _ request: inout FuseRequest, _ extras: FuseExtras
    ) throws(Errno) {
        credentials.setMask(0)
        do throws(Errno) {
            try becomeDriver(request, extras)
        } catch {
            drop(directory)
            throw error
        }
        request.hold(directory, nil, making: true)
    }

    /// A file has a new name, or has not.
    mutating func finishMaking(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        defer { endNames(&request) }
        // A ring that was made by a supervisor of before knows fewer operations. Whoever may really not do this hears
        // the same again.
        if result == -EACCES { return .again }
        if result < 0 { return .failed(Errno(rawValue: -result)) }
        guard let directory = request.held.0 else { return .failed(.inputOutput) }
        do throws(Errno) {
            return told(entry(unsafe try find(request.node, directory.fd, UnsafePointer(request.names))))
        } catch {
            return .failed(error)
        }
    }

    mutating func finishNames(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        endNames(&request)
        return result < 0 ? .failed(Errno(rawValue: -result)) : .done
    }

    private mutating func endNames(_ request: inout FuseRequest) {
        if let held = request.held.0 { drop(held) }
        if let held = request.held.1 { drop(held) }
        request.held = (nil, nil)
        request.stage = Stage.idle.rawValue
    }
}
