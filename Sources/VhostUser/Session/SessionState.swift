internal import CWire
internal import Virtio

/// What the front-end has said so far. Pure: a message is applied to it or refused.
///
/// Messages may come in any order. A vring is served when `missing(queue:)` is empty, whichever message came last.
struct SessionState: Hashable, Sendable {
    let offer: DeviceOffer
    /// The virtio feature word that was taken, with the bits of vhost; nil before SET_FEATURES.
    var features: UInt64?
    var protocolFeatures: ProtocolFeatures = []
    var memory: MemoryTable
    var vrings: [Vring]
    /// The dirty log's place; nil before SET_LOG_BASE.
    var dirtyLog: LogDescription?
    /// The virtio device status, as the front-end wrote it and as it is told.
    var status: UInt8 = 0

    init(offer: DeviceOffer) {
        self.offer = offer
        memory = MemoryTable(maximumCount: offer.maximumMemoryRegions)
        vrings = [Vring](repeating: Vring(), count: offer.queueCount)
    }

    /// The virtio features that GET_FEATURES answers.
    var offeredFeatures: UInt64 { offer.features | VhostFeatures.all }

    /// Takes a message up.
    ///
    /// - Throws: why the message is refused; nothing has changed then.
    mutating func apply(_ message: FrontendMessage) throws(RequestRefusal) {
        do throws(RequestRefusal.Reason) {
            try require(Self.feature(of: message.kind))
            try applyChecked(message)
        } catch {
            throw RequestRefusal(message.kind, error)
        }
    }

    private mutating func applyChecked(_ message: FrontendMessage) throws(RequestRefusal.Reason) {
        switch message {
        case .getFeatures, .getProtocolFeatures, .getQueueCount, .getMaximumMemorySlots, .getConfiguration, .getStatus,
            .setLogEventFD, .setBackendRequestFD:
            break
        // Ownership means nothing on a connection that has one peer. The specification calls RESET_OWNER deprecated and
        // wants it ignored: some front-ends send it with rings that they go on using.
        case .setOwner, .resetOwner: break
        case .setFeatures(let word): try setFeatures(word)
        case .setProtocolFeatures(let features): try setProtocolFeatures(features)
        case .setConfiguration(let access):
            guard access.isInside else { throw .outsideConfiguration(access.offset, count: access.bytes.count) }
        case .setMemoryTable(let regions): try memory.replace(with: regions)
        case .addMemoryRegion(let region): try memory.add(region)
        case .removeMemoryRegion(let region): try memory.remove(region)
        case .setVringSize(let state): try setSize(state)
        case .setVringAddress(let address): try setAddress(address)
        case .setVringBase(let state): try setBase(state)
        case .getVringBase(let state), .getVringBaseWithoutDraining(let state):
            vrings[try queue(state.index)].hasKick = false
        case .setVringKick(let file): vrings[try queue(UInt32(file.index))].hasKick = true
        case .setVringCall(let file), .setVringError(let file): _ = try queue(UInt32(file.index))
        case .setVringEnable(let state): try setEnable(state)
        case .resetDevice: resetDevice()
        case .getInflightFD(let inflight), .setInflightFD(let inflight): try checkInflight(inflight)
        case .setLogBase(let log): try setDirtyLog(log)
        case .setStatus(let word): try setStatus(word)
        case .other: throw .unsupported
        }
    }

    /// The protocol feature without which a message is not expected.
    ///
    /// SET_VRING_ENABLE is not among them: SPDK's initiator sends it first of all, so it is remembered whenever it
    /// comes.
    private static func feature(of kind: RequestKind) -> ProtocolFeatures {
        switch kind {
        case .getQueueCount: .mq
        case .getConfiguration, .setConfiguration: .configuration
        case .getMaximumMemorySlots, .addMemoryRegion, .removeMemoryRegion: .memorySlots
        case .getInflightFD, .setInflightFD: .inflight
        case .resetDevice: .resetDevice
        case .setLogBase: .logSharedMemory
        case .setBackendRequestFD: .backendRequests
        case .setStatus, .getStatus: .status
        case .getVringBaseWithoutDraining: .skipDrain
        default: []
        }
    }

    private func require(_ feature: ProtocolFeatures) throws(RequestRefusal.Reason) {
        guard protocolFeatures.isSuperset(of: feature) else { throw .featureNotTaken(feature) }
    }

    /// The place of a vring that a peer names.
    func queue(_ index: UInt32) throws(RequestRefusal.Reason) -> Int {
        guard index < UInt32(vrings.count) else { throw .noSuchVring(index, count: vrings.count) }
        return Int(index)
    }

