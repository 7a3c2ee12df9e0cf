internal import CWire
internal import Platform

/// An operation of a verifying load; numbers stand for the client's names, open files and nodes.
enum FileLoadStep: Hashable {
    case create(Int)
    /// MKNOD of a regular file, and of a FIFO.
    case makeFile(Int)
    case makePipe(Int)
    case makeDirectory(Int)
    case makeLink(Int)
    case unlink(Int)
    case removeDirectory(Int)
    case rename(Int, Int, FileClient.RenameFlags)
    case link(Int, Int)
    case lookUp(Int)
    case readLink(Int)
    case list
    /// READDIRPLUS
    case listNodes
    case open(Int)
    /// With O_APPEND.
    case openToAppend(Int)
    case read(Int)
    case write(Int, offset: Int, count: Int)
    case append(Int, count: Int)
    case synchronize(Int)
    case close(Int)
    case attributes(Int)
    case truncate(Int, size: Int)
    case setAttribute(Int)
    /// With XATTR_CREATE.
    case makeAttribute(Int)
    case attribute(Int)
    case removeAttribute(Int)
}

/// What one client of a verifying load knows of its own directory, which nobody else touches: so each answer is known
/// beforehand, error numbers included. It has one operation under way at a time.
struct FileLoadModel {
    /// What a name stands for.
    enum Entry: Hashable {
        case none
        /// Index into `files`.
        case file(Int)
        case directory(node: UInt64)
        case link(node: UInt64, target: UInt64)
        case pipe(node: UInt64)
    }

    struct File {
        var node: UInt64
        var content: [UInt8] = []
        /// Number of its value; nil: it has none.
        var attribute: UInt64?
        var links = 1
        /// How often the device has made the node known.
        var mentions: UInt64 = 1
        var opens = 0
    }

    struct Open {
        var file: Int
        var handle: UInt64
        var appends = false
    }

    static let nameCount = 8
    static let openCount = 3
    /// Bytes that a file has at most.
    static let sizeLimit = 24576

    /// FUSE_SETXATTR_EXT was agreed on.
    var hasLongSetXattr = false
    /// Names are unlinked and renamed only where they are: see `VerifiedFileLoad.Options`.
    var looksFirst = false
    let directory: UInt64
    let directoryHandle: UInt64
    private(set) var names = [Entry](repeating: .none, count: nameCount)
    private(set) var files: [Int: File] = [:]
    private(set) var open = [Open?](repeating: nil, count: openCount)
    /// What a list under way has told, and where it goes on. A host may stop early, for a signal say: a driver asks on.
    private var listing: (names: Set<String>, offset: UInt64)?
    /// Nodes to be forgotten, and how often they were made known.
    var forgotten: [(node: UInt64, times: UInt64)] = []
    private var random: SeededGenerator
    /// Numbers files and contents.
    private var sequence: UInt64
    /// The content of the write under way.
    private var pending: [UInt8] = []

    init(directory: UInt64, handle: UInt64, seed: UInt64) {
        self.directory = directory
        directoryHandle = handle
        random = SeededGenerator(seed: seed)
        // Half of all numbers are left, so that they fit an Int.
        sequence = (seed << 20) >> 1
    }

    // MARK: Planning

    mutating func nextStep() -> FileLoadStep {
        if listing != nil { return .list }
        let (name, other, slot) = (draw(Self.nameCount), draw(Self.nameCount), draw(Self.openCount))
        switch draw(100) {
        case 0..<8: return open[slot] == nil ? .create(name) : .close(slot)
        case 8..<9: return .makeFile(name)
        case 9..<11: return .makePipe(name)
        case 11..<15: return .makeDirectory(name)
        case 15..<18: return .makeLink(name)
        case 18..<26: return .unlink(name)
        case 26..<29: return .removeDirectory(name)
        case 29..<37:
            let flags: [FileClient.RenameFlags] = [[], [], .noReplace, .exchange]
            return .rename(name, other, flags[draw(4)])
        case 37..<41: return .link(name, other)
        case 41..<47: return .lookUp(name)
        case 47..<49: return .readLink(name)
        case 49..<52: return .list
        case 52..<54: return .listNodes
        default: return nextOnFile(name, slot)
        }
    }

