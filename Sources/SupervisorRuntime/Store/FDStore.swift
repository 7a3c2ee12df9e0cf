internal import Custody
internal import Glibc
public import Platform

/// Where the supervisor keeps a duplicate of every descriptor that it has in custody, so that its successor finds them:
/// outside of its own process. Names are at most 255 ASCII characters; storing one again replaces what was there.
///
/// A store is used by one thread.
public protocol FDStore: AnyObject {
    /// What a supervisor before has left here.
    func takeAll() throws(SystemError) -> [StoredFD]
    /// - Returns: false when it has no room: the descriptor will be lost with the supervisor.
    @discardableResult
    func put(_ number: Int32, as name: String) -> Bool
    func remove(_ name: String)
    /// Returns when what was removed is closed, as far as the store is concerned: locks and listening sockets with it.
    func synchronize()
}

/// A descriptor that was found in a store.
public final class StoredFD: Sendable {
    public let name: String
    public let fd: OwnedFD

    public init(name: String, fd: consuming OwnedFD) {
        self.name = name
        self.fd = fd
    }
}

/// A store in a small process of its own, for machines without systemd and for tests. It does nothing but hold.
///
/// Messages on its channel: `give` and `drop` with the name as text; `prepare` asks for everything, answered by a
/// `give` for each and a `kept`; `freeze` is answered by `frozen`, so that one knows how far it is. A message that the
/// supervisor has sent is in the keeper's hands, whatever becomes of the supervisor: the kernel holds the descriptors
/// that are under way.
public final class KeeperStore: FDStore {
    private let path: String
    private let start: (borrowing OwnedFD) throws(SystemError) -> Void
    private var channel: CustodyChannel?
    private var held: [String: SharedFD] = [:]

    /// How long the keeper may take to answer, in milliseconds.
    private static let patience: Int32 = 10_000
    /// Descriptors that one keeper holds at most.
    static let capacity = 1 << 20

    /// - Parameters:
    ///   - path: of the socket where the keeper listens.
    ///   - start: starts a keeper that serves an inherited listening socket (`DescriptorKeeper`).
    /// - Throws: when there is none and none can be started.
    public init(
        path: String, start: @escaping (borrowing OwnedFD) throws(SystemError) -> Void
    ) throws(SystemError) {
        self.path = path
        self.start = start
        channel = try Self.connect(path, start)
    }

    private static func connect(
        _ path: String, _ start: (borrowing OwnedFD) throws(SystemError) -> Void
    ) throws(SystemError) -> CustodyChannel {
        do {
            if let stream = try greet(path) { return try open(stream) }
            let listener = try UnixListener(at: path, access: SocketAccess(mode: 0o600))
            try start(listener.fd)
            // It waits in the listener's queue until the keeper runs.
            if let stream = try greet(path) { return try open(stream) }
            throw Errno.connectionRefused
        } catch let error as SystemError {
            throw error
        } catch {
            throw SystemError(cannot: "reach the keeper of descriptors at", path, error as? Errno)
        }
    }

    /// Connects; nil when there is no keeper.
    private static func greet(_ path: String) throws(Errno) -> UnixStream? {
        do throws(Errno) {
            return try UnixStream(connectingTo: path, milliseconds: patience)
        } catch {
            guard error == .noEntry || error == .connectionRefused else { throw error }
            return nil
        }
    }

    /// Hands the keeper its end of a channel that keeps messages apart.
    private static func open(_ stream: borrowing UnixStream) throws(Errno) -> CustodyChannel {
        let pair = try CustodyChannel.pair()
        let theirs = OwnedFD(owning: pair.second)
        let channel = CustodyChannel(owning: OwnedFD(owning: pair.first))
        let byte: UInt8 = 1
        try unsafe withUnsafeBytes(of: byte) { raw throws(Errno) in
            try unsafe stream.send(raw, fds: [theirs.number])
        }
        return channel
    }