    private mutating func setFeatures(_ word: UInt64) throws(RequestRefusal.Reason) {
        let excess = word & ~offeredFeatures
        guard excess == 0 else { throw .featuresNotOffered(excess) }
        // What was said of a ring of one kind says nothing of one of the other.
        let wasPacked = features.map { $0 & RingLayout.packedFeature != 0 }
        features = word
        guard let wasPacked, wasPacked != isPacked else { return }
        for index in vrings.indices { vrings[index].base = nil }
    }

    private mutating func setProtocolFeatures(_ features: ProtocolFeatures) throws(RequestRefusal.Reason) {
        let excess = features.subtracting(offer.protocolFeatures)
        guard excess.isEmpty else { throw .protocolFeaturesNotOffered(excess) }
        protocolFeatures = features
    }

    /// The queue size is the most that the front-end will use: it may be more than the device takes.
    private func checkInflight(_ inflight: InflightDescription) throws(RequestRefusal.Reason) {
        let (queues, size) = (Int(inflight.queueCount), Int(inflight.queueSize))
        guard (1...vrings.count).contains(queues), (1...32768).contains(size) else {
            throw .wrongInflight(queues: queues, size: size, maximum: vrings.count)
        }
    }

    private mutating func setSize(_ state: VringState) throws(RequestRefusal.Reason) {
        let queue = try queue(state.index)
        guard state.value >= 1, state.value <= UInt32(offer.maximumQueueSize) else {
            throw .wrongVringSize(state.value, maximum: offer.maximumQueueSize)
        }
        vrings[queue].size = Int(state.value)
    }

    /// Virtio 2.7: the descriptor table is aligned to 16 bytes, the available ring to 2, the used ring to 4. All areas
    /// of a packed ring, of which nothing may be known yet, are aligned at least as well; the device looks again.
    private mutating func setAddress(_ address: VringAddress) throws(RequestRefusal.Reason) {
        let queue = try queue(address.index)
        let parts = [(address.descriptorTable, 16 as UInt64), (address.availableRing, 2), (address.usedRing, 4)]
        for (part, alignment) in parts where part % alignment != 0 {
            throw .misalignedVring(part, alignment: alignment)
        }
        vrings[queue].address = address
    }

    private mutating func setBase(_ state: VringState) throws(RequestRefusal.Reason) {
        let queue = try queue(state.index)
        guard isPacked || state.value <= 0xffff else { throw .wrongVringBase(state.value) }
        vrings[queue].base = state.value
    }

    private mutating func setEnable(_ state: VringState) throws(RequestRefusal.Reason) {
        let queue = try queue(state.index)
        guard state.value <= 1 else { throw .wrongVringEnable(state.value) }
        vrings[queue].enabled = state.value == 1
    }

    /// RESET_DEVICE takes the device back to before the driver came: what belongs to the connection stays.
    private mutating func resetDevice() {
        features = nil
        status = 0
        vrings = [Vring](repeating: Vring(), count: vrings.count)
    }

    /// Status 0 resets the device as RESET_DEVICE does (VIRTIO 1.2, 2.1), but for where the vrings stopped: QEMU 7.2
    /// asks for that afterwards. FEATURES_OK is taken when features were.
    private mutating func setStatus(_ word: UInt64) throws(RequestRefusal.Reason) {
        guard let value = UInt8(exactly: word) else { throw .wrongStatus(word) }
        if value == 0 {
            let bases = vrings.map(\.base)
            resetDevice()
            for (index, base) in bases.enumerated() { vrings[index].base = base }
        }
        status = features == nil ? value & ~UInt8(WIRE_VIRTIO_CONFIG_S_FEATURES_OK) : value
    }

    private mutating func setDirtyLog(_ log: LogDescription) throws(RequestRefusal.Reason) {
        let (end, overflow) = log.fileOffset.addingReportingOverflow(log.size)
        guard log.size > 0, !overflow, end <= UInt64(Int64.max) else { throw .endlessLog(log) }
        guard log.size >= memory.dirtyLogBytes else { throw .logTooShort(log.size, needed: memory.dirtyLogBytes) }
        dirtyLog = log
    }
}

/// What the front-end has said about one vring.
struct Vring: Hashable, Sendable {
    /// Number of descriptors.
    var size: Int?
    var address: VringAddress?
    /// Where it goes on: as set, or where the vring stopped. nil: at the beginning.
    var base: UInt32?
    /// There is an eventfd, or the promise that the vring is polled.
    var hasKick = false
    /// nil: never said.
    var enabled: Bool?
}

