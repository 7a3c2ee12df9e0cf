internal import CWire
internal import Glibc
internal import Telemetry
internal import Uring
internal import Virtio

/// A request as the guest remembers it.
struct ModelRequest {
    enum Kind: Equatable {
        case read, write, writeZeroes, flush, identify
        /// Reaches behind the end of the disk.
        case outOfRange
        /// Has no room for an answer.
        case unanswerable
        /// A head that is none.
        case nonsense
    }

    var kind: Kind
    var sectors: Range<Int>
    /// When it was made available.
    var start: Int
    /// How often the disk had been made durable by then.
    var synchronized: Int

    /// What the device must say that it wrote.
    var usedLength: UInt32 {
        switch kind {
        case .read: UInt32(512 * sectors.count + 1)
        case .identify: 21
        case .unanswerable, .nonsense: 0
        default: 1
        }
    }
    var status: UInt8 { kind == .outOfRange ? 1 : 0 }
    /// What the device counts it as; both kinds of WRITE_ZEROES as one.
    var counted: RequestKind {
        switch kind {
        case .read: .read
        case .write: .write
        case .writeZeroes: .writeZeroes
        case .flush: .flush
        case .identify: .identify
        case .outOfRange, .unanswerable, .nonsense: .refused
        }
    }
}

/// A guest as a value: its driver, and what it must get to see. It sends requests that overlap, and takes offence at
/// the first thing that a disk may not do.
struct ModelGuest {
    /// The disk's size; small, so that requests overlap.
    static let sectors = 6
    /// The longest request.
    static let mostSectors = 2
    private static let slotBytes = 128 + 512 * mostSectors
    private static let statusOffset = 32
    private static let tableOffset = 64
    private static let dataOffset = 128
    /// What lies in a status byte that belongs to no request.
    private static let idle: UInt8 = 0x5a
    private static let unanswered: UInt8 = 0xa5
    /// Ring areas come first.
    static let firstSlot = 4096
    static let most = 16
    static let memoryBytes = (firstSlot + most * slotBytes + 4095) / 4096 * 4096
    static let identity = "twenty bytes of name"

    var ring: any DriverRing
    private(set) var history = SectorHistory(sectors: sectors)
    /// By id.
    private(set) var outstanding: [UInt16: ModelRequest] = [:]
    /// Requests that came back, by what the device should count them as.
    private(set) var returned: [RequestKind: UInt64] = [:]
    private var free: [UInt16]
    private let scenario: DeathScenario
    private var time = 0
    private var issued = 0
    private var sequence: UInt64 = 0

    init(_ scenario: DeathScenario, _ ring: any DriverRing, _ memory: OutlivingMemory) {
        self.scenario = scenario
        self.ring = ring
        free = (0..<Self.most)
            .map { UInt16($0 * (scenario.usesIndirect ? 1 : 4)) }
            .filter { Int($0) < scenario.ringSize }
        for id in free { memory.store8(Self.idle, slot(of: id) + Self.statusOffset) }
    }

    /// All requests have been sent and answered.
    var hasFinished: Bool { issued == scenario.requests && outstanding.isEmpty }
    /// Another request could be sent now.
    var canIssue: Bool { issued < scenario.requests && !free.isEmpty }

    private func slot(of id: UInt16) -> Int {
        Self.firstSlot + Self.slotBytes * Int(id) / (scenario.usesIndirect ? 1 : 4)
    }

    // MARK: Sending

    /// Sends some requests.
    ///
    /// - Parameter synchronized: how often the disk has been made durable.
    mutating func issue(_ random: inout SeededRandom, synchronized: Int, _ memory: OutlivingMemory) throws(DeathFinding)
    {
        for _ in 0...random.below(scenario.batch) where canIssue {
            let id = free.remove(at: random.below(free.count))
            guard memory.load8(slot(of: id) + Self.statusOffset) == Self.idle else {
                throw DeathFinding("the status of request \(id) was written after it had been returned")
            }
            time += 1
            issued += 1
            let kind = chooseKind(&random)
            let first = random.below(Self.sectors)
            let count = 1 + random.below(min(Self.mostSectors, Self.sectors - first))
            let isData = kind == .read || kind == .write || kind == .writeZeroes
            let sectors = isData ? first..<first + count : 0..<0
            let request = ModelRequest(kind: kind, sectors: sectors, start: time, synchronized: synchronized)
            send(request, id, &random, memory)
        }
    }

    private func chooseKind(_ random: inout SeededRandom) -> ModelRequest.Kind {
        switch random.below(scenario.isFaulty ? 24 : 16) {
        case 0..<7: .write
        case 7..<11: .read
        case 11..<13: .writeZeroes
        case 13: .flush
        case 14: .identify
        case 15: .outOfRange
        case 16, 17: .unanswerable
        default: .nonsense
        }
    }

