internal import CLinux
internal import CWire
internal import Glibc
internal import Platform

/// What is done with the extended attributes of a file.
@safe private enum AttributeAction {
    case set(UnsafeRawPointer, Int, Int32)
    case get(UnsafeMutableRawPointer, Int)
    case list(UnsafeMutablePointer<CChar>, Int)
    case remove

    /// Over a descriptor that is open for real.
    func byFile(_ fd: Int32, _ name: UnsafePointer<CChar>) -> Int {
        switch self {
        case .set(let value, let count, let flags): Int(unsafe fsetxattr(fd, name, value, count, flags))
        case .get(let to, let room): unsafe fgetxattr(fd, name, to, room)
        case .list(let to, let room): unsafe flistxattr(fd, to, room)
        case .remove: Int(unsafe fremovexattr(fd, name))
        }
    }

    func byPath(_ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>) -> Int {
        switch self {
        case .set(let value, let count, let flags): Int(unsafe setxattr(path, name, value, count, flags))
        case .get(let to, let room): unsafe getxattr(path, name, to, room)
        case .list(let to, let room): unsafe listxattr(path, to, room)
        case .remove: Int(unsafe removexattr(path, name))
        }
    }
}

// MARK: - Extended attributes

extension Passthrough {
    /// Does something with the attributes of a node. An O_PATH descriptor is no way to them, not even for setxattrat.
    ///
    /// - Parameter name: the host's; not looked at by `list`.
    private mutating func perform(
        _ action: AttributeAction, _ node: UInt64, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Int {
        // Files and directories open; for links and special files there is only /proc.
        let type = session.withNodes { nodes in nodes.slot(of: node).map { nodes.type(of: $0) } ?? 0 }
        let result: Int
        if node == UInt64(NodeTable.rootSlot) || UInt32(type) << 12 == S_IFREG || UInt32(type) << 12 == S_IFDIR {
            let fd = try reopen(node, O_RDONLY | O_NONBLOCK)
            defer { close(fd) }
            result = unsafe action.byFile(fd, name)
            if result < 0 { throw .current }
        } else {
            let held = try hold(node)
            defer { drop(held) }
            guard session.processFiles >= 0 else { throw .notSupported }
            result = unsafe action.byPath(reachablePath(held.fd), name)
            if result < 0 { throw .current }
        }
        return result
    }

    /// A path to what an O_PATH descriptor stands for, for calls that take no directory; good until the next call of
    /// this. There is one where `processFiles` is open.
    private func reachablePath(_ descriptor: Int32) -> UnsafePointer<CChar> {
        unsafe session.worksInProcessFiles ? descriptorName(descriptor) : descriptorPath(descriptor)
    }

    /// The host's name of an attribute, good until the next call of this.
    ///
    /// - Throws: what the rules say: EPERM, EOPNOTSUPP; ERANGE when the name grows too long.
    private func hostName(_ name: FuseName) throws(Errno) -> UnsafePointer<CChar> {
        guard session.description.hasExtendedAttributes else { throw .notSupported }
        guard let rules = session.description.attributeRules else { return unsafe name.bytes }
        let bytes = unsafe UnsafeBufferPointer(
            start: UnsafeRawPointer(name.bytes).assumingMemoryBound(to: UInt8.self), count: name.count)
        switch unsafe rules.clientName(bytes) {
        case .unchanged: return unsafe name.bytes
        case .refused(let error): throw error
        case .prefixed(let rule):
            let prefix = rules.rules[rule].prepend
            guard prefix.count + name.count <= AttributeRules.maximumName else { throw Errno(rawValue: ERANGE) }
            let to = unsafe nameScratch
            for index in prefix.indices { unsafe to[index] = CChar(bitPattern: prefix[index]) }
            unsafe (to + prefix.count).update(from: name.bytes, count: name.count + 1)
            return unsafe UnsafePointer(to)
        }
    }

    mutating func setAttribute(
        _ name: FuseName, _ value: FuseBytes, _ arguments: wire_fuse_setxattr_in, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        // XATTR_CREATE, XATTR_REPLACE
        guard arguments.flags & ~3 == 0 else { throw .invalidArgument }
        let kills = arguments.setxattr_flags & (1 << UInt32(WIRE_FUSE_SETXATTR_ACL_KILL_SGID_BIT)) != 0
        credentials.becomeServer()
        credentials.setMayKeepIDs(!kills)
        defer { credentials.setMayKeepIDs(true) }
        var flags = Int32(bitPattern: arguments.flags)
        let before = progressBefore
        if case .done = before { return .done }
        // Only where there is none yet.
        if flags == Self.onlyNew {
            if before == .begun {
                flags = 0
            } else if effect.place != 0 {
                if try has(name, request.node) { throw Errno(rawValue: EEXIST) }
                noteBegun()
            }
        }
        try setAttribute(of: request.node, name, value, flags: flags)
        noteDone()
        return .done
    }

    /// XATTR_CREATE
    private static var onlyNew: Int32 { 1 }

    private mutating func has(_ name: FuseName, _ node: UInt64) throws(Errno) -> Bool {
        let hostName = unsafe try hostName(name)
        do throws(Errno) {
            _ = unsafe try perform(.get(answer.base, 0), node, hostName)
            return true
        } catch {
            if error == Errno(rawValue: ENODATA) { return false }
            throw error
        }
    }

    /// SETXATTR, and the security label of a new file.
    mutating func setAttribute(of node: UInt64, _ name: FuseName, _ value: FuseBytes, flags: Int32) throws(Errno) {
        let hostName = unsafe try hostName(name)
        var source = unsafe value.base
        if isAccessList(name), !session.hasIdentityIDs {
            // Users and groups in it are the driver's: a copy gets the host's.
            unsafe answer.base.copyMemory(from: value.base, byteCount: min(value.count, Self.answerBytes))
            try translateList(count: value.count, toHost: true)
            unsafe source = UnsafeRawPointer(answer.base)
        }
        _ = unsafe try perform(.set(source, value.count, flags), node, hostName)
    }

    mutating func getAttribute(
        _ name: FuseName, _ size: UInt32, _ request: inout FuseRequest
    ) throws(Errno) -> FileResult {
        let hostName = unsafe try hostName(name)
        let room = min(Int(size), 65536)
        let count = unsafe try perform(.get(answer.base, room), request.node, hostName)
        if size == 0 { return .size(UInt32(count)) }
        if isAccessList(name), !session.hasIdentityIDs { try translateList(count: count, toHost: false) }
        return .bytes(unsafe FuseBytes(base: answer.base, count: count))
    }

    mutating func removeAttribute(_ name: FuseName, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let before = progressBefore
        if case .done = before { return .done }
        if before == .none, effect.place != 0, try has(name, request.node) { noteBegun() }
        let hostName = unsafe try hostName(name)
        do throws(Errno) {
            _ = unsafe try perform(.remove, request.node, hostName)
        } catch {
            guard before == .begun, error == Errno(rawValue: ENODATA) else { throw error }
        }
        noteDone()
        return .done
    }

    /// Names that the rules hide are not told, not even how long they are.
    mutating func listAttributes(_ size: UInt32, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        guard session.description.hasExtendedAttributes else { throw .notSupported }
        let list = unsafe listing.base.assumingMemoryBound(to: CChar.self)
        let to = unsafe answer.base.assumingMemoryBound(to: CChar.self)
        let count = unsafe try perform(.list(list, Self.listingBytes), request.node, nameScratch)
        var (read, used) = (0, 0)
        while read < count {
            let name = unsafe list + read
            let length = unsafe strnlen(name, count - read)
            read += length + 1
            var skip = 0
            if let rules = session.description.attributeRules {
                let bytes = unsafe UnsafeBufferPointer(
                    start: UnsafeRawPointer(name).assumingMemoryBound(to: UInt8.self), count: length)
                switch unsafe rules.serverName(bytes) {
                case .unchanged: break
                case .refused: continue
                case .prefixed(let rule): skip = rules.rules[rule].prepend.count
                }
            }
            unsafe (to + used).update(from: name + skip, count: length - skip)
            unsafe to[used + length - skip] = 0
            used += length - skip + 1
        }
        if size == 0 { return .size(UInt32(used)) }
        guard used <= Int(size) else { throw Errno(rawValue: ERANGE) }
        return .bytes(unsafe FuseBytes(base: answer.base, count: used))
    }
}

// MARK: - Access lists

extension Passthrough {
    /// Whether new files in a directory get an access list of its.
    mutating func hasDefaultList(_ directory: HeldNode, _ node: UInt64) -> Bool {
        // Without opening it, where that can be.
        if session.processFiles >= 0 {
            return unsafe getxattr(reachablePath(directory.fd), "system.posix_acl_default", nil, 0) >= 0
        }
        return (unsafe try? perform(.get(answer.base, 0), node, "system.posix_acl_default")) != nil
    }