    public func takeAll() throws(SystemError) -> [StoredFD] {
        var found: [StoredFD] = []
        do throws(Errno) {
            try channel?.send(CustodyMessage(.prepare))
            while let number = channel?.fd.number, waitForInput(number, milliseconds: Self.patience) {
                switch try channel?.receive() ?? .closed {
                case .nothing: continue
                case .unreadable: continue
                case .closed: throw .brokenPipe
                case .message(let message, var fds):
                    if message.kind == .kept { return found }
                    guard message.kind == .give, let fd = fds.takeFirst() else { continue }
                    held[message.text] = SharedFD(try fd.duplicate())
                    found.append(StoredFD(name: message.text, fd: fd))
                }
            }
            throw .timedOut
        } catch {
            throw SystemError(cannot: "learn what is kept at", path, error)
        }
    }

    public func put(_ number: Int32, as name: String) -> Bool {
        guard held.count < Self.capacity || held[name] != nil,
            let copy = try? retryingInterrupts({ fcntl(number, F_DUPFD_CLOEXEC, 3) })
        else { return false }
        held[name] = SharedFD(OwnedFD(owning: copy))
        tell(CustodyMessage(.give, text: name), number)
        return true
    }

    public func remove(_ name: String) {
        guard held.removeValue(forKey: name) != nil else { return }
        tell(CustodyMessage(.drop, text: name), nil)
    }

    public func synchronize() {
        tell(CustodyMessage(.freeze), nil)
        while let number = channel?.fd.number, waitForInput(number, milliseconds: Self.patience) {
            switch try? channel?.receive() {
            case .message(let message, fds: _): if message.kind == .frozen { return }
            case .nothing: continue
            default: return
            }
        }
    }

    private func tell(_ message: CustodyMessage, _ number: Int32?) {
        do throws(Errno) {
            try channel?.send(message, with: number)
        } catch {
            revive()
        }
    }

    /// A keeper that has died is replaced, and gets everything anew.
    private func revive() {
        do throws(SystemError) {
            channel = try Self.connect(path, start)
        } catch {
            return
        }
        for (name, file) in held { try? channel?.send(CustodyMessage(.give, text: name), with: file.number) }
    }
}

/// What runs in the keeper's process.
public struct DescriptorKeeper: ~Copyable {
    private let listener: UnixListener
    private var channel: CustodyChannel?
    private var held: [String: SharedFD] = [:]

    /// - Parameter listener: where supervisors connect.
    public init(_ listener: consuming UnixListener) {
        self.listener = listener
    }

    /// Holds descriptors for one supervisor after the other, until it holds none and nobody is connected.
    public mutating func run() {
        while true {
            guard let number = channel?.fd.number else {
                greet()
                continue
            }
            if waitForAny([number, listener.fd.number]).contains(listener.fd.number) {
                // What the supervisor before has said comes first.
                while serve() == .carriedOut {}
                greet()
            } else if serve() == .gone {
                channel = nil
                if held.isEmpty { return }
            }
        }
    }

    /// The newest supervisor is the one that counts.
    private mutating func greet() {
        guard let stream = try? listener.accept(), waitForInput(stream.fd.number, milliseconds: 1_000) else { return }
        var byte: [UInt8] = [0]
        let received = try? unsafe byte.withUnsafeMutableBytes { bytes throws(Errno) -> Int32? in
            var received = try unsafe stream.receive(into: bytes)
            var fds = received.takeFDs()
            return fds.takeFirst()?.release()
        }
        guard let end = received ?? nil else { return }
        channel = CustodyChannel(owning: OwnedFD(owning: end))
    }

    private enum Turn { case carriedOut, nothing, gone }

    /// Carries out one message.
    private mutating func serve() -> Turn {
        do throws(Errno) {
            switch try channel?.receive() ?? .closed {
            case .nothing: return .nothing
            case .unreadable: return .carriedOut
            case .closed: return .gone
            case .message(let message, var fds):
                switch message.kind {
                case .give:
                    if held.count < KeeperStore.capacity, let fd = fds.takeFirst() { held[message.text] = SharedFD(fd) }
                case .drop: held[message.text] = nil
                case .freeze: try channel?.send(CustodyMessage(.frozen))
                case .prepare:
                    for (name, file) in held {
                        try channel?.send(CustodyMessage(.give, text: name), with: file.number)
                    }
                    try channel?.send(CustodyMessage(.kept))
                default: break
                }
                return .carriedOut
            }
        } catch {
            return .gone
        }
    }
}
