internal import CLinux
internal import Glibc

/// An epoll instance: one place to sleep for many descriptors. Each is watched under a token of the caller's choice.
@safe public struct Poller: ~Copyable, @unchecked Sendable {
    private let fd: OwnedFD
    private let events: UnsafeMutableBufferPointer<epoll_event>

    /// - Parameter capacity: how many arrivals one wait can report.
    /// - Throws: epoll_create1's error.
    public init(capacity: Int = 64) throws(Errno) {
        fd = OwnedFD(owning: try retryingInterrupts { epoll_create1(Int32(EPOLL_CLOEXEC)) })
        unsafe events = .allocate(capacity: capacity)
        unsafe events.initialize(repeating: epoll_event())
    }

    /// The epoll descriptor itself.
    public var number: Int32 { fd.number }

    /// Watches `number` for input.
    ///
    /// - Parameter edge: report each arrival once instead of for as long as input is there. An eventfd watched so need
    ///   not be read.
    /// - Throws: epoll_ctl's error.
    public borrowing func watch(_ number: Int32, token: UInt64, edge: Bool = false) throws(Errno) {
        try retryingInterrupts { clinux_epoll_watch(fd.number, number, token, edge ? 1 : 0) }
    }

    /// Stops watching `number`.
    public borrowing func forget(_ number: Int32) {
        _ = epoll_ctl(fd.number, EPOLL_CTL_DEL, number, nil)
    }

    /// Sleeps until something arrives, a signal or the kernel's own work interrupts, or the time is over.
    ///
    /// - Parameter milliseconds: nil waits for ever.
    /// - Returns: how many arrivals there are to ask `token(at:)` for; 0 after a time-out or an interruption.
    public borrowing func wait(milliseconds: Int32? = nil) -> Int {
        max(0, Int(unsafe epoll_wait(fd.number, events.baseAddress, Int32(events.count), milliseconds ?? -1)))
    }

    /// The token of the arrival `index` of the last wait.
    public borrowing func token(at index: Int) -> UInt64 {
        unsafe events[index].data.u64
    }

    deinit {
        unsafe events.deallocate()
    }
}

/// Waits until one descriptor has input (or its other side is gone).
///
/// - Parameter milliseconds: nil waits for ever.
/// - Returns: false when the time was over first.
public func waitForInput(_ number: Int32, milliseconds: Int32? = nil) -> Bool {
    var entry = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    while true {
        let result = unsafe poll(&entry, 1, milliseconds ?? -1)
        if result >= 0 { return result > 0 }
        if Errno.current != .interrupted { return true }
    }
}

/// Waits until one of some descriptors has input (or its other side is gone).
///
/// - Parameter numbers: negative ones are left out.
/// - Parameter waiting: false only looks.
/// - Parameter milliseconds: how long to wait at most; nil: for ever.
/// - Returns: those that have, in the order in which they were given.
public func waitForAny(_ numbers: [Int32], waiting: Bool = true, milliseconds: Int32? = nil) -> [Int32] {
    let limit = waiting ? milliseconds ?? -1 : 0
    var entries = numbers.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    while true {
        let result = unsafe poll(&entries, UInt(entries.count), limit)
        if result > 0 || (result == 0 && limit >= 0) { return entries.filter { $0.revents != 0 }.map(\.fd) }
        precondition(result == 0 || Errno.current == .interrupted, "poll refused our own descriptors")
    }
}

/// Whether the other end of a connection is closed, whatever it has sent that nobody has read.
public func hasHungUp(_ number: Int32) -> Bool {
    // POLLRDHUP, which glibc shows to _GNU_SOURCE alone.
    var entry = pollfd(fd: number, events: 0x2000, revents: 0)
    return unsafe poll(&entry, 1, 0) > 0
}