    private mutating func nextOnFile(_ name: Int, _ slot: Int) -> FileLoadStep {
        guard let opened = open[slot], let size = files[opened.file]?.content.count else {
            return [.open(name), .openToAppend(name), .create(name), .create(name)][draw(4)]
        }
        switch draw(14) {
        case 0..<3: return .read(slot)
        case 3..<6 where !opened.appends:
            let offset = draw(min(size + 2000, Self.sizeLimit - 1))
            return .write(slot, offset: offset, count: min(1 + draw(6000), max(1, Self.sizeLimit - offset)))
        case 3..<7:
            return size < Self.sizeLimit - 3000 ? .append(slot, count: 1 + draw(3000)) : .truncate(slot, size: 0)
        case 7: return .synchronize(slot)
        case 8: return .close(slot)
        case 9: return .truncate(slot, size: draw(Self.sizeLimit))
        case 10: return draw(2) == 0 ? .setAttribute(slot) : .makeAttribute(slot)
        case 11: return .attribute(slot)
        case 12: return .removeAttribute(slot)
        default: return .attributes(slot)
        }
    }

    private mutating func draw(_ limit: Int) -> Int { Int(random.next(below: UInt64(limit))) }

    /// Steps that look at everything, for the end of a load.
    var sweep: [FileLoadStep] {
        [.list, .list] + names.indices.map { .lookUp($0) }
            + open.indices.flatMap { open[$0] == nil ? [] : [.attributes($0), .read($0), .attribute($0), .close($0)] }
            + names.indices.flatMap { name -> [FileLoadStep] in
                // The first open file is free by then.
                switch names[name] {
                case .file: [.open(name), .read(0), .close(0)]
                case .link: [.readLink(name)]
                default: []
                }
            }
    }

    // MARK: Requests

    /// Lays the request of a step out.
    mutating func request(_ step: FileLoadStep, in slot: Int, of queue: inout FileQueue) -> FileCall {
        var arguments: [UInt8] = []
        var call = FileCall(.lookup, node: directory)
        func ask(_ opcode: FileOpcode, _ answer: FileCall.Answer = .small(0), node: UInt64? = nil) {
            call.opcode = opcode
            call.answer = answer
            if let node { call.node = node }
        }
        switch step {
        case .create(let name):
            ask(.create, .small(144))
            arguments = bytes(wire_fuse_create_in(flags: 0o302, mode: 0o100644, umask: 0, open_flags: 0), name)
        case .makeFile(let name), .makePipe(let name):
            ask(.makeNode, .small(128))
            let mode: UInt32 = if case .makePipe = step { 0o010644 } else { 0o100644 }
            arguments = bytes(wire_fuse_mknod_in(mode: mode, rdev: 0, umask: 0, padding: 0), name)
        case .makeDirectory(let name):
            ask(.makeDirectory, .small(128))
            arguments = bytes(wire_fuse_mkdir_in(mode: 0o755, umask: 0), name)
        case .makeLink(let name):
            sequence += 1
            ask(.symbolicLink, .small(128))
            arguments = Self.name(name) + [0] + Self.target(sequence) + [0]
        case .unlink(let name): (arguments, _) = (Self.name(name) + [0], ask(.unlink))
        case .removeDirectory(let name): (arguments, _) = (Self.name(name) + [0], ask(.removeDirectory))
        case .rename(let name, let new, let flags):
            ask(.renameWithFlags)
            let wire = wire_fuse_rename2_in(newdir: directory, flags: flags.rawValue, padding: 0)
            arguments = bytes(wire, name) + Self.name(new) + [0]
        case .link(let name, let new):
            ask(.link, .small(128))
            arguments = bytes(wire_fuse_link_in(oldnodeid: node(of: name) ?? 0), new)
        case .lookUp(let name): (arguments, _) = (Self.name(name) + [0], ask(.lookup, .small(128)))
        case .readLink(let name): ask(.readLink, .data(4096), node: node(of: name) ?? directory)
        case .list, .listNodes:
            ask(step == .list ? .readDirectory : .readDirectoryPlus, .data(4096))
            arguments = FileClient.bytes(
                of: FileClient.reading(directoryHandle, from: listing?.offset ?? 0, count: 4096))
        case .open(let name), .openToAppend(let name):
            ask(.open, .small(16), node: node(of: name) ?? directory)
            let flags: UInt32 = if case .openToAppend = step { Self.appending } else { 2 }
            arguments = FileClient.bytes(of: wire_fuse_open_in(flags: flags, open_flags: 0))
        default: (arguments, call) = fileRequest(step, in: slot, of: &queue)
        }
        unsafe queue.arguments(slot).copyBytes(from: arguments)
        call.argumentCount = arguments.count
        return call
    }