    private mutating func send(
        _ request: ModelRequest, _ id: UInt16, _ random: inout SeededRandom, _ memory: OutlivingMemory
    ) {
        let slot = slot(of: id)
        memory.store8(Self.unanswered, slot + Self.statusOffset)
        switch request.kind {
        case .write:
            sequence += 1
            history.begin(sequence, sectors: request.sectors, at: request.start)
            for (index, sector) in request.sectors.enumerated() {
                let word = SectorHistory.word(sequence, sector: sector)
                memory.fill(slot + Self.dataOffset + 512 * index, 512, word: word)
            }
        case .writeZeroes:
            history.begin(nil, sectors: request.sectors, at: request.start)
            memory.store64(UInt64(request.sectors.lowerBound), slot + 16)
            memory.store32(UInt32(request.sectors.count), slot + 24)
            memory.store32(random.below(2) == 0 ? UInt32(WIRE_VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) : 0, slot + 28)
        case .nonsense:
            // No chain: an id outside the ring that tells whose turn it is.
            let nonsense = id + UInt16(scenario.ringSize)
            guard ring.makeNonsenseAvailable(id: nonsense, memory) else { break }
            outstanding[nonsense] = request
            return
        default:
            memory.fill(slot + Self.dataOffset, 512 * Self.mostSectors, 0xee)
        }
        let (type, sector) = header(request)
        memory.store32(type, slot)
        memory.store32(0, slot + 4)
        memory.store64(sector, slot + 8)
        var sent = request
        // Where there is no nonsense, it has become a request without room for an answer.
        if sent.kind == .nonsense { sent.kind = .unanswerable }
        outstanding[id] = sent
        let chain = chain(sent, slot, &random)
        if scenario.usesIndirect {
            let table = slot + Self.tableOffset
            for (index, descriptor) in chain.enumerated() {
                memory.store(tableEntry(descriptor, index, chain.count), table + 16 * index)
            }
            let indirect = Descriptor(
                address: address(table), length: UInt32(16 * chain.count), flags: UInt16(WIRE_VIRTQ_DESC_F_INDIRECT),
                next: 0)
            ring.makeAvailable([indirect], id: id, memory)
        } else {
            ring.makeAvailable(chain, id: id, memory)
        }
    }

    /// In the indirect table of a packed ring, entries follow each other without being linked, and the flags come last
    /// (`pvirtq_desc`).
    private func tableEntry(_ descriptor: Descriptor, _ index: Int, _ count: Int) -> Descriptor {
        guard scenario.ring == .packed else { return linked(descriptor, index, count, index + 1) }
        return Descriptor(address: descriptor.address, length: descriptor.length, flags: 0, next: descriptor.flags)
    }

    private func header(_ request: ModelRequest) -> (type: UInt32, sector: UInt64) {
        let first = UInt64(request.sectors.lowerBound)
        return switch request.kind {
        case .read, .unanswerable, .nonsense: (UInt32(WIRE_VIRTIO_BLK_T_IN), first)
        case .outOfRange: (UInt32(WIRE_VIRTIO_BLK_T_IN), UInt64(Self.sectors))
        case .write: (UInt32(WIRE_VIRTIO_BLK_T_OUT), first)
        case .writeZeroes: (UInt32(WIRE_VIRTIO_BLK_T_WRITE_ZEROES), 0)
        case .flush: (UInt32(WIRE_VIRTIO_BLK_T_FLUSH), 0)
        case .identify: (UInt32(WIRE_VIRTIO_BLK_T_GET_ID), 0)
        }
    }

    private func address(_ offset: Int) -> UInt64 { OutlivingMemory.guestStart + UInt64(offset) }

    /// At most four descriptors.
    private func chain(_ request: ModelRequest, _ slot: Int, _ random: inout SeededRandom) -> [Descriptor] {
        func part(_ offset: Int, _ count: Int, isWritable: Bool = false) -> Descriptor {
            let flags = isWritable ? UInt16(WIRE_VIRTQ_DESC_F_WRITE) : 0
            return Descriptor(address: address(slot + offset), length: UInt32(count), flags: flags, next: 0)
        }
        func data(_ count: Int, isWritable: Bool) -> [Descriptor] {
            guard count > 1, random.below(2) == 0 else {
                return [part(Self.dataOffset, count, isWritable: isWritable)]
            }
            let cut = 1 + random.below(count - 1)
            return [
                part(Self.dataOffset, cut, isWritable: isWritable),
                part(Self.dataOffset + cut, count - cut, isWritable: isWritable),
            ]
        }
        let header = part(0, 16)
        let status = part(Self.statusOffset, 1, isWritable: true)
        return switch request.kind {
        case .read: [header] + data(512 * request.sectors.count, isWritable: true) + [status]
        case .write: [header] + data(512 * request.sectors.count, isWritable: false) + [status]
        case .writeZeroes: [header, part(16, 16), status]
        case .flush: [header, status]
        case .identify: [header] + data(20, isWritable: true) + [status]
        case .outOfRange: [header] + data(512, isWritable: true) + [status]
        case .unanswerable, .nonsense: [header]
        }
    }

    // MARK: Looking