    /// system.posix_acl_access and system.posix_acl_default
    private func isAccessList(_ name: FuseName) -> Bool {
        unsafe strcmp(name.bytes, "system.posix_acl_access") == 0 || strcmp(name.bytes, "system.posix_acl_default") == 0
    }

    /// Changes users and groups of the list in `answer`: a version of 4 bytes, then entries of 8: tag, permissions, id
    /// (linux/posix_acl_xattr.h).
    private func translateList(count: Int, toHost: Bool) throws(Errno) {
        guard count >= 4, (count - 4) % 8 == 0, count <= Self.answerBytes else { throw .invalidArgument }
        for start in stride(from: 4, to: count, by: 8) {
            let tag = unsafe answer.base.loadUnaligned(fromByteOffset: start, as: UInt16.self)
            let identifier = unsafe answer.base.loadUnaligned(fromByteOffset: start + 4, as: UInt32.self)
            // ACL_USER, ACL_GROUP
            guard tag == 2 || tag == 8 else { continue }
            let map = tag == 2 ? session.description.userIDs : session.description.groupIDs
            guard let mapped = toHost ? map.host(identifier) : map.guest(identifier) else { throw .invalidArgument }
            unsafe answer.base.storeBytes(of: mapped, toByteOffset: start + 4, as: UInt32.self)
        }
    }
}
