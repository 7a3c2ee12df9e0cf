import CWire
import Custody
import Glibc
import Platform
import TestSupport
import Uring
import Virtio

@testable import FileTarget

/// The tables' file, for one session after the other.
final class TableFile {
    let fd: OwnedFD
    init(_ fd: consuming OwnedFD) { self.fd = fd }
}

/// A share of a temporary directory, a server for it on a real ring, and a driver that asks it one thing at a time.
@safe final class ShareBench {
    let directory: TemporaryDirectoryBox
    let tables: TableFile
    let session: ShareSession
    let slots: FuseSlots
    var server: FuseServer<Passthrough, Ring>
    /// Of the request that was started last.
    var unique: UInt64 = 0
    private let input: UnsafeMutableRawPointer
    private let output: UnsafeMutableRawPointer
    private var sent = (count: 0, room: 0)
    /// As whom the driver asks.
    var user: UInt32 = 0
    var group: UInt32 = 0

    static let root: UInt64 = 1

    /// What was answered.
    struct Reply {
        var error: Errno?
        var bytes: [UInt8]
        /// Nothing was answered.
        var isSilent = false

        func value<Value: BitwiseCopyable>(_: Value.Type, at offset: Int = 0) throws -> Value {
            if let error { throw error }
            guard bytes.count >= offset + MemoryLayout<Value>.size else { throw Errno.inputOutput }
            return unsafe bytes.withUnsafeBytes { unsafe $0.loadUnaligned(fromByteOffset: offset, as: Value.self) }
        }

        func check() throws { if let error { throw error } }
    }

