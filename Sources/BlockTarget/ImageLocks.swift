internal import CLinux
internal import Glibc
internal import Platform

/// The locks that an open image holds: open file description locks on single bytes, far behind any data. They fall when
/// the open file is gone, and a write that the kernel still carries out for a dead worker keeps its open file: so they
/// tell more than whether a process lives.
///
/// - **Custody**, exclusive, held on an open file that no request uses: nobody else serves this image. It falls when
///   the worker dies.
/// - **Holder**, a lock of the process and not of the open file, so that the kernel tells who has custody. It fences
///   nothing.
/// - **Generation**, shared, held on every open file that requests use. Whoever takes the image takes it exclusively
///   first: that waits until the last write of a dead worker has landed.
/// - **QEMU's** bytes, shared, as QEMU takes them: its programs refuse an image that is served, and we one that they
///   use.
enum ImageLocks {
    /// QEMU uses bytes from 100 to 299.
    private static let custodyByte: Int64 = 0x4241_544f_4e01
    private static let generationByte: Int64 = 0x4241_544f_4e02
    private static let holderByte: Int64 = 0x4241_544f_4e03

    /// QEMU's permissions (block.h): those that a writing disk uses, and those that it leaves to nobody else.
    private static let consistentRead = 0
    private static let write = 1
    private static let resize = 3
    private static let qemuUsed: Int64 = 100
    private static let qemuUnshared: Int64 = 200

    /// Makes sure that nobody else serves an image, now or as long as `fd` is open. Waits for a worker that has been
    /// killed and is not gone yet; one that lives is not waited for.
    ///
    /// - Parameter fd: an open file of the image that no request will use.
    /// - Throws: a sentence that says who is in the way; EBUSY when it is another worker.
    static func takeCustody(
        _ fd: borrowing OwnedFD, path: String, readOnly: Bool, _ wait: PredecessorWait
    ) throws(SystemError) {
        let type = Int16(readOnly ? F_RDLCK : F_WRLCK)
        let number = fd.number
        try wait.until(
            path,
            isOver: { clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), type, custodyByte) == 0 },
            obstacle: { () throws(SystemError) in try dyingHolder(number, type, path) })
        nameHolder(fd, readOnly: readOnly)
        let used = readOnly ? [consistentRead] : [consistentRead, write]
        let unshared = readOnly ? [] : [write, resize]
        for permission in used { try lockShared(fd, qemuUsed + Int64(permission), path) }
        for permission in unshared { try lockShared(fd, qemuUnshared + Int64(permission), path) }
        let conflicts = used.map { qemuUnshared + Int64($0) } + unshared.map { qemuUsed + Int64($0) }
        for byte in conflicts
        where clinux_lock_byte(number, Int32(CLINUX_LOCK_TEST), Int16(F_WRLCK), byte) == 1 {
            throw refusal(path, "Another program uses it, QEMU or qemu-img perhaps: end that one first")
        }
    }

    /// Lets the kernel tell others who has custody. Such a lock falls whenever its process closes any open file of the
    /// image: so it is taken again after that. Nobody without custody takes it, and nothing depends on it.
    static func nameHolder(_ fd: borrowing OwnedFD, readOnly: Bool) {
        let type = Int16(readOnly ? F_RDLCK : F_WRLCK)
        _ = clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TRY_PROCESS), type, holderByte)
    }

    /// What keeps custody from us, when that will pass.
    ///
    /// - Throws: when it will not.
    private static func dyingHolder(
        _ number: Int32, _ type: Int16, _ path: String
    ) throws(SystemError) -> PredecessorWait.Obstacle {
        let pid = clinux_lock_holder(number, type, holderByte)
        // Either it has just let go, or it lives in another PID namespace: the next tries tell.
        guard pid > 0 else { return .foreign("another worker, which this one cannot see, serves it") }
        guard let state = dyingState(ofProcess: pid) else {
            throw SystemError(
                cannot: "serve", path, .busy, advice: "Another worker serves it, process \(pid): end that one first")
        }
        return .predecessor("worker \(pid), which has been killed, is not gone yet (state \(state))")
    }

    private static func lockShared(_ fd: borrowing OwnedFD, _ byte: Int64, _ path: String) throws(SystemError) {
        guard clinux_lock_byte(fd.number, Int32(CLINUX_LOCK_TRY), Int16(F_RDLCK), byte) == 0 else {
            throw refusal(path, "Another program has locked it for itself alone")
        }
    }

    private static func refusal(_ path: String, _ advice: String) -> SystemError {
        SystemError(cannot: "serve", path, nil, advice: advice)
    }

    /// Waits until nothing is written to an image any more on behalf of a worker that has died. Custody is taken first:
    /// so the wait is for the storage only, and nobody starts meanwhile.
    ///
    /// - Parameter fd: the open file that has custody.
    static func fence(_ fd: borrowing OwnedFD, path: String, _ wait: PredecessorWait) throws(SystemError) {
        let number = fd.number
        try wait.until(
            path,
            isOver: { clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_WRLCK), generationByte) == 0 },
            obstacle: { .predecessor("requests of a worker that has died are still under way in the storage") })
        // It would keep this worker's own files out. Custody keeps everybody else out.
        _ = clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_UNLCK), generationByte)
    }

    /// Adds an open file to those that keep the next worker waiting as long as a request uses them.
    static func share(_ number: Int32, path: String) throws(SystemError) {
        guard clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_RDLCK), generationByte) == 0 else {
            throw SystemError(cannot: "lock", path, .current)
        }
    }

    /// Nothing is under way on an open file any more: it keeps nobody waiting.
    static func unshare(_ number: Int32) {
        _ = clinux_lock_byte(number, Int32(CLINUX_LOCK_TRY), Int16(F_UNLCK), generationByte)
    }
}

/// The state of a process that has been killed and is still there, as ps shows it; nil for one that lives on.
private func dyingState(ofProcess pid: Int32) -> Character? {
    // It has gone between the two questions.
    guard let text = readSmallFile("/proc/\(pid)/status") else { return "X" }
    var state: Character = "?"
    var isKilled = false
    for line in text.split(separator: "\n") {
        let words = line.split(whereSeparator: \.isWhitespace)
        guard words.count > 1 else { continue }
        switch words[0] {
        case "State:": state = words[1].first ?? "?"
        case "SigPnd:", "ShdPnd:":
            let pending = UInt64(words[1], radix: 16) ?? 0
            if pending & (1 << UInt64(SIGKILL - 1)) != 0 { isKilled = true }
        default: break
        }
    }
    return isKilled || state == "Z" || state == "X" || isExiting(pid) ? state : nil
}

/// Whether the main thread is on its way out: bit 2 (PF_EXITING) of the flags, field 9 of /proc/PID/stat.
private func isExiting(_ pid: Int32) -> Bool {
    guard let text = readSmallFile("/proc/\(pid)/stat") else { return true }
    // The second field, a name in parentheses, may hold blanks.
    let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
    return fields.count > 7 && (UInt64(fields[7]) ?? 0) & 4 != 0
}