    private mutating func fileRequest(
        _ step: FileLoadStep, in slot: Int, of queue: inout FileQueue
    ) -> ([UInt8], FileCall) {
        guard let index = step.open, let opened = open[index], let file = files[opened.file] else {
            preconditionFailure("the step is about no open file")
        }
        var call = FileCall(.read, node: file.node)
        switch step {
        case .read:
            call.answer = .data(Self.sizeLimit)
            return (FileClient.bytes(of: FileClient.reading(opened.handle, from: 0, count: Self.sizeLimit)), call)
        case .write(_, _, let count), .append(_, let count):
            sequence += 1
            var offset = file.content.count
            if case .write(_, let place, _) = step { offset = place }
            pending = Self.content(count, sequence)
            (call.opcode, call.dataCount, call.answer) = (.write, count, .small(8))
            unsafe queue.data(slot).copyBytes(from: pending)
            let wire = wire_fuse_write_in(
                fh: opened.handle, offset: UInt64(offset), size: UInt32(count), write_flags: 0, lock_owner: 0,
                flags: opened.appends ? Self.appending : 2, padding: 0)
            return (FileClient.bytes(of: wire), call)
        case .synchronize:
            call.opcode = .synchronize
            let wire = wire_fuse_fsync_in(fh: opened.handle, fsync_flags: 1, padding: 0)
            return (FileClient.bytes(of: wire), call)
        case .close:
            call.opcode = .release
            let wire = wire_fuse_release_in(fh: opened.handle, flags: 2, release_flags: 0, lock_owner: 0)
            return (FileClient.bytes(of: wire), call)
        case .truncate(_, let size):
            (call.opcode, call.answer) = (.setAttributes, .small(104))
            return (
                FileClient.bytes(of: FileClient.Change(size: UInt64(size), handle: opened.handle).wire), call
            )
        case .attributes:
            (call.opcode, call.answer) = (.getAttributes, .small(104))
            let wire = wire_fuse_getattr_in(getattr_flags: 1, dummy: 0, fh: opened.handle)
            return (FileClient.bytes(of: wire), call)
        case .setAttribute, .makeAttribute:
            sequence += 1
            (call.opcode, call.dataCount) = (.setExtendedAttribute, 8)
            unsafe queue.data(slot).copyBytes(from: littleEndianBytes(sequence))
            let flags: UInt32 = if case .makeAttribute = step { 1 } else { 0 }
            let wire = wire_fuse_setxattr_in(size: 8, flags: flags, setxattr_flags: 0, padding: 0)
            let arguments = FileClient.bytes(of: wire).prefix(hasLongSetXattr ? 16 : 8)
            return (arguments + Self.attributeName, call)
        case .attribute:
            (call.opcode, call.answer) = (.getExtendedAttribute, .small(64))
            return (FileClient.bytes(of: wire_fuse_getxattr_in(size: 64, padding: 0)) + Self.attributeName, call)
        default:
            call.opcode = .removeExtendedAttribute
            return (Self.attributeName, call)
        }
    }

    /// O_RDWR | O_APPEND
    private static let appending: UInt32 = 0o2002

    private static let attributeName = Array("user.load".utf8) + [0]

    private func bytes(_ argument: some BitwiseCopyable, _ name: Int) -> [UInt8] {
        FileClient.bytes(of: argument) + Self.name(name) + [0]
    }

    private static func name(_ index: Int) -> [UInt8] { Array("name-\(index)".utf8) }

