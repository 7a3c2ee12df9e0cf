internal import FrontendKit

/// Plans random operations from a seed, without knowing what became of those before: names are few, so that operations
/// meet.
public struct OperationGenerator: Sendable {
    /// What is planned beside what everything must be able to do.
    public struct Options: Sendable {
        /// O_TMPFILE.
        public var temporaryFiles = true
        /// Record locks of open file descriptions. A mounted file system has them of processes only.
        public var recordLocks = true
        public var fileLocks = true
        public var synchronizesAll = true
        public var extendedAttributes = true
        public var deviceNodes = true
        /// RENAME_WHITEOUT by others than root.
        public var whiteouts = true

        public init() {}
    }

    public static let slotCount = 4
    /// Root, and two others, one of them in the other's group.
    public static let actors = [
        FileActor(index: 0, user: 0, group: 0, umask: 0o022),
        FileActor(index: 1, user: 1000, group: 1000, umask: 0o002),
        FileActor(index: 2, user: 1001, group: 1000, umask: 0),
    ]

    private var random: SeededGenerator
    private let options: Options

    public init(seed: UInt64, _ options: Options) {
        random = SeededGenerator(seed: seed)
        self.options = options
    }

    public mutating func next() -> (FileActor, FileOperation) {
        let actor = Self.actors[number(Self.actors.count)]
        while true { if let operation = plan(actor) { return (actor, operation) } }
    }

    /// Nil when it is one that is not wanted.
    private mutating func plan(_ actor: FileActor) -> FileOperation? {
        switch number(100) {
        case 0..<12: return open()
        case 12..<20: return makeName(actor)
        case 20..<26: return removeName()
        case 26..<33:
            let flags: UInt32 = pick([0, 0, 0, 0, 1, 2, 2, 4])
            if flags == 4, !options.whiteouts, actor.user != 0 { return nil }
            return .rename(path(), to: path(), flags: flags)
        case 33..<57: return data()
        case 57..<64: return change()
        case 64..<70: return attribute()
        case 70..<80: return look()
        case 80..<86: return .list(number(4) == 0 ? path() : directory(), part: pick([512, 1024, 4096]))
        case 86..<89: return .close(slot: slot())
        case 89..<93: return special()
        default: return lock()
        }
    }

    private mutating func open() -> FileOperation? {
        let access: Int32 = pick([0, 1, 2, 2])
        if number(12) == 0 {
            guard options.temporaryFiles else { return nil }
            return .openTemporary(slot: slot(), directory(), flags: max(1, access), mode: mode())
        }
        // O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW
        let flags: [Int32] = [
            0, 0, 0o100, 0o100, 0o100, 0o300, 0o300, 0o1000, 0o1100, 0o2000, 0o2100, 0o400000, 0o400100, 0o200000,
        ]
        return .open(slot: slot(), path(), flags: access | pick(flags), mode: mode())
    }

    private mutating func makeName(_ actor: FileActor) -> FileOperation? {
        switch number(8) {
        case 0..<3: return .makeDirectory(path(), mode: number(4) == 0 ? mode() : 0o777)
        case 3: return .makeSymbolicLink(path(), target: target())
        case 4: return .link(path(), to: path())
        case 5: return .linkOpen(slot: slot(), to: path())
        case 6: return .makeNode(path(), mode: pick([0o100000, 0o010000, 0o140000]) | mode(), major: 0, minor: 0)
        default:
            guard options.deviceNodes else { return nil }
            return .makeNode(path(), mode: 0o020000 | mode(), major: pick([1, 0, 300]), minor: pick([3, 0, 4097]))
        }
    }

    private mutating func removeName() -> FileOperation {
        number(3) == 0 ? .removeDirectory(path()) : .unlink(path())
    }

    private mutating func data() -> FileOperation {
        switch number(16) {
        case 0..<5: .read(slot: slot(), offset: offset(), count: count())
        case 5..<10: .write(slot: slot(), offset: offset(), count: count(), seed: random.next())
        case 10: .truncateOpen(slot: slot(), size: offset())
        case 11: .truncate(path(), size: offset())
        // Plain, KEEP_SIZE, PUNCH_HOLE with it and wrongly without, ZERO_RANGE of both kinds. FUSE has no others.
        case 12:
            .allocate(
                slot: slot(), mode: pick([0, 1, 3, 3, 2, 0x10, 0x11]), offset: offset(),
                count: UInt64(count()))
        case 13: .seek(slot: slot(), offset: offset(), whence: pick([3, 4]))
        case 14:
            .copy(from: slot(), offset: offset(), to: slot(), newOffset: offset(), count: UInt64(count()))
        default: .synchronize(slot: slot(), dataOnly: number(2) == 0)
        }
    }