    /// - Parameters:
    ///   - before: whose directory and tables this one takes over; its session must be gone.
    ///   - initializes: says INIT.
    init(
        _ description: ShareDescription = ShareDescription(tag: "test"), custody: OpenFileCustody = OpenFileCustody(),
        nodes: Int = 1024, files: Int = 256, offer: UInt64 = .max, initializes: Bool = true, descriptors: Int = 64,
        after before: (TemporaryDirectoryBox, TableFile)? = nil, directory given: TemporaryDirectoryBox? = nil
    ) throws {
        let memory: ShareMemory
        if let before {
            directory = before.0
            tables = before.1
            memory = try ShareMemory(mapping: tables.fd)
        } else {
            directory = try given ?? TemporaryDirectoryBox(TemporaryDirectory())
            let size = ShareMemory.Size(nodes: nodes, files: files, queues: 1, slots: 4)
            tables = TableFile(try makeMemoryFile(name: "share", count: size.byteCount))
            memory = try ShareMemory(making: tables.fd, size)
        }
        let root = OwnedFD(owning: unsafe Glibc.open(directory.value.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        let processFiles = OwnedFD(owning: unsafe Glibc.open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        session = try ShareSession(
            description, memory: memory, root: root, processFiles: processFiles, custody: custody)
        session.takeUp()
        slots = try FuseSlots(count: 4)
        server = try FuseServer(
            description, Passthrough(session, descriptors: descriptors), engine: Ring(entries: 16, completions: 64))
        unsafe input = .allocate(byteCount: FuseRequest.requestBytes, alignment: 4096)
        unsafe output = .allocate(byteCount: FuseRequest.answerBytes, alignment: 4096)
        if initializes, before == nil { try initialize(offer).check() }
    }

    deinit {
        unsafe input.deallocate()
        unsafe output.deallocate()
    }

    var path: String { directory.value.path }

    func initialize(_ offer: UInt64, major: UInt32 = 7, minor: UInt32 = 45) -> Reply {
        var arguments = wire_fuse_init_in()
        arguments.major = major
        arguments.minor = minor
        arguments.max_readahead = 1 << 20
        arguments.flags = UInt32(truncatingIfNeeded: offer)
        arguments.flags2 = UInt32(truncatingIfNeeded: offer >> 32)
        return call(WIRE_FUSE_INIT, 0, bytes(arguments))
    }

    // MARK: Asking

    /// Asks for something and waits for the answer.
    ///
    /// - Parameter length: what the header says of it; nil: the truth.
    func call(
        _ opcode: Int, _ node: UInt64, _ body: [UInt8] = [], room: Int = FuseRequest.answerBytes,
        length: UInt32? = nil, extensions: UInt16 = 0
    ) -> Reply {
        let step = start(opcode, node, body, room: room, length: length, extensions: extensions)
        let written = wait(step, slot: 0)
        // As a loop does before it shows its answers.
        server.tidy()
        return reply(written)
    }

    /// Starts something, in a slot of its own.
    func start(
        _ opcode: Int, _ node: UInt64, _ body: [UInt8] = [], room: Int = FuseRequest.answerBytes,
        length: UInt32? = nil, extensions: UInt16 = 0, slot: Int = 0
    ) -> FuseStep {
        send(message(opcode, node, body, length: length, extensions: extensions), room: room, slot: slot)
    }

    private func message(
        _ opcode: Int, _ node: UInt64, _ body: [UInt8], length: UInt32? = nil, extensions: UInt16 = 0
    ) -> [UInt8] {
        unique += 1
        var header = wire_fuse_in_header()
        header.len = length ?? UInt32(40 + body.count)
        header.opcode = UInt32(opcode)
        header.unique = unique
        header.nodeid = node
        header.uid = user
        header.gid = group
        header.pid = UInt32(getpid())
        header.total_extlen = extensions
        return bytes(header) + body
    }

    /// Sends bytes as they are.
    func send(_ raw: [UInt8], room: Int = FuseRequest.answerBytes, slot: Int = 0) -> FuseStep {
        precondition(raw.count <= FuseRequest.requestBytes)
        unsafe raw.withUnsafeBytes { unsafe input.copyMemory(from: $0.baseAddress!, byteCount: raw.count) }
        unsafe output.initializeMemory(as: UInt8.self, repeating: 0xee, count: 64)
        sent = (raw.count, room)
        return slots.with(slot) { request in
            request.token =
                RequestToken(
                    sequence: RequestToken(rawValue: request.token).sequence, queue: 0, head: UInt16(slot)
                ).rawValue
            return server.begin(&request, segments(of: request))
        }
    }

    /// Where the request that was sent last lies.
    private func segments(of request: borrowing FuseRequest) -> SegmentList {
        var segments = request.emptySegments
        unsafe segments.storage[0] = unsafe iovec(iov_base: input, iov_len: sent.count)
        segments.readableCount = 1
        segments.readableBytes = UInt64(sent.count)
        if sent.room > 0 {
            unsafe segments.storage[1] = unsafe iovec(iov_base: output, iov_len: sent.room)
            segments.writableCount = 1
            segments.writableBytes = UInt64(sent.room)
        }
        return segments
    }

    /// Goes on with a request whose operation a worker before has started.
    func finishAdopted(
        _ opcode: Int, _ node: UInt64, _ body: [UInt8], _ progress: RequestProgress, result: Int32
    ) -> Reply {
        let raw = message(opcode, node, body)
        unsafe raw.withUnsafeBytes { unsafe input.copyMemory(from: $0.baseAddress!, byteCount: raw.count) }
        sent = (raw.count, FuseRequest.answerBytes)
        let step = slots.with(0) { request in
            server.finishAdopted(&request, segments(of: request), progress, result: result)
        }
        return reply(wait(step, slot: 0))
    }

    /// Goes round until a request is answered, or waits for a lock.
    func wait(_ step: FuseStep, slot: Int) -> FuseStep {
        var step = step
        while true {
            switch step {
            case .done, .waiting: return step
            case .stalled: step = slots.with(slot) { server.resume(&$0) }
            case .submitting: step = slots.with(slot) { server.submitAtOnce(&$0) } ?? .pending
            case .again: step = slots.with(slot) { request in server.restart(&request, segments(of: request)) }
            case .pending:
                server.submit()
                server.runDeferredWork()
                while let completion = server.nextCompletion() {
                    let head = Int(RequestToken(rawValue: completion.token).head)
                    let next = slots.with(head) { request in server.finish(&request, result: completion.result) }
                    if head == slot { step = next }
                }
                server.releaseCompletions()
            }
        }
    }

    func reply(_ step: FuseStep) -> Reply {
        guard case .done(let written) = step else { return Reply(error: .busy, bytes: []) }
        guard written > 0 else { return Reply(error: nil, bytes: [], isSilent: true) }
        let header = unsafe output.loadUnaligned(as: wire_fuse_out_header.self)
        precondition(header.len == written && written >= 16)
        let body = unsafe [UInt8](UnsafeRawBufferPointer(start: output + 16, count: Int(written) - 16))
        return Reply(error: header.error == 0 ? nil : Errno(rawValue: -header.error), bytes: body)
    }

    func bytes<Value: BitwiseCopyable>(_ value: Value) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe [UInt8]($0) }
    }

    func text(_ name: String) -> [UInt8] { Array(name.utf8) + [0] }

    // MARK: What is asked for often

    func lookUp(_ name: String, in parent: UInt64 = root) throws -> wire_fuse_entry_out {
        try call(WIRE_FUSE_LOOKUP, parent, text(name)).value(wire_fuse_entry_out.self)
    }

    func attributes(of node: UInt64) throws -> wire_fuse_attr {
        try call(WIRE_FUSE_GETATTR, node, bytes(wire_fuse_getattr_in())).value(wire_fuse_attr_out.self).attr
    }

    func forget(_ node: UInt64, _ count: UInt64 = 1) {
        let reply = call(WIRE_FUSE_FORGET, node, bytes(wire_fuse_forget_in(nlookup: count)), room: 0)
        precondition(reply.isSilent)
    }

    func open(_ node: UInt64, _ flags: Int32 = O_RDONLY, kills: Bool = false) throws -> UInt64 {
        let arguments = wire_fuse_open_in(flags: UInt32(flags), open_flags: kills ? 1 : 0)
        return try call(WIRE_FUSE_OPEN, node, bytes(arguments)).value(wire_fuse_open_out.self).fh
    }

    func openDirectory(_ node: UInt64 = root) throws -> UInt64 {
        try call(WIRE_FUSE_OPENDIR, node, bytes(wire_fuse_open_in())).value(wire_fuse_open_out.self).fh
    }

    func release(_ node: UInt64, _ handle: UInt64, opcode: Int = WIRE_FUSE_RELEASE) throws {
        var arguments = wire_fuse_release_in()
        arguments.fh = handle
        try call(opcode, node, bytes(arguments)).check()
    }

    func read(_ node: UInt64, _ handle: UInt64, at offset: UInt64 = 0, count: Int) throws -> [UInt8] {
        var arguments = wire_fuse_read_in()
        arguments.fh = handle
        arguments.offset = offset
        arguments.size = UInt32(count)
        let reply = call(WIRE_FUSE_READ, node, bytes(arguments))
        try reply.check()
        return reply.bytes
    }

    func write(
        _ node: UInt64, _ handle: UInt64, _ data: [UInt8], at offset: UInt64 = 0, flags: UInt32 = 0
    ) throws -> Int {
        var arguments = wire_fuse_write_in()
        arguments.fh = handle
        arguments.offset = offset
        arguments.size = UInt32(data.count)
        arguments.write_flags = flags
        return Int(try call(WIRE_FUSE_WRITE, node, bytes(arguments) + data).value(wire_fuse_write_out.self).size)
    }

    func create(
        _ name: String, in parent: UInt64 = root, _ flags: Int32 = O_RDWR, mode: UInt32 = 0o644, umask: UInt32 = 0,
        extras: [UInt8] = []
    ) throws -> (entry: wire_fuse_entry_out, handle: UInt64) {
        let arguments = wire_fuse_create_in(flags: UInt32(flags), mode: mode | S_IFREG, umask: umask, open_flags: 0)
        let reply = call(WIRE_FUSE_CREATE, parent, bytes(arguments) + text(name) + extras)
        return (
            try reply.value(wire_fuse_entry_out.self),
            try reply.value(wire_fuse_open_out.self, at: MemoryLayout<wire_fuse_entry_out>.size).fh
        )
    }

    func makeDirectory(_ name: String, in parent: UInt64 = root, mode: UInt32 = 0o755) throws -> wire_fuse_entry_out {
        let arguments = wire_fuse_mkdir_in(mode: mode, umask: 0)
        return try call(WIRE_FUSE_MKDIR, parent, bytes(arguments) + text(name)).value(wire_fuse_entry_out.self)
    }

    /// Entries as name and node id (0 without `plus`), read from the start in answers of so many bytes.
    func list(_ node: UInt64 = root, size: Int = 4096, plus: Bool = false) throws -> [(name: String, node: UInt64)] {
        let handle = try openDirectory(node)
        defer { try? release(node, handle, opcode: WIRE_FUSE_RELEASEDIR) }
        var found: [(String, UInt64)] = []
        var offset: UInt64 = 0
        while true {
            var arguments = wire_fuse_read_in()
            arguments.fh = handle
            arguments.offset = offset
            arguments.size = UInt32(size)
            let reply = call(plus ? WIRE_FUSE_READDIRPLUS : WIRE_FUSE_READDIR, node, bytes(arguments))
            try reply.check()
            if reply.bytes.isEmpty { return found }
            var place = 0
            while place < reply.bytes.count {
                var child: UInt64 = 0
                if plus {
                    child = try reply.value(wire_fuse_entry_out.self, at: place).nodeid
                    place += MemoryLayout<wire_fuse_entry_out>.size
                }
                let entry = try reply.value(wire_fuse_dirent.self, at: place)
                let start = place + Int(WIRE_FUSE_NAME_OFFSET)
                let name = reply.bytes[start..<start + Int(entry.namelen)]
                found.append((String(decoding: name, as: UTF8.self), child))
                offset = entry.off
                place = (start + Int(entry.namelen) + 7) & ~7
            }
        }
    }

    // MARK: The host's side

    func put(_ name: String, _ content: String = "") throws {
        let fd = unsafe Glibc.open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard fd >= 0 else { throw Errno.current }
        defer { close(fd) }
        let data = Array(content.utf8)
        guard unsafe Glibc.write(fd, data, data.count) == data.count else { throw Errno.current }
    }

    func content(_ name: String) throws -> String {
        let fd = unsafe Glibc.open("\(path)/\(name)", O_RDONLY)
        guard fd >= 0 else { throw Errno.current }
        defer { close(fd) }
        var data = [UInt8](repeating: 0, count: 1 << 16)
        let count = unsafe Glibc.read(fd, &data, data.count)
        return String(decoding: data.prefix(max(count, 0)), as: UTF8.self)
    }

    func status(_ name: String) throws -> stat {
        var status = stat()
        guard unsafe lstat("\(path)/\(name)", &status) == 0 else { throw Errno.current }
        return status
    }
}
