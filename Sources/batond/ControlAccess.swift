internal import Glibc
internal import NIOCore

/// Who may use the control socket: its mode says who may connect and look, this who may change things.
struct ControlAccess: Sendable {
    /// Permission bits of the socket.
    var mode: UInt32
    /// Its members may change things, besides root and the supervisor's own user; nil: nobody else.
    var group: UInt32?
    var groupName: String?

    /// SO_PEERCRED's struct ucred.
    private struct Credentials {
        var pid: Int32 = 0
        var user: UInt32 = .max
        var group: UInt32 = .max
    }

    /// Groups of a caller that are looked at; whoever is in more may change nothing through them.
    private typealias Groups = InlineArray<256, UInt32>

    /// Asks the kernel who is at the other end. To be called on the channel's own loop.
    ///
    /// - Returns: why it may change nothing, as a sentence; nil when it may.
    func refusal(of channel: any Channel) -> String? {
        guard let caller = option(SO_PEERCRED, of: channel, as: Credentials.self) else {
            return "the system does not say who asks"
        }
        if caller.user == 0 || caller.user == geteuid() { return nil }
        guard let group else { return "only root may do this, not user \(caller.user): see batond --control-group" }
        if caller.group == group { return nil }
        // What the kernel leaves unwritten is 0: the group of root cannot be had in this way.
        if group != 0, let others = option(SO_PEERGROUPS, of: channel, as: Groups.self) {
            for index in others.indices where others[index] == group { return nil }
        }
        return "only root and members of the group \(groupName ?? "\(group)") may do this, not user \(caller.user)"
    }

    private func option<Value: Sendable>(_ number: Int32, of channel: any Channel, as type: Value.Type) -> Value? {
        guard let provider = channel as? any SocketOptionProvider else { return nil }
        let option = NIOBSDSocket.Option(rawValue: number)
        let future: EventLoopFuture<Value> = provider.unsafeGetSocketOption(level: .socket, name: option)
        // On the channel's own loop the answer is there at once; where it is not, there is none.
        var found: Value?
        future.assumeIsolated().whenSuccess { found = $0 }
        return found
    }
}
