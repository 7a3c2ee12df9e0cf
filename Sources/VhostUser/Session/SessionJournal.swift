internal import Virtio

/// Names a descriptor that a front-end has given, for as long as its session needs it.
public struct JournalSlot: Hashable, Sendable {
    public enum Role: UInt8, Sendable {
        case memory, kick, call, error, dirtyLog, dirtyLogEvent, backendChannel, inflight
    }

    public var role: Role
    /// The queue's index for eventfds; any number for memory; else 0.
    public var index: Int

    public init(_ role: Role, _ index: Int = 0) {
        self.role = role
        self.index = index
    }
}

/// What a front-end has set up, as the messages that would set it up anew. A worker that takes a session over gives
/// them to a fresh `Session`, in order, with the descriptors that were kept: so the state of a session is checked by
/// the same code whoever brings it, and its form is that of the protocol, which all versions of a worker know.
///
/// - Invariant: `messages` brings a session of the same offer to the state in which the last noted message has left it.
public struct SessionJournal: Hashable, Sendable {
    /// A message and the descriptors that it comes with.
    public struct Entry: Hashable, Sendable {
        public var message: FrontendMessage
        public var slots: [JournalSlot]

        public init(_ message: FrontendMessage, _ slots: [JournalSlot] = []) {
            self.message = message
            self.slots = slots
        }
    }

    /// Messages of which the last of its kind counts, for the connection.
    private var general: [RequestKind: Entry] = [:]
    /// The same for each queue.
    private var vrings: [Int: [RequestKind: Entry]] = [:]
    private var regions: [KeptRegion] = []

    private struct KeptRegion: Hashable, Sendable {
        var region: MemoryRegion
        var slot: Int
    }

    public init() {}

    /// The slots under which a message's descriptors are to be kept, in their order, before it is carried out. Memory
    /// gets slots that are not in use: the old ones are needed until the message is noted.
    public func slots(for message: FrontendMessage) -> [JournalSlot] {
        switch message {
        case .setMemoryTable(let table): freeSlots(table.count)
        case .addMemoryRegion: freeSlots(1)
        case .setVringKick(let file): file.hasFD ? [JournalSlot(.kick, Int(file.index))] : []
        case .setVringCall(let file): file.hasFD ? [JournalSlot(.call, Int(file.index))] : []
        case .setVringError(let file): file.hasFD ? [JournalSlot(.error, Int(file.index))] : []
        case .setLogBase: [JournalSlot(.dirtyLog)]
        case .setLogEventFD: [JournalSlot(.dirtyLogEvent)]
        case .setBackendRequestFD: [JournalSlot(.backendChannel)]
        case .setInflightFD: [JournalSlot(.inflight)]
        default: []
        }
    }

    private func freeSlots(_ count: Int) -> [JournalSlot] {
        let used = Set(regions.map(\.slot))
        var free: [JournalSlot] = []
        var index = 0
        while free.count < count {
            if !used.contains(index) { free.append(JournalSlot(.memory, index)) }
            index += 1
        }
        return free
    }

    /// All slots in use.
    public var slots: Set<JournalSlot> {
        var all = Set(regions.map { JournalSlot(.memory, $0.slot) })
        for entry in general.values { all.formUnion(entry.slots) }
        for vring in vrings.values { for entry in vring.values { all.formUnion(entry.slots) } }
        return all
    }

    /// Notes a message that was carried out.
    ///
    /// - Parameters:
    ///   - slots: as `slots(for:)` has given them.
    ///   - base: where the queue has stopped, of a message that stops it.
    public mutating func note(_ message: FrontendMessage, slots: [JournalSlot], base: UInt32? = nil) {
        switch message {
        case .setFeatures, .setProtocolFeatures, .setLogBase, .setLogEventFD, .setBackendRequestFD, .setInflightFD,
            .setConfiguration:
            general[message.kind] = Entry(message, slots)
        case .setMemoryTable(let table):
            regions = zip(table, slots).map { KeptRegion(region: $0, slot: $1.index) }
        case .addMemoryRegion(let region):
            if let slot = slots.first { regions.append(KeptRegion(region: region, slot: slot.index)) }
        case .removeMemoryRegion(let region):
            regions.removeAll {
                $0.region.guestAddress == region.guestAddress && $0.region.size == region.size
                    && $0.region.frontendAddress == region.frontendAddress
            }
        case .setVringSize(let state), .setVringBase(let state), .setVringEnable(let state):
            vrings[Int(state.index), default: [:]][message.kind] = Entry(message)
        case .setVringAddress(let address): vrings[Int(address.index), default: [:]][message.kind] = Entry(message)
        case .setVringKick(let file), .setVringCall(let file), .setVringError(let file):
            vrings[Int(file.index), default: [:]][message.kind] = Entry(message, slots)
        case .getVringBase(let state), .getVringBaseWithoutDraining(let state):
            vrings[Int(state.index), default: [:]][.setVringKick] = nil
            if let base { setBase(base, of: Int(state.index)) }
        case .resetDevice: reset(keepingBases: false)
        case .setStatus(let value):
            if value == 0 { reset(keepingBases: true) }
            general[.setStatus] = value == 0 ? nil : Entry(message)
        default: break
        }
    }

    /// A queue has stopped in passing: where it would go on.
    public mutating func setBase(_ base: UInt32, of queue: Int) {
        let state = VringState(index: UInt32(queue), value: base)
        vrings[queue, default: [:]][.setVringBase] = Entry(.setVringBase(state))
    }

    private mutating func reset(keepingBases: Bool) {
        general[.setFeatures] = nil
        general[.setStatus] = nil
        let bases = vrings.compactMapValues { $0[.setVringBase] }
        vrings = keepingBases ? bases.mapValues { [.setVringBase: $0] } : [:]
    }

    /// The messages that set everything up anew; queues start with the last ones.
    public var messages: [Entry] {
        // The dirty log before memory: memory that came after a migration was given up may be more than it covers.
        let first: [RequestKind] = [.setProtocolFeatures, .setBackendRequestFD, .setLogBase, .setLogEventFD]
        var all = first.compactMap { general[$0] }
        // One table has at most 8 regions; a front-end that has more has taken the feature that adds them one by one.
        let table = regions.prefix(FrontendMessage.maximumTableRegions)
        if !table.isEmpty {
            all.append(
                Entry(.setMemoryTable(table.map(\.region)), table.map { JournalSlot(.memory, $0.slot) }))
        }
        for kept in regions.dropFirst(FrontendMessage.maximumTableRegions) {
            all.append(Entry(.addMemoryRegion(kept.region), [JournalSlot(.memory, kept.slot)]))
        }
        let rest: [RequestKind] = [
            .setFeatures, .setStatus, .setConfiguration, .setInflightFD,
        ]
        all += rest.compactMap { general[$0] }
        let order: [RequestKind] = [
            .setVringSize, .setVringBase, .setVringAddress, .setVringError, .setVringCall, .setVringEnable,
            .setVringKick,
        ]
        for (_, vring) in vrings.sorted(by: { $0.key < $1.key }) { all += order.compactMap { vring[$0] } }
        return all
    }
}
