internal import CLinux
internal import CSystemd
internal import Glibc
public import Platform

/// systemd's own store of descriptors (FileDescriptorStoreMax= in systemd.service(5), FDSTORE=1 in sd_notify(3)): held
/// by the service manager, given back at the next start of the service, whatever became of the process before.
///
/// The manager hands all names over in one variable of the environment, which has at most 128 KiB; it adds where we
/// replace; and an open file that it has already it does not take a second time, though it comes under another name. So
/// each **open file** is stored once, under a number, in base 36, and a **table of names**, a file in memory that is
/// stored too, says which names it has.
///
/// **Order**, so that a death at any point loses nothing: the name goes into the table, then the file to the manager,
/// then a file that has lost its last name is removed, then the name that was replaced. A name without a file means
/// nothing; of two entries of one name the younger counts.
public final class SystemdStore: FDStore {
    private let table: NameTable
    /// Where each name is in the table, and the number of its file.
    private var names: [String: (entry: Int, place: Int)] = [:]
    private var files: [Int: StoredFile] = [:]
    /// Numbers of the files that have this inode: those of eventfds and the like have all the same.
    private var places: [Inode: Set<Int>] = [:]
    private var entryNumbers = Numbers(limit: SystemdStore.capacity)
    private var placeNumbers: Numbers
    /// What the manager has given at the start, until it is asked for.
    private var given: [StoredFD] = []

    private struct StoredFile {
        var file: SharedFD
        var inode: Inode
        var uses = 0
    }

    private struct Inode: Hashable {
        var device: UInt64
        var number: UInt64
    }

    /// Numbers of at most 3 digits and their separators fill 120 of the 128 KiB.
    public static let capacity = 30_000
    /// Under which the table itself is stored.
    private static let tableName = "names"
    /// How long the manager may take to carry out what it was told, in microseconds.
    private static let patience: UInt64 = 10_000_000

    /// - Throws: when this process is no service with a store, or what the store has cannot be used.
    public init() throws(SystemError) {
        // systemd says from 254 on how much room the unit gives; before that, one has to know.
        let room = environment("FDSTORE").flatMap { Int($0) } ?? Self.capacity
        guard environment("NOTIFY_SOCKET") != nil, room > 1 else {
            throw SystemError(
                cannot: "use", "systemd's descriptor store", nil,
                advice: "Start batond from a unit with Type=notify and FileDescriptorStoreMax=, or without --fd-store")
        }
        placeNumbers = Numbers(limit: min(room, Self.capacity) - 1)
        var kept: [Int: SharedFD] = [:]
        var tableFile: SharedFD?
        for file in Self.takeGiven() {
            if file.name == Self.tableName {
                tableFile = SharedFD(try duplicated(file.fd))
            } else if let number = Int(file.name, radix: 36), (0..<Self.capacity).contains(number) {
                kept[number] = SharedFD(try duplicated(file.fd))
            }
        }
        do throws(Errno) {
            if let tableFile {
                table = NameTable(tableFile)
            } else {
                table = try NameTable()
                try notify("FDSTORE=1\nFDPOLL=0\nFDNAME=\(Self.tableName)", table.file.number)
            }
            // Without it, systemd takes all eventfds for one and the same file.
            guard clinux_same_file(table.file.number, table.file.number) == 0 else { throw .current }
        } catch {
            throw SystemError(cannot: "use", "systemd's descriptor store", error)
        }
        try sort(kept)
    }

    /// Finds out which name means which file, and lets go of what means nothing.
    private func sort(_ kept: [Int: SharedFD]) throws(SystemError) {
        let entries = table.load()
        var youngest: [String: NameTable.Entry] = [:]
        for entry in entries where kept[entry.place] != nil {
            if let other = youngest[entry.name], other.age > entry.age { continue }
            youngest[entry.name] = entry
        }
        for (name, entry) in youngest {
            guard let file = kept[entry.place] else { continue }
            given.append(StoredFD(name: name, fd: try duplicated(file.fd)))
            names[name] = (entry.number, entry.place)
            if files[entry.place] == nil { hold(file, at: entry.place) }
            files[entry.place]?.uses += 1
        }
        for place in kept.keys where files[place] == nil { discard(place) }
        let used = Set(names.values.map(\.entry))
        for entry in entries where !used.contains(entry.number) { table.clear(entry.number) }
        entryNumbers.setUsed(used)
        placeNumbers.setUsed(Set(files.keys))
    }

