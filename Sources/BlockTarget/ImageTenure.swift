internal import CLinux
internal import Custody
internal import Glibc
public import Platform

/// A worker's right to serve an image: taken when the first of its queues starts, given up when the last one has
/// stopped and none of its requests is under way any more. So two workers can be up for one image while a guest moves
/// from the one to the other, and never serve it at the same time.
///
/// The session's thread owns it. Locks and a device's claim are all that it changes: a SIGKILL at any point leaves none
/// of ours, except on open files that the kernel still uses for requests of ours, which is what the next worker waits
/// for.
public final class ImageTenure {
    /// How long the first queue waits for what a worker that has died left, in milliseconds. Longer waits are for
    /// `settle`: a front-end that waits for us stands still, its guest with it.
    public static let patienceMilliseconds = 1000

    private let image: DiskImage
    private let path: String
    private let wait: PredecessorWait
    /// Held for its locks, and open only as long as they are held; no request uses it.
    private var custody: OwnedFD?
    private var isForGood = false

    /// - Parameter wait: how long `settle` waits for a predecessor, and whom to tell.
    public init(_ image: DiskImage, path: String, wait: PredecessorWait = PredecessorWait()) {
        self.image = image
        self.path = path
        self.wait = wait
    }

    /// At the start of the process: waits until the storage has finished what a dead worker asked of it, so that the
    /// first queue need not wait.
    ///
    /// - Throws: who serves the image now (EBUSY), or what failed.
    public func settle() throws(SystemError) {
        try take(wait)
        giveUp()
    }

    /// Takes the image; nothing happens if it is held already.
    ///
    /// - Throws: who is in the way. Whoever wants the image tries again later.
    public func take() throws(SystemError) {
        var short = wait
        short.limitMilliseconds = min(wait.limitMilliseconds, Self.patienceMilliseconds)
        try take(short)
    }

    /// Custody first: nobody else starts while this waits for the storage. The claim goes with the open file that
    /// requests use.
    private func take(_ wait: PredecessorWait) throws(SystemError) {
        guard custody == nil else { return }
        let custody = try openCustody()
        try takeCustody(custody, wait)
        if !image.isReadOnly {
            try awaitStorage(custody, wait)
            do throws(SystemError) {
                try image.claim(path, wait)
                try image.lock(path)
            } catch {
                image.unlock()
                throw error
            }
            // The claim has closed an open file.
            ImageLocks.nameHolder(custody, readOnly: false)
        }
        self.custody = consume custody
    }

    /// Gives the image up, unless it is to be kept.
    ///
    /// - Precondition: no request of this process is under way, or `keepForGood` has been called.
    public func giveUp() {
        guard custody != nil, !isForGood else { return }
        // First what others wait for, then the byte that tells them to try.
        if !image.isReadOnly { image.unlock() }
        custody = nil
    }

    /// Requests are under way whose end nobody will tell: the image is held until the process ends.
    public func keepForGood() { isForGood = true }

    /// Makes sure that nobody else serves the image. Waits for a worker that has been killed and is not gone yet; one
    /// that lives is not waited for.
    ///
    /// - Throws: a sentence that says who is in the way; EBUSY when it is another worker.
    private func takeCustody(_ custody: borrowing OwnedFD, _ wait: PredecessorWait) throws(SystemError) {
        let readOnly = image.isReadOnly
        try wait.until(
            path, isOver: { ImageLocks.tryCustody(custody, readOnly: readOnly) },
            obstacle: { () throws(SystemError) in try dyingHolder(custody) })
        ImageLocks.nameHolder(custody, readOnly: readOnly)
        try ImageLocks.excludeQEMU(custody, path: path, readOnly: readOnly)
    }

    /// What keeps custody from us, when that will pass.
    ///
    /// - Throws: when it will not.
    private func dyingHolder(_ custody: borrowing OwnedFD) throws(SystemError) -> PredecessorWait.Obstacle {
        // Either it has just let go, or it lives in another PID namespace: the next tries tell.
        guard let pid = ImageLocks.holder(custody, readOnly: image.isReadOnly) else {
            return .foreign("another worker, which this one cannot see, serves it")
        }
        guard let state = dyingState(ofProcess: pid) else {
            throw SystemError(
                cannot: "serve", path, .busy, advice: "Another worker serves it, process \(pid): end that one first")
        }
        return .predecessor("worker \(pid), which has been killed, is not gone yet (state \(state))")
    }