    private mutating func change() -> FileOperation {
        switch number(8) {
        case 0, 1: .changeMode(path(), mode: mode())
        case 2: .changeModeOpen(slot: slot(), mode: mode())
        // Not neither: a kernel on FUSE leaves set-user-ID bits alone then, as nothing is sent.
        case 3: .changeOwner(path(), user: pick([0, 1000, 1001]), group: pick([nil, nil, 0, 1000, 1001]))
        case 4: .changeOwner(path(), user: nil, group: pick([0, 1000, 1001]))
        default: .setTimes(path(), accessed: time(), modified: time())
        }
    }

    private mutating func attribute() -> FileOperation? {
        guard options.extendedAttributes else { return nil }
        let name = pick(["user.a", "user.b", "user.long", "user.", "nonsense"])
        switch number(5) {
        case 0, 1:
            return .setAttribute(
                path(), name: name, count: pick([0, 1, 30, 1000, 5000]), seed: random.next(), flags: pick([0, 0, 1, 2]))
        case 2: return .attribute(path(), name: name)
        case 3: return .attributes(path())
        default: return .removeAttribute(path(), name: name)
        }
    }

    private mutating func look() -> FileOperation {
        switch number(10) {
        case 0..<4: .status(path())
        case 4, 5: .statusOpen(slot: slot())
        case 6, 7: .readLink(path())
        default: .access(path(), mask: UInt32(number(8)))
        }
    }

    private mutating func special() -> FileOperation? {
        switch number(12) {
        case 0: return .fileSystem
        case 1: return options.synchronizesAll && number(20) == 0 ? .synchronizeAll : nil
        case 2..<5: return .synchronizeDirectory(directory())
        default: return .statusOpen(slot: slot())
        }
    }

    private mutating func lock() -> FileOperation? {
        let kind = pick([FileLockKind.shared, .exclusive, .none])
        switch number(3) {
        case 0: return options.fileLocks ? .lockFile(slot: slot(), kind) : nil
        case 1: return options.recordLocks ? .lock(slot: slot(), kind, range()) : nil
        default:
            let tested: FileLockKind = kind == .none ? .exclusive : kind
            return options.recordLocks ? .testLock(slot: slot(), tested, range()) : nil
        }
    }

    // MARK: Parts

    private mutating func number(_ limit: Int) -> Int { Int(random.next(below: UInt64(limit))) }

    private mutating func pick<Value>(_ values: [Value]) -> Value { values[number(values.count)] }

    private mutating func slot() -> Int { number(Self.slotCount) }

    private mutating func name() -> String {
        switch number(60) {
        case 0: String(repeating: "n", count: 255)
        case 1: String(repeating: "n", count: 256)
        case 2..<20: "d\(number(3))"
        case 20..<26: "l\(number(3))"
        default: "f\(number(12))"
        }
    }

    private mutating func directory() -> String {
        switch number(6) {
        case 0: "."
        case 1..<4: "d\(number(3))"
        case 4: "d\(number(3))/d\(number(3))"
        default: "l\(number(3))"
        }
    }

    private mutating func path() -> String {
        switch number(10) {
        case 0..<4: name()
        case 4..<9: "\(directory())/\(name())"
        default: "\(directory())/d\(number(3))/\(name())"
        }
    }

    private mutating func target() -> String {
        pick(["f0", "f1", "d0", "d1", "d1/f2", "d0/d1", "l0", "l1", "nowhere", String(repeating: "long/", count: 100)])
    }

    private mutating func mode() -> UInt32 {
        pick([
            0o644, 0o644, 0o600, 0o666, 0o664, 0o755, 0o777, 0o700, 0o400, 0o222, 0, 0o4755, 0o2755, 0o6777, 0o2775,
        ])
    }

    private mutating func offset() -> UInt64 {
        switch number(8) {
        case 0: 0
        case 1..<4: UInt64(number(10000))
        case 4..<6: UInt64(number(64)) * 4096
        case 6: UInt64(number(300_000))
        default: pick([1 << 20, 1 << 32, (1 << 40) + 5])
        }
    }

    private mutating func count() -> Int {
        switch number(8) {
        case 0: pick([0, 1, 1])
        case 1..<4: number(5000)
        case 4..<6: 4096 * (1 + number(8))
        case 6: number(140_000)
        default: number(100)
        }
    }

    private mutating func range() -> ClosedRange<UInt64> {
        let start = UInt64(number(40))
        return start...(number(5) == 0 ? UInt64(Int64.max) : start + UInt64(number(20)))
    }

    private mutating func time() -> TimeChange {
        switch number(4) {
        case 0: .stays
        case 1: .now
        default: .at(seconds: Int64(number(1_000_000_000)) - 10_000, nanoseconds: UInt32(number(1_000_000_000)))
        }
    }
}
