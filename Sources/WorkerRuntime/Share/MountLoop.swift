internal import CLinux
internal import FileTarget
internal import Glibc
internal import Platform
internal import Uring
internal import Virtio

/// What serves a mount of the host: the same server as for a guest, which takes its requests from /dev/fuse.
///
/// The kernel writes a request into a buffer of a slot, and the answer is written from another.
struct MountLoop: ~Copyable {
    private var server: FuseServer<Passthrough, Ring>
    private let session: ShareSession
    private let device: OwnedFD
    private let slots: FuseSlots
    private let buffers: Mapping
    private let poller: Poller
    private var free: [UInt16]
    private var stalled: [UInt16] = []
    private var waiting: [UInt16] = []
    private var seenReleases: UInt64 = 0

    /// Requests under way at once: as many as the kernel sends to the background, and some more.
    private static let slotCount = 32
    /// How often those that wait for a lock of the host try again, in milliseconds.
    private static let retryMilliseconds: Int32 = 10

    /// - Parameters:
    ///   - device: /dev/fuse, mounted; does not block.
    ///   - signals: a descriptor whose input ends it.
    /// - Throws: when there is no memory.
    init(_ session: ShareSession, engine: consuming Ring, device: consuming OwnedFD, signals: Int32) throws(Errno) {
        let slots = try FuseSlots(count: Self.slotCount)
        let buffers = try Mapping(anonymous: Self.slotCount * Self.stride)
        let poller = try Poller()
        try poller.watch(signals, token: 1)
        if let number = engine.pollDescriptor { try poller.watch(number, token: 2, edge: true) }
        let files = try Passthrough(session, writesAtOnce: true)
        let server = try FuseServer(session.description, files, engine: engine)
        self.slots = slots
        self.buffers = buffers
        self.poller = poller
        self.server = server
        self.session = session
        self.device = device
        free = (0..<UInt16(Self.slotCount)).reversed()
        stalled.reserveCapacity(Self.slotCount)
        waiting.reserveCapacity(Self.slotCount)
    }

    private static var stride: Int { (FuseRequest.requestBytes + FuseRequest.answerBytes + 8191) & ~4095 }

    private func request(_ slot: UInt16) -> UnsafeMutableRawPointer { unsafe buffers.base + Int(slot) * Self.stride }
    private func answer(_ slot: UInt16) -> UnsafeMutableRawPointer {
        unsafe request(slot) + ((FuseRequest.requestBytes + 4095) & ~4095)
    }

    /// Waits for requests from now on: once the device is mounted, for the kernel tells nobody who has asked before.
    func watch() throws(Errno) { try poller.watch(device.number, token: 0) }

    /// Serves until it is unmounted or a signal comes.
    mutating func run() {
        while true {
            var worked = false
            taking: for _ in 0..<Self.slotCount where !free.isEmpty {
                switch take() {
                case .request: worked = true
                case .none: break taking
                case .unmounted: return
                }
            }
            if goOn() { worked = true }
            if worked { continue }
            server.tidy()
            let mustRetry = !waiting.isEmpty || !stalled.isEmpty || server.queuedCount > 0
            let count = poller.wait(milliseconds: mustRetry ? Self.retryMilliseconds : nil)
            for index in 0..<count where poller.token(at: index) == 1 { return }
        }
    }

    private enum Taken {
        case request, none, unmounted
    }

    /// Takes one request, and starts it.
    private mutating func take() -> Taken {
        guard let slot = free.last else { return .none }
        let buffer = unsafe request(slot)
        let count = unsafe read(device.number, buffer, FuseRequest.requestBytes)
        if count < 0 {
            let error = Errno.current
            // ENOENT: what was to be read has been taken back.
            return error == Errno(rawValue: ENODEV) ? .unmounted : .none
        }
        free.removeLast()
        let answer = unsafe self.answer(slot)
        let step = slots.with(Int(slot)) { request in
            request.isActive = true
            request.token =
                RequestToken(
                    sequence: RequestToken(rawValue: request.token).sequence, queue: 0, head: slot
                ).rawValue
            var segments = request.emptySegments
            unsafe segments.storage[0] = unsafe iovec(iov_base: buffer, iov_len: count)
            unsafe segments.storage[1] = unsafe iovec(iov_base: answer, iov_len: FuseRequest.answerBytes)
            (segments.readableCount, segments.readableBytes) = (1, UInt64(count))
            (segments.writableCount, segments.writableBytes) = (1, UInt64(FuseRequest.answerBytes))
            return server.begin(&request, segments)
        }
        carryOut(step, slot)
        return .request
    }

    /// Goes on with what is under way.
    ///
    /// - Returns: whether there was anything to do.
    private mutating func goOn() -> Bool {
        var worked = false
        if server.queuedCount > 0 { server.submit() }
        server.runDeferredWork()
        while let completion = server.nextCompletion() {
            worked = true
            let token = RequestToken(rawValue: completion.token)
            guard Int(token.head) < Self.slotCount else { continue }
            let step: FuseStep? = slots.with(Int(token.head)) { request in
                guard request.isActive, request.token == completion.token else { return nil }
                return server.finish(&request, result: completion.result)
            }
            if let step { carryOut(step, token.head) }
        }
        server.releaseCompletions()
        if !stalled.isEmpty {
            let heads = stalled
            stalled.removeAll(keepingCapacity: true)
            for slot in heads { resume(slot) }
        }
        if !waiting.isEmpty {
            let heads = waiting
            waiting.removeAll(keepingCapacity: true)
            for slot in heads { resume(slot) }
            let releases = session.lockReleases
            if releases != seenReleases { worked = true }
            seenReleases = releases
        }
        return worked
    }

    private mutating func resume(_ slot: UInt16) {
        let step = slots.with(Int(slot)) { server.resume(&$0) }
        carryOut(step, slot)
    }

    private mutating func carryOut(_ step: FuseStep, _ slot: UInt16) {
        switch step {
        case .done(let written):
            // ENOENT: whoever asked has been interrupted, and waits no more. Nothing else can be done about an error.
            if written > 0 { _ = unsafe write(device.number, answer(slot), Int(written)) }
            slots.with(Int(slot)) { $0.isActive = false }
            free.append(slot)
        case .pending: break
        case .stalled: stalled.append(slot)
        case .waiting: waiting.append(slot)
        }
    }
}
