internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

/// One entry as getdents64 gives it.
@safe private struct HostEntry {
    var inode: UInt64
    var next: UInt64
    var length: Int
    var type: UInt8
    var name: UnsafePointer<CChar>
    var nameCount: Int
}

extension Passthrough {
    /// READDIR and READDIRPLUS. The offset of an entry is the host's own cookie for it.
    mutating func readDirectory(
        _ arguments: wire_fuse_read_in, plus: Bool, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        guard let fd = session.files.take(arguments.fh, .directory) else { throw Errno(rawValue: EBADF) }
        let slot = UInt32(truncatingIfNeeded: arguments.fh)
        defer { session.giveBack(slot) }
        let room = min(Int(arguments.size), request.answerRoom, Self.answerBytes)
        let node = session.files.node(of: slot)
        // What may be done with it was judged by the node that the request names.
        guard node == request.node else { throw Errno(rawValue: EBADF) }
        var position = session.files.position(of: slot)
        if position != arguments.offset {
            guard lseek(fd, off_t(Int(bitPattern: UInt(arguments.offset))), SEEK_SET) >= 0 else { throw .current }
            position = arguments.offset
        }
        session.files.setPosition(of: slot, FileTable.unknownPosition)
        // So many entries as are sure to fit, where that is worth a call: an entry of the host's is 24 bytes at least,
        // and 32 or 160 in the answer.
        let wanted = plus ? room / 5 : room / 4 * 3
        let count = unsafe clinux_getdents(fd, listing.base, max(min(wanted, Self.listingBytes), 320))
        if count < 0 { throw .current }
        var (used, read) = (0, 0)
        defer { effect.entry = 0 }
        while read < count {
            let entry = unsafe Self.entry(listing.base + read)
            let size =
                ((plus ? Int(WIRE_FUSE_NAME_OFFSET_DIRENTPLUS) : Int(WIRE_FUSE_NAME_OFFSET))
                    + entry.nameCount + 7) & ~7
            if used + size > room { break }
            if plus {
                // What it has told of has to be taken back if this worker dies.
                if effect.place != 0, Int(effect.entry) == RequestEffects.listCount { break }
                unsafe putPlus(entry, node, fd, at: answer.base + used)
            } else {
                unsafe putEntry(entry, node, at: answer.base + used)
            }
            used += size
            read += entry.length
            position = entry.next
        }
        // The first entry did not fit.
        if count > 0, used == 0 { throw .invalidArgument }
        // What did not fit is read again: the descriptor stands behind it.
        if read >= count { session.files.setPosition(of: slot, position) }
        return .bytes(unsafe FuseBytes(base: answer.base, count: used))
    }

    /// The kernel's struct linux_dirent64, just written by it.
    private static func entry(_ at: UnsafeRawPointer) -> HostEntry {
        let name = unsafe (at + 19).assumingMemoryBound(to: CChar.self)
        return unsafe HostEntry(
            inode: at.loadUnaligned(as: UInt64.self), next: at.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            length: Int(at.loadUnaligned(fromByteOffset: 16, as: UInt16.self)),
            type: at.load(fromByteOffset: 18, as: UInt8.self), name: name, nameCount: strlen(name))
    }

    private func isDot(_ entry: HostEntry) -> Bool {
        let dot: CChar = 0x2e
        return unsafe entry.name[0] == dot && (entry.nameCount == 1 || (entry.nameCount == 2 && entry.name[1] == dot))
    }

    private func putEntry(_ entry: HostEntry, _ directory: UInt64, at: UnsafeMutableRawPointer) {
        var header = wire_fuse_dirent()
        header.ino = entry.inode
        // The parent of the root is the root: nothing is told of what is above.
        if directory == UInt64(NodeTable.rootSlot), isDot(entry) { header.ino = session.rootInode }
        header.off = entry.next
        header.namelen = UInt32(entry.nameCount)
        header.type = UInt32(entry.type)
        unsafe at.storeBytes(of: header, as: wire_fuse_dirent.self)
        let start = Int(WIRE_FUSE_NAME_OFFSET)
        unsafe (at + start).copyMemory(from: entry.name, byteCount: entry.nameCount)
        let end = start + entry.nameCount
        for index in end..<((end + 7) & ~7) { unsafe at.storeBytes(of: 0, toByteOffset: index, as: UInt8.self) }
    }

    /// With attributes; counts a lookup. One that is gone meanwhile has no node, and the driver asks for it when it
    /// needs it.
    private mutating func putPlus(
        _ entry: HostEntry, _ directory: UInt64, _ fd: Int32, at: UnsafeMutableRawPointer
    ) {
        var found = wire_fuse_entry_out()
        if !isDot(entry) {
            effect.entry += 1
            do throws(Errno) {
                found = self.entry(unsafe try find(directory, fd, entry.name))
            } catch {
                effect.entry -= 1
                // Node id 0: only the name is told.
                found = wire_fuse_entry_out()
            }
        }
        if found.nodeid == 0 {
            found.attr.ino = entry.inode
            found.attr.mode = UInt32(entry.type) << 12
        }
        unsafe at.storeBytes(of: found, as: wire_fuse_entry_out.self)
        unsafe putEntry(entry, directory, at: at + MemoryLayout<wire_fuse_entry_out>.size)
    }
}
