internal import Logging
internal import Platform
internal import VhostUser

// MARK: - Telling the front-end of a change

extension ServedDevice {
    func setBackendChannel(_ fd: consuming OwnedFD, acknowledged: Bool) throws(DeviceRefusal) {
        do throws(Errno) {
            channel = try BackendChannel(fd, acknowledged: acknowledged)
        } catch {
            throw DeviceRefusal("the descriptor for the back-end's requests cannot be used as a socket: \(error)")
        }
    }

    /// The socket of the device's own requests, to watch it for input; -1 when there is none.
    var channelNumber: Int32 {
        switch channel {
        case .some(let channel): channel.number
        case .none: -1
        }
    }

    /// The worker before may have told the front-end of a change whose acknowledgement has not come yet.
    func expectOwedAcknowledgement() {
        guard var used = channel.take() else { return }
        used.mayBeOwed()
        channel = consume used
    }

    /// Tells the front-end to read the configuration, if it is to be told and takes such requests. To be called while
    /// none of its own messages waits: QEMU up to 8 reads the answer to its next message in the middle of another.
    func announce() {
        mustAnnounce = false
        useChannel { (channel) throws(ConnectionEnd) in try channel.announceConfiguration() }
    }

    /// Reads what has come on the socket of the device's own requests.
    func receiveFromChannel() {
        useChannel { (channel) throws(ConnectionEnd) in
            if try !channel.receive() { log.warning("the front-end could not read the configuration") }
        }
    }

    private func useChannel(_ body: (inout BackendChannel) throws(ConnectionEnd) -> Void) {
        guard var used = channel.take() else { return }
        do throws(ConnectionEnd) {
            try body(&used)
            channel = consume used
        } catch {
            log.notice("the back-end's requests have no way to the front-end any more: \(error)")
        }
    }
}
