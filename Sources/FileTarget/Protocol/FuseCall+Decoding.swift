internal import CWire
internal import Glibc
internal import Platform

extension FuseCall {
    /// Decodes a request.
    ///
    /// - Parameters:
    ///   - input: what follows the header; of WRITE without its data.
    ///   - dataCount: bytes of data of WRITE.
    ///   - agreement: of INIT.
    /// - Returns: nil for an opcode that is not known.
    /// - Throws: EINVAL for what makes no sense, ENAMETOOLONG.
    static func decode(
        opcode: UInt32, _ input: inout FuseInput, dataCount: Int, _ agreement: FuseAgreement
    ) throws(Errno) -> FuseCall? {
        guard let opcode = Int(exactly: opcode) else { return nil }
        if let call = try decodeNames(opcode, &input) { return call }
        if let call = try decodeFiles(opcode, &input, dataCount) { return call }
        return try decodeRest(opcode, &input, agreement)
    }

    /// What works on names in a directory. A name is the last thing, or security contexts and groups are.
    private static func decodeNames(_ opcode: Int, _ input: inout FuseInput) throws(Errno) -> FuseCall? {
        switch opcode {
        case WIRE_FUSE_LOOKUP: return .lookUp(try input.lastName())
        case WIRE_FUSE_UNLINK: return .unlink(try input.lastName())
        case WIRE_FUSE_RMDIR: return .removeDirectory(try input.lastName())
        case WIRE_FUSE_SYMLINK:
            let name = try input.name()
            let target = try input.text(atMost: 4095)
            guard target.count > 0 else { throw Errno(rawValue: ENOENT) }
            return .symlink(name, target: target, try input.extras())
        case WIRE_FUSE_MKNOD:
            let arguments = try input.take(wire_fuse_mknod_in.self)
            return .makeNode(try input.name(), arguments, try input.extras())
        case WIRE_FUSE_MKDIR:
            let arguments = try input.take(wire_fuse_mkdir_in.self)
            return .makeDirectory(try input.name(), arguments, try input.extras())
        case WIRE_FUSE_CREATE:
            let arguments = try input.take(wire_fuse_create_in.self)
            return .create(try input.name(), arguments, try input.extras())
        case WIRE_FUSE_TMPFILE:
            let arguments = try input.take(wire_fuse_create_in.self)
            // A name that stands for none: "/".
            _ = try input.text(atMost: 255)
            return .temporaryFile(arguments, try input.extras())
        case WIRE_FUSE_RENAME:
            let arguments = try input.take(wire_fuse_rename_in.self)
            return .rename(try input.name(), to: arguments.newdir, try input.lastName(), flags: 0)
        case WIRE_FUSE_RENAME2:
            let arguments = try input.take(wire_fuse_rename2_in.self)
            // NOREPLACE, EXCHANGE, WHITEOUT
            guard arguments.flags & ~7 == 0 else { throw .invalidArgument }
            return .rename(try input.name(), to: arguments.newdir, try input.lastName(), flags: arguments.flags)
        case WIRE_FUSE_LINK:
            let arguments = try input.take(wire_fuse_link_in.self)
            return .link(node: arguments.oldnodeid, try input.lastName())
        default: return nil
        }
    }

    /// What works on open files.
    private static func decodeFiles(
        _ opcode: Int, _ input: inout FuseInput, _ dataCount: Int
    ) throws(Errno) -> FuseCall? {
        switch opcode {
        case WIRE_FUSE_OPEN: return .open(try input.take(wire_fuse_open_in.self))
        case WIRE_FUSE_OPENDIR: return .openDirectory(try input.take(wire_fuse_open_in.self))
        case WIRE_FUSE_READ:
            let arguments = try input.take(wire_fuse_read_in.self)
            try checkRange(arguments.offset, arguments.size)
            guard Int(arguments.size) <= ShareDescription.maximumTransfer else { throw .invalidArgument }
            return .read(arguments)
        case WIRE_FUSE_WRITE:
            let arguments = try input.take(wire_fuse_write_in.self)
            try checkRange(arguments.offset, arguments.size)
            guard Int(arguments.size) == dataCount, dataCount <= ShareDescription.maximumTransfer else {
                throw .invalidArgument
            }
            return .write(arguments)
        case WIRE_FUSE_READDIR: return .readDirectory(try input.take(wire_fuse_read_in.self), plus: false)
        case WIRE_FUSE_READDIRPLUS: return .readDirectory(try input.take(wire_fuse_read_in.self), plus: true)
        case WIRE_FUSE_RELEASE: return .release(try input.take(wire_fuse_release_in.self))
        case WIRE_FUSE_RELEASEDIR: return .releaseDirectory(try input.take(wire_fuse_release_in.self))
        case WIRE_FUSE_FLUSH: return .flush(try input.take(wire_fuse_flush_in.self))
        case WIRE_FUSE_FSYNC: return .synchronize(try input.take(wire_fuse_fsync_in.self))
        case WIRE_FUSE_FSYNCDIR: return .synchronizeDirectory(try input.take(wire_fuse_fsync_in.self))
        case WIRE_FUSE_GETLK: return .getLock(try input.take(wire_fuse_lk_in.self))
        case WIRE_FUSE_SETLK: return .setLock(try input.take(wire_fuse_lk_in.self), waits: false)
        case WIRE_FUSE_SETLKW: return .setLock(try input.take(wire_fuse_lk_in.self), waits: true)
        case WIRE_FUSE_FALLOCATE:
            let arguments = try input.take(wire_fuse_fallocate_in.self)
            let (end, overflow) = arguments.offset.addingReportingOverflow(arguments.length)
            guard !overflow, end <= UInt64(Int64.max) else { throw Errno(rawValue: EFBIG) }
            return .allocate(arguments)
        case WIRE_FUSE_LSEEK: return .seek(try input.take(wire_fuse_lseek_in.self))
        case WIRE_FUSE_COPY_FILE_RANGE, WIRE_FUSE_COPY_FILE_RANGE_64:
            let arguments = try input.take(wire_fuse_copy_file_range_in.self)
            guard arguments.flags == 0, arguments.off_in <= UInt64(Int64.max), arguments.off_out <= UInt64(Int64.max)
            else { throw .invalidArgument }
            return .copyRange(arguments, tellsLong: opcode == WIRE_FUSE_COPY_FILE_RANGE_64)
        default: return nil
        }
    }

