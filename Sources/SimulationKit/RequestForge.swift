internal import CWire
internal import Virtio

/// Where decisions come from: a seed, or a fuzzer's bytes.
public protocol Choices {
    /// A number from 0 to below `bound`; 0 when the bound is below 2.
    mutating func below(_ bound: Int) -> Int
}

extension SeededRandom: Choices {}

extension Choices {
    mutating func choose<Choice>(_ choices: [Choice]) -> Choice { choices[below(choices.count)] }
    mutating func happens(oneIn total: Int) -> Bool { below(total) == total - 1 }
}

/// A request that was put into a guest's ring, and what it gave away.
public struct ForgedRequest {
    /// The chain's head, or its buffer id in a packed ring.
    public var head: UInt16
    /// Everything that any of its descriptors lets the device write, wherever it leads.
    public var writable: [(address: UInt64, count: Int)]
}

/// Makes block requests that a driver could send: some good, most with something wrong in them.
///
/// Each begins as a sound request in a random layout; then some of its descriptors are spoilt. Descriptors and tables
/// of earlier requests are erased first, so that a chain never strays into buffers that were given away long ago.
public struct RequestForge {
    /// Where buffers lie: two regions without a gap, and one of an odd size after a gap.
    public static let placements = [
        SimulatedGuest.Placement(guestAddress: buffers, size: 0x4000),
        SimulatedGuest.Placement(guestAddress: buffers + 0x4000, size: 0x4000, fileOffset: 0x1000),
        SimulatedGuest.Placement(guestAddress: buffers + 0x9000, size: 0x1923),
        SimulatedGuest.Placement(guestAddress: tables, size: 0x200),
        SimulatedGuest.Placement(guestAddress: tables + 0x200, size: 0x200),
    ]
    private static let buffers: UInt64 = 0x10000
    /// Far behind the buffers: no length leads there from one of them. Nothing here is given to the device to write.
    private static let tables: UInt64 = 0x40_0000_0000

    private let guest: SimulatedGuest
    private let sectors: UInt64
    private var next: UInt64 = 0

    /// - Parameter sectors: of the disk.
    public init(_ guest: SimulatedGuest, sectors: UInt64) {
        self.guest = guest
        self.sectors = sectors
    }

    /// Lays out a request and makes it available.
    ///
    /// - Returns: what the device has to answer. In a packed ring every descriptor without NEXT ends a request, so one
    ///   that was spoilt may be several.
    public mutating func make(_ choices: inout some Choices) -> [ForgedRequest] {
        let isIndirect = choices.happens(oneIn: 3)
        let room = isIndirect ? 0x400 / 16 : guest.freeDescriptors
        var chain = soundChain(&choices, room: room)
        for _ in 0..<choices.choose([0, 0, 0, 0, 1, 1, 2, 4]) where !chain.isEmpty {
            let index = choices.below(chain.count)
            spoil(&chain[index], &choices)
            // The ring and the tables may be read, but are never given to the device to write.
            let isOurs = (Self.tables..<Self.tables << 4).contains(chain[index].address)
            if isOurs { chain[index].flags &= ~UInt16(WIRE_VIRTQ_DESC_F_WRITE) }
        }
        guest.write([UInt8](repeating: 0, count: 0x400), at: Self.tables)
        let writable = chain.filter(\.isWritable).map { ($0.address, Int($0.length)) }
        let heads = guest.isPacked ? putPacked(chain, isIndirect, &choices) : [putSplit(chain, isIndirect, &choices)]
        return heads.map { ForgedRequest(head: $0, writable: writable) }
    }

    private func putSplit(_ chain: [Descriptor], _ isIndirect: Bool, _ choices: inout some Choices) -> UInt16 {
        guest.write([UInt8](repeating: 0, count: 16 * guest.ring.size), at: guest.ring.descriptors)
        var head = choices.below(guest.ring.size)
        if isIndirect {
            guest.setDescriptor(placeTable(chain, &choices), at: head)
        } else {
            placeDirect(chain, from: head)
        }
        if choices.happens(oneIn: 24) {
            head = choices.choose([0, guest.ring.size - 1, guest.ring.size, 0x7fff, 0xffff])
        }
        guest.makeAvailable(UInt16(head))
        return UInt16(head)
    }

