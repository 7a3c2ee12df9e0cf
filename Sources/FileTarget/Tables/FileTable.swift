internal import CWire
internal import Glibc
internal import Platform
internal import Synchronization

/// What an open file is for. The numbers are in memory that other builds read.
enum FileKind: UInt8 {
    /// Opened by the driver.
    case file = 1
    case directory = 2
    /// Holds the POSIX locks of one owner on one node.
    case lock = 3
    /// Keeps a node that has no file handle.
    case node = 4
    /// Opens the file handles of a mount.
    case mount = 5
}

/// The open files of a share. A handle is generation << 32 | slot: one that was forged or is stale matches no
/// generation.
///
/// What outlives a worker is in `records`: which slots are in use, for what. Descriptors and who uses them are this
/// process's, in `places`: a file that is released while another loop uses it is closed by whoever uses it last, so no
/// number is ever used that has become another file's.
///
/// **The order of stores**:
///
/// - `add`: the slot's next generation, which no other file gets, and its fields; custody has the file; **control:
///   open**. A worker that dies before the last leaves a file in custody that the tables do not know; `wants` says so.
/// - letting go: **control: closing**; custody lets go; control: free. A worker that dies in between leaves a slot that
///   is closing: its successor frees it.
@safe struct FileTable: @unchecked Sendable {
    private let header: UnsafeMutableRawPointer
    private let records: UnsafeMutableRawPointer
    private let places: UnsafeMutableRawPointer
    let capacity: UInt32

    /// Of a place: uses (8 bytes), descriptor (4), reserved (4), directory position (8), the next free slot (4).
    static let placeBytes = 32
    private static let closing: UInt64 = 1 << 31

    /// - Parameter places: `placeBytes` zero bytes for each slot.
    init(
        header: UnsafeMutableRawPointer, records: UnsafeMutableRawPointer, places: UnsafeMutableRawPointer,
        capacity: Int
    ) {
        unsafe self.header = header
        unsafe self.records = records
        unsafe self.places = places
        self.capacity = UInt32(capacity)
    }

    private func record(_ slot: UInt32) -> UnsafeMutableRawPointer {
        precondition(slot < capacity)
        return unsafe records + Int(slot) * Int(WIRE_SHARE_FILE_BYTES)
    }
    private func place(_ slot: UInt32) -> UnsafeMutableRawPointer {
        precondition(slot < capacity)
        return unsafe places + Int(slot) * Self.placeBytes
    }
    /// generation << 32 | closing << 31 | uses
    private func uses(_ slot: UInt32) -> UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe place(slot).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
    private func number(_ slot: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (place(slot) + 8).assumingMemoryBound(to: Atomic<UInt32>.self)
    }
    private func control(_ slot: UInt32) -> UInt64 { unsafe wire_load64(record(slot)) }

    /// Slots that were ever in use are below it.
    var fresh: UInt32 { min(unsafe wire_load32(header + Int(WIRE_SHARE_FRESH_FILE)), capacity) }

    func isOpen(_ slot: UInt32) -> Bool { slot > 0 && slot < capacity && control(slot) >> 32 & 0xff == 1 }
    func kind(of slot: UInt32) -> FileKind? { FileKind(rawValue: UInt8(truncatingIfNeeded: control(slot) >> 40)) }
    func handle(of slot: UInt32) -> UInt64 { control(slot) << 32 | UInt64(slot) }
    func node(of slot: UInt32) -> UInt64 { unsafe wire_load64(record(slot) + Int(WIRE_SHARE_FILE_NODE)) }
    func owner(of slot: UInt32) -> UInt64 { unsafe wire_load64(record(slot) + Int(WIRE_SHARE_FILE_OWNER)) }

    /// Where the directory's descriptor stands, as far as this process knows.
    func position(of slot: UInt32) -> UInt64 { unsafe wire_load64(place(slot) + 16) }
    func setPosition(of slot: UInt32, _ value: UInt64) { unsafe wire_store64(place(slot) + 16, value) }
    static var unknownPosition: UInt64 { .max }

    // MARK: Use

    /// The descriptor of an open file, which stays open until `giveBack`.
    ///
    /// - Returns: nil when the handle is forged or stale, of another kind, or its descriptor has not come from custody.
    func take(_ handle: UInt64, _ kind: FileKind) -> Int32? {
        let slot = UInt32(truncatingIfNeeded: handle)
        guard slot > 0, slot < capacity else { return nil }
        let uses = unsafe uses(slot)
        var value = unsafe uses.pointee.load(ordering: .acquiring)
        while true {
            // A slot in nobody's use has generation 0.
            guard value >> 32 == handle >> 32, value >> 32 != 0, value & Self.closing == 0,
                value & 0x7fff_ffff < 0x7fff_ffff
            else { return nil }
            // They are this generation's if the value is still the same afterwards.
            let fd = Int32(bitPattern: unsafe number(slot).pointee.load(ordering: .acquiring)) - 1
            guard fd >= 0, self.kind(of: slot) == kind else { return nil }
            let (done, now) = unsafe uses.pointee.weakCompareExchange(
                expected: value, desired: value + 1, ordering: .acquiringAndReleasing)
            if done { return fd }
            value = now
        }
    }

