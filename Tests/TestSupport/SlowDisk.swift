internal import CWire
internal import Glibc
public import Platform
internal import Synchronization

/// A disk each of whose requests takes the same long time, as many as there are at once, or until it is told: a FUSE
/// file system of one file, whose transfers are answered late, under a loop device that bypasses the page cache. A
/// control group's throttle limits a rate, in ticks of its own; this is as exact as a thread's wake-up.
public final class SlowDisk: Sendable {
    /// What takes its time.
    public enum Request: Sendable, CaseIterable { case transfer, flush }

    /// The block device.
    public var path: String { loop.path }

    private let file: SlowFile
    private let mountPoint: String
    private let loop: LoopDevice

    /// - Parameters:
    ///   - bytes: its size, zeros at first.
    ///   - latency: of a read, a write and a flush, in nanoseconds.
    /// - Throws: what is needed and is not there. It needs root.
    public init(bytes: Int, latency: UInt64 = 0, in directory: borrowing TemporaryDirectory) throws {
        let mountPoint = directory.file("slow-file")
        try TestFile.create(mountPoint, count: 0)
        let number = unsafe open("/dev/fuse", O_RDWR | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "open", "/dev/fuse", .current) }
        let file = try SlowFile(device: OwnedFD(owning: number), bytes: bytes, latency: latency)
        let options = "fd=\(number),rootmode=100600,user_id=0,group_id=0,allow_other"
        let isMounted = unsafe options.withCString { options in
            unsafe mount("baton-chaos", mountPoint, "fuse", UInt(MS_NOSUID | MS_NODEV), options) == 0
        }
        guard isMounted else { throw SystemError(cannot: "mount", mountPoint, .current, advice: "This needs root") }
        self.mountPoint = mountPoint
        self.file = file
        // They end with the file system, which ends with the loop device.
        try JoinableThread(name: "slow-receive") { file.receive() }.detach()
        try JoinableThread(name: "slow-answer") { file.answer() }.detach()
        loop = try LoopDevice(mountPoint, bypassingCache: true, in: directory)
    }

    /// Answers none of these any more until they are released.
    public func hold(_ requests: Request...) { for request in requests { file.hold(request) } }

    /// Answers those that are held, and all that come.
    public func release(_ request: Request) { file.release(request) }

    /// Answers those that are held, and holds what comes.
    public func answerHeld(_ request: Request) { file.answerHeld(request) }

    /// How many are held.
    public func heldCount(_ request: Request) -> Int { file.heldCount(request) }

    /// Waits until so many are held.
    public func waitForHeld(_ request: Request, _ count: Int = 1) throws(SystemError) {
        let end = monotonicNanoseconds() + 60_000_000_000
        while heldCount(request) < count {
            guard monotonicNanoseconds() < end else {
                throw SystemError(cannot: "see", "\(count) of \(request) come to the disk", nil)
            }
            pause(milliseconds: 1)
        }
    }

    /// Its file is an ordinary one again, so that its folder can be removed.
    public func end() {
        for request in Request.allCases { release(request) }
        unsafe umount2(mountPoint, Int32(MNT_DETACH))
    }
}

/// The file: requests of the kernel come in, answers go out, those of transfers late.
private final class SlowFile: Sendable {
    private struct Answer {
        var due: UInt64
        var bytes: [UInt8]
    }

    private struct State {
        var waiting: [Answer] = []
        var held: [SlowDisk.Request: [[UInt8]]] = [:]
        var isOver = false
    }

    private let device: OwnedFD
    private let content: Mapping
    private let latency: UInt64
    private let state = Mutex(State())
    private let news: OwnedFD

    /// Of one request, in bytes.
    private static let transferLimit = 1 << 20

    init(device: consuming OwnedFD, bytes: Int, latency: UInt64) throws(Errno) {
        self.device = device
        content = try Mapping(anonymous: bytes)
        self.latency = latency
        news = try makeBlockingEvent()
    }

    /// Takes requests until the file system is unmounted.
    func receive() {
        takeShortTurns()
        var buffer = [UInt8](repeating: 0, count: Self.transferLimit + 4096)
        while true {
            let count = unsafe read(device.number, &buffer, buffer.count)
            if count < 0, [.interrupted, Errno(rawValue: ENOENT)].contains(Errno.current) { continue }
            guard count >= MemoryLayout<wire_fuse_in_header>.size else { break }
            unsafe buffer.withUnsafeBytes { bytes in unsafe handle(UnsafeRawBufferPointer(rebasing: bytes[..<count])) }
        }
        state.withLock { $0.isOver = true }
        signalEvent(news.number)
    }

    /// Gives answers when they are due.
    func answer() {
        // A disk waits for no CPU.
        takeShortTurns()
        while true {
            let (next, isOver) = state.withLock { state in
                (state.waiting.isEmpty ? nil : state.waiting.removeFirst(), state.isOver)
            }
            guard let next else {
                if isOver { return }
                waitForEvent(news.number)
                continue
            }
            let now = monotonicNanoseconds()
            if next.due > now { usleep(UInt32((next.due - now) / 1000)) }
            send(next.bytes)
        }
    }

    func hold(_ request: SlowDisk.Request) { state.withLock { $0.held[request] = $0.held[request] ?? [] } }

