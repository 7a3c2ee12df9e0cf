internal import Custody

// What a device keeps outside of the supervisor, and what an operator is told when that, or the wall around its
// workers, is less than it should be.

extension DeviceCustody {
    func storeName(_ name: String) -> String { "device/\(configuration.name)/\(name)" }
    static func storeName(_ key: CustodyKey) -> String { "key/\(key.role.rawValue).\(key.index)" }

    /// Keeps a descriptor outside of the supervisor as well.
    ///
    /// - Parameter name: within the device.
    func store(_ number: Int32, as name: String) {
        if site.store.put(number, as: storeName(name)) {
            unkept.remove(name)
            return
        }
        if unkept.isEmpty { note(.weakened, Self.unkeptWarning) }
        unkept.insert(name)
    }

    func unstore(_ name: String) {
        site.store.remove(storeName(name))
        unkept.remove(name)
    }

    /// Names of descriptors that the device has of its own, whatever it does.
    static let ownNames = ["state", "record", "statistics", "listener", "image"]

    /// Lets go of what a supervisor before has stored and not noted before it died: a worker that was not started yet,
    /// a descriptor that the worker gives again.
    func forgetUnknown(_ names: some Sequence<String>) {
        var known = Set(Self.ownNames + WorkerRoom.names + custody.keys.map(Self.storeName))
        for id in machine.workers.map(\.id) { known.formUnion(["worker/\(id)/channel", "worker/\(id)/process"]) }
        for name in names where !known.contains(name) { unstore(name) }
    }

    private static let unkeptWarning =
        "the supervisor alone has descriptors of this device: a restart or the death of it would disconnect the "
        + "front-end. Fewer devices, or devices of fewer queues, make room"

    /// What makes this device less safe than the documents say, as sentences.
    var weaknesses: [String] {
        var found: [String] = []
        if !unkept.isEmpty { found.append(Self.unkeptWarning) }
        if site.sandbox.demand == .auto {
            if room == nil, !links.isEmpty {
                found.append(
                    "workers share the supervisor's user and PID namespaces: others could not be made. "
                        + WorkerRoom.advice + ". --worker-sandbox=full starts no worker without")
            } else if site.sandbox.user != nil, let room, !room.hasOwnUser, configuration.share == nil {
                found.append(WorkerRoom.userWarning)
            }
        }
        return found
    }
}
