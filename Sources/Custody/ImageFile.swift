internal import CLinux
internal import Glibc
public import Platform

/// Opens an image: a regular file or a block device.
///
/// - Parameters:
///   - direct: with O_DIRECT.
///   - exclusively: nobody else may have the block device so (O_EXCL).
/// - Throws: what failed, and what to do.
public func openImage(
    _ path: String, readOnly: Bool, direct: Bool, exclusively: Bool = false
) throws(SystemError) -> OwnedFD {
    var flags = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? Int32(CLINUX_O_DIRECT) : 0)
    if exclusively { flags |= O_EXCL }
    let node = imageNode(at: path, readOnly: readOnly)
    do throws(Errno) {
        // What guests read is no access that an operator wants to see, and each one would cost a look at the clock.
        // Only the owner of a file may ask for that.
        let unseen = flags | Int32(CLINUX_O_NOATIME)
        if let fd = try? retryingInterrupts({ unsafe Glibc.open(node, unseen) }) { return OwnedFD(owning: fd) }
        return OwnedFD(owning: try retryingInterrupts { unsafe Glibc.open(node, flags) })
    } catch {
        let advice =
            switch error {
            case .noEntry: "Make it first, for example with: truncate -s 10G \(path)"
            case .permissionDenied, Errno(rawValue: EROFS):
                readOnly ? "Give this process read permission on it" : "Give write permission on it, or use --read-only"
            case .busy: "Something else uses the device, a mounted file system perhaps"
            case .invalidArgument where direct: "Its file system does not support O_DIRECT: use --cache=buffered"
            case Errno(rawValue: EISDIR): "It is a directory: give the path of an image or of a disk"
            default: ""
            }
        throw SystemError(cannot: "open the image", path, error, advice: advice)
    }
}

/// Whether a path leads to a block device.
public func isBlockDevice(_ path: String) -> Bool { blockDevice(at: path) != nil }

/// The path by which to open an image: of a block device that has several nodes the one that everybody uses, so that
/// all meet at the same locks.
private func imageNode(at path: String, readOnly: Bool) -> String {
    guard let device = blockDevice(at: path), let node = canonicalNode(ofDevice: device),
        unsafe access(node, readOnly ? R_OK : R_OK | W_OK) == 0
    else { return path }
    return node
}

private func blockDevice(at path: String) -> dev_t? {
    var status = stat()
    guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFBLK else { return nil }
    return status.st_rdev
}

/// The device node in /dev that everybody uses, where there is one: locks on another node of the same device would
/// keep nobody out.
private func canonicalNode(ofDevice device: dev_t) -> String? {
    let folder = "/sys/dev/block/\(gnu_dev_major(device)):\(gnu_dev_minor(device))"
    for line in (readSmallFile("\(folder)/uevent") ?? "").split(separator: "\n") where line.hasPrefix("DEVNAME=") {
        let path = "/dev/\(line.dropFirst("DEVNAME=".count))"
        if blockDevice(at: path) == device { return path }
    }
    return nil
}