    func release(_ request: SlowDisk.Request) {
        state.withLock { state in
            let answers = state.held.removeValue(forKey: request) ?? []
            state.waiting += answers.map { Answer(due: 0, bytes: $0) }
        }
        signalEvent(news.number)
    }

    func answerHeld(_ request: SlowDisk.Request) {
        state.withLock { state in
            let answers = state.held.updateValue([], forKey: request) ?? []
            state.waiting += answers.map { Answer(due: 0, bytes: $0) }
        }
        signalEvent(news.number)
    }

    func heldCount(_ request: SlowDisk.Request) -> Int { state.withLock { $0.held[request]?.count ?? 0 } }

    private func handle(_ request: UnsafeRawBufferPointer) {
        let header = unsafe request.loadUnaligned(as: wire_fuse_in_header.self)
        let arguments = unsafe UnsafeRawBufferPointer(
            rebasing: request.dropFirst(MemoryLayout<wire_fuse_in_header>.size))
        switch Int(header.opcode) {
        case WIRE_FUSE_INIT:
            let offer = unsafe arguments.loadUnaligned(as: wire_fuse_init_in.self)
            reply(to: header, with: Self.agreement(offer))
        case WIRE_FUSE_GETATTR, WIRE_FUSE_SETATTR: reply(to: header, with: attributes)
        case WIRE_FUSE_OPEN:
            var opened = wire_fuse_open_out()
            opened.open_flags = 1 << WIRE_FUSE_FOPEN_DIRECT_IO_BIT | 1 << WIRE_FUSE_FOPEN_PARALLEL_DIRECT_WRITES_BIT
            reply(to: header, with: opened)
        case WIRE_FUSE_READ:
            let range = unsafe arguments.loadUnaligned(as: wire_fuse_read_in.self)
            let (first, count) = inside(range.offset, range.size)
            let bytes = unsafe UnsafeRawBufferPointer(start: content.base + first, count: count)
            later(.transfer, Self.message(header.unique, error: 0, unsafe Array(bytes)))
        case WIRE_FUSE_WRITE:
            let range = unsafe arguments.loadUnaligned(as: wire_fuse_write_in.self)
            let (first, count) = inside(range.offset, range.size)
            let data = unsafe arguments.dropFirst(MemoryLayout<wire_fuse_write_in>.size).prefix(count)
            unsafe UnsafeMutableRawBufferPointer(start: content.base + first, count: count)
                .copyBytes(from: data)
            var written = wire_fuse_write_out()
            written.size = UInt32(count)
            later(.transfer, Self.message(header.unique, error: 0, Self.bytes(of: written)))
        case WIRE_FUSE_FSYNC: later(.flush, Self.message(header.unique, error: 0, []))
        case WIRE_FUSE_RELEASE, WIRE_FUSE_FLUSH, WIRE_FUSE_DESTROY:
            send(Self.message(header.unique, error: 0, []))
        case WIRE_FUSE_FORGET, WIRE_FUSE_BATCH_FORGET, WIRE_FUSE_INTERRUPT: break
        default: send(Self.message(header.unique, error: -ENOSYS, []))
        }
    }

    private static func agreement(_ offer: wire_fuse_init_in) -> wire_fuse_init_out {
        var agreement = wire_fuse_init_out()
        agreement.major = UInt32(WIRE_FUSE_KERNEL_VERSION)
        agreement.minor = min(offer.minor, UInt32(WIRE_FUSE_KERNEL_MINOR_VERSION))
        // Without the first, one transfer at a time; so many of them wait at once.
        agreement.flags = offer.flags & (1 << WIRE_FUSE_ASYNC_DIO_BIT)
        agreement.max_background = 1024
        agreement.congestion_threshold = 1024
        agreement.max_write = UInt32(transferLimit)
        return agreement
    }

    private var attributes: wire_fuse_attr_out {
        var answer = wire_fuse_attr_out()
        answer.attr_valid = 3600
        answer.attr.ino = 1
        answer.attr.size = UInt64(content.count)
        answer.attr.mode = UInt32(S_IFREG) | 0o600
        answer.attr.nlink = 1
        answer.attr.blksize = 4096
        return answer
    }

    private func inside(_ offset: UInt64, _ size: UInt32) -> (first: Int, count: Int) {
        let first = Int(min(offset, UInt64(content.count)))
        return (first, min(Int(size), content.count - first))
    }

    private func reply<Body: BitwiseCopyable>(to header: wire_fuse_in_header, with body: Body) {
        send(Self.message(header.unique, error: 0, Self.bytes(of: body)))
    }

    private static func message(_ unique: UInt64, error: Int32, _ body: [UInt8]) -> [UInt8] {
        var header = wire_fuse_out_header()
        header.len = UInt32(MemoryLayout<wire_fuse_out_header>.size + body.count)
        header.error = error
        header.unique = unique
        return bytes(of: header) + body
    }

    private static func bytes<Value: BitwiseCopyable>(of value: Value) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }

    private func later(_ request: SlowDisk.Request, _ message: [UInt8]) {
        state.withLock { state in
            if state.held[request] != nil {
                state.held[request]?.append(message)
            } else {
                state.waiting.append(Answer(due: monotonicNanoseconds() + latency, bytes: message))
            }
        }
        signalEvent(news.number)
    }

    /// What the kernel does not want any more it refuses: nobody waits for that.
    private func send(_ message: [UInt8]) { _ = unsafe write(device.number, message, message.count) }
}
