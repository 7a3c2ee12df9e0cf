internal import CLinux
internal import Glibc
public import Platform

/// A worker's right to serve an image: taken when the first of its queues starts, given up when the last one has
/// stopped and none of its requests is under way any more. So two workers can be up for one image while a guest moves
/// from the one to the other, and never serve it at the same time.
///
/// The session's thread owns it. Locks are all that it changes: a SIGKILL at any point leaves none of ours, except on
/// open files that the kernel still uses for requests of ours, which is what the next worker waits for.
public final class ImageTenure {
    /// How long the first queue waits for writes of a worker that has died, in milliseconds. Longer waits are for
    /// `settle`: a front-end that waits for us stands still, its guest with it.
    public static let patienceMilliseconds = 1000

    private let image: DiskImage
    private let path: String
    /// Held for its locks, and open only as long as they are held; no request uses it.
    private var custody: OwnedFD?
    private var isForGood = false

    public init(_ image: DiskImage, path: String) {
        self.image = image
        self.path = path
    }

    /// At the start of the process: waits until the storage has finished what a dead worker asked of it, so that the
    /// first queue need not wait.
    ///
    /// - Throws: who serves the image now, or what failed.
    public func settle() throws(SystemError) {
        let custody = try openCustody()
        try ImageLocks.takeCustody(custody, path: path, readOnly: image.isReadOnly)
        if !image.isReadOnly { try image.fence(path: path, patienceMilliseconds: nil) }
        image.unlock()
    }

    /// Takes the image; nothing happens if it is held already.
    ///
    /// - Throws: who is in the way.
    public func take() throws(SystemError) {
        guard custody == nil else { return }
        let custody = try openCustody()
        try ImageLocks.takeCustody(custody, path: path, readOnly: image.isReadOnly)
        if !image.isReadOnly {
            do throws(SystemError) {
                try image.fence(path: path, patienceMilliseconds: Self.patienceMilliseconds)
            } catch {
                image.unlock()
                throw error
            }
        }
        self.custody = consume custody
    }

    /// Gives the image up, unless it is to be kept.
    ///
    /// - Precondition: no request of this process is under way, or `keepForGood` has been called.
    public func giveUp() {
        guard custody != nil, !isForGood else { return }
        // First the byte that others wait for, then the one that tells them to try.
        image.unlock()
        custody = nil
    }

    /// Requests are under way whose end nobody will tell: the image is held until the process ends.
    public func keepForGood() { isForGood = true }

    /// An open file of its own, of the very file that is served, whatever has become of its name.
    private func openCustody() throws(SystemError) -> OwnedFD {
        let flags = (image.isReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC
        do throws(Errno) {
            return OwnedFD(
                owning: try retryingInterrupts { unsafe Glibc.open("/proc/self/fd/\(image.access.file)", flags) })
        } catch {
            throw SystemError(cannot: "open again", path, error)
        }
    }
}