    /// Waits until nothing is written to the image any more on behalf of a worker that has died. Custody is taken
    /// first: so the wait is for the storage only, and nobody starts meanwhile.
    private func awaitStorage(_ custody: borrowing OwnedFD, _ wait: PredecessorWait) throws(SystemError) {
        try wait.until(
            path, isOver: { ImageLocks.isSettled(custody) },
            obstacle: { .predecessor("requests of a worker that has died are still under way in the storage") })
    }

    /// An open file of its own, of the very file that is served, whatever has become of its name.
    private func openCustody() throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            return try image.openAgain(flags: 0)
        } catch {
            throw SystemError(cannot: "open again", path, error)
        }
    }
}

// MARK: - The open files that requests use

extension DiskImage {
    /// Opens the very file that is served once more, buffered unless the flags say otherwise.
    func openAgain(flags: Int32) throws(Errno) -> OwnedFD {
        let flags = (isReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | flags
        let place = "/proc/self/fd/\(access.file)"
        return OwnedFD(owning: try retryingInterrupts { unsafe Glibc.open(place, flags) })
    }

    /// Claims a block device that is written: the kernel refuses all others that want it for themselves, whatever node
    /// they come by, and to mount it. Requests in flight keep the claim as they keep locks. It lies on the open file
    /// that requests use, which takes its place behind the number that the loops know.
    func claim(_ path: String, _ wait: PredecessorWait) throws(SystemError) {
        guard unclaimedNumber != nil else { return }
        let kept = fcntl(access.file, F_GETFL) & Int32(CLINUX_O_NOATIME | CLINUX_O_DIRECT)
        var claimed: OwnedFD?
        var failure: Errno?
        try wait.until(
            path,
            isOver: {
                do throws(Errno) {
                    claimed = try openAgain(flags: O_EXCL | kept)
                    return true
                } catch {
                    failure = error
                    return error != .busy
                }
            },
            obstacle: { () throws(SystemError) in
                var status = stat()
                if unsafe fstat(access.file, &status) == 0,
                    let advice = BlockDeviceUse(device: status.st_rdev).advice
                {
                    throw SystemError(cannot: "serve", path, nil, advice: advice)
                }
                return .foreign("another program, or what it left under way, has the device for itself (O_EXCL)")
            })
        guard let fd = claimed.take() else { throw SystemError(cannot: "claim", path, failure ?? .busy) }
        do throws(Errno) {
            try retryingInterrupts { dup3(fd.number, access.file, O_CLOEXEC) }
        } catch {
            throw SystemError(cannot: "claim", path, error)
        }
    }

    /// Makes the next worker wait for the requests of this one.
    public func lock(_ path: String) throws(SystemError) {
        let access = access
        try ImageLocks.share(access.file, path: path)
        if access.unalignedFile != access.file { try ImageLocks.share(access.unalignedFile, path: path) }
    }

    /// Keeps nobody waiting any more, and claims no device: of ours, nothing is under way.
    func unlock() {
        ImageLocks.unshare(access.file)
        ImageLocks.unshare(access.unalignedFile)
        guard let unclaimedNumber else { return }
        // It cannot fail: both are open, and nobody else in this process opens files under a number of its choice.
        _ = dup3(unclaimedNumber, access.file, O_CLOEXEC)
    }
}

/// The state of a process that has been killed and is still there, as ps shows it; nil for one that lives on.
private func dyingState(ofProcess pid: Int32) -> Character? {
    // It may have gone between the two questions.
    guard let state = ThreadState(process: pid), let text = readSmallFile("/proc/\(pid)/status") else { return "X" }
    let isKilled = text.split(separator: "\n").contains { line in
        guard line.hasPrefix("SigPnd:") || line.hasPrefix("ShdPnd:") else { return false }
        let pending = line.split(whereSeparator: \.isWhitespace).last.flatMap { UInt64($0, radix: 16) } ?? 0
        return pending & (1 << UInt64(SIGKILL - 1)) != 0
    }
    return isKilled || state.isOver ? state.letter : nil
}
