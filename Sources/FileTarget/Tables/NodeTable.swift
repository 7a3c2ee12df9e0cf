internal import CWire

/// What makes a node the same node: the kernel's handle on its mount, or device and inode where it has none.
struct NodeIdentity: Equatable {
    var device: UInt64 = 0
    var inode: UInt64 = 0
    /// Its place in the table of mounts.
    var mount: UInt32 = 0
    /// S_IFMT >> 12: it never changes.
    var type: UInt8 = 0
    /// 0: it has none.
    var handleCount: UInt8 = 0
    var handleType: Int32 = 0
    /// Zeroes behind its end.
    var handle: InlineArray<5, UInt64> = InlineArray(repeating: 0)

    static func == (a: NodeIdentity, b: NodeIdentity) -> Bool {
        guard a.handleCount == b.handleCount, a.mount == b.mount else { return false }
        if a.handleCount == 0 { return a.device == b.device && a.inode == b.inode }
        guard a.handleType == b.handleType else { return false }
        for index in 0..<5 where a.handle[index] != b.handle[index] { return false }
        return true
    }

    var hash: UInt32 {
        var hash: UInt64 = 0x9e37_79b9_7f4a_7c15 ^ UInt64(mount)
        func mix(_ value: UInt64) {
            hash = (hash ^ value) &* 0xff51_afd7_ed55_8ccd
            hash ^= hash >> 32
        }
        if handleCount == 0 {
            mix(device)
            mix(inode)
        } else {
            mix(UInt64(handleCount) | UInt64(UInt32(bitPattern: handleType)) << 8)
            for index in 0..<5 { mix(handle[index]) }
        }
        return UInt32(truncatingIfNeeded: hash)
    }
}

/// The nodes that a driver knows. A node id is generation << 32 | slot: one that was forged or is stale matches no
/// generation. Whoever uses it holds the session's lock.
///
/// **The order of stores**, so that a SIGKILL between any two leaves a table that `repair` puts in order. `intent`
/// names the one slot that is being changed, so that nothing has to be searched:
///
/// - `insert`: intent; the slot leaves the free list (or `fresh` grows); its fields; its `next`; **control: live**; the
///   bucket; the count; intent 0. Before the store of control the slot is free, after it live: `repair` puts it on the
///   free list or in its bucket, whichever it is not in.
/// - `forget`: lookups. When none is left: intent; **control: free**; out of the bucket; onto the free list; the count;
///   intent 0. `repair` does what is left of it.
/// - A lookup of a node that is known is one store, of its count. So is it to forget some of them.
///
/// What a request's effect is to say is in the intent, too: it is written before intent 0, by `repair` as well. For
/// such a request the two above have an intent: the count as it will be.
@safe struct NodeTable: @unchecked Sendable {
    private let header: UnsafeMutableRawPointer
    private let buckets: UnsafeMutableRawPointer
    private let nodes: UnsafeMutableRawPointer
    let capacity: UInt32
    let effects: RequestEffects

    static var rootSlot: UInt32 { 1 }

    private enum Intent {
        static let insert: UInt64 = 1 << 32
        static let remove: UInt64 = 2 << 32
        static let count: UInt64 = 3 << 32
    }

    init(
        header: UnsafeMutableRawPointer, buckets: UnsafeMutableRawPointer, nodes: UnsafeMutableRawPointer,
        capacity: UInt32, effects: RequestEffects
    ) {
        unsafe self.header = header
        unsafe self.buckets = buckets
        unsafe self.nodes = nodes
        self.capacity = capacity
        self.effects = effects
    }

    /// Live nodes, the root not counted.
    var count: Int { Int(unsafe wire_load64(header + Int(WIRE_SHARE_LIVE_NODES))) }

    private func node(_ slot: UInt32) -> UnsafeMutableRawPointer {
        precondition(slot < capacity)
        return unsafe nodes + Int(slot) * Int(WIRE_SHARE_NODE_BYTES)
    }
    private func bucket(of hash: UInt32) -> UnsafeMutableRawPointer { unsafe buckets + 4 * bucketIndex(of: hash) }

    /// From 0 to `capacity` - 1.
    func bucketIndex(of hash: UInt32) -> Int { Int((UInt64(hash) &* UInt64(capacity)) >> 32) }
    /// A link as it stands in memory: a slot + 1. nil: the end, also when it makes no sense.
    private func link(_ place: UnsafeMutableRawPointer) -> UInt32? {
        let value = unsafe wire_load32(place)
        return value > 0 && value <= capacity ? value - 1 : nil
    }
    private func control(_ slot: UInt32) -> UInt64 { unsafe wire_load64(node(slot)) }
    private static func isLive(_ control: UInt64) -> Bool { control >> 32 & 0xff == 1 }

