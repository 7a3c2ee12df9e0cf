internal import CWire
internal import FileTarget
internal import Glibc
internal import Platform
internal import SimulationKit
internal import Uring
internal import Virtio

/// Sends FUSE requests that a fuzzer made to a server whose files do nothing, and checks that each is answered within
/// the room that was given, and that what the server hands on is what it says it is.
///
/// The input begins with four bytes: how the request is cut into buffers, how much room there is for the answer (two
/// bytes), and what the files do. The rest is the request as it stands in the driver's memory; an `len` of 0xffffffff
/// is replaced by the true one, so that chance finds its way in.
public func fuzzFuseRequest(_ bytes: Span<UInt8>) {
    var input = FuzzInput(bytes)
    let cut = Int(input.nextByte())
    let room = (Int(input.nextByte()) << 8 | Int(input.nextByte())) & 0x3fff
    let behaviour = input.nextByte()
    var request = input.next(1 << 16)
    if request.count >= 4, request[0..<4].allSatisfy({ $0 == 0xff }) {
        for index in 0..<4 { request[index] = UInt8(truncatingIfNeeded: request.count >> (8 * index)) }
    }
    do throws(Errno) {
        let engine = SimulatedEngine(SimulatedStorage(bytes: []))
        let files = IdleFiles(behaviour: behaviour, room: max(room - 16, 0))
        var description = ShareDescription(tag: "fuzz")
        description.isReadOnly = behaviour & 64 != 0
        var server = try FuseServer(description, files, engine: engine)
        let slots = try FuseSlots(count: 1)
        send(&server, slots, &request, cut: cut, room: room)
    } catch {
        preconditionFailure("no memory for a server to fuzz: \(error)")
    }
}

private func send(
    _ server: inout FuseServer<IdleFiles, SimulatedEngine>, _ slots: borrowing FuseSlots, _ request: inout [UInt8],
    cut: Int, room: Int
) {
    let guardBytes = 64
    var answer = [UInt8](repeating: 0xaa, count: room + guardBytes)
    let step = unsafe request.withUnsafeMutableBytes { source in
        unsafe answer.withUnsafeMutableBytes { target in
            unsafe begin(&server, slots, source, target, cut: cut, room: room)
        }
    }
    guard case .done(let written) = step else { return }
    precondition(Int(written) <= room, "more was written than there is room")
    precondition(written == 0 || written >= 16, "half a header was written")
    precondition(answer[room...].allSatisfy { $0 == 0xaa }, "bytes were written behind the answer")
    if written > 0 {
        let length = (0..<4).reduce(0) { $0 | Int(answer[$1]) << (8 * $1) }
        precondition(length == Int(written), "the header says another length than was written")
    }
}

/// Cuts request and answer into buffers of `cut` bytes.
private func begin(
    _ server: inout FuseServer<IdleFiles, SimulatedEngine>, _ slots: borrowing FuseSlots,
    _ source: UnsafeMutableRawBufferPointer, _ target: UnsafeMutableRawBufferPointer, cut: Int, room: Int
) -> FuseStep {
    slots.with(0) { request in
        var segments = request.emptySegments
        let part = cut == 0 ? 1 << 20 : cut
        func add(_ buffer: UnsafeMutableRawBufferPointer, _ count: Int, isWritable: Bool) {
            var done = 0
            while done < count, segments.readableCount + segments.writableCount < segments.capacity {
                // The last buffer that there is a place for takes the rest.
                let isLast = segments.readableCount + segments.writableCount + 1 == segments.capacity
                let length = isLast ? count - done : min(part, count - done)
                let index = segments.readableCount + segments.writableCount
                unsafe segments.storage[index] = unsafe iovec(iov_base: buffer.baseAddress! + done, iov_len: length)
                if isWritable { segments.writableCount += 1 } else { segments.readableCount += 1 }
                done += length
            }
            if isWritable { segments.writableBytes += UInt64(done) } else { segments.readableBytes += UInt64(done) }
        }
        unsafe add(source, source.count, isWritable: false)
        unsafe add(target, room, isWritable: true)
        return server.begin(&request, segments)
    }
}

