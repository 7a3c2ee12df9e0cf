internal import Platform
internal import VhostUser

// What a front-end asks for besides serving: the dirty log of a migration, and to be told of changes.
extension Frontend {
    /// Switches the dirty log on, as QEMU does while the queues run: the log, then the feature, then every ring. When
    /// this returns, the back-end has taken that up.
    public borrowing func startLogging(_ log: DirtyBitmap) throws(FrontendError) {
        try setDirtyLog(log)
        try tell(.setFeatures(features | VhostFeatures.logAll))
        for queue in endpoints.indices { try announceRing(queue, logged: true) }
        _ = try ask(.getFeatures)
    }

    /// Gives the back-end another log.
    public borrowing func setDirtyLog(_ log: DirtyBitmap) throws(FrontendError) {
        let reply = try ask(
            .setLogBase(LogDescription(size: UInt64(log.count), fileOffset: 0)), fds: [log.file.number])
        guard case .value(0) = reply else {
            throw FrontendError(.setLogBase, .wrongAnswer("\(reply) is no acknowledgement"))
        }
    }

    /// Switches it off again. When this returns, nothing is marked any more.
    public borrowing func stopLogging() throws(FrontendError) {
        try tell(.setFeatures(features))
        for queue in endpoints.indices { try announceRing(queue, logged: false) }
        _ = try ask(.getFeatures)
    }

    private borrowing func announceRing(_ queue: Int, logged: Bool) throws(FrontendError) {
        let endpoint = endpoints[queue]
        var address = Self.address(of: endpoint, queue: queue)
        if logged {
            address.flags = .log
            address.logAddress = endpoint.ring.usedRing
        }
        try tell(.setVringAddress(address))
    }

    /// Gives the back-end a socket for its own requests.
    ///
    /// - Returns: the other end.
    public borrowing func takeBackendRequests() throws(FrontendError) -> BackendRequests {
        let pair = try Self.making { () throws(Errno) in try UnixStreamPair() }
        let requests = try Self.making { () throws(Errno) in
            try BackendRequests(UnixStream(owning: try pair.first.fd.duplicate()))
        }
        try tell(.setBackendRequestFD, fds: [pair.second.fd.number])
        return requests
    }

    private static func making<Value: ~Copyable>(
        _ make: () throws(Errno) -> Value
    ) throws(FrontendError) -> Value {
        do throws(Errno) {
            return try make()
        } catch {
            throw FrontendError(.setBackendRequestFD, .socket(error))
        }
    }
}