    private static func target(_ sequence: UInt64) -> [UInt8] { Array("target-\(sequence)".utf8) }

    private static func content(_ count: Int, _ sequence: UInt64) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: mixed(sequence &+ UInt64($0 / 8)) >> UInt64($0 % 8 * 8)) }
    }

    private func node(of name: Int) -> UInt64? {
        switch names[name] {
        case .none: nil
        case .file(let file): files[file]?.node
        case .directory(let node), .link(let node, _), .pipe(let node): node
        }
    }

    // MARK: Steps that make no sense

    /// Whether a step can be sent as things are: what it is about must be known to the device.
    func isPossible(_ step: FileLoadStep) -> Bool {
        switch step {
        case .open(let name), .openToAppend(let name):
            if case .file = names[name] { return open.contains { $0 == nil } }
            return false
        case .create: return open.contains { $0 == nil }
        case .link(let name, _): return node(of: name) != nil
        case .unlink(let name), .removeDirectory(let name): return !looksFirst || names[name] != .none
        case .rename(let name, let new, let flags):
            let mayLack = !flags.contains(.exchange) || names[new] != .none
            return !looksFirst || (names[name] != .none && mayLack)
        // A kernel asks of nothing else.
        case .readLink(let name):
            if case .link = names[name] { return true }
            return false
        default: return step.open.map { open[$0] != nil } ?? true
        }
    }

    // MARK: Answers

    /// Checks the answer to a step, and takes over what it has changed.
    ///
    /// - Returns: what is wrong with it; nil when it is as it must be.
    mutating func take(_ step: FileLoadStep, _ error: Errno?, _ answer: [UInt8]) -> String? {
        let expected = expectedError(step)
        guard error == expected else {
            return "\(step): \(error.map { "\($0)" } ?? "done") instead of \(expected.map { "\($0)" } ?? "done")"
        }
        guard error == nil else { return nil }
        switch step {
        case .create(let name): return created(name, answer)
        case .makeFile(let name):
            guard let entry = entry(answer) else { return "\(step): no entry" }
            sequence += 1
            files[Int(sequence)] = File(node: entry.node)
            names[name] = .file(Int(sequence))
        case .makePipe(let name):
            guard let entry = entry(answer) else { return "\(step): no entry" }
            names[name] = .pipe(node: entry.node)
        case .makeDirectory(let name):
            guard let entry = entry(answer) else { return "\(step): no entry" }
            names[name] = .directory(node: entry.node)
        case .makeLink(let name):
            guard let entry = entry(answer) else { return "\(step): no entry" }
            names[name] = .link(node: entry.node, target: sequence)
        case .unlink(let name), .removeDirectory(let name): drop(name)
        case .rename(let name, let new, let flags): move(name, new, flags)
        case .link(let name, let new): return linked(name, new, answer)
        case .lookUp(let name): return found(name, answer)
        case .readLink(let name):
            guard case .link(_, let target) = names[name], answer == Self.target(target) else {
                return "\(step): another target: \(String(decoding: answer, as: UTF8.self))"
            }
        case .list, .listNodes: return listed(answer, withNodes: step == .listNodes)
        case .open(let name): return opened(name, answer)
        case .openToAppend(let name): return opened(name, answer, appends: true)
        default: return takeOfFile(step, answer)
        }
        return nil
    }

    private func expectedError(_ step: FileLoadStep) -> Errno? {
        func of(_ number: Int32) -> Errno { Errno(rawValue: number) }
        let (exists, isDirectory, notDirectory, noAttribute) = (of(17), of(21), of(20), of(61))
        switch step {
        case .create(let name), .makeFile(let name), .makePipe(let name), .makeDirectory(let name),
            .makeLink(let name):
            return names[name] == .none ? nil : exists
        case .unlink(let name):
            return names[name] == .none ? .noEntry : isDirectoryName(name) ? isDirectory : nil
        case .removeDirectory(let name):
            return names[name] == .none ? .noEntry : isDirectoryName(name) ? nil : notDirectory
        case .rename(let name, let new, let flags):
            if names[name] == .none { return .noEntry }
            if flags.contains(.exchange) { return names[new] == .none ? .noEntry : nil }
            if names[new] == .none { return nil }
            if flags.contains(.noReplace) { return exists }
            // Two names of one node: nothing to do.
            if node(of: name) == node(of: new) || isDirectoryName(name) == isDirectoryName(new) { return nil }
            return isDirectoryName(name) ? notDirectory : isDirectory
        // The kernel looks at the new name first.
        case .link(let name, let new):
            return names[new] != .none ? exists : isDirectoryName(name) ? .notPermitted : nil
        case .lookUp(let name): return names[name] == .none ? .noEntry : nil
        case .attribute(let index), .removeAttribute(let index):
            return open[index].flatMap { files[$0.file]?.attribute } == nil ? noAttribute : nil
        case .makeAttribute(let index): return open[index].flatMap { files[$0.file]?.attribute } == nil ? nil : exists
        default: return nil
        }
    }

    private func isDirectoryName(_ name: Int) -> Bool {
        if case .directory = names[name] { true } else { false }
    }

    private func entry(_ answer: [UInt8]) -> FileEntry? {
        guard answer.count >= MemoryLayout<wire_fuse_entry_out>.size else { return nil }
        return unsafe answer.withUnsafeBytes { unsafe FileEntry($0.loadUnaligned(as: wire_fuse_entry_out.self)) }
    }

    private mutating func created(_ name: Int, _ answer: [UInt8]) -> String? {
        guard let entry = entry(answer), answer.count == 144, let slot = open.firstIndex(where: { $0 == nil }) else {
            return "create: no entry"
        }
        let handle: UInt64 = littleEndian(answer[128..<136])
        sequence += 1
        let index = Int(sequence)
        files[index] = File(node: entry.node, opens: 1)
        names[name] = .file(index)
        open[slot] = Open(file: index, handle: handle)
        return entry.attributes.size == 0 && entry.attributes.links == 1 ? nil : "a new file is not empty"
    }

    private mutating func opened(_ name: Int, _ answer: [UInt8], appends: Bool = false) -> String? {
        guard answer.count == 16, case .file(let index) = names[name],
            let slot = open.firstIndex(where: { $0 == nil })
        else { return "open: no handle" }
        open[slot] = Open(file: index, handle: littleEndian(answer[0..<8]), appends: appends)
        files[index]?.opens += 1
        return nil
    }

    private mutating func linked(_ name: Int, _ new: Int, _ answer: [UInt8]) -> String? {
        guard let entry = entry(answer), entry.node == node(of: name) else { return "link: another node" }
        if case .file(let index) = names[name] {
            files[index]?.links += 1
            files[index]?.mentions += 1
        }
        // A symbolic link is known once for each of its names.
        names[new] = names[name]
        return nil
    }

    private mutating func found(_ name: Int, _ answer: [UInt8]) -> String? {
        guard let entry = entry(answer) else { return "lookup: no entry" }
        guard entry.node == node(of: name) else {
            return "lookup of name \(name): node \(entry.node) instead of \(node(of: name) ?? 0)"
        }
        if case .file(let index) = names[name], let file = files[index] {
            files[index]?.mentions += 1
            return check(entry.attributes, file)
        }
        forgotten.append((entry.node, 1))
        return nil
    }

    private func check(_ attributes: FileAttributes, _ file: File) -> String? {
        guard attributes.size == UInt64(file.content.count), attributes.links == UInt32(file.links) else {
            return "a file has \(attributes.size) bytes and \(attributes.links) links instead of "
                + "\(file.content.count) and \(file.links)"
        }
        return nil
    }

    private mutating func listed(_ answer: [UInt8], withNodes: Bool) -> String? {
        let entries = unsafe answer.withUnsafeBytes { unsafe DirectoryListing.parse($0, withNodes: withNodes) }
        guard let entries else { return "readdir: no list" }
        for entry in entries {
            guard let told = entry.entry, told.node != 0 else { continue }
            forgotten.append((told.node, 1))
            let name = names.indices.first { Self.name($0) == entry.name }
            guard let name, node(of: name) == told.node else {
                return "readdirplus: \(String(decoding: entry.name, as: UTF8.self)) has node \(told.node)"
            }
        }
        let told = Set(entries.map { String(decoding: $0.name, as: UTF8.self) }).subtracting([".", ".."])
        let found = told.union(listing?.names ?? [])
        let expected = Set(names.indices.filter { names[$0] != .none }.map { "name-\($0)" })
        listing = nil
        if found == expected { return nil }
        if let last = entries.last, found.isSubset(of: expected) {
            listing = (found, last.offset)
            return nil
        }
        return "readdir: \(found.sorted()) instead of \(expected.sorted())"
    }

    private mutating func takeOfFile(_ step: FileLoadStep, _ answer: [UInt8]) -> String? {
        guard let slot = step.open, let index = open[slot]?.file, let file = files[index] else { return nil }
        switch step {
        case .read:
            guard answer != file.content else { return nil }
            let place = zip(answer, file.content).enumerated().first { $1.0 != $1.1 }?.offset
            return "read: \(answer.count) bytes instead of \(file.content.count), different from byte \(place ?? -1) on"
        case .write, .append:
            guard answer.count == 8, littleEndian(answer[0..<4]) == UInt32(pending.count) else {
                return "\(step): it wrote another number of bytes"
            }
            var offset = file.content.count
            if case .write(_, let place, _) = step { offset = place }
            var content = file.content
            if content.count < offset { content += [UInt8](repeating: 0, count: offset - content.count) }
            content.replaceSubrange(offset..<min(content.count, offset + pending.count), with: pending)
            files[index]?.content = content
        case .truncate(_, let size):
            var content = Array(file.content.prefix(size))
            content += [UInt8](repeating: 0, count: size - content.count)
            files[index]?.content = content
        case .attributes:
            guard answer.count == 104 else { return "getattr: \(answer.count) bytes" }
            let wire = unsafe answer.withUnsafeBytes { unsafe $0.loadUnaligned(as: wire_fuse_attr_out.self) }
            return check(FileAttributes(wire.attr), file)
        case .setAttribute, .makeAttribute: files[index]?.attribute = sequence
        case .removeAttribute: files[index]?.attribute = nil
        case .attribute:
            guard answer == file.attribute.map(littleEndianBytes) else { return "getxattr: another value" }
        case .close:
            open[slot] = nil
            files[index]?.opens -= 1
            forgetIfGone(index)
        default: break
        }
        return nil
    }

    // MARK: Names

    /// A name is gone.
    private mutating func drop(_ name: Int) {
        switch names[name] {
        case .none: break
        case .file(let index):
            files[index]?.links -= 1
            forgetIfGone(index)
        case .directory(let node): forgotten.append((node, 1))
        // Each name counts for itself.
        case .link(let node, _), .pipe(let node): forgotten.append((node, 1))
        }
        names[name] = .none
    }

    /// Forgets whatever it knows but its directory. It has no file open.
    mutating func forgetAll() {
        for file in files.values { forgotten.append((file.node, file.mentions)) }
        for name in names.indices {
            switch names[name] {
            case .directory(let node), .link(let node, _), .pipe(let node): forgotten.append((node, 1))
            case .none, .file: break
            }
            names[name] = .none
        }
        files = [:]
    }

    private mutating func forgetIfGone(_ index: Int) {
        guard let file = files[index], file.links == 0, file.opens == 0 else { return }
        forgotten.append((file.node, file.mentions))
        files[index] = nil
    }

    private mutating func move(_ name: Int, _ new: Int, _ flags: FileClient.RenameFlags) {
        guard name != new else { return }
        if flags.contains(.exchange) { return names.swapAt(name, new) }
        // Two names of one file stay as they are.
        if let moved = node(of: name), moved == node(of: new) { return }
        drop(new)
        names[new] = names[name]
        names[name] = .none
    }
}

extension FileLoadStep {
    /// The open file that it is about.
    var open: Int? {
        switch self {
        case .read(let slot), .write(let slot, _, _), .append(let slot, _), .synchronize(let slot), .close(let slot),
            .attributes(let slot), .truncate(let slot, _), .setAttribute(let slot), .makeAttribute(let slot),
            .attribute(let slot), .removeAttribute(let slot):
            slot
        default: nil
        }
    }
}
