internal import Custody
internal import Platform
internal import VhostUser

/// A session brought to where the worker that has the device has left it, by the messages that it has committed.
struct Replay {
    /// Which commit it is.
    let commit: UInt64
    let session: Session
    let journal: SessionJournal
    /// The message that was being answered.
    let exchange: ControlState.Exchange?

    /// - Parameter device: as nobody has set it up; it is standing by, or has no queue to start.
    /// - Throws: why the record is not believed.
    init(_ takeOver: TakeOver, on device: ServedDevice) throws {
        commit = takeOver.record.commitCount
        let state = try ControlState(decoding: try takeOver.record.committed())
        var session = Session(offer: DeviceOffer(of: device))
        var journal = SessionJournal()
        for entry in state.journal {
            var fds = ReceivedFDs()
            for slot in entry.slots {
                guard let fd = try takeOver.link.descriptors.duplicate(slot.key) else {
                    throw ControlStateError("needs the \(slot.key), which is not in custody")
                }
                fds.append(fd)
            }
            var step = session.receive(entry.message, needsReply: false)
            while case .call(let call) = step { step = session.resume(call.perform(on: device, fds: &fds)) }
            if case .close(let refusal) = step { throw ControlStateError("is refused: \(refusal)") }
            journal.note(entry.message, slots: entry.slots)
        }
        self.session = session
        self.journal = journal
        exchange = state.exchange
    }
}