    /// Takes all that was returned, asks for the next interrupt, and looks once more, as a driver does.
    mutating func look(synchronized: Int, _ memory: OutlivingMemory) throws(DeathFinding) {
        var left = 4 * Self.most
        while left > 0 {
            while let used = ring.takeUsed(memory) {
                try accept(used, synchronized: synchronized, memory)
                left -= 1
                if left == 0 { break }
            }
            ring.askForInterrupt(memory)
            if ring.shown(memory).isEmpty { return }
        }
        throw DeathFinding("the device returns without end")
    }

    private mutating func accept(
        _ used: UsedElement, synchronized: Int, _ memory: OutlivingMemory
    ) throws(DeathFinding) {
        guard let request = outstanding.removeValue(forKey: used.head) else {
            throw DeathFinding("request \(used.head) was returned, which is not under way")
        }
        time += 1
        returned[request.counted, default: 0] += 1
        let what = "request \(used.head) (\(request.kind))"
        guard used.length == request.usedLength else {
            throw DeathFinding("\(what) came back with length \(used.length), not \(request.usedLength)")
        }
        let id = request.kind == .nonsense ? used.head - UInt16(scenario.ringSize) : used.head
        let slot = slot(of: id)
        let status = memory.load8(slot + Self.statusOffset)
        let isAnswered = request.kind != .unanswerable && request.kind != .nonsense
        guard status == (isAnswered ? request.status : Self.unanswered) else {
            throw DeathFinding("\(what) came back with status \(status)")
        }
        switch request.kind {
        case .write, .writeZeroes: history.end(sectors: request.sectors, begunAt: request.start, at: time)
        case .read: try checkRead(request, what, slot, memory)
        case .flush:
            guard synchronized > request.synchronized else {
                throw DeathFinding("\(what) was answered, but nothing was made durable")
            }
        case .identify:
            let bytes = (0..<20).map { memory.load8(slot + Self.dataOffset + $0) }
            guard bytes == Array(Self.identity.utf8) else { throw DeathFinding("\(what) says \(bytes)") }
        default: break
        }
        memory.store8(Self.idle, slot + Self.statusOffset)
        free.append(id)
    }

    private func checkRead(
        _ request: ModelRequest, _ what: String, _ slot: Int, _ memory: OutlivingMemory
    ) throws(DeathFinding) {
        for (index, sector) in request.sectors.enumerated() {
            let start = slot + Self.dataOffset + 512 * index
            let word = memory.load64(start)
            guard memory.isUniform(start, 512) else { throw DeathFinding("\(what): sector \(sector) is torn") }
            guard history.mayHold(word, sector: sector, from: request.start, to: time) else {
                throw DeathFinding("\(what): sector \(sector) holds \(hex(word)), which nobody wrote there last")
            }
        }
    }

    // MARK: Checks from outside

    /// The kernel takes an operation. It must belong to a request that the guest has not got back.
    ///
    /// - Parameter offset: of its first buffer in guest memory; nil when it has none.
    func check(_ operation: SimulatedOperation, buffer offset: Int?, _ memory: OutlivingMemory) throws(DeathFinding) {
        let returned = Set(ring.shown(memory))
        let sectors = operation.offset / 512..<(operation.offset + operation.length) / 512
        for (id, request) in outstanding where !returned.contains(id) {
            let whole = UInt64(request.sectors.lowerBound)..<UInt64(request.sectors.upperBound)
            let isWithin = sectors.lowerBound >= whole.lowerBound && sectors.upperBound <= whole.upperBound
            let place = Int(operation.offset) - 512 * request.sectors.lowerBound + Self.dataOffset + slot(of: id)
            switch request.kind {
            case .read where operation.isRead && isWithin && offset == place: return
            case .write where operation.isWrite && isWithin && offset == place: return
            case .writeZeroes where operation.kind == .allocate && isWithin: return
            case .flush where operation.kind == .synchronizeData: return
            default: break
            }
        }
        throw DeathFinding("a \(operation.kind) of sectors \(sectors) was submitted for no request that is under way")
    }

    /// Everything is over: nothing is left, and the disk holds what it may hold.
    func checkEnd(_ disk: [UInt8]) throws(DeathFinding) {
        guard hasFinished else {
            throw DeathFinding("all is quiet, but requests \(outstanding.keys.sorted()) have not come back")
        }
        for sector in 0..<Self.sectors {
            let (word, isUniform) = unsafe disk.withUnsafeBytes { bytes in
                let start = unsafe bytes.baseAddress! + 512 * sector
                return unsafe (wire_load64(start), memcmp(start, start + 8, 504) == 0)
            }
            guard isUniform, history.mayHold(word, sector: sector, from: time + 1, to: time + 1) else {
                throw DeathFinding("in the end, sector \(sector) of the disk holds \(hex(word))")
            }
        }
    }

    /// A disk as it is before the first request.
    static func blankDisk() -> [UInt8] {
        (0..<sectors).flatMap { sector in
            (0..<64).flatMap { _ in littleEndian(SectorHistory.word(0, sector: sector)) }
        }
    }
}

private func hex(_ word: UInt64) -> String { "0x" + String(word, radix: 16) }
