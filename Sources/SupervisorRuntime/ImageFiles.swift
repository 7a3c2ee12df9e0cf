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

    private static func open(_ path: String, readOnly: Bool, direct: Bool) throws(SystemError) -> OwnedFD {
        let flags = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? Int32(CLINUX_O_DIRECT) : 0)
        // Only the owner of a file may leave its access time alone.
        var number = unsafe Glibc.open(path, flags | Int32(CLINUX_O_NOATIME))
        if number < 0 { number = unsafe Glibc.open(path, flags) }
        if number >= 0 { return OwnedFD(owning: number) }
        let error = Errno.current
        let advice =
            switch error {
            case .noEntry: "Make it first, for example with: truncate -s 10G \(path)"
            case .invalidArgument where direct: "Its file system does not support O_DIRECT: use --cache buffered"
            default: ""
            }
        throw SystemError(cannot: "open the image", path, error, advice: advice)
    }
}