    /// - Returns: the ids of the requests that the descriptors are.
    private func putPacked(_ chain: [Descriptor], _ isIndirect: Bool, _ choices: inout some Choices) -> [UInt16] {
        guest.erasePackedRing()
        // Any id will do: it is the driver's own business (VIRTIO 1.2, 2.8.6).
        let id = UInt16(choices.below(4) > 0 ? choices.below(guest.ring.size) : choices.below(0x10000))
        var direct = chain
        if isIndirect {
            // A list has descriptors of one kind only (VIRTIO 1.2, 2.8.5): mostly.
            let table = placeTable(chain, &choices)
            direct = choices.happens(oneIn: 16) ? [chain[0], table] : [table]
            if table.hasNext || choices.happens(oneIn: 16) { direct.append(chain[chain.count - 1]) }
        }
        direct = direct.prefix(guest.freeDescriptors).enumerated().map { link($1, $0, of: direct, to: 0) }
        // A chain without an end breaks the ring: that is for `makeEndlessChain`.
        direct[direct.count - 1].flags &= ~UInt16(WIRE_VIRTQ_DESC_F_NEXT)
        return guest.makeAvailable(direct, id: id)
    }

    /// Makes a chain available in a packed ring that has no end: it goes on where nothing is available, or all around
    /// the ring, over descriptors that the driver has given away already.
    public mutating func makeEndlessChain(_ choices: inout some Choices) {
        let count = choices.choose([1, 2, guest.freeDescriptors, guest.freeDescriptors + 1, guest.ring.size])
        var chain = soundChain(&choices, room: max(1, min(count, guest.ring.size)))
        while chain.count < min(count, guest.ring.size) { chain.append(chain[chain.count - 1]) }
        for index in chain.indices { chain[index].flags |= UInt16(WIRE_VIRTQ_DESC_F_NEXT) }
        guest.makeNonsenseAvailable(chain, id: UInt16(choices.below(0x10000)))
    }

    // MARK: A sound request

    private mutating func soundChain(_ choices: inout some Choices, room: Int) -> [Descriptor] {
        let type = choices.choose([
            WIRE_VIRTIO_BLK_T_IN, WIRE_VIRTIO_BLK_T_OUT, WIRE_VIRTIO_BLK_T_IN, WIRE_VIRTIO_BLK_T_OUT,
            WIRE_VIRTIO_BLK_T_FLUSH, WIRE_VIRTIO_BLK_T_GET_ID, WIRE_VIRTIO_BLK_T_DISCARD,
            WIRE_VIRTIO_BLK_T_WRITE_ZEROES, choices.below(256),
        ])
        var header =
            littleEndian(UInt32(type)) + littleEndian(UInt32(choices.below(256))) + littleEndian(sector(&choices))
        if choices.happens(oneIn: 32) { header.removeLast(1 + choices.below(16)) }
        var readable = header
        var writable = 1
        switch type {
        case WIRE_VIRTIO_BLK_T_IN: writable += length(&choices)
        case WIRE_VIRTIO_BLK_T_OUT: readable += bytes(length(&choices), &choices)
        case WIRE_VIRTIO_BLK_T_DISCARD, WIRE_VIRTIO_BLK_T_WRITE_ZEROES:
            for _ in 0..<choices.choose([1, 1, 2, 3, 0, 32, 33]) { readable += range(&choices) }
            if choices.happens(oneIn: 16) { readable = readable.dropLast() }
        default: writable += choices.choose([0, 20, 1, 19, 21, 512])
        }
        if choices.happens(oneIn: 32) { writable = 0 }
        var chain: [Descriptor] = []
        var rest = readable[...]
        for length in pieces(of: readable.count, most: max(1, room / 2), &choices) {
            let address = place(length, &choices)
            guest.write(Array(rest.prefix(length)), at: address)
            rest = rest.dropFirst(length)
            chain.append(Descriptor(address: address, length: UInt32(length), flags: 0, next: 0))
        }
        for length in pieces(of: writable, most: max(1, room - chain.count), &choices) where chain.count < room {
            let flags = UInt16(WIRE_VIRTQ_DESC_F_WRITE)
            chain.append(Descriptor(address: place(length, &choices), length: UInt32(length), flags: flags, next: 0))
        }
        return Array(chain.prefix(room))
    }

    private func sector(_ choices: inout some Choices) -> UInt64 {
        switch choices.below(8) {
        case 0: choices.choose([sectors - 1, sectors, sectors + 1, 1 << 55, (1 << 55) - 1, 1 << 63, .max, .max - 1])
        default: UInt64(choices.below(Int(sectors)))
        }
    }

    private func length(_ choices: inout some Choices) -> Int {
        choices.happens(oneIn: 8) ? choices.choose([0, 1, 511, 513, 1023]) : 512 * (1 + choices.below(9))
    }

    private func bytes(_ count: Int, _ choices: inout some Choices) -> [UInt8] {
        [UInt8](repeating: UInt8(choices.below(256)), count: count)
    }