    /// - Returns: whether this was the last use of a file that is to be let go of: `finish` it.
    func dropUse(_ slot: UInt32) -> Bool {
        let now = unsafe uses(slot).pointee.subtract(1, ordering: .acquiringAndReleasing).newValue
        return now & 0xffff_ffff == Self.closing
    }

    /// Nobody may take a file any more.
    ///
    /// - Returns: nil when the handle is forged or stale; else whether nobody uses it: `finish` it then.
    func beginRelease(_ handle: UInt64) -> Bool? {
        let slot = UInt32(truncatingIfNeeded: handle)
        guard slot > 0, slot < capacity else { return nil }
        let uses = unsafe uses(slot)
        var value = unsafe uses.pointee.load(ordering: .acquiring)
        while true {
            guard value >> 32 == handle >> 32, value >> 32 != 0, value & Self.closing == 0 else { return nil }
            let (done, now) = unsafe uses.pointee.weakCompareExchange(
                expected: value, desired: value | Self.closing, ordering: .acquiringAndReleasing)
            if done { return value & 0x7fff_ffff == 0 }
            value = now
        }
    }

    // MARK: Changes: the caller holds the session's lock of files for `addSlot` and `free`

    /// A slot that is in nobody's use.
    func addSlot(_ firstFree: inout UInt32) -> UInt32? {
        if firstFree > 0, firstFree < capacity {
            let slot = firstFree
            firstFree = unsafe wire_load32(place(slot) + 24)
            return slot
        }
        let slot = fresh
        guard slot < capacity else { return nil }
        unsafe wire_store32(header + Int(WIRE_SHARE_FRESH_FILE), slot + 1)
        return slot
    }

    func free(_ slot: UInt32, _ firstFree: inout UInt32) {
        unsafe wire_store32(place(slot) + 24, firstFree)
        firstFree = slot
    }

    /// What is known of a file before custody has it.
    ///
    /// - Returns: the handle that it will have: no other file ever has it, though this one may never be open.
    func describe(_ slot: UInt32, node: UInt64, owner: UInt64, flags: UInt32) -> UInt64 {
        let record = unsafe record(slot)
        let generation = max(UInt32(truncatingIfNeeded: control(slot)) &+ 1, 1)
        unsafe wire_store64(record, UInt64(generation))
        unsafe wire_store64(record + Int(WIRE_SHARE_FILE_NODE), node)
        unsafe wire_store64(record + Int(WIRE_SHARE_FILE_OWNER), owner)
        unsafe wire_store32(record + Int(WIRE_SHARE_FILE_FLAGS), flags)
        return UInt64(generation) << 32 | UInt64(slot)
    }

    /// As the file was opened, for `describe`.
    func flags(of slot: UInt32) -> UInt32 { unsafe wire_load32(record(slot) + Int(WIRE_SHARE_FILE_FLAGS)) }

    /// After `describe`.
    func open(_ slot: UInt32, _ kind: FileKind, _ fd: Int32) {
        let generation = UInt32(truncatingIfNeeded: control(slot))
        unsafe number(slot).pointee.store(UInt32(fd + 1), ordering: .relaxed)
        setPosition(of: slot, 0)
        unsafe wire_store64(record(slot), UInt64(generation) | 1 << 32 | UInt64(kind.rawValue) << 40)
        unsafe uses(slot).pointee.store(UInt64(generation) << 32, ordering: .releasing)
    }

    /// A file is about to leave custody; its descriptor is the caller's now, if it has one.
    func beginClosing(_ slot: UInt32) -> Int32? {
        unsafe wire_store64(record(slot), control(slot) & 0xff00_ffff_ffff | 2 << 32)
        let fd = Int32(bitPattern: unsafe number(slot).pointee.exchange(0, ordering: .acquiringAndReleasing)) - 1
        return fd >= 0 ? fd : nil
    }

    func endClosing(_ slot: UInt32) {
        unsafe wire_store64(record(slot), control(slot) & 0xffff_ffff)
        unsafe uses(slot).pointee.store(0, ordering: .releasing)
    }

    // MARK: Take-over

    /// A descriptor that custody had.
    ///
    /// - Returns: false when there is one already.
    func restore(_ slot: UInt32, _ fd: Int32) -> Bool {
        setPosition(of: slot, Self.unknownPosition)
        return unsafe number(slot).pointee.compareExchange(
            expected: 0, desired: UInt32(fd + 1), ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Takes a descriptor out that nothing wants.
    func takeOut(_ slot: UInt32) -> Int32? {
        let fd = Int32(bitPattern: unsafe number(slot).pointee.exchange(0, ordering: .acquiringAndReleasing)) - 1
        return fd >= 0 ? fd : nil
    }

    /// This process uses the table from now on: slots that a worker before was letting go of are free.
    func takeUp(_ firstFree: inout UInt32) {
        firstFree = 0
        var slot = fresh
        while slot > 1 {
            slot -= 1
            let control = control(slot)
            if control >> 32 & 0xff == 1 {
                unsafe uses(slot).pointee.store(control << 32, ordering: .releasing)
            } else {
                if control >> 32 != 0 { unsafe wire_store64(record(slot), control & 0xffff_ffff) }
                unsafe uses(slot).pointee.store(0, ordering: .releasing)
                free(slot, &firstFree)
            }
        }
    }
}
