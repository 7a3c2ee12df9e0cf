internal import Custody
internal import Platform

/// The descriptors in custody, as this worker has them: the same that the supervisor and whoever stands by have.
///
/// The thread of the connection owns it.
final class HeldDescriptors {
    /// A descriptor that several may refer to while one owns it.
    final class Held {
        let fd: OwnedFD

        init(_ fd: consuming OwnedFD) { self.fd = fd }
    }

    private var held: [CustodyKey: Held] = [:]

    /// The most descriptors of one device: 509 memory regions, 3 eventfds for each of 256 queues, and a few more.
    private static let maximumCount = 2048

    /// Takes one; one that was held under the key is closed.
    ///
    /// - Returns: false when there is no room.
    func put(_ fd: consuming OwnedFD, under key: CustodyKey) -> Bool {
        guard held[key] != nil || held.count < Self.maximumCount else { return false }
        held[key] = Held(fd)
        return true
    }

    func remove(_ key: CustodyKey) { held[key] = nil }

    func removeAll(_ roles: Set<CustodyRole>) {
        held = held.filter { !roles.contains($0.key.role) }
    }

    var keys: [CustodyKey] { Array(held.keys) }

    /// Another descriptor of the same open file; nil when nothing is held under the key.
    ///
    /// - Throws: when this process may open no more.
    func duplicate(_ key: CustodyKey) throws(Errno) -> OwnedFD? {
        guard let entry = held[key] else { return nil }
        return try entry.fd.duplicate()
    }

    /// A descriptor of the same open file, which is not held here any more; nil when nothing is held under the key.
    ///
    /// - Throws: when this process may open no more.
    func take(_ key: CustodyKey) throws(Errno) -> OwnedFD? {
        guard let fd = try duplicate(key) else { return nil }
        remove(key)
        return fd
    }

    /// The number, for the length of one call.
    func number(_ key: CustodyKey) -> Int32? { held[key]?.fd.number }
}