    private func range(_ choices: inout some Choices) -> [UInt8] {
        let count =
            choices.happens(oneIn: 8)
            ? UInt32(choices.choose([0, 1 << 22, Int(UInt32.max)])) : UInt32(choices.below(20))
        let flags = choices.happens(oneIn: 8) ? UInt32(choices.below(4)) : 0
        return littleEndian(sector(&choices)) + littleEndian(count) + littleEndian(flags)
    }

    /// A few lengths whose sum is `count`.
    private func pieces(of count: Int, most: Int, _ choices: inout some Choices) -> [Int] {
        let cuts = min(most - 1, choices.choose([0, 1, 1, 2, 3, 5]))
        let places = (0..<max(0, cuts)).map { _ in choices.happens(oneIn: 2) ? 16 : choices.below(count + 1) }
        let sorted = places.filter { $0 <= count }.sorted()
        return zip([0] + sorted, sorted + [count]).map { $1 - $0 }
    }

    /// Room for a buffer, one behind the other and round again; sometimes on the border of two regions.
    private mutating func place(_ length: Int, _ choices: inout some Choices) -> UInt64 {
        let room: UInt64 = 0x8000
        if next + UInt64(length) + 64 > room { next = 0 }
        defer { next += UInt64(length) + UInt64(choices.below(64)) }
        if choices.happens(oneIn: 16), length < 0x1000 {
            return Self.buffers + 0x4000 - UInt64(choices.below(length + 1))
        }
        return Self.buffers + next
    }

    // MARK: Something wrong

    private func spoil(_ descriptor: inout Descriptor, _ choices: inout some Choices) {
        switch choices.below(6) {
        case 0:
            descriptor.address = choices.choose([
                0, .max, .max - 15, Self.buffers - 1, Self.buffers + 0x7fff, Self.buffers + 0x8000,
                Self.buffers + 0x9000, Self.buffers + 0x9000 + 0x1922,
            ])
        case 1: descriptor.length = choices.choose([0, 1, 15, 16, 17, 512, 0x4001, 0x8001, 1 << 31, .max])
        case 2: descriptor.flags ^= UInt16(1 << choices.below(3))
        case 3: descriptor.flags = UInt16(choices.below(256))
        case 4:
            descriptor.flags |= UInt16(WIRE_VIRTQ_DESC_F_NEXT)
            descriptor.next = UInt16(
                choices.choose([0, 1, 2, guest.ring.size - 1, guest.ring.size, 0x3f, 0x40, 0xffff]))
        default:
            descriptor.address = choices.choose([guest.ring.descriptors, guest.ring.used, Self.tables])
        }
    }

    // MARK: Placing

    private func placeDirect(_ chain: [Descriptor], from head: Int) {
        for (index, descriptor) in chain.enumerated() {
            let place = (head + index) % guest.ring.size
            guest.setDescriptor(link(descriptor, index, of: chain, to: (place + 1) % guest.ring.size), at: place)
        }
    }

    /// Writes an indirect table.
    ///
    /// - Returns: the descriptor that names it.
    private func placeTable(_ chain: [Descriptor], _ choices: inout some Choices) -> Descriptor {
        // At the beginning, over the border, at the end.
        let bytes = 16 * chain.count
        let start =
            Self.tables + UInt64(choices.choose([0, max(0, 0x200 - bytes / 2 - choices.below(16)), 0x400 - bytes]))
        guest.setTable(
            chain.enumerated().map { link($1, $0, of: chain, to: $0 + 1) },
            at: min(start, Self.tables + 0x400 - UInt64(bytes)))
        var reference = Descriptor(
            address: start, length: UInt32(bytes), flags: UInt16(WIRE_VIRTQ_DESC_F_INDIRECT), next: 0)
        if choices.happens(oneIn: 8) {
            switch choices.below(4) {
            case 0: reference.length = choices.choose([0, 1, 8, 17, 0x400, 0x410, 0x4010, .max])
            case 1: reference.flags |= UInt16(choices.below(4))
            case 2: reference.address = choices.choose([0, .max - 7, Self.tables + 0x3f8, guest.ring.descriptors])
            default: reference.next = UInt16(choices.below(guest.ring.size))
            }
        }
        return reference
    }

    /// Links a descriptor to the one behind it, unless it was spoilt to lead elsewhere.
    private func link(_ descriptor: Descriptor, _ index: Int, of chain: [Descriptor], to next: Int) -> Descriptor {
        guard index + 1 < chain.count, !descriptor.hasNext else { return descriptor }
        var descriptor = descriptor
        descriptor.flags |= UInt16(WIRE_VIRTQ_DESC_F_NEXT)
        descriptor.next = UInt16(next)
        return descriptor
    }
}
