internal import Platform
internal import Telemetry

/// Tells when a device begins to wait for room on the host and when it goes on, by the number of requests that wait: a
/// pure function of what was seen.
///
/// Requests that are tried again are not counted for that moment: so that a device goes on counts as true when it has
/// been seen twice.
struct RoomWatch: Hashable {
    /// Between two looks, in nanoseconds.
    static let interval: UInt64 = 1_000_000_000

    private(set) var isWaiting = false
    private var looksWithout = 0

    enum Change: Hashable {
        case waits
        case goesOn
    }

    /// - Parameter held: requests that wait.
    mutating func observe(held: UInt64) -> Change? {
        looksWithout = held > 0 ? 0 : looksWithout + 1
        if held > 0, !isWaiting {
            isWaiting = true
            return .waits
        }
        guard isWaiting, looksWithout >= 2 else { return nil }
        isWaiting = false
        return .goesOn
    }
}

extension DeviceCustody {
    /// Requests of it may wait for room on the host, or it has been told that some do.
    var mustWatchRoom: Bool {
        roomWatch.isWaiting || (configuration.holdsForRoom == true && machine.isConnected)
    }

    func watchRoom() {
        let held = statistics.heldRequests
        switch roomWatch.observe(held: held) {
        case .waits:
            note(
                .outOfRoom,
                "\(held) requests wait because the host has no room for \(configuration.imagePath ?? "the image"):"
                    + " free "
                    + "some where it lies, and they go on by themselves")
        case .goesOn: note(.hasRoom, "no request waits for room on the host any more")
        case nil: break
        }
    }
}

extension CustodyLoop {
    /// - Returns: how many requests wait.
    func retryHeld(_ name: String) throws(SupervisorError) -> UInt64 {
        guard let device = devices[name] else { throw .noSuchDevice(name) }
        let held = device.statistics.heldRequests
        device.statistics.retryHeldRequests()
        return held
    }
}

extension Supervisor {
    /// Has requests that wait for room on the host tried again at once. The reply is how many wait.
    public func retryHeld(_ name: String, reply: @escaping @Sendable (Result<UInt64, SupervisorError>) -> Void) {
        mailbox.post { loop in
            reply(Result { () throws(SupervisorError) in try loop.retryHeld(name) })
        }
    }
}

extension RateLimits {
    /// - Throws: a sentence for the first one that is out of range.
    func validate() throws(SupervisorError) {
        for (value, name) in [(operations, "a limit"), (operationBurst, "a burst")]
        where value != 0 && !Self.operationRange.contains(value) {
            throw .invalid("\(name) of requests is 1 to \(Self.operationRange.upperBound), not \(value)")
        }
        for (value, name) in [(bandwidth, "a limit"), (bandwidthBurst, "a burst")]
        where value != 0 && !Self.byteRange.contains(value) {
            throw .invalid(
                "\(name) of bytes is \(Self.byteRange.lowerBound) to \(Self.byteRange.upperBound), not \(value)")
        }
        if operationBurst > 0, operations == 0 { throw .invalid("a burst of requests needs a limit of requests") }
        if bandwidthBurst > 0, bandwidth == 0 { throw .invalid("a burst of bytes needs a limit of bytes") }
    }
}
