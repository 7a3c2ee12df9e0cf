internal import CLinux
internal import Glibc
internal import Platform

/// A device's image as its supervisor sees it: something to open anew for each worker.
enum ImageFiles {
    /// Opens what one worker uses: for direct transfers first, then, if the image is not buffered, for the others.
    ///
    /// - Throws: what failed, and what to do.
    static func open(_ configuration: DeviceConfiguration) throws(SystemError) -> [SharedFD] {
        guard let path = configuration.imagePath else { return [] }
        let first = try open(path, readOnly: configuration.isReadOnly, direct: !configuration.isBuffered)
        if configuration.isBuffered { return [SharedFD(first)] }
        let second = try open(path, readOnly: configuration.isReadOnly, direct: false)
        return [SharedFD(first), SharedFD(second)]
    }

    /// Opens an image once.
    ///
    /// - Parameter exclusively: nobody else may have the block device so (O_EXCL).
    static func open(
        _ path: String, readOnly: Bool, direct: Bool = false, exclusively: Bool = false
    ) throws(SystemError) -> OwnedFD {
        var flags = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? Int32(CLINUX_O_DIRECT) : 0)
        if exclusively { flags |= O_EXCL }
        // Only the owner of a file may leave its access time alone.
        var number = unsafe Glibc.open(path, flags | Int32(CLINUX_O_NOATIME))
        if number < 0 { number = unsafe Glibc.open(path, flags) }
        if number >= 0 { return OwnedFD(owning: number) }
        let error = Errno.current
        let advice =
            switch error {
            case .noEntry: "Make it first, for example with: truncate -s 10G \(path)"
            case .busy: "Something else uses the device, a mounted file system perhaps"
            case .invalidArgument where direct: "Its file system does not support O_DIRECT: use --cache buffered"
            default: ""
            }
        throw SystemError(cannot: "open the image", path, error, advice: advice)
    }
}

/// The supervisor's own open file of an image: what keeps everybody else off it, workers or no workers. No request ever
/// uses it. The bytes are those of a worker on its own, and of QEMU (docs/decisions/0006-image-locks.md).
enum ImageCustody {
    private static let custodyByte: Int64 = 0x4241_544f_4e01
    private static let generationByte: Int64 = 0x4241_544f_4e02
    /// QEMU's: reads, writes and resizes that it uses, from 100 on; those that it leaves to nobody else, from 200 on.
    private static let qemuUsed: Int64 = 100
    private static let qemuUnshared: Int64 = 200
    private static let qemuWriter: [Int64] = [0, 1]
    private static let qemuExclusive: [Int64] = [1, 3]

    /// Opens an image and makes sure that nobody else serves it, for as long as the file is open anywhere.
    ///
    /// - Returns: nil for a disk that has no image.
    /// - Throws: a sentence that says who is in the way.
    static func take(_ configuration: DeviceConfiguration) throws(SystemError) -> SharedFD? {
        guard let path = configuration.imagePath else { return nil }
        let isReadOnly = configuration.isReadOnly
        let file = try ImageFiles.open(path, readOnly: isReadOnly, exclusively: !isReadOnly && isBlockDevice(path))
        let type = Int16(isReadOnly ? F_RDLCK : F_WRLCK)
        guard clinux_lock_byte(file.number, Int32(CLINUX_LOCK_TRY), type, custodyByte) == 0 else {
            throw refusal(path, "Another worker or supervisor serves it: end that one first")
        }
        let used = isReadOnly ? [0] : qemuWriter
        let unshared = isReadOnly ? [] : qemuExclusive
        for byte in used.map({ qemuUsed + $0 }) + unshared.map({ qemuUnshared + $0 })
        where clinux_lock_byte(file.number, Int32(CLINUX_LOCK_TRY), Int16(F_RDLCK), byte) != 0 {
            throw refusal(path, "Another program has locked it for itself alone")
        }
        for byte in used.map({ qemuUnshared + $0 }) + unshared.map({ qemuUsed + $0 })
        where clinux_lock_byte(file.number, Int32(CLINUX_LOCK_TEST), Int16(F_WRLCK), byte) == 1 {
            throw refusal(path, "Another program uses it, QEMU or qemu-img perhaps: end that one first")
        }
        return SharedFD(file)
    }

    /// Makes sure that nothing is written to an image any more on behalf of workers of which nothing is known. Whoever
    /// has custody asks, so nobody starts meanwhile; it is asked again until it is so.
    ///
    /// - Throws: a sentence when something is under way.
    static func fence(_ file: SharedFD, path: String) throws(SystemError) {
        guard clinux_lock_byte(file.number, Int32(CLINUX_LOCK_TRY), Int16(F_WRLCK), generationByte) == 0 else {
            throw refusal(path, "Requests of a worker that has died are still under way in the storage: it has to wait")
        }
        // It would keep our own workers out.
        _ = clinux_lock_byte(file.number, Int32(CLINUX_LOCK_TRY), Int16(F_UNLCK), generationByte)
    }

    private static func isBlockDevice(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFBLK
    }

    private static func refusal(_ path: String, _ advice: String) -> SystemError {
        SystemError(cannot: "serve", path, nil, advice: advice)
    }
}
