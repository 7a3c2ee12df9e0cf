internal import CLinux
internal import CWire
internal import Glibc
internal import Platform
internal import Uring

extension Passthrough {
    /// UNLINK and RMDIR.
    mutating func remove(_ name: FuseName, flags: Int32, _ request: inout FuseRequest) throws(Errno) -> FileResult {
        let directory = try hold(request.node)
        credentials.becomeServer()
        if usesEngine, !request.avoidsEngine {
            request.hold(directory, nil, .names)
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
        let makesWhiteout = flags & FuseCall.whiteout != 0
        if makesWhiteout {
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
        if usesEngine, !request.avoidsEngine {
            request.hold(from, to, .names)
            let names = unsafe request.copyNames(name, newName)
            let operation = unsafe IOOperation.rename(
                from: from.fd, names.0, to: to.fd, names.1, flags: flags)
            return makesWhiteout ? .operationAsDriver(operation) : .operation(operation)
        }
        defer {
            credentials.becomeServer()
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
            request.hold(directory, from, .making)
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
    var usesEngine: Bool { session.description.changesNamesThroughEngine }

    mutating func finishNames(_ request: inout FuseRequest, _ result: Int32) -> FileResult {
        endNames(&request)
        // As in `finishMaking`.
        if result == -EACCES { return .again }
        return result < 0 ? .failed(Errno(rawValue: -result)) : .done
    }

    mutating func endNames(_ request: inout FuseRequest) {
        if let held = request.held.0 { drop(held) }
        if let held = request.held.1 { drop(held) }
        request.held = (nil, nil)
        request.stage = Stage.idle.rawValue
    }
}
