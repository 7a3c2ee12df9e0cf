internal import CWire

/// What requests that are not answered yet have done to the tables, so that whoever carries one out again takes it back
/// first, or goes on behind it: a driver that is told of a node once is counted once, whoever dies.
///
/// Each descriptor of each queue has a place, which the request that has it writes its `unique` into before it changes
/// anything. What changes a node changes this with it (NodeTable.swift). A request that was answered is never carried
/// out again, so its effect stands until another request takes the place.
@safe struct RequestEffects: @unchecked Sendable {
    private let header: UnsafeMutableRawPointer
    private let effects: UnsafeMutableRawPointer
    private let lists: UnsafeMutableRawPointer
    private let queues: Int
    private let slots: Int

    /// Nodes that one request can have told of.
    static var listCount: Int { Int(WIRE_SHARE_EFFECT_NODES) }

    static func byteCount(queues: Int, slots: Int) -> Int {
        queues * slots * (Int(WIRE_SHARE_EFFECT_BYTES) + 8 * listCount)
    }

    init(header: UnsafeMutableRawPointer, effects: UnsafeMutableRawPointer, queues: Int, slots: Int) {
        unsafe self.header = header
        unsafe self.effects = effects
        unsafe lists = effects + queues * slots * Int(WIRE_SHARE_EFFECT_BYTES)
        (self.queues, self.slots) = (queues, slots)
    }

    enum Kind: UInt32 {
        /// It counts lookups, and opens a file: that is taken back.
        case lookups
        /// It forgets nodes, one after the other: what it has forgotten is passed over.
        case forgets
        /// It changes something in one step, and then says so: it is not done again.
        case changes
    }

    private func effect(_ place: UInt32) -> UnsafeMutableRawPointer {
        precondition(place > 0 && Int(place) <= queues * slots)
        return unsafe effects + (Int(place) - 1) * Int(WIRE_SHARE_EFFECT_BYTES)
    }

    private var epoch: UInt32 {
        UInt32(truncatingIfNeeded: unsafe wire_load64(header + Int(WIRE_SHARE_EFFECT_EPOCH)))
    }

    /// The place of a descriptor, from 1 on; 0: it has none.
    func place(queue: UInt16, head: UInt16) -> UInt32 {
        guard Int(queue) < queues, Int(head) < slots else { return 0 }
        return UInt32(Int(queue) * slots + Int(head) + 1)
    }

    /// Whether a place has the effect of this very request.
    func isOf(_ place: UInt32, _ unique: UInt64) -> Bool {
        let effect = unsafe effect(place)
        return unsafe wire_load64(effect) == unique
            && wire_load32(effect + Int(WIRE_SHARE_EFFECT_OF_EPOCH)) == epoch
    }

    /// A request takes a place; it has done nothing. Whoever dies in between leaves an effect that says nothing.
    func begin(_ place: UInt32, _ unique: UInt64, _ kind: Kind) {
        let effect = unsafe effect(place)
        unsafe wire_store64(effect + Int(WIRE_SHARE_EFFECT_WORD), 0)
        unsafe wire_store64(effect + Int(WIRE_SHARE_EFFECT_HANDLE), 0)
        unsafe wire_store32(effect + Int(WIRE_SHARE_EFFECT_OF_EPOCH), epoch)
        unsafe wire_store32(effect + Int(WIRE_SHARE_EFFECT_KIND), kind.rawValue)
        unsafe wire_store64(effect, unique)
    }

    /// Effects so far are nobody's.
    func forgetAll() {
        let place = unsafe header + Int(WIRE_SHARE_EFFECT_EPOCH)
        unsafe wire_store64(place, wire_load64(place) &+ 1)
    }

    func kind(_ place: UInt32) -> Kind {
        unsafe Kind(rawValue: wire_load32(effect(place) + Int(WIRE_SHARE_EFFECT_KIND))) ?? .lookups
    }

    func word(_ place: UInt32) -> UInt64 { unsafe wire_load64(effect(place) + Int(WIRE_SHARE_EFFECT_WORD)) }

    /// With a change of a node, or when there is none to change.
    func setWord(_ place: UInt32, _ word: UInt64) {
        guard place > 0, Int(place) <= queues * slots else { return }
        unsafe wire_store64(effect(place) + Int(WIRE_SHARE_EFFECT_WORD), word)
    }

    func handle(_ place: UInt32) -> UInt64 { unsafe wire_load64(effect(place) + Int(WIRE_SHARE_EFFECT_HANDLE)) }

    /// Before the file can be open.
    func setHandle(_ place: UInt32, _ handle: UInt64) {
        unsafe wire_store64(effect(place) + Int(WIRE_SHARE_EFFECT_HANDLE), handle)
    }

    private func listed(_ place: UInt32, _ index: Int) -> UnsafeMutableRawPointer {
        precondition(place > 0 && Int(place) <= queues * slots && index >= 0 && index < Self.listCount)
        return unsafe lists + ((Int(place) - 1) * Self.listCount + index) * 8
    }

    func node(_ place: UInt32, _ index: Int) -> UInt64 { unsafe wire_load64(listed(place, index)) }
    func setNode(_ place: UInt32, _ index: Int, _ node: UInt64) { unsafe wire_store64(listed(place, index), node) }
}

/// Where a change of a node is noted.
struct EffectUse: Sendable {
    /// 0: nowhere.
    var place: UInt32 = 0
    /// 0: it is the request's only node; else the last one in its list, which has so many then.
    var entry: UInt32 = 0

    static var none: EffectUse { EffectUse() }
}
