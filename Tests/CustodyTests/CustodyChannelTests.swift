import Custody
import Platform
import Testing

/// Messages between a supervisor and a worker, of which either may die at any time.
@Suite struct CustodyChannelTests {
    /// The value of the next message; nil when there is none.
    private func value(_ channel: borrowing CustodyChannel, peeking: Bool = false) throws -> UInt64? {
        switch try channel.receive(peeking: peeking) {
        case .message(let message, fds: _): message.value
        default: nil
        }
    }

    private func isClosed(_ channel: borrowing CustodyChannel) throws -> Bool {
        if case .closed = try channel.receive() { true } else { false }
    }

    /// The kernel says ECONNRESET once, and before what was sent: taken for the end, the message that was peeked at
    /// stayed, and was carried out twice.
    @Test(arguments: [false, true]) func `what a peer has said before it died is heard, and once`(
        diesAfterThePeek: Bool
    ) throws {
        let pair = try CustodyChannel.pair()
        let ours = CustodyChannel(owning: OwnedFD(owning: pair.first))
        var peer: CustodyChannel? = CustodyChannel(owning: OwnedFD(owning: pair.second))
        for value in [1, 2] as [UInt64] { try peer!.send(CustodyMessage(.event, value: value)) }
        // It does not read this any more.
        try ours.send(CustodyMessage(.quit))
        if !diesAfterThePeek { peer = nil }
        #expect(try value(ours, peeking: true) == 1)
        peer = nil
        #expect(try value(ours) == 1)
        #expect(try value(ours, peeking: true) == 2)
        #expect(try value(ours) == 2)
        #expect(try isClosed(ours))
    }
}