extension SessionState {
    /// Whether the rings are packed ones. SET_FEATURES may be yet to come: they are if they may be.
    var isPacked: Bool { (features ?? offer.features) & RingLayout.packedFeature != 0 }

    /// Where a ring begins that nobody has used: packed ones with both wrap counters at 1 (VIRTIO 1.2, 2.8.1).
    var freshBase: UInt32 { (features ?? 0) & RingLayout.packedFeature != 0 ? 0x8000_8000 : 0 }

    /// What a vring still waits for.
    func missing(queue: Int) -> VringNeeds {
        let vring = vrings[queue]
        var needs: VringNeeds = []
        if features == nil { needs.insert(.features) }
        if vring.size == nil { needs.insert(.size) }
        if vring.address == nil { needs.insert(.address) }
        if !vring.hasKick { needs.insert(.kick) }
        if !isEnabled(vring) { needs.insert(.enable) }
        if !isInMemory(vring) { needs.insert(.memory) }
        if !canLog { needs.insert(.dirtyLog) }
        return needs
    }

    /// Where every write must be logged, none happens before there is a log for all of memory. A front-end that takes
    /// LOG_ALL but no way to share a log wants none: it took whatever was offered.
    private var canLog: Bool {
        guard isLogging else { return true }
        guard let dirtyLog else { return false }
        return dirtyLog.size >= memory.dirtyLogBytes
    }

    private var isLogging: Bool {
        (features ?? 0) & VhostFeatures.logAll != 0 && protocolFeatures.contains(.logSharedMemory)
    }

    /// Which of a vring's writes are logged now.
    func logging(queue: Int) -> QueueLogging {
        guard isLogging else { return .off }
        let address = vrings[queue].address
        let logsRing = address?.flags.contains(.log) ?? false
        return QueueLogging(isOn: true, usedRing: logsRing ? address?.logAddress : nil)
    }

    /// What the device is to be told of a vring; nil while it must not run.
    func setup(queue: Int) -> QueueSetup? {
        let vring = vrings[queue]
        guard missing(queue: queue).isEmpty, let size = vring.size, let address = vring.address, let features else {
            return nil
        }
        return QueueSetup(
            features: features & ~VhostFeatures.all, size: size, descriptorTable: address.descriptorTable,
            availableRing: address.availableRing, usedRing: address.usedRing,
            base: vring.base ?? freshBase)
    }

    /// Without VHOST_USER_F_PROTOCOL_FEATURES vrings begin enabled, with it disabled. SET_VRING_ENABLE decides from
    /// then on.
    private func isEnabled(_ vring: Vring) -> Bool {
        vring.enabled ?? ((features ?? 0) & VhostFeatures.protocolFeatures == 0)
    }

    /// True when memory is known for all three parts. Regions may come one by one, those of the ring last.
    private func isInMemory(_ vring: Vring) -> Bool {
        guard let size = vring.size, let address = vring.address else { return !memory.regions.isEmpty }
        let layout = RingLayout(size: size, features: features ?? 0)
        let areas = [
            (address.descriptorTable, layout.descriptors), (address.availableRing, layout.driver),
            (address.usedRing, layout.device),
        ]
        return areas.allSatisfy { memory.contains(frontendAddress: $0.0, count: UInt64($0.1.byteCount)) }
    }
}

/// What a vring waits for before it is served.
public struct VringNeeds: OptionSet, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: Int

    public init(rawValue: Int) {
        self.rawValue = rawValue
    }

    /// SET_FEATURES.
    public static let features = VringNeeds(rawValue: 1 << 0)
    /// SET_VRING_NUM.
    public static let size = VringNeeds(rawValue: 1 << 1)
    /// SET_VRING_ADDR.
    public static let address = VringNeeds(rawValue: 1 << 2)
    /// SET_VRING_KICK.
    public static let kick = VringNeeds(rawValue: 1 << 3)
    /// SET_VRING_ENABLE.
    public static let enable = VringNeeds(rawValue: 1 << 4)
    /// SET_MEM_TABLE or ADD_MEM_REG of the memory where it lies.
    public static let memory = VringNeeds(rawValue: 1 << 5)
    /// SET_LOG_BASE of a dirty log for all of memory, while every write is to be logged.
    public static let dirtyLog = VringNeeds(rawValue: 1 << 6)

    public var description: String {
        let names = [
            (VringNeeds.features, "features"), (.size, "size"), (.address, "addresses"), (.kick, "kick"),
            (.enable, "enable"), (.memory, "memory at its addresses"), (.dirtyLog, "a dirty log for all of memory"),
        ]
        return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}