/// Files that do nothing, and look closely at what they are asked.
private struct IdleFiles: ~Copyable, FileSystem {
    let behaviour: UInt8
    let room: Int
    private(set) var agreement: FuseAgreement?

    init(behaviour: UInt8, room: Int) {
        self.behaviour = behaviour
        self.room = room
        if behaviour & 1 == 0 { agreement = FuseAgreement(minor: 38, flags: behaviour & 2 == 0 ? 0 : .max) }
    }

    mutating func register<Engine: IOEngine & ~Copyable>(_ engine: inout Engine) {}
    mutating func begin(_ agreement: FuseAgreement) { self.agreement = agreement }
    mutating func end() { agreement = nil }
    mutating func tidy() {}
    mutating func becomeServer() {}
    mutating func finish(_ request: inout FuseRequest, result: Int32) -> FileResult { .failed(.inputOutput) }
    mutating func resume(_ request: inout FuseRequest) -> FileResult { .waiting }

    mutating func start(_ call: borrowing FuseCall, _ request: inout FuseRequest) -> FileResult {
        look(at: call, request)
        switch behaviour >> 2 & 7 {
        case 0: return .done
        case 1: return .failed(.noEntry)
        case 2: return answer(128)
        case 3: return .opened(wire_fuse_open_out())
        case 4: return .waiting
        case 5: return answer(4096)
        case 6: return .silent
        default: return .position(7)
        }
    }

    private func answer(_ count: Int) -> FileResult { .bytes(unsafe FuseBytes(base: Self.zeroes, count: count)) }

    /// What is answered: of as many bytes as are asked for, up to 4096.
    nonisolated(unsafe) private static let zeroes: UnsafeRawPointer = {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 16)
        unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
        return UnsafeRawPointer(bytes)
    }()

    private func look(at call: borrowing FuseCall, _ request: borrowing FuseRequest) {
        switch call {
        case .lookUp(let name), .unlink(let name), .removeDirectory(let name), .link(_, let name): check(name)
        case .symlink(let name, let target, let extras):
            check(name)
            unsafe precondition(strlen(target.bytes) == target.count && target.count <= 4095)
            check(extras)
        case .makeNode(let name, _, let extras), .makeDirectory(let name, _, let extras),
            .create(let name, _, let extras):
            check(name)
            check(extras)
        case .temporaryFile(_, let extras): check(extras)
        case .rename(let name, _, let newName, let flags):
            check(name)
            check(newName)
            precondition(flags & ~7 == 0)
        case .batchForget(let nodes, let count): precondition(count * 16 <= nodes.count)
        case .read(let arguments):
            let remaining = request.remaining
            precondition(remaining <= room && remaining <= Int(arguments.size))
            checkVectors(request)
        case .write(let arguments):
            let remaining = request.remaining
            precondition(remaining == Int(arguments.size))
            checkVectors(request)
        case .setAttribute(let name, let value, let arguments):
            unsafe precondition(strlen(name.bytes) == name.count)
            precondition(value.count == Int(arguments.size) && value.count <= 65536)
            touch(value)
        default: break
        }
    }

    private func check(_ name: FuseName) {
        unsafe precondition(name.count > 0 && name.count <= 255 && strlen(name.bytes) == name.count)
        unsafe precondition(strchr(name.bytes, 0x2f) == nil && strcmp(name.bytes, ".") != 0)
        unsafe precondition(strcmp(name.bytes, "..") != 0)
    }

    private func check(_ extras: FuseExtras) {
        if let label = extras.label { touch(label) }
        if let name = extras.labelName { touch(name) }
    }

    /// Reads every byte: the sanitizer sees one that is not there.
    private func touch(_ bytes: FuseBytes) {
        var sum: UInt8 = 0
        for index in 0..<bytes.count { unsafe sum &+= bytes.base.load(fromByteOffset: index, as: UInt8.self) }
        withExtendedLifetime(sum) {}
    }

    private func checkVectors(_ request: borrowing FuseRequest) {
        var total = 0
        for index in 0..<request.vectorCount {
            let vector = unsafe request.vectors[index]
            unsafe precondition(vector.iov_len > 0)
            unsafe total += vector.iov_len
        }
        let remaining = request.remaining
        precondition(total == remaining, "the vectors are not what is left to transfer")
    }
}