    private func hold(_ file: SharedFD, at place: Int) {
        let inode = inode(file.number)
        files[place] = StoredFile(file: file, inode: inode)
        places[inode, default: []].insert(place)
    }

    private func inode(_ number: Int32) -> Inode {
        var status = stat()
        guard unsafe fstat(number, &status) == 0 else { return Inode(device: 0, number: 0) }
        return Inode(device: UInt64(status.st_dev), number: UInt64(status.st_ino))
    }

    /// What the manager has opened for this process, by name; its variables are forgotten, for whatever we start.
    private static func takeGiven() -> [StoredFD] {
        var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        let count = unsafe sd_listen_fds_with_names(1, &names)
        guard count > 0, let names = unsafe names else { return [] }
        defer { unsafe Glibc.free(names) }
        var found: [StoredFD] = []
        for index in 0..<Int(count) {
            guard let name = unsafe names[index] else { continue }
            defer { unsafe Glibc.free(name) }
            let number = 3 + Int32(index)
            _ = fcntl(number, F_SETFD, FD_CLOEXEC)
            found.append(StoredFD(name: unsafe String(cString: name), fd: OwnedFD(owning: number)))
        }
        return found
    }

    public func takeAll() throws(SystemError) -> [StoredFD] {
        let found = given
        given = []
        return found
    }

    public func put(_ number: Int32, as name: String) -> Bool {
        let known = places[inode(number)]?.first { place in
            files[place].map { clinux_same_file($0.file.number, number) == 0 } ?? false
        }
        let before = names[name]
        if let known, before?.place == known { return true }
        guard let entry = entryNumbers.take() else { return false }
        guard let place = known ?? placeNumbers.take() else {
            entryNumbers.giveBack(entry)
            return false
        }
        guard table.set(entry, name, place), known != nil || store(number, at: place) else {
            table.clear(entry)
            entryNumbers.giveBack(entry)
            if known == nil { placeNumbers.giveBack(place) }
            return false
        }
        files[place]?.uses += 1
        names[name] = (entry, place)
        if let before { giveUp(before) }
        return true
    }

    private func store(_ number: Int32, at place: Int) -> Bool {
        do throws(Errno) {
            let copy = try retryingInterrupts { fcntl(number, F_DUPFD_CLOEXEC, 3) }
            hold(SharedFD(OwnedFD(owning: copy)), at: place)
            try notify("FDSTORE=1\nFDPOLL=0\nFDNAME=\(word(place))", number)
            return true
        } catch {
            forget(place)
            return false
        }
    }

    public func remove(_ name: String) {
        if let known = names.removeValue(forKey: name) { giveUp(known) }
    }

    private func giveUp(_ known: (entry: Int, place: Int)) {
        files[known.place]?.uses -= 1
        if files[known.place]?.uses == 0 {
            discard(known.place)
            forget(known.place)
            placeNumbers.giveBack(known.place)
        }
        table.clear(known.entry)
        entryNumbers.giveBack(known.entry)
    }

    private func forget(_ place: Int) {
        if let file = files.removeValue(forKey: place) { places[file.inode]?.remove(place) }
    }

    private func discard(_ place: Int) { try? notify("FDSTOREREMOVE=1\nFDNAME=\(word(place))", nil) }

    public func synchronize() { _ = sd_notify_barrier(0, Self.patience) }

    private func word(_ place: Int) -> String { String(place, radix: 36) }
}

/// Tells the service manager something (sd_notify(3)); without one, nothing happens.
public enum ServiceManager {
    /// - Parameter state: `READY=1`, `STOPPING=1` and their like, one a line.
    public static func tell(_ state: String) { try? notify(state, nil) }

    /// How often it wants to hear `WATCHDOG=1`, at most so many milliseconds apart; nil: it does not watch.
    public static var watchdogMilliseconds: Int32? {
        var microseconds: UInt64 = 0
        guard unsafe sd_watchdog_enabled(0, &microseconds) > 0 else { return nil }
        return Int32(clamping: microseconds / 1000)
    }
}

private func notify(_ state: String, _ number: Int32?) throws(Errno) {
    let fds = number.map { [$0] } ?? []
    let result = unsafe sd_pid_notify_with_fds(0, 0, state, fds, UInt32(fds.count))
    if result < 0 { throw Errno(rawValue: -result) }
}

private func environment(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe String(cString: $0) }
}

private func duplicated(_ fd: borrowing OwnedFD) throws(SystemError) -> OwnedFD {
    do throws(Errno) {
        return try fd.duplicate()
    } catch {
        throw SystemError(cannot: "keep", "a descriptor", error)
    }
}