    /// The slot of a node id; nil when it is forged or stale. The root is always there.
    func slot(of identifier: UInt64) -> UInt32? {
        let slot = UInt32(truncatingIfNeeded: identifier)
        if slot == Self.rootSlot { return identifier == UInt64(Self.rootSlot) ? slot : nil }
        guard slot > 0, slot < capacity else { return nil }
        let control = control(slot)
        return Self.isLive(control) && UInt32(truncatingIfNeeded: control) == UInt32(identifier >> 32) ? slot : nil
    }

    func identifier(of slot: UInt32) -> UInt64 { control(slot) << 32 | UInt64(slot) }

    /// S_IFMT >> 12.
    func type(of slot: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: control(slot) >> 40) }

    func inode(of slot: UInt32) -> UInt64 { unsafe wire_load64(node(slot) + Int(WIRE_SHARE_NODE_INODE)) }

    /// The file that keeps a node without a handle.
    func file(of slot: UInt32) -> UInt32? { unsafe link(node(slot) + Int(WIRE_SHARE_NODE_FILE)) }

    func identity(of slot: UInt32) -> NodeIdentity {
        let node = unsafe node(slot)
        let control = unsafe wire_load64(node)
        var identity = NodeIdentity()
        identity.device = unsafe wire_load64(node + Int(WIRE_SHARE_NODE_DEVICE))
        identity.inode = unsafe wire_load64(node + Int(WIRE_SHARE_NODE_INODE))
        identity.mount = unsafe wire_load32(node + Int(WIRE_SHARE_NODE_MOUNT))
        identity.type = UInt8(truncatingIfNeeded: control >> 40)
        identity.handleCount = min(UInt8(truncatingIfNeeded: control >> 48), UInt8(WIRE_SHARE_HANDLE_BYTES))
        identity.handleType = Int32(bitPattern: unsafe wire_load32(node + Int(WIRE_SHARE_NODE_HANDLE_TYPE)))
        for index in 0..<5 {
            identity.handle[index] = unsafe wire_load64(node + Int(WIRE_SHARE_NODE_HANDLE) + 8 * index)
        }
        return identity
    }

    /// The live node of an identity.
    func find(_ identity: borrowing NodeIdentity) -> UInt32? {
        let hash = identity.hash
        var place = unsafe bucket(of: hash)
        var steps: UInt32 = 0
        while let slot = unsafe link(place), steps < capacity {
            let node = unsafe node(slot)
            if unsafe wire_load32(node + Int(WIRE_SHARE_NODE_HASH)) == hash, Self.isLive(control(slot)),
                self.identity(of: slot) == identity
            {
                return slot
            }
            unsafe place = node + Int(WIRE_SHARE_NODE_NEXT)
            steps += 1
        }
        return nil
    }

    /// The driver is told of a node once more.
    func addLookup(_ slot: UInt32, _ effect: EffectUse = .none) {
        if slot == Self.rootSlot {
            // It is never counted, but has a place in a list.
            if effect.entry != 0 { effects.setWord(effect.place, word(effect, identifier(of: slot))) }
            return
        }
        setLookups(slot, lookups(of: slot) &+ 1, effect, says: word(effect, identifier(of: slot)))
    }

    func lookups(of slot: UInt32) -> UInt64 { unsafe wire_load64(node(slot) + Int(WIRE_SHARE_NODE_LOOKUPS)) }
}

// MARK: - Changes

extension NodeTable {
    /// What an effect says when a node was counted for it.
    private func word(_ effect: EffectUse, _ node: UInt64) -> UInt64 {
        guard effect.place != 0, effect.entry != 0 else { return node }
        effects.setNode(effect.place, Int(effect.entry) - 1, node)
        return UInt64(effect.entry)
    }