    /// A part of a file must lie where a file can have one.
    private static func checkRange(_ offset: UInt64, _ size: UInt32) throws(Errno) {
        let (end, overflow) = offset.addingReportingOverflow(UInt64(size))
        guard !overflow, end <= UInt64(Int64.max) else { throw .invalidArgument }
    }

    private static func decodeRest(
        _ opcode: Int, _ input: inout FuseInput, _ agreement: FuseAgreement
    ) throws(Errno) -> FuseCall? {
        switch opcode {
        case WIRE_FUSE_FORGET: return .forget(try input.take(wire_fuse_forget_in.self).nlookup)
        case WIRE_FUSE_BATCH_FORGET:
            let count = Int(try input.take(wire_fuse_batch_forget_in.self).count)
            let bytes = try input.bytes(input.count)
            guard count <= bytes.count / MemoryLayout<wire_fuse_forget_one>.size else { throw .invalidArgument }
            return .batchForget(bytes, count: count)
        case WIRE_FUSE_GETATTR:
            let arguments = try input.take(wire_fuse_getattr_in.self)
            return .getAttributes(handle: arguments.getattr_flags & 1 != 0 ? arguments.fh : nil)
        case WIRE_FUSE_STATX: return .statx(try input.take(wire_fuse_statx_in.self))
        case WIRE_FUSE_SETATTR: return .setAttributes(try input.take(wire_fuse_setattr_in.self))
        case WIRE_FUSE_READLINK: return .readLink
        case WIRE_FUSE_STATFS: return .statistics
        case WIRE_FUSE_SYNCFS: return .synchronizeAll
        case WIRE_FUSE_ACCESS: return .access(mask: try input.take(wire_fuse_access_in.self).mask)
        case WIRE_FUSE_INTERRUPT: return .interrupt(try input.take(wire_fuse_interrupt_in.self).unique)
        case WIRE_FUSE_SETXATTR:
            var arguments = wire_fuse_setxattr_in()
            if agreement.has(FuseFeature.longSetXattr) {
                arguments = try input.take(wire_fuse_setxattr_in.self)
            } else {
                arguments.size = try input.take(UInt32.self)
                arguments.flags = try input.take(UInt32.self)
            }
            let name = try input.attributeName()
            guard Int(arguments.size) == input.count, arguments.size <= 65536 else { throw Errno(rawValue: E2BIG) }
            return .setAttribute(name, value: try input.bytes(input.count), arguments)
        case WIRE_FUSE_GETXATTR:
            let size = try input.take(wire_fuse_getxattr_in.self).size
            return .getAttribute(try input.attributeName(), size: size)
        case WIRE_FUSE_LISTXATTR: return .listAttributes(size: try input.take(wire_fuse_getxattr_in.self).size)
        case WIRE_FUSE_REMOVEXATTR: return .removeAttribute(try input.attributeName())
        default: return nil
        }
    }
}

extension FuseInput {
    /// A name behind which nothing comes.
    mutating func lastName() throws(Errno) -> FuseName {
        let name = try name()
        try end()
        return name
    }

    /// The name of an extended attribute: slashes are allowed in it.
    mutating func attributeName() throws(Errno) -> FuseName {
        let name = try text(atMost: 255)
        guard name.count > 0 else { throw Errno(rawValue: ERANGE) }
        return name
    }
}