    private func setLookups(_ slot: UInt32, _ count: UInt64, _ effect: EffectUse, says word: UInt64) {
        let place = unsafe node(slot) + Int(WIRE_SHARE_NODE_LOOKUPS)
        if effect.place == 0 {
            unsafe wire_store64(place, count)
            return
        }
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT_LOOKUPS), count)
        setIntent(Intent.count, slot, count: UInt64(self.count), effect, says: word)
        unsafe wire_store64(place, count)
        finishIntent()
    }

    private func setIntent(
        _ kind: UInt64, _ slot: UInt32, count: UInt64, _ effect: EffectUse, says word: UInt64
    ) {
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT_EFFECT), UInt64(effect.place))
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT_WORD), word)
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT_COUNT), count)
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT), kind | UInt64(slot + 1))
    }

    private func finishIntent() {
        let count = unsafe wire_load64(header + Int(WIRE_SHARE_INTENT_COUNT))
        unsafe wire_store64(header + Int(WIRE_SHARE_LIVE_NODES), count)
        let effect = unsafe wire_load64(header + Int(WIRE_SHARE_INTENT_EFFECT))
        if effect != 0 {
            effects.setWord(
                UInt32(clamping: effect), unsafe wire_load64(header + Int(WIRE_SHARE_INTENT_WORD)))
        }
        unsafe wire_store64(header + Int(WIRE_SHARE_INTENT), 0)
    }

    /// Makes a node that the driver was told of once.
    ///
    /// - Parameter file: that keeps it, where it has no handle.
    /// - Returns: nil when the table is full.
    func insert(
        _ identity: borrowing NodeIdentity, file: UInt32? = nil, _ effect: EffectUse = .none
    ) -> UInt32? {
        let freePlace = unsafe header + Int(WIRE_SHARE_FREE_NODE)
        let freshPlace = unsafe header + Int(WIRE_SHARE_FRESH_NODE)
        let slot: UInt32
        if let free = unsafe link(freePlace) {
            slot = free
            setIntent(
                Intent.insert, slot, count: UInt64(count + 1), effect, says: word(effect, nextIdentifier(slot)))
            unsafe wire_store32(freePlace, wire_load32(node(slot) + Int(WIRE_SHARE_NODE_NEXT)))
        } else {
            slot = unsafe wire_load32(freshPlace)
            guard slot < capacity else { return nil }
            setIntent(
                Intent.insert, slot, count: UInt64(count + 1), effect, says: word(effect, nextIdentifier(slot)))
            unsafe wire_store32(freshPlace, slot + 1)
        }
        let (node, hash) = unsafe (node(slot), identity.hash)
        unsafe wire_store64(node + Int(WIRE_SHARE_NODE_LOOKUPS), 1)
        unsafe wire_store64(node + Int(WIRE_SHARE_NODE_INODE), identity.inode)
        unsafe wire_store64(node + Int(WIRE_SHARE_NODE_DEVICE), identity.device)
        unsafe wire_store32(node + Int(WIRE_SHARE_NODE_HASH), hash)
        unsafe wire_store32(node + Int(WIRE_SHARE_NODE_MOUNT), identity.mount)
        unsafe wire_store32(node + Int(WIRE_SHARE_NODE_HANDLE_TYPE), UInt32(bitPattern: identity.handleType))
        for index in 0..<5 {
            unsafe wire_store64(node + Int(WIRE_SHARE_NODE_HANDLE) + 8 * index, identity.handle[index])
        }
        unsafe wire_store32(node + Int(WIRE_SHARE_NODE_FILE), file.map { $0 + 1 } ?? 0)
        let bucket = unsafe bucket(of: hash)
        unsafe wire_store32(node + Int(WIRE_SHARE_NODE_NEXT), wire_load32(bucket))
        let control =
            UInt64(nextGeneration(slot)) | 1 << 32 | UInt64(identity.type) << 40 | UInt64(identity.handleCount) << 48
        unsafe wire_store64(node, control)
        unsafe wire_store32(bucket, slot + 1)
        finishIntent()
        return slot
    }

    /// 0 is the root's generation, and that of a slot that was never used.
    private func nextGeneration(_ slot: UInt32) -> UInt32 { max(UInt32(truncatingIfNeeded: control(slot)) &+ 1, 1) }

    /// The number that the next node in a free slot has.
    private func nextIdentifier(_ slot: UInt32) -> UInt64 { UInt64(nextGeneration(slot)) << 32 | UInt64(slot) }

    /// What `forget` has done.
    enum Forgotten: Equatable {
        case kept
        /// The node is no more; its file can be let go of.
        case removed(file: UInt32?)
    }

    /// The driver forgets a node so many times.
    ///
    /// - Parameter word: what the effect says then.
    func forget(
        _ slot: UInt32, _ times: UInt64, _ effect: EffectUse = .none, says word: UInt64 = 0
    ) -> Forgotten {
        if slot == Self.rootSlot {
            effects.setWord(effect.place, word)
            return .kept
        }
        let lookups = lookups(of: slot)
        let left = lookups > times ? lookups - times : 0
        if left > 0 {
            setLookups(slot, left, effect, says: word)
            return .kept
        }
        let file = file(of: slot)
        setIntent(Intent.remove, slot, count: UInt64(max(count - 1, 0)), effect, says: word)
        unsafe wire_store64(node(slot) + Int(WIRE_SHARE_NODE_LOOKUPS), 0)
        let control = control(slot)
        unsafe wire_store64(node(slot), control & 0xffff_ffff)
        takeOutOfBucket(slot)
        putOnFreeList(slot)
        finishIntent()
        return .removed(file: file)
    }

    private func takeOutOfBucket(_ slot: UInt32) {
        var place = unsafe bucket(of: wire_load32(node(slot) + Int(WIRE_SHARE_NODE_HASH)))
        var steps: UInt32 = 0
        while let next = unsafe link(place), steps < capacity {
            let nextPlace = unsafe node(next) + Int(WIRE_SHARE_NODE_NEXT)
            if next == slot {
                unsafe wire_store32(place, wire_load32(nextPlace))
                return
            }
            unsafe place = nextPlace
            steps += 1
        }
    }

    private func isInBucket(_ slot: UInt32) -> Bool {
        var place = unsafe bucket(of: wire_load32(node(slot) + Int(WIRE_SHARE_NODE_HASH)))
        var steps: UInt32 = 0
        while let next = unsafe link(place), steps < capacity {
            if next == slot { return true }
            unsafe place = node(next) + Int(WIRE_SHARE_NODE_NEXT)
            steps += 1
        }
        return false
    }

    private func putOnFreeList(_ slot: UInt32) {
        let freePlace = unsafe header + Int(WIRE_SHARE_FREE_NODE)
        unsafe wire_store32(node(slot) + Int(WIRE_SHARE_NODE_NEXT), wire_load32(freePlace))
        unsafe wire_store32(freePlace, slot + 1)
    }

    /// Finishes, or takes back, the change that a worker before died in. May be repeated, and died in.
    ///
    /// - Returns: the file of a node that is no more.
    func repair() -> UInt32? {
        let intent = unsafe wire_load64(header + Int(WIRE_SHARE_INTENT))
        guard intent != 0 else { return nil }
        let number = UInt32(truncatingIfNeeded: intent)
        guard number > 0, number <= capacity else {
            unsafe wire_store64(header + Int(WIRE_SHARE_INTENT), 0)
            return nil
        }
        let slot = number - 1
        if intent >> 32 == Intent.count >> 32 {
            let lookups = unsafe wire_load64(header + Int(WIRE_SHARE_INTENT_LOOKUPS))
            unsafe wire_store64(node(slot) + Int(WIRE_SHARE_NODE_LOOKUPS), lookups)
            finishIntent()
            return nil
        }
        let isRemoval = intent >> 32 == Intent.remove >> 32
        if Self.isLive(control(slot)), !isRemoval {
            if !isInBucket(slot) {
                let bucket = unsafe bucket(of: wire_load32(node(slot) + Int(WIRE_SHARE_NODE_HASH)))
                unsafe wire_store32(node(slot) + Int(WIRE_SHARE_NODE_NEXT), wire_load32(bucket))
                unsafe wire_store32(bucket, slot + 1)
            }
            finishIntent()
            return nil
        }
        let file = file(of: slot)
        if isRemoval {
            unsafe wire_store64(node(slot), control(slot) & 0xffff_ffff)
            takeOutOfBucket(slot)
        } else {
            // It has not happened: what it would have made is not there.
            unsafe wire_store64(header + Int(WIRE_SHARE_INTENT_EFFECT), 0)
            let place = unsafe header + Int(WIRE_SHARE_INTENT_COUNT)
            unsafe wire_store64(place, wire_load64(header + Int(WIRE_SHARE_LIVE_NODES)))
        }
        let isFresh = unsafe slot >= wire_load32(header + Int(WIRE_SHARE_FRESH_NODE))
        if !isFresh, unsafe link(header + Int(WIRE_SHARE_FREE_NODE)) != slot { putOnFreeList(slot) }
        finishIntent()
        return isRemoval ? file : nil
    }

    /// Forgets all nodes but the root. Generations go on, so that old node ids stay unknown.
    ///
    /// The intent of a whole sweep is the agreement that is gone: whoever finds tables without one sweeps again.
    func removeAll() {
        let fresh = min(unsafe wire_load32(header + Int(WIRE_SHARE_FRESH_NODE)), capacity)
        var slot: UInt32 = 2
        while slot < fresh {
            if Self.isLive(control(slot)) { _ = forget(slot, .max) }
            slot += 1
        }
    }
}
